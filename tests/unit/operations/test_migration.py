# SPDX-License-Identifier: Apache-2.0
"""Moving a volume between two workers: by a copy, by the driver, and with a death of either at every point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operations.moving import ONE, TWO, Site, new_id, points_of
from volmgr import exception
from volmgr.db import models
from volmgr.operations import migration, snapshots, volumes
from volmgr.reconcile.auditor import Auditor

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    assert made.wrong() == []
    made.one.close()


def test_the_bytes_the_serial_and_the_quota_go_along(site: Site) -> None:
    volume_id = site.create(size=2)
    site.write(volume_id)
    serial, usage = site.serial(volume_id), site.usage()
    done = site.do(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    assert (done.state, done.result) == ("done", {"volume_id": volume_id, "moved": True, "host": f"{TWO}#pool"})
    row = site.volume(volume_id)
    assert (row["host"], row["status"], row["migration_status"]) == (f"{TWO}#pool", "available", "success")
    assert site.serial(volume_id) == serial and site.usage() == usage and site.read(volume_id)
    assert site.one.driver.observe() == [], "the source still has something"
    # Three places were written, so not much more than that was moved.
    assert done.data["results"]["copy"]["bytes"] <= 4 * 1024**2


def test_what_comes_after_a_move_is_for_the_new_worker(site: Site) -> None:
    volume_id = site.create()
    site.do(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    with pytest.raises(exception.Moved):
        site.do(volumes.ExtendVolume, volume_id=volume_id, new_size=2)
    assert site.do(volumes.ExtendVolume, on=TWO, volume_id=volume_id, new_size=2).state == "done"
    back = site.do(migration.MigrateVolume, on=TWO, volume_id=volume_id, host=f"{ONE}#pool")
    assert back.state == "done" and site.volume(volume_id)["host"] == f"{ONE}#pool"


def test_a_driver_that_reaches_the_destination_moves_no_bytes(tmp_path: Path) -> None:
    site = Site(tmp_path, shared=True)
    volume_id = site.create()
    site.write(volume_id)
    object_id = site.volume(volume_id)["object_id"]
    done = site.do(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    assert done.state == "done" and site.one.driver.faults.calls["migrate_volume"] == 1
    row = site.volume(volume_id)
    assert (row["host"], row["object_id"], row["status"]) == (f"{TWO}#pool", object_id, "available")
    assert site.one.rows(models.operations, verb="receive_volume") == [] and site.read(volume_id)
    forced = site.do(migration.MigrateVolume, on=TWO, volume_id=volume_id, host=ONE, force_host_copy=True)
    assert forced.state == "done" and site.two.driver.faults.calls["migrate_volume"] == 0
    assert site.volume(volume_id)["object_id"] != object_id and site.read(volume_id)
    assert site.wrong() == []
    site.one.close()


def refused(site: Site, volume_id: str, error: type[exception.VolmgrError], host: str = TWO) -> exception.VolmgrError:
    """Ask for a move that must be refused, with nothing changed."""
    before = site.volume(volume_id)
    with pytest.raises(error) as caught:
        site.do(migration.MigrateVolume, volume_id=volume_id, host=host)
    assert site.volume(volume_id) == before
    assert {row["state"] for row in site.one.rows(models.operations, verb="migrate_volume")} <= {"failed"}
    return caught.value


def test_what_cannot_go_is_refused_before_anything_changes(site: Site) -> None:
    volume_id, snapshot_id = site.create(), new_id()
    refused(site, volume_id, exception.Invalid, host=ONE)
    refused(site, volume_id, exception.NoValidBackend, host="node@nowhere")
    site.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    refused(site, volume_id, exception.VolumeHasSnapshots)
    site.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
    assert site.do(migration.MigrateVolume, volume_id=volume_id, host=TWO).state == "done"


def test_nobody_connects_while_it_moves_and_anybody_lets_go(site: Site) -> None:
    volume_id = site.create()
    answer = site.one.submit(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    site.one.dispatcher.pump()
    with pytest.raises(exception.Conflict) as caught:
        site.one.attachments.initialize("volume", volume_id, CONNECTOR)
    assert caught.value.details["operation_id"] == answer["operation_id"]
    site.one.attachments.terminate("volume", volume_id, CONNECTOR, False)
    site.run()
    site.two.attachments.initialize("volume", volume_id, CONNECTOR)
    site.two.attachments.terminate("volume", volume_id, CONNECTOR, False)


def used(site: Site) -> tuple[str, str]:
    """Return a volume that an instance uses, and the attachment."""
    volume_id, attachment_id, verbs = site.create(), new_id(), site.one.attachments
    verbs.reserve(attachment_id, volume_id, new_id(), "rw")
    verbs.connect(attachment_id, volume_id, CONNECTOR)
    verbs.complete(attachment_id)
    return volume_id, attachment_id


def settled(site: Site) -> dict[str, Any]:
    """Run until the move waits for the end of the use; returns its row."""
    site.run()
    (row,) = site.one.rows(models.operations, verb="migrate_volume")
    return row


def test_a_volume_in_use_is_copied_and_goes_when_it_is_let_go(site: Site) -> None:
    volume_id, attachment_id = used(site)
    site.write(volume_id, b"first")
    site.one.submit(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    waiting = settled(site)
    assert (waiting["state"], waiting["parked_for"]) == ("parked", "worker")
    assert "detached" in waiting["data"]["why"]["message"] and len(waiting["data"]["passes"]) == 1
    site.write(volume_id, b"later")
    with pytest.raises(exception.Conflict):
        site.one.attachments.initialize("volume", volume_id, {**CONNECTOR, "initiator": "iqn.2000-01.org.x:b"})
    assert [item.object_id for item in site.one.driver.observe()] == [site.volume(volume_id)["object_id"]]
    site.one.attachments.delete(volume_id, attachment_id)
    done = settled(site)
    row = site.volume(volume_id)
    assert (done["state"], row["host"], row["status"]) == ("done", f"{TWO}#pool", "available")
    assert site.read(volume_id, b"later"), "what was written meanwhile is lost"
    assert done["data"]["results"]["copy"]["bytes"] <= 4 * 1024**2, "all of it was written again"


def test_a_volume_in_use_stays_when_the_move_is_cancelled(site: Site) -> None:
    volume_id, attachment_id = used(site)
    site.write(volume_id)
    site.one.submit(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    site.one.dispatcher.cancel(settled(site)["id"])
    assert settled(site)["state"] == "failed"
    row = site.volume(volume_id)
    assert (row["host"], row["status"]) == (f"{ONE}#pool", "in-use") and site.read(volume_id)
    assert site.two.driver.observe() == [] and len(site.one.driver.observe()) == 1
    site.one.attachments.delete(volume_id, attachment_id)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_snapshot_that_fails_is_not_left(site: Site, when: str) -> None:
    volume_id, attachment_id = used(site)
    site.one.driver.faults.fail("create_snapshot", exception.Inconsistent("no"), when=when)
    done = site.do(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    assert done.state == "failed" and len(site.one.driver.observe()) == 1
    assert site.volume(volume_id)["status"] == "in-use"
    site.one.attachments.delete(volume_id, attachment_id)


def failed(site: Site, volume_id: str, **arguments: Any) -> Any:
    """Ask for a move that must fail and leave the volume where and as it was."""
    site.write(volume_id)
    before = site.volume(volume_id)
    done = site.do(migration.MigrateVolume, volume_id=volume_id, host=TWO, **arguments)
    assert done.state == "failed"
    after = site.volume(volume_id)
    changed = {key for key in after if after[key] != before[key]}
    assert changed <= {"migration_status", "updated_at"} and after["migration_status"] == "error"
    assert site.read(volume_id) and site.two.driver.observe() == []
    return done


def test_a_destination_without_room_fails_it(site: Site) -> None:
    volume_id = site.create()
    site.two.driver.faults.fail("create_volume", exception.NoSpace("full"))
    assert failed(site, volume_id).error["code"] == "volmgr.no_space"


def test_a_destination_that_cannot_clean_up_at_once_does_so_later(site: Site) -> None:
    volume_id = site.create()
    site.two.driver.faults.fail("create_volume", exception.Inconsistent("half made"), when="after")
    site.two.driver.faults.fail("delete_volume", exception.BackendDown("not now"))
    failed(site, volume_id)
    (child,) = site.one.rows(models.operations, verb="receive_volume")
    assert child["state"] == "failed"


def test_a_copy_that_fails_leaves_one_whole_volume(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    volume_id = site.create()

    def broken(*_args: Any, **_kwargs: Any) -> int:
        raise exception.BackendDown("an I/O error")

    monkeypatch.setattr("volmgr.tools.blockcopy.copy", broken)
    assert failed(site, volume_id).error["message"] == "an I/O error"


@pytest.mark.parametrize("who", ["migrate_volume", "receive_volume"])
def test_a_cancelled_move_is_undone_on_both_sides(site: Site, who: str) -> None:
    volume_id = site.create()
    site.write(volume_id)
    site.one.submit(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    site.one.dispatcher.pump()
    site.one.stepwise.run()  # it waits for the destination now
    (parent,) = site.one.rows(models.operations, verb="migrate_volume")
    assert (parent["state"], parent["parked_for"]) == ("parked", "worker")
    (found,) = site.one.rows(models.operations, verb=who)
    (site.one if who == "migrate_volume" else site.two).dispatcher.cancel(found["id"])
    site.run()
    states = {row["state"] for row in site.one.rows(models.operations) if row["verb"] in ("migrate_volume", who)}
    assert states == {"failed"} and site.volume(volume_id)["migration_status"] == "error"
    assert site.read(volume_id) and site.two.driver.observe() == []


def test_a_parent_that_is_given_up_takes_its_child_along(site: Site) -> None:
    volume_id = site.create()
    site.one.submit(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    site.one.dispatcher.pump()
    site.one.stepwise.run()
    (parent,) = site.one.rows(models.operations, verb="migrate_volume")
    site.one.dispatcher.abandon(parent["id"])
    site.run()
    (child,) = site.one.rows(models.operations, verb="receive_volume")
    assert child["state"] == "failed" and site.two.driver.observe() == []


def test_a_move_that_is_given_up_after_its_pivot_leaves_the_old_storage_to_the_audit(site: Site) -> None:
    """The old object is trash from the pivot on, so whoever looks finds what nobody is going to wipe any more."""
    volume_id = site.create()
    site.write(volume_id)
    old = site.volume(volume_id)["object_id"]
    site.one.driver.faults.fail("trash_volume", exception.BackendDown("not now"), times=None)
    site.one.submit(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    row = settled(site)
    assert (row["state"], row["pivoted"]) == ("parked", True)
    (kept,) = site.one.rows(models.objects, id=old)
    assert kept["role"] == "trash" and kept["trashed_at"] is not None
    site.one.dispatcher.abandon(row["id"])
    site.run()
    assert site.volume(volume_id)["host"] == f"{TWO}#pool" and site.read(volume_id)
    site.one.driver.faults.clear()
    auditor = Auditor(site.one.dispatcher, grace=0)
    found = [(item.kind, item.repair) for item in auditor.run().findings]
    auditor.run(fix=True)
    site.run()
    assert site.one.driver.observe() == [], found
    assert auditor.run().findings == []


# --- deaths ---------------------------------------------------------------------------------------------------------


def told(site: Site, *, fails: bool, kill: tuple[str, str, int] | None = None) -> list[tuple[str, str, int]]:
    """Move a new volume, with a kill if one is given, and look at what is left; returns the points that were passed."""
    volume_id = site.create()
    site.write(volume_id)
    serial, since, deaths = site.serial(volume_id), len(site.passed), site.deaths
    site.aims = [list(kill)] if kill else []
    if fails:
        site.two.driver.faults.fail("create_volume", exception.NoSpace("full"), when="after")
    done = site.do(migration.MigrateVolume, volume_id=volume_id, host=TWO)
    text = f"killed at {kill}"
    assert site.deaths - deaths == bool(kill), text
    row = site.volume(volume_id)
    bad, good = ("failed", f"{ONE}#pool", "error"), ("done", f"{TWO}#pool", "success")
    # A life that begins anew has a driver without the fault.
    legal = {bad} if fails and not kill else {good, bad} if fails else {good}
    assert (done.state, row["host"], row["migration_status"]) in legal, text
    assert row["status"] == "available" and site.serial(volume_id) == serial and site.read(volume_id), text
    site.two.driver.faults.clear()
    site.do(volumes.DeleteVolume, on=row["host"].partition("#")[0], volume_id=volume_id)
    assert site.wrong() == [], text
    return points_of(site, since, lambda point: point.partition("/")[0] in ("migrate_volume", "receive_volume"))


@pytest.mark.parametrize(("shared", "fails"), [(False, False), (True, False), (False, True)])
def test_a_death_of_either_worker_at_any_point_changes_nothing(tmp_path: Path, shared: bool, fails: bool) -> None:
    site = Site(tmp_path, shared=shared)
    found = told(site, fails=fails)
    assert {host for host, _point, _nth in found} == ({ONE} if shared else {ONE, TWO})
    for kill in found:
        # In the client's own call; the real daemon dies there in the chaos tests.
        if not kill[1].endswith(("/received", "/admitted")):
            told(site, fails=fails, kill=kill)
    site.one.close()

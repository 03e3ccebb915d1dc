# SPDX-License-Identifier: Apache-2.0
"""A volume in use that the compute service has copied: the new one's storage, export and attachments are its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operations.moving import ONE, TWO, Site, new_id, points_of
from volmgr import exception
from volmgr.db import models
from volmgr.operations import snapshots, volumes
from volmgr.operations.completion import MigrateVolumeCompletion, UpdateMigratedVolume
from volmgr.reconcile.auditor import Auditor

OLD_HOST = {"initiator": "iqn.1993-08.org.debian:01:old", "ip": "127.0.0.1", "host": "compute"}
NEW_HOST = {"initiator": "iqn.1993-08.org.debian:01:new", "ip": "127.0.0.1", "host": "compute"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    assert made.wrong() == []
    made.one.close()


def use(site: Site, on: str, volume_id: str, host: dict[str, str]) -> str:
    """Attach a volume as an instance does; returns the attachment's id."""
    attachment_id, verbs = new_id(), site.rig(on).attachments
    verbs.reserve(attachment_id, volume_id, new_id(), "rw")
    verbs.connect(attachment_id, volume_id, host)
    verbs.complete(attachment_id)
    return attachment_id


def swapped(site: Site, *, used: bool = True, **kinds: str) -> tuple[str, str, str]:
    """Return (volume, the new one that has its bytes, the new one's attachment), as the compute service makes them."""
    volume_id, new = site.create(volume_type=kinds.get("old")), new_id()
    site.do(volumes.CreateVolume, volume_id=new, size=1, host=TWO, volume_type=kinds.get("new"))
    if used:
        use(site, ONE, volume_id, OLD_HOST)
    attachment_id = use(site, TWO, new, NEW_HOST) if used else ""
    site.write(new)
    return volume_id, new, attachment_id


def test_who_is_connected_to_the_new_one_stays_so(site: Site) -> None:
    volume_id, new, attachment_id = swapped(site)
    (served,) = site.two.target.observe()
    done = site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=new)
    assert (done.state, done.result) == ("done", {"volume_id": volume_id, "moved": True, "host": f"{TWO}#pool"})
    row = site.volume(volume_id)
    assert (row["host"], row["status"], row["migration_status"]) == (f"{TWO}#pool", "in-use", "success")
    assert site.read(volume_id) and site.usage() == (1, 0, 1)
    assert site.one.rows(models.volumes, id=new) == [] and site.one.driver.observe() == []
    assert [item["id"] for item in site.one.rows(models.attachments)] == [attachment_id]
    assert site.one.target.observe() == [] and site.two.target.observe() == [served]
    # What the row wants is what is served, with the account that the host logged in by.
    assert site.two.exports.sync("volume", volume_id) and site.two.target.observe() == [served]
    again = site.two.attachments.connect(attachment_id, volume_id, NEW_HOST)
    assert again["data"]["target_iqn"] == served.target_name
    site.two.attachments.delete(volume_id, attachment_id)
    done = site.do(volumes.DeleteVolume, on=TWO, volume_id=volume_id)
    assert done.state == "done" and site.two.target.observe() == [], "the target that it took over is left"


def test_an_unused_copy_gets_the_serial_and_the_quota_follows_the_type(site: Site) -> None:
    old, kind = site.kind("old"), site.kind("new")
    volume_id, new, _attachment = swapped(site, used=False, old="old", new="new")
    serial = site.serial(volume_id)
    assert site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=new).state == "done"
    assert site.serial(volume_id) == serial and site.volume(volume_id)["volume_type_id"] == kind
    assert (site.usage(old), site.usage(kind), site.usage()) == ((0, 0, 0), (1, 0, 1), (1, 0, 1))
    assert site.volume(volume_id)["status"] == "available"


def test_one_that_is_given_up_after_its_pivot_leaves_the_old_storage_to_the_audit(site: Site) -> None:
    volume_id, new, attachment_id = swapped(site)
    old = site.volume(volume_id)["object_id"]
    site.one.driver.faults.fail("trash_volume", exception.BackendDown("not now"), times=None)
    site.one.submit(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=new)
    site.run()
    (row,) = site.one.rows(models.operations, verb=MigrateVolumeCompletion.verb)
    assert (row["state"], row["pivoted"]) == ("parked", True)
    (kept,) = site.one.rows(models.objects, id=old)
    assert kept["role"] == "trash" and kept["trashed_at"] is not None
    site.one.dispatcher.abandon(row["id"])
    site.run()
    moved = site.volume(volume_id)
    assert (moved["host"], moved["status"], moved["migration_status"]) == (f"{TWO}#pool", "in-use", "success")
    site.one.driver.faults.clear()
    Auditor(site.one.dispatcher, grace=0).run(fix=True)
    site.run()
    assert site.one.driver.observe() == []
    site.two.attachments.delete(volume_id, attachment_id)


def test_with_an_error_the_new_one_goes_and_the_volume_stays(site: Site) -> None:
    volume_id, new, _attachment = swapped(site)
    before = site.volume(volume_id)
    done = site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=new, error=True)
    assert (done.state, done.result) == ("done", {"volume_id": volume_id, "moved": False})
    after = site.volume(volume_id)
    assert after["migration_status"] == "error" and (after["host"], after["status"]) == (before["host"], "in-use")
    assert site.one.rows(models.volumes, id=new) == [] and site.two.driver.observe() == []
    gone = site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=new, error=True)
    assert gone.state == "done"


def test_what_is_no_copy_is_refused(site: Site) -> None:
    volume_id, large, snapshot_id = site.create(), new_id(), new_id()
    for new, error in ((volume_id, exception.Invalid), (new_id(), exception.VolumeNotFound)):
        with pytest.raises(error):
            site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=new)
    site.do(volumes.CreateVolume, volume_id=large, size=2, host=TWO)
    with pytest.raises(exception.Conflict):
        site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=large)
    site.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    with pytest.raises(exception.VolumeHasSnapshots):
        site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=large)


def test_a_driver_that_keeps_names_changes_nothing(site: Site) -> None:
    volume_id, new, _attachment = swapped(site, used=False)
    site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=new)
    before = site.volume(volume_id)["object_id"]
    done = site.do(UpdateMigratedVolume, on=TWO, volume_id=volume_id, new_volume_id=new, volume_status="available")
    assert done.state == "done" and site.volume(volume_id)["object_id"] == before


def test_a_driver_that_renames_is_followed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    volume_id, new, _attachment = swapped(site, used=False)
    site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=new)

    def rename(_context: Any, volume: Any, new_volume: Any, _status: str) -> dict[str, Any]:
        site.two.driver.store.rename(new_volume.name, volume.name)
        return {"_name_id": None, "provider_location": None}

    monkeypatch.setattr(site.two.driver, "update_migrated_volume", rename)
    done = site.do(UpdateMigratedVolume, on=TWO, volume_id=volume_id, new_volume_id=new, volume_status="available")
    assert done.result == {"volume_id": volume_id, "name": f"volume-{volume_id}"}
    assert site.volume(volume_id)["object_id"] == volume_id and site.read(volume_id)


@pytest.mark.parametrize("error", [False, True])
def test_a_death_at_any_point_changes_nothing(site: Site, error: bool) -> None:
    def told(kill: tuple[str, str, int] | None) -> list[tuple[str, str, int]]:
        volume_id, new, _attachment = swapped(site)
        since = len(site.passed)
        site.aims = [list(kill)] if kill else []
        done = site.do(MigrateVolumeCompletion, volume_id=volume_id, new_volume_id=new, error=error)
        assert done.state == "done", kill
        row = site.volume(volume_id)
        assert (row["status"], row["host"]) == ("in-use", f"{ONE if error else TWO}#pool"), kill
        assert site.one.rows(models.volumes, id=new) == [] and site.wrong() == [], kill
        return points_of(site, since, lambda point: point.startswith("migrate_volume_completion/"))

    found = told(None)
    for kill in found:
        if not kill[1].endswith(("/received", "/admitted")):
            told(kill)
    assert site.deaths == len(found) - 2

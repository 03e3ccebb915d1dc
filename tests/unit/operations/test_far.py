# SPDX-License-Identifier: Apache-2.0
"""Moving a volume between two machines: the destination exports its object to the source's host, which copies into it.

Target and initiator are at the outer edge: the target in memory, the initiator a file of the other one's simulator that
is reached only by whom the target lets in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operations.moving import ONE, Site, points_of
from tests.unit.operations.test_migration import CONNECTOR, settled, used
from volmgr import exception
from volmgr.db import models
from volmgr.operations import migration, retype, volumes
from volmgr.reconcile.auditor import Auditor, findings_of
from volmgr.testing.initiator import SESSIONS

THERE = "other@two"
#: points that only such a move passes, or passes otherwise.
OWN = (
    "migrate_volume/place", "migrate_volume/copy", "migrate_volume/settle", "migrate_volume/-/fail", "receive_volume/o",
    "receive_volume/hold", "receive_volume/withdraw", "receive_volume/-/close", "receive_volume/-/fail", "connect/",
    "initiator/",
)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path, second=THERE)
    yield made
    assert made.wrong() == []
    made.one.close()


def incoming(site: Site) -> list[str]:
    """Return the targets of objects on their way."""
    return [name for name in site.two.target.present() if "incoming" in name]


def begun(site: Site, volume_id: str, **arguments: Any) -> dict[str, Any]:
    """Begin a move and let it come to where the object there is offered; returns the destination's operation."""
    site.one.submit(migration.MigrateVolume, volume_id=volume_id, host=THERE, **arguments)
    site.one.dispatcher.pump()
    site.one.stepwise.run()
    site.two.dispatcher.pump()
    site.two.stepwise.run()
    (child,) = site.one.rows(models.operations, verb="receive_volume")
    assert (child["state"], child["step"]) == ("parked", "hold")
    return child


def test_the_bytes_the_serial_and_the_quota_go_to_another_machine(site: Site) -> None:
    volume_id = site.create(size=2)
    site.write(volume_id)
    serial, usage = site.serial(volume_id), site.usage()
    done = site.do(migration.MigrateVolume, volume_id=volume_id, host=THERE)
    assert (done.state, done.result) == ("done", {"volume_id": volume_id, "moved": True, "host": f"{THERE}#pool"})
    row = site.volume(volume_id)
    assert (row["host"], row["status"], row["migration_status"]) == (f"{THERE}#pool", "available", "success")
    assert site.serial(volume_id) == serial and site.usage() == usage and site.read(volume_id)
    assert site.one.driver.observe() == [] and incoming(site) == []
    assert done.data["results"]["copy"]["bytes"] <= 4 * 1024**2, "holes were written"
    site.two.attachments.initialize("volume", volume_id, CONNECTOR)
    site.two.attachments.terminate("volume", volume_id, CONNECTOR, False)


def test_what_is_granted_is_one_host_s_and_no_tenant_s(site: Site) -> None:
    volume_id = site.create()
    site.write(volume_id)
    child = begun(site, volume_id)
    object_id = child["args"]["object_id"]
    there = site.two
    target: Any = there.target
    (grant,) = site.one.rows(models.grants)
    assert grant["resource_id"] == object_id and grant["initiator"].endswith(":node")
    (export,) = site.one.rows(models.exports)
    assert (export["kind"], export["host"]) == ("incoming", THERE)
    ((name, spec),) = target.exports.items()
    assert name.endswith(f"incoming-{object_id}") and spec.serial != site.serial(volume_id)
    assert spec.auth is not None
    secret = spec.auth.password.reveal()
    assert secret not in json.dumps([child["data"], child["args"]]), "the journal has the password in the clear"
    # Nobody reaches it by any request, whatever id he names, and a repair leaves it alone.
    for wanted in (object_id, volume_id):
        with pytest.raises(exception.VolmgrError):
            there.attachments.initialize("volume", wanted, CONNECTOR)
    there.exports.disconnect("volume", object_id, connector=None)
    assert findings_of(there.dispatcher) == [] and findings_of(site.one.dispatcher) == []
    target.wipe()
    assert there.exports.restore_missing() == 1 and incoming(site) == [name]
    target.wipe()
    assert there.exports.rebuild() == 1 and incoming(site) == [name]
    site.run()
    assert site.volume(volume_id)["host"] == f"{THERE}#pool" and site.read(volume_id)
    rows = site.one.rows(models.operations)
    assert secret not in json.dumps([[row["data"], row["args"], row["result"]] for row in rows])


def test_a_read_only_volume_is_filled_too(site: Site) -> None:
    volume_id = site.create()
    site.write(volume_id)
    with site.one.database.writer() as conn:
        conn.execute(models.volumes.update().values(readonly=True))
    assert site.do(migration.MigrateVolume, volume_id=volume_id, host=THERE).state == "done" and site.read(volume_id)


def test_a_volume_in_use_is_copied_in_passes_and_goes_when_it_is_let_go(site: Site) -> None:
    volume_id, attachment_id = used(site)
    site.write(volume_id, b"first")
    site.one.submit(migration.MigrateVolume, volume_id=volume_id, host=THERE)
    waiting = settled(site)
    assert (waiting["state"], waiting["parked_for"]) == ("parked", "worker")
    assert list((site.folder / SESSIONS).iterdir()) == [], "it is attached while nothing is copied"
    site.write(volume_id, b"later")
    site.one.attachments.delete(volume_id, attachment_id)
    done = settled(site)
    assert (done["state"], site.volume(volume_id)["host"]) == ("done", f"{THERE}#pool")
    assert site.read(volume_id, b"later") and done["data"]["results"]["copy"]["bytes"] <= 4 * 1024**2


def test_a_retype_that_moves_to_another_machine(site: Site) -> None:
    volume_id = site.create()
    site.write(volume_id)
    site.report(two={"colour": "red"})
    site.kind("red", colour="red")
    arguments = {"volume_id": volume_id, "new_type_id": "red"}
    with pytest.raises(exception.Conflict):
        site.do(retype.Retype, **arguments)
    done = site.do(retype.Retype, **arguments, migration_policy="on-demand")
    assert done.state == "done" and site.volume(volume_id)["host"] == f"{THERE}#pool" and site.read(volume_id)


def test_a_driver_that_reaches_the_other_machine_moves_no_bytes(tmp_path: Path) -> None:
    site = Site(tmp_path, shared=True, second=THERE)
    volume_id = site.create()
    site.write(volume_id)
    done = site.do(migration.MigrateVolume, volume_id=volume_id, host=THERE)
    assert done.state == "done" and site.one.driver.faults.calls["migrate_volume"] == 1
    assert site.one.rows(models.operations, verb="receive_volume") == [] and site.read(volume_id)
    assert site.wrong() == []
    site.one.close()


def test_a_machine_that_cannot_attach_refuses_before_anything_changes(site: Site) -> None:
    volume_id = site.create()
    before = site.volume(volume_id)
    site.one.dispatcher.backend.initiators = None
    with pytest.raises(exception.Unsupported) as caught:
        site.do(migration.MigrateVolume, volume_id=volume_id, host=THERE, force_host_copy=True)
    assert "complete-migration" in (caught.value.hint or "") and site.volume(volume_id) == before


def test_what_cannot_be_attached_is_taken_away_again(site: Site) -> None:
    volume_id = site.create()
    site.write(volume_id)
    begun(site, volume_id)
    (site.folder / "reached").write_text("")
    site.run()
    (parent,) = site.one.rows(models.operations, verb="migrate_volume")
    assert parent["state"] == "failed" and site.volume(volume_id)["migration_status"] == "error"
    assert site.read(volume_id) and site.two.driver.observe() == [] and incoming(site) == []


def test_a_part_that_is_given_up_is_the_audit_s(site: Site) -> None:
    volume_id = site.create()
    site.write(volume_id)
    child = begun(site, volume_id)
    site.two.dispatcher.abandon(child["id"])
    assert site.one.rows(models.exports) == [] and site.one.rows(models.grants) == []
    assert incoming(site) != []
    site.run()
    assert site.volume(volume_id)["migration_status"] == "error" and site.read(volume_id)
    auditor = Auditor(site.two.dispatcher, grace=0)
    for _ in range(2):  # what was exported is freed once nothing exports it
        auditor.run(fix=True)
        site.run()
    assert incoming(site) == [] and site.two.driver.observe() == [] and auditor.run().findings == []


# --- deaths ---------------------------------------------------------------------------------------------------------


def told(site: Site, *, fails: bool, kill: tuple[str, str, int] | None = None) -> list[tuple[str, str, int]]:
    """Move a new volume, with a kill if one is given, and look at what is left; returns the points that were passed."""
    volume_id = site.create()
    site.write(volume_id)
    serial, since, deaths = site.serial(volume_id), len(site.passed), site.deaths
    site.aims = [list(kill)] if kill else []
    site.broken = fails
    done = site.do(migration.MigrateVolume, volume_id=volume_id, host=THERE)
    text = f"killed at {kill}"
    assert site.deaths - deaths == bool(kill), text
    row = site.volume(volume_id)
    bad, good = ("failed", f"{ONE}#pool", "error"), ("done", f"{THERE}#pool", "success")
    assert (done.state, row["host"], row["migration_status"]) == (bad if fails else good), text
    assert row["status"] == "available" and site.serial(volume_id) == serial and site.read(volume_id), text
    assert incoming(site) == [], text
    site.do(volumes.DeleteVolume, on=row["host"].partition("#")[0], volume_id=volume_id)
    assert site.wrong() == [], text
    return points_of(site, since)


@pytest.mark.parametrize("fails", [False, True])
def test_a_death_of_either_machine_s_worker_at_any_point_leaves_nothing(tmp_path: Path, fails: bool) -> None:
    site = Site(tmp_path, second=THERE)
    found = told(site, fails=fails)
    assert {host for host, _point, _nth in found} == {ONE, THERE}
    # What both ways of a move pass is killed in the tests of a move on one machine; behind one step is before the next.
    undoing = next((at for at, kill in enumerate(found) if kill[1].endswith("/undo")), len(found))
    chosen = found[undoing:] if fails else found
    kills = [kill for kill in chosen if kill[1].startswith(OWN) and not kill[1].endswith("/before")]
    assert len(kills) >= (3 if fails else 10)
    for kill in kills:
        told(site, fails=fails, kill=kill)
    site.one.close()

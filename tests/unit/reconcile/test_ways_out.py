# SPDX-License-Identifier: Apache-2.0
"""An operator never needs SQL: out of every status, held or not, leads the command that volmgr itself names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import exception, states
from volmgr.db import models, operations
from volmgr.operations import advice, backups, cgsnapshots, groups, resets, snapshots, volumes
from volmgr.reconcile.auditor import Auditor, findings_of
from volmgr.testing.invariants import violations
from volmgr.testing.rig import HOST, Rig

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
#: statuses that are no trouble: nothing has to lead out of them.
WELL = {"available", "in-use"}
CLASSES = {
    "volume": models.volumes, "snapshot": models.snapshots, "backup": models.backups, "group": models.groups,
    "cgsnapshot": models.cgsnapshots,
}
DELETING: dict[str, Any] = {
    "volume": volumes.DeleteVolume, "snapshot": snapshots.DeleteSnapshot, "backup": backups.DeleteBackup,
    "group": groups.DeleteGroup, "cgsnapshot": cgsnapshots.DeleteCgSnapshot,
}


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def make(rig: Rig, noun: str) -> str:
    volume_id, snapshot_id = new_id(), new_id()
    if noun in ("group", "cgsnapshot"):
        group_id, cgsnapshot_id = new_id(), new_id()
        rig.do(groups.CreateGroup, group_id=group_id)
        rig.do(volumes.CreateVolume, volume_id=volume_id, size=1, group_id=group_id)
        rig.do(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=cgsnapshot_id, group_id=group_id)
        if noun == "cgsnapshot":
            return cgsnapshot_id
        rig.do(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=cgsnapshot_id)
        return group_id
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    if noun == "volume":
        return volume_id
    if noun == "backup":
        backup_id = new_id()
        rig.do(backups.CreateBackup, backup_id=backup_id, volume_id=volume_id)
        return backup_id
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    return snapshot_id


def status(rig: Rig, noun: str, resource_id: str) -> str:
    rows = rig.rows(CLASSES[noun], id=resource_id)
    return str(rows[0]["status"]) if rows else "deleted"


def put(rig: Rig, noun: str, resource_id: str, **values: Any) -> None:
    """Write a status, as a defect would."""
    with rig.database.writer() as conn:
        conn.execute(sa.update(CLASSES[noun]).where(CLASSES[noun].c.id == resource_id).values(**values))


def follow(rig: Rig, noun: str, resource_id: str, command: str) -> None:
    """Do what a command says, as the command line would."""
    last = command.rpartition(": ")[2] if ": " in command else command
    if last == advice.AUDIT:
        Auditor(rig.dispatcher, grace=0).run(fix=True)
    elif last == f"volmgr volume detach --force {resource_id}":
        rig.attachments.detach(resource_id, None, True)
    elif last == f"volmgr-manage group reset-status {resource_id} available":
        resets.Resets(rig.database, rig.clock, HOST).reset(rig.context, noun, resource_id, "available", dry=False)
    elif last.startswith("volmgr operation abandon "):
        rig.dispatcher.abandon(last.split()[-1])
    elif last in (f"volmgr {noun} delete {resource_id}", f"volmgr volume delete --force {resource_id}"):
        force = {"force": True} if "--force" in last else {}
        rig.do(DELETING[noun], **{f"{noun}_id": resource_id}, **force)
    else:
        raise AssertionError(f"{command!r} is no command that this test knows")
    rig.run()


def lead_out(rig: Rig, noun: str, resource_id: str) -> list[str]:
    """Follow what is named until the resource is well or gone; returns the commands."""
    told = []
    while (now := status(rig, noun, resource_id)) not in WELL | {"deleted"}:
        with rig.database.reader() as conn:
            holders = operations.holding(conn, resource_id)
        command = advice.next_command(noun, resource_id, now, holders)
        assert command not in told, f"{command} leads nowhere from {now}: {told}"
        told.append(command)
        follow(rig, noun, resource_id, command)
    return told


CASES = [
    (noun, name)
    for noun, machine in resets.MACHINES.items()
    for name in machine.states
    if name != "deleted"
]


def test_out_of_every_status_that_nobody_holds(rig: Rig) -> None:
    for noun, name in CASES:
        resource_id = make(rig, noun)
        put(rig, noun, resource_id, status=name)
        if name in ("reserved", "attaching", "detaching"):
            rig.attachments.reserve(new_id(), resource_id, new_id(), "rw")
            put(rig, noun, resource_id, status=name)
        told = lead_out(rig, noun, resource_id)
        assert bool(told) == (name not in WELL), (noun, name)
        found = [item.kind.label for item in findings_of(rig.dispatcher)]
        assert found == (["status-wrong"] if name == "in-use" else []), (noun, name)
        Auditor(rig.dispatcher, grace=0).run(fix=True)


def test_out_of_every_status_held_by_an_operation_that_is_gone(rig: Rig) -> None:
    for noun, name in CASES:
        resource_id = make(rig, noun)
        put(rig, noun, resource_id, status=name, operation_id=new_id())
        Auditor(rig.dispatcher, grace=0).run(fix=True)
        lead_out(rig, noun, resource_id)
        Auditor(rig.dispatcher, grace=0).run(fix=True)
        assert findings_of(rig.dispatcher) == [], (noun, name)
        assert violations(rig.database, rig.driver) == [], (noun, name)


@pytest.mark.parametrize(
    ("cls", "verb", "undo", "more"),
    [
        (volumes.CreateVolume, "create_volume", "delete_volume", {"size": 1}),
        (volumes.DeleteVolume, "trash_volume", None, {}),
        (volumes.ExtendVolume, "extend_volume", None, {"new_size": 2}),
        (snapshots.CreateSnapshot, "create_snapshot", "delete_snapshot", {"snapshot_id": "new"}),
        (snapshots.RevertToSnapshot, "create_volume_from_snapshot", "delete_volume", {"snapshot_id": "old"}),
    ],
)
def test_out_of_every_status_that_a_parked_operation_holds(
    rig: Rig, cls: Any, verb: str, undo: str | None, more: dict[str, Any]
) -> None:
    """The backend fails in the middle, and the undoing as well; or the operation is poisonous."""
    volume_id = new_id() if cls is volumes.CreateVolume else make(rig, "volume")
    if more.get("snapshot_id") == "old":
        more = {"snapshot_id": new_id()}
        rig.do(snapshots.CreateSnapshot, volume_id=volume_id, **more)
    elif "snapshot_id" in more:
        more = {"snapshot_id": new_id()}
    if undo is not None:
        rig.driver.faults.fail(verb, exception.NoSpace())
        rig.driver.faults.fail(undo, exception.BackendDown())
        answer = rig.submit(cls, volume_id=volume_id, **more)
        rig.stepwise.run()
    else:
        answer = rig.submit(cls, volume_id=volume_id, **more)
        with rig.database.writer() as conn:
            conn.execute(sa.update(models.operations).where(models.operations.c.id == answer["operation_id"])
                         .values(deaths=5))
        rig.stepwise.work.clear()
        rig.dispatcher._active.clear()
        rig.dispatcher._drop(answer["operation_id"], died=False)
        rig.run()
    (row,) = rig.rows(models.operations, id=answer["operation_id"])
    assert row["state"] == "parked"
    rig.dispatcher.abandon(row["id"])
    for noun, resource_id in (("volume", volume_id), *(("snapshot", item) for item in more.values() if item != 1)):
        if noun == "volume" or isinstance(resource_id, str):
            lead_out(rig, noun, str(resource_id))
    Auditor(rig.dispatcher, grace=0).run(fix=True)
    rig.run()
    assert findings_of(rig.dispatcher) == []
    assert violations(rig.database, rig.driver) == []


def test_delete_force_and_detach_force_from_every_status(rig: Rig) -> None:
    for name in [name for name in states.VOLUME.states if name != "deleted"]:
        volume_id = make(rig, "volume")
        rig.attachments.initialize("volume", volume_id, CONNECTOR)
        rig.attachments.attach(volume_id, new_id(), None, None, "rw", new_id())
        put(rig, "volume", volume_id, status=name)
        rig.attachments.detach(volume_id, None, True)
        assert rig.rows(models.attachments) == [], name
        assert rig.rows(models.grants) == [], name
        assert [item.initiators for item in rig.target.observe()] == [()], name
        if name in states.IDLE:
            rig.attachments.attach(volume_id, new_id(), None, None, "rw", new_id())
        done = rig.do(volumes.DeleteVolume, volume_id=volume_id, force=True)
        assert done is not None, name
        assert (done.state, done.args["force"]) == ("done", True), name
    assert findings_of(rig.dispatcher) == []
    assert violations(rig.database, rig.driver) == []


# --- resets -------------------------------------------------------------------------------------------------------


@pytest.fixture
def reset(rig: Rig) -> resets.Resets:
    return resets.Resets(rig.database, rig.clock, HOST)


def test_a_reset_says_what_it_breaks_first_and_is_recorded(rig: Rig, reset: resets.Resets) -> None:
    volume_id = make(rig, "volume")
    rig.attachments.attach(volume_id, None, "compute", None, "rw", new_id())
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    told = reset.reset(rig.context, "volume", volume_id, "available", dry=True)
    assert status(rig, "volume", volume_id) == "in-use"
    assert told["operation_id"] is None
    assert any("attachments stay" in line and "compute" in line for line in told["breaks"])
    assert any("still granted access" in line for line in told["breaks"])
    done = reset.reset(rig.context, "volume", volume_id, "available", dry=False)
    assert status(rig, "volume", volume_id) == "available"
    (row,) = rig.rows(models.operations, verb="reset_status")
    assert (row["id"], row["resource_id"], row["state"]) == (done["operation_id"], volume_id, "done")
    assert (row["result"]["from"], row["result"]["to"], row["context"]["user_id"]) == ("in-use", "available", "u")
    (found,) = findings_of(rig.dispatcher)
    assert found.kind.label == "status-wrong"


def test_a_reset_is_refused_while_an_operation_holds_the_resource(rig: Rig, reset: resets.Resets) -> None:
    volume_id = make(rig, "volume")
    answer = rig.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=2)
    with pytest.raises(exception.Conflict) as refused:
        reset.reset(rig.context, "volume", volume_id, "error", dry=True)
    assert f"volmgr operation cancel {answer['operation_id']}" in refused.value.hint
    assert "extend_volume" in refused.value.hint
    rig.run()
    assert status(rig, "volume", volume_id) == "available"


def test_a_reset_leads_to_statuses_that_may_stand_only(rig: Rig, reset: resets.Resets) -> None:
    volume_id = make(rig, "volume")
    for name in ("creating", "deleted", "extending", "nonsense"):
        with pytest.raises(exception.Invalid, match="status must be one of"):
            reset.reset(rig.context, "volume", volume_id, name, dry=False)
    with pytest.raises(exception.SnapshotNotFound):
        reset.reset(rig.context, "snapshot", volume_id, "error", dry=False)
    for name in resets.ALLOWED["volume"]:
        reset.reset(rig.context, "volume", volume_id, name, dry=False)
        assert status(rig, "volume", volume_id) == name
    reset.reset(rig.context, "volume", volume_id, "available", dry=False)
    assert findings_of(rig.dispatcher) == []


# --- hints ---------------------------------------------------------------------------------------------------------


def test_a_refusal_says_who_is_in_the_way_and_what_to_do(rig: Rig) -> None:
    volume_id = make(rig, "volume")
    answer = rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    with pytest.raises(exception.Conflict) as held:
        rig.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=2)
    assert f"delete_volume {answer['operation_id']} is running" in held.value.hint
    assert f"Next: volmgr operation wait {answer['operation_id']}" in held.value.hint
    rig.run()
    broken = make(rig, "volume")
    put(rig, "volume", broken, status="error")
    with pytest.raises(exception.Conflict) as refused:
        rig.submit(volumes.ExtendVolume, volume_id=broken, new_size=2)
    assert refused.value.hint.startswith(f"volmgr volume delete {broken}. More: ")
    with pytest.raises(exception.Conflict) as refused:
        rig.attachments.reserve(new_id(), broken, None, "rw")
    assert refused.value.hint.startswith(f"volmgr volume delete {broken}. More: ")
    put(rig, "volume", broken, status="extending")
    with pytest.raises(exception.Busy) as stuck:
        rig.submit(volumes.ExtendVolume, volume_id=broken, new_size=2)
    assert advice.AUDIT in stuck.value.hint

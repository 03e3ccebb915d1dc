# SPDX-License-Identifier: Apache-2.0
"""The journal over real SQLite: admission, joining, waiting, undoing, pivot, recovery, parking."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models
from volmgr.operations import snapshots, undelete, volumes
from volmgr.testing.rig import Rig


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def new_id() -> str:
    return str(uuid.uuid4())


def volume(rig: Rig, volume_id: str) -> dict[str, Any]:
    (row,) = rig.rows(models.volumes, id=volume_id)
    return row


def quota(rig: Rig) -> tuple[int, int, int]:
    (row,) = rig.rows(models.quotas, project_id="p", volume_type_id="")
    return row["volumes"], row["snapshots"], row["gigabytes"]


def make(rig: Rig, size: int = 1) -> str:
    volume_id = new_id()
    operation = rig.do(volumes.CreateVolume, volume_id=volume_id, size=size)
    assert operation is not None and operation.state == "done"
    return volume_id


def test_create_makes_row_object_storage_and_quota(rig: Rig) -> None:
    volume_id = make(rig, 3)
    row = volume(rig, volume_id)
    assert (row["status"], row["operation_id"], row["size"], row["host"]) == ("available", None, 3, "host@sim#pool")
    (stored,) = rig.rows(models.objects)
    assert (stored["id"], stored["role"], stored["size_bytes"]) == (volume_id, "current", 3 * 1024**3)
    assert [item.object_id for item in rig.driver.observe()] == [volume_id]
    assert quota(rig) == (1, 0, 3)


def test_budget_of_statements(rig: Rig) -> None:
    make(rig)  # the project's quota row is there from now on
    budgets = {}
    volume_id, snapshot_id = new_id(), new_id()
    for name, cls, arguments in (
        ("create", volumes.CreateVolume, {"volume_id": volume_id, "size": 1}),
        ("snapshot", snapshots.CreateSnapshot, {"volume_id": volume_id, "snapshot_id": snapshot_id}),
        ("delete_snapshot", snapshots.DeleteSnapshot, {"snapshot_id": snapshot_id}),
        ("delete", volumes.DeleteVolume, {"volume_id": volume_id}),
    ):
        with rig.database.counting() as count:
            rig.submit(cls, **arguments)
            rig.stepwise.run()
        budgets[name] = (count.transactions, count.statements)
        rig.run()
    limits = {"create": (2, 8), "snapshot": (2, 8), "delete_snapshot": (3, 9), "delete": (2, 8)}
    for name, (transactions, statements) in budgets.items():
        assert transactions <= limits[name][0], f"{name}: {budgets}"
        assert statements <= limits[name][1], f"{name}: {budgets}"


def test_a_repeat_joins_and_a_late_one_gets_the_recorded_outcome(rig: Rig) -> None:
    volume_id, key = new_id(), new_id()
    first = rig.submit(volumes.CreateVolume, key=key, volume_id=volume_id, size=1)
    again = rig.submit(volumes.CreateVolume, key=key, volume_id=volume_id, size=1)
    assert again["operation_id"] == first["operation_id"]
    rig.run()
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    late = rig.submit(volumes.CreateVolume, key=key, volume_id=volume_id, size=1)
    assert (late["operation_id"], late["state"]) == (first["operation_id"], "done")
    assert rig.rows(models.volumes) == []
    assert rig.driver.faults.calls["create_volume"] == 1


def test_a_late_delete_does_not_delete_a_volume_made_again(rig: Rig) -> None:
    volume_id, key = make(rig), new_id()
    rig.do(volumes.DeleteVolume, key=key, volume_id=volume_id)
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    rig.do(volumes.DeleteVolume, key=key, volume_id=volume_id)
    assert volume(rig, volume_id)["status"] == "available"


def test_another_create_of_the_same_id_is_refused(rig: Rig) -> None:
    volume_id = make(rig)
    with pytest.raises(exception.AlreadyExists):
        rig.submit(volumes.CreateVolume, volume_id=volume_id, size=1)
    assert quota(rig) == (1, 0, 1)


def test_deleting_what_is_gone_is_success(rig: Rig) -> None:
    answer = rig.submit(volumes.DeleteVolume, volume_id=new_id())
    assert (answer["state"], answer["result"]["unchanged"]) == ("done", True)


def test_a_failed_create_is_undone_and_says_error(rig: Rig) -> None:
    rig.driver.faults.fail("create_volume", exception.NoSpace(), when="after")
    volume_id = new_id()
    operation = rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    assert operation is not None and operation.state == "failed"
    assert operation.error is not None and operation.error["code"] == "volmgr.no_space"
    row = volume(rig, volume_id)
    assert (row["status"], row["operation_id"]) == ("error", None)
    assert list(rig.driver.observe()) == []
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    assert quota(rig) == (0, 0, 0)


def test_delete_waits_for_the_clone_of_the_volume(rig: Rig) -> None:
    source, clone = make(rig), new_id()
    rig.submit(volumes.CreateVolume, volume_id=clone, source_volid=source)
    waiting = rig.submit(volumes.DeleteVolume, volume_id=source)
    assert waiting["state"] == "queued"
    assert volume(rig, source)["status"] == "available"
    rig.run()
    assert volume(rig, clone)["status"] == "available"
    assert rig.dispatcher.get(waiting["operation_id"]).state == "done"
    assert rig.rows(models.volumes, id=source) == []


def test_delete_snapshot_waits_for_a_volume_from_it(rig: Rig) -> None:
    source, snapshot_id, copy = make(rig), new_id(), new_id()
    rig.do(snapshots.CreateSnapshot, volume_id=source, snapshot_id=snapshot_id)
    rig.submit(volumes.CreateVolume, volume_id=copy, snapshot_id=snapshot_id)
    waiting = rig.submit(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
    assert waiting["state"] == "queued"
    rig.run()
    assert rig.dispatcher.get(waiting["operation_id"]).state == "done"
    assert volume(rig, copy)["status"] == "available"


def test_conflict_names_status_and_holder(rig: Rig) -> None:
    volume_id = make(rig)
    delete = rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    with pytest.raises(exception.Conflict) as error:
        rig.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=2)
    assert error.value.details["operation_id"] == delete["operation_id"]
    assert error.value.details["status"] == "deleting"
    assert delete["operation_id"] in error.value.hint


def test_two_deletes_are_one(rig: Rig) -> None:
    volume_id = make(rig)
    first = rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    second = rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    assert first["operation_id"] == second["operation_id"]


def test_quota_is_checked_in_the_same_transaction(tmp_path: Path) -> None:
    rig = Rig(tmp_path, quota={"volumes": 1, "snapshots": -1, "gigabytes": -1})
    make(rig)
    with pytest.raises(exception.QuotaExceeded):
        rig.submit(volumes.CreateVolume, volume_id=new_id(), size=1)
    assert len(rig.rows(models.volumes)) == 1
    assert [row["state"] for row in rig.rows(models.operations)] == ["done", "failed"]
    rig.close()


def test_extend_charges_and_refuses_to_shrink(rig: Rig) -> None:
    volume_id = make(rig, 2)
    rig.do(volumes.ExtendVolume, volume_id=volume_id, new_size=5)
    assert volume(rig, volume_id)["size"] == 5
    assert quota(rig) == (1, 0, 5)
    with pytest.raises(exception.Invalid, match="new_size"):
        rig.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=4)
    rig.driver.faults.fail("extend_volume", exception.NoSpace())
    operation = rig.do(volumes.ExtendVolume, volume_id=volume_id, new_size=9)
    assert operation is not None and operation.state == "failed"
    assert (volume(rig, volume_id)["size"], volume(rig, volume_id)["status"]) == (5, "available")
    assert quota(rig) == (1, 0, 5)


def test_a_volume_with_snapshots_is_refused_and_cascade_takes_them(rig: Rig) -> None:
    volume_id = make(rig)
    for _ in range(2):
        rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=new_id())
    with pytest.raises(exception.VolumeHasSnapshots) as error:
        rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    assert error.value.details["count"] == 2
    operation = rig.do(volumes.DeleteVolume, volume_id=volume_id, cascade=True)
    assert operation is not None and operation.state == "done"
    assert rig.rows(models.snapshots) == [] and rig.rows(models.objects) == []
    assert quota(rig) == (0, 0, 0)
    assert list(rig.driver.observe()) == []


def test_a_delete_waits_for_snapshots_that_are_being_deleted(rig: Rig) -> None:
    volume_id, first, second = make(rig), new_id(), new_id()
    for snapshot_id in (first, second):
        rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    rig.submit(snapshots.DeleteSnapshot, snapshot_id=first)
    with pytest.raises(exception.VolumeHasSnapshots):
        rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    rig.submit(snapshots.DeleteSnapshot, snapshot_id=second)
    waiting = rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    assert waiting["state"] == "queued"
    rig.run()
    assert rig.dispatcher.get(waiting["operation_id"]).state == "done"
    assert rig.rows(models.volumes) == [] and quota(rig) == (0, 0, 0)


def test_a_delete_that_waited_for_a_snapshot_that_stays_is_refused(rig: Rig) -> None:
    volume_id, snapshot_id = make(rig), new_id()
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    rig.driver.faults.fail("trash_snapshot", exception.Inconsistent("broken"))
    rig.submit(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
    waiting = rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    rig.run()
    ended = rig.dispatcher.get(waiting["operation_id"])
    assert ended.state == "failed" and ended.error is not None
    assert ended.error["code"] == exception.VolumeHasSnapshots.code
    assert volume(rig, volume_id)["status"] == "available"


def test_revert_brings_the_bytes_back_and_keeps_the_serial(rig: Rig) -> None:
    volume_id, snapshot_id = make(rig), new_id()
    (before,) = rig.rows(models.objects)
    rig.driver.write_bytes(record(rig, volume_id), 0, b"old")
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    rig.driver.write_bytes(record(rig, volume_id), 0, b"new")
    operation = rig.do(snapshots.RevertToSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    assert operation is not None and operation.state == "done", operation
    assert rig.driver.read_bytes(record(rig, volume_id), 0, 3) == b"old"
    assert volume(rig, volume_id)["object_id"] != volume_id
    (current,) = rig.rows(models.objects, kind="volume", role="current")
    assert current["serial"] == before["serial"]
    assert rig.rows(models.objects, role="trash") == []


def record(rig: Rig, volume_id: str) -> Any:
    from volmgr.db import records

    with rig.database.reader() as conn:
        row = conn.execute(models.volumes.select().with_only_columns(*records.VOLUME_COLUMNS).filter_by(id=volume_id))
        return records.volume(row.one())


def test_a_volume_comes_back_from_the_trash(tmp_path: Path) -> None:
    rig = Rig(tmp_path, trash_retention=3600)
    volume_id = make(rig)
    rig.driver.write_bytes(record(rig, volume_id), 0, b"kept")
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    assert rig.rows(models.volumes) == []
    operation = rig.do(undelete.UndeleteVolume, volume_id=volume_id)
    assert operation is not None and operation.state == "done", operation
    assert volume(rig, volume_id)["status"] == "available"
    assert rig.driver.read_bytes(record(rig, volume_id), 0, 4) == b"kept"
    assert quota(rig) == (1, 0, 1)
    assert rig.rows(models.operations, verb="wipe") == []
    rig.close()


STEPS = [
    (volumes.CreateVolume, "create_volume", "create"),
    (volumes.ExtendVolume, "extend_volume", "extend"),
    (snapshots.CreateSnapshot, "create_snapshot", "create"),
    (snapshots.RevertToSnapshot, "revert_to_snapshot", "build"),
    (snapshots.RevertToSnapshot, "revert_to_snapshot", "follow"),
]
POINTS = [(cls, f"{verb}/{step}/{when}") for cls, verb, step in STEPS for when in ("before", "after")]
POINTS += [(cls, f"{verb}/-/{when}") for cls, verb, _ in STEPS[:4] for when in ("admitted", "close", "closed")]


@pytest.mark.parametrize(("cls", "point"), POINTS, ids=[point for _, point in POINTS])
def test_a_killed_operation_is_finished_by_the_next_life(tmp_path: Path, cls: Any, point: str) -> None:
    armed = [False]

    def kill(name: str) -> None:
        if armed[0] and name == point:
            armed[0] = False
            raise Killed(name)

    rig = Rig(tmp_path, killpoint=kill)
    volume_id, snapshot_id = make(rig), new_id()
    arguments: dict[str, Any] = {"volume_id": volume_id}
    if cls is volumes.CreateVolume:
        arguments = {"volume_id": new_id(), "size": 1}
    elif cls is volumes.ExtendVolume:
        arguments["new_size"] = 2
    else:
        arguments["snapshot_id"] = snapshot_id
    if cls is snapshots.RevertToSnapshot:
        rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    key, armed[0] = new_id(), True
    with pytest.raises(Killed):
        rig.do(cls, key=key, **arguments)
    assert not armed[0], "the point was never reached"

    second = Rig(tmp_path)
    second.dispatcher.recover()
    second.run()
    operation = second.do(cls, key=key, **arguments)
    assert operation is not None and operation.state == "done", operation
    for table in (models.volumes, models.snapshots):
        for row in second.rows(table):
            assert (row["status"], row["operation_id"], row["use_count"]) == ("available", None, 0)
    known = {row["id"] for row in second.rows(models.objects)}
    assert {item.object_id for item in second.driver.observe()} == known
    assert {row["role"] for row in second.rows(models.objects)} == {"current"}
    second.close()


def test_an_undoing_that_fails_is_parked_and_goes_on_by_retry(rig: Rig) -> None:
    rig.driver.faults.fail("create_volume", exception.NoSpace(), when="after")
    rig.driver.faults.fail("delete_volume", exception.BackendDown())
    operation = rig.do(volumes.CreateVolume, volume_id=new_id(), size=1)
    assert operation is not None
    assert (operation.state, operation.parked_for) == ("parked", "backend")
    assert operation.error is not None and operation.error["code"] == "volmgr.inconsistent.undo"
    rig.dispatcher.retry(operation.id)
    rig.run()
    assert rig.dispatcher.get(operation.id).state == "failed"
    assert list(rig.driver.observe()) == []


def test_what_is_looked_at_again_at_that_moment_is_not_called_abandoned(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.driver.faults.fail("create_volume", exception.NoSpace(), when="after")
    rig.driver.faults.fail("delete_volume", exception.BackendDown())
    operation = rig.do(volumes.CreateVolume, volume_id=new_id(), size=1)
    assert operation is not None and operation.state == "parked"
    refuse = rig.dispatcher.runner.refuse

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        rig.dispatcher.retry(operation.id)
        rig.run()
        return refuse(*args, **kwargs)

    monkeypatch.setattr(rig.dispatcher.runner, "refuse", meanwhile)
    with pytest.raises(exception.Conflict):
        rig.dispatcher.abandon(operation.id)
    error = rig.dispatcher.get(operation.id).error
    assert error is not None and "abandoned" not in error["message"]


def test_an_operation_that_kills_its_worker_is_parked(tmp_path: Path) -> None:
    def kill(name: str) -> None:
        if name == "create_volume/create/before":
            raise Killed(name)

    volume_id = new_id()
    rig = Rig(tmp_path, killpoint=kill)
    with pytest.raises(Killed):
        rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    for _ in range(4):
        rig = Rig(tmp_path, killpoint=kill)
        rig.dispatcher.recover()
        with pytest.raises(Killed):
            rig.run()
    rig = Rig(tmp_path)
    rig.dispatcher.recover()
    rig.run()
    (operation,) = rig.rows(models.operations)
    assert (operation["state"], operation["parked_for"]) == ("parked", "operator")
    rig.dispatcher.abandon(operation["id"])
    assert rig.rows(models.operations)[0]["state"] == "failed"
    assert volume(rig, volume_id)["status"] == "error"


def test_cancel_before_the_first_step_undoes_the_admission(rig: Rig) -> None:
    volume_id = new_id()
    answer = rig.submit(volumes.CreateVolume, volume_id=volume_id, size=1)
    rig.dispatcher.cancel(answer["operation_id"])
    rig.run()
    operation = rig.dispatcher.get(answer["operation_id"])
    assert operation.state == "failed" and operation.error is not None
    assert operation.error["code"] == "volmgr.cancelled"
    assert rig.rows(models.volumes) == [] and rig.rows(models.objects) == []
    assert quota(rig) == (0, 0, 0)


def test_a_drain_is_no_death(tmp_path: Path) -> None:
    volume_id = new_id()
    rig = Rig(tmp_path)
    rig.submit(volumes.CreateVolume, volume_id=volume_id, size=1)
    assert rig.dispatcher.let_go() == 1
    second = Rig(tmp_path)
    assert second.dispatcher.recover() == 1
    second.run()
    (operation,) = second.rows(models.operations)
    assert (operation["state"], operation["deaths"]) == ("done", 0)

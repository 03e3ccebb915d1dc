# SPDX-License-Identifier: Apache-2.0
"""Operations that only go forward: a wipe waits and goes on where it was, a revert in place has no way back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models
from volmgr.drivers import progress
from volmgr.operations import snapshots, volumes
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig
from volmgr.testing.waiting import wait_until


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def created(rig: Rig) -> str:
    volume_id = str(uuid.uuid4())
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    return volume_id


def snapped(rig: Rig, volume_id: str) -> str:
    snapshot_id = str(uuid.uuid4())
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    return snapshot_id


def wipes(rig: Rig) -> list[dict[str, Any]]:
    return rig.rows(models.operations, verb="wipe")


def test_a_wipe_that_cannot_be_done_now_waits_and_is_done_later(rig: Rig) -> None:
    volume_id = created(rig)
    rig.driver.faults.fail("wipe", exception.Busy("a snapshot needs it"))
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    (waiting,) = wipes(rig)
    assert (waiting["state"], waiting["parked_for"], waiting["error"]) == ("parked", "backend", None)
    assert waiting["data"]["why"]["message"] == "a snapshot needs it"
    # Its object is known as what it is, so nothing on the storage is unknown to SQL.
    assert [row["role"] for row in rig.rows(models.objects)] == ["trash"]
    assert rig.dispatcher.retry(waiting["id"])
    rig.run()
    assert [row["state"] for row in wipes(rig)] == ["done"]
    assert violations(rig.database, rig.driver) == []


def test_a_wiped_snapshot_wakes_the_wipes_that_wait(rig: Rig) -> None:
    volume_id, other = created(rig), created(rig)
    snapshot_id = snapped(rig, other)
    rig.driver.faults.fail("wipe", exception.Busy("a snapshot needs it"))
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    assert [row["state"] for row in wipes(rig)] == ["parked"]
    rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
    assert [row["state"] for row in wipes(rig)] == ["done", "done"]
    assert violations(rig.database, rig.driver) == []


def test_a_wipe_that_no_trying_helps_is_tried_all_the_same_until_it_is_given_up(rig: Rig) -> None:
    volume_id = created(rig)
    rig.driver.faults.fail("wipe", exception.Inconsistent("it is not what it was"))
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    (waiting,) = wipes(rig)
    assert (waiting["state"], waiting["parked_for"]) == ("parked", "backend")
    rig.dispatcher.abandon(waiting["id"])
    assert [row["state"] for row in wipes(rig)] == ["failed"]


def test_what_a_driver_keeps_is_there_in_the_next_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(tmp_path)
    volume_id = created(rig)
    seen: list[Any] = []

    def wipe(kind: str, object_id: str, report: Any) -> None:
        seen.append(progress.kept("place"))
        if len(seen) == 1:
            progress.keep("place", {"of": object_id, "to": 7})
            wait_until(lambda: reported(report), 10, "a report of progress is written")
            raise Killed

    def reported(report: Any) -> bool:
        report(0.5)
        return bool((wipes(rig)[0]["data"] or {}).get("checkpoint"))

    monkeypatch.setattr(rig.driver, "wipe", wipe)
    with pytest.raises(Killed):
        rig.do(volumes.DeleteVolume, volume_id=volume_id)
    second = Rig(tmp_path)
    monkeypatch.setattr(second.driver, "wipe", wipe)
    second.dispatcher.recover()
    second.run()
    assert seen == [None, {"of": volume_id, "to": 7}]
    assert [row["state"] for row in wipes(second)] == ["done"]
    second.close()
    rig.close()


class TestRevertsInPlace:
    def _life(self, folder: Path, killpoint: Any = None) -> Rig:
        rig = Rig(folder, killpoint=killpoint)
        rig.driver.reverts_in_place = True
        return rig

    def _written(self, rig: Rig, volume_id: str, data: bytes) -> None:
        rig.driver.write_bytes(self._record(rig, volume_id), 0, data)

    def _record(self, rig: Rig, volume_id: str) -> Any:
        from volmgr.db import records

        with rig.database.reader() as conn:
            table = models.volumes.select().with_only_columns(*records.VOLUME_COLUMNS)
            return records.volume(conn.execute(table.filter_by(id=volume_id)).one())

    @pytest.mark.parametrize(
        "point",
        [
            None,
            *(f"{step}/{when}" for step in ("release", "revert", "follow") for when in ("before", "after")),
            *(f"-/{when}" for when in ("admitted", "close", "closed")),
        ],
    )
    def test_the_same_object_has_the_snapshot_s_bytes(self, tmp_path: Path, point: str | None) -> None:
        armed = [point]

        def kill(name: str) -> None:
            if armed[0] is not None and name == f"revert_to_snapshot/{armed[0]}":
                armed[0] = None
                raise Killed(name)

        rig = self._life(tmp_path, kill)
        volume_id = created(rig)
        self._written(rig, volume_id, b"old")
        snapshot_id = snapped(rig, volume_id)
        self._written(rig, volume_id, b"new")
        arguments = {"volume_id": volume_id, "snapshot_id": snapshot_id, "key": str(uuid.uuid4())}
        if point is not None:
            with pytest.raises(Killed):
                rig.do(snapshots.RevertToSnapshot, **arguments)
            rig = self._life(tmp_path)
            rig.dispatcher.recover()
            rig.run()
        operation = rig.do(snapshots.RevertToSnapshot, **arguments)
        assert operation is not None and operation.state == "done", operation
        record = self._record(rig, volume_id)
        assert (record.status, record.object_id) == ("available", volume_id)
        assert rig.driver.read_bytes(record, 0, 3) == b"old"
        assert violations(rig.database, rig.driver) == []
        rig.close()

    def test_what_can_be_found_before_is_refused_before(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        rig = self._life(tmp_path)
        volume_id = created(rig)
        snapshot_id = snapped(rig, volume_id)

        def overflowed(_volume: Any, _snapshot: Any) -> None:
            raise exception.Inconsistent("its bytes are lost")

        monkeypatch.setattr(rig.driver, "check_revert", overflowed)
        operation = rig.do(snapshots.RevertToSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
        assert operation is not None and operation.state == "failed" and not operation.pivoted
        assert violations(rig.database, rig.driver) == []
        rig.close()

    def test_past_the_pivot_it_is_set_aside_and_goes_on(self, tmp_path: Path) -> None:
        rig = self._life(tmp_path)
        volume_id = created(rig)
        snapshot_id = snapped(rig, volume_id)
        rig.driver.faults.fail("revert_to_snapshot", exception.BackendDown("no disk"))
        operation = rig.do(snapshots.RevertToSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
        assert operation is not None
        assert (operation.state, operation.parked_for, operation.pivoted) == ("parked", "backend", True)
        assert rig.dispatcher.retry(operation.id)
        rig.run()
        assert rig.dispatcher.get(operation.id).state == "done"
        assert violations(rig.database, rig.driver) == []
        rig.close()

# SPDX-License-Identifier: Apache-2.0
"""The named locks: what an operation holds is in SQL, outlives its worker, and names its holder."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, types
from volmgr.db import models
from volmgr.operations import snapshots, volumes
from volmgr.operations.base import Claim, Operation, Step
from volmgr.operations.locking import locked_snapshot_operation, locked_volume_operation
from volmgr.targets.base import TargetConfig
from volmgr.targets.fake import FakeTarget
from volmgr.testing.rig import PREFIX, Rig
from volmgr.testing.waiting import wait_until

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
DEADLINE_SECONDS = 30


def new_id() -> str:
    return str(uuid.uuid4())


class Gated(FakeTarget):
    """A target whose syncs wait while its gate is shut."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def sync(self, spec: types.ExportSpec) -> bool:
        self.reached.set()
        assert self.gate.wait(DEADLINE_SECONDS)
        return super().sync(spec)


@pytest.fixture
def target(tmp_path: Path) -> Gated:
    return Gated(TargetConfig(PREFIX, (types.Portal("127.0.0.1", 3260),), str(tmp_path)))


@pytest.fixture
def rig(tmp_path: Path, target: Gated) -> Iterator[Rig]:
    made = Rig(tmp_path, target=target)
    yield made
    made.close()


def make(rig: Rig, **arguments: Any) -> str:
    volume_id = new_id()
    assert rig.do(volumes.CreateVolume, volume_id=volume_id, size=1, **arguments).state == "done"  # type: ignore[union-attr]
    return volume_id


@pytest.mark.parametrize("verb", ["extend", "revert", "delete"])
def test_a_locked_volume_is_held_across_the_death_of_its_worker(rig: Rig, tmp_path: Path, verb: str) -> None:
    volume_id, snapshot_id = make(rig), new_id()
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    asked: dict[str, tuple[type[Operation[Any]], dict[str, Any]]] = {
        "extend": (volumes.ExtendVolume, {"new_size": 2}),
        "revert": (snapshots.RevertToSnapshot, {"snapshot_id": snapshot_id}),
        "delete": (volumes.DeleteVolume, {"cascade": True}),
    }
    cls, arguments = asked[verb]
    holder = rig.submit(cls, volume_id=volume_id, **arguments)["operation_id"]
    after = Rig(tmp_path, database=rig.database)
    (row,) = after.rows(models.volumes, id=volume_id)
    assert row["operation_id"] == holder
    (held,) = after.rows(models.snapshots, id=snapshot_id)
    assert held["operation_id"] == (None if verb == "extend" else holder)
    with pytest.raises(exception.Conflict) as refused:
        after.submit(volumes.CreateVolume, volume_id=volume_id, size=1)
    assert refused.value.details["operation_id"] == holder


def test_a_locked_snapshot_is_held(rig: Rig) -> None:
    volume_id, snapshot_id = make(rig), new_id()
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    holder = rig.submit(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)["operation_id"]
    (row,) = rig.rows(models.snapshots, id=snapshot_id)
    assert (row["operation_id"], row["status"]) == (holder, "deleting")


def test_locks_are_claims_in_the_order_of_rows() -> None:
    @locked_snapshot_operation(lambda a: "unmanage" if a.unmanage_only else "delete")
    @locked_volume_operation("extend", childless=lambda a: a.cascade)
    class Everything(Operation[Any]):
        verb = "everything"
        args = volumes.DeleteArgs

        @property
        def resource_id(self) -> str:
            return str(self.a.volume_id)

        def claims(self) -> Sequence[Claim]:
            return (Claim("group", "g", "join", exclusive=False), Claim("backup", "b", "restore"))

        def steps(self, task: Any) -> Sequence[Step]:
            return ()

        def commit(self, task: Any, tx: Any) -> Any:
            return None

        def abort(self, task: Any, tx: Any, error: exception.VolmgrError) -> None:
            return None

    class Both(volumes.DeleteArgs):
        snapshot_id = "s"

    claims = Everything(Both(volume_id="v", unmanage_only=True, cascade=True)).claims()
    assert claims == [
        Claim("group", "g", "join", exclusive=False),
        Claim("volume", "v", "extend", childless=True),
        Claim("snapshot", "s", "unmanage"),
        Claim("backup", "b", "restore"),
    ]


def test_a_second_detach_is_answered_only_once_the_access_has_gone(rig: Rig, target: Gated) -> None:
    volume_id, attachment_id = make(rig), new_id()
    rig.attachments.reserve(attachment_id, volume_id, new_id(), "rw")
    rig.attachments.connect(attachment_id, volume_id, CONNECTOR)
    rig.attachments.complete(attachment_id)
    (name,) = target.exports
    answers: list[tuple[str, int]] = []

    def detach(who: str) -> None:
        rig.attachments.detach(volume_id, attachment_id, False)
        answers.append((who, len(target.exports[name].grants)))

    target.gate.clear()
    target.reached.clear()
    first = threading.Thread(target=detach, args=("first",))
    first.start()
    assert target.reached.wait(DEADLINE_SECONDS)
    assert rig.rows(models.attachments) == [], "SQL says already that it has gone"
    second = threading.Thread(target=detach, args=("second",))
    with rig.exports.locks.watching() as touched:
        second.start()
        waits = f"detach of {volume_id}"
        assert waits in touched, "the first one holds it"
        wait_until(lambda: rig.exports.locks.users(waits) == 2 or answers, DEADLINE_SECONDS, "the second one waits")
        assert answers == []
        target.gate.set()
        first.join(DEADLINE_SECONDS)
        second.join(DEADLINE_SECONDS)
    assert sorted(answers) == [("first", 0), ("second", 0)]

# SPDX-License-Identifier: Apache-2.0
"""A message that arrives once more, long after its request was answered and the world has changed: it does nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models
from volmgr.operations import snapshots, volumes
from volmgr.testing.rig import Rig

KEY = "b0b3a1b8-7b1c-4f2e-9a56-0c8f2f5f7a01"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def new_id() -> str:
    return str(uuid.uuid4())


def make(rig: Rig, volume_id: str) -> None:
    operation = rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    assert operation is not None and operation.state == "done"


def status(rig: Rig, table: Any, resource_id: str) -> str | None:
    found = rig.rows(table, id=resource_id)
    return found[0]["status"] if found else None


def test_a_deletion_of_what_was_gone_spares_what_is_made_anew(rig: Rig) -> None:
    volume_id = new_id()
    first = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert (first["state"], first["result"]["unchanged"]) == ("done", True)
    make(rig, volume_id)
    assert rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id) == first
    rig.run()
    assert status(rig, models.volumes, volume_id) == "available"
    # Another request deletes it all the same.
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    assert status(rig, models.volumes, volume_id) is None


def test_a_deletion_of_a_snapshot_that_was_gone_spares_what_is_made_anew(rig: Rig) -> None:
    volume_id, snapshot_id = new_id(), new_id()
    make(rig, volume_id)
    rig.submit(snapshots.DeleteSnapshot, key=KEY, snapshot_id=snapshot_id)
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    rig.submit(snapshots.DeleteSnapshot, key=KEY, snapshot_id=snapshot_id)
    rig.run()
    assert status(rig, models.snapshots, snapshot_id) == "available"


def test_a_deletion_that_was_refused_stays_refused(rig: Rig) -> None:
    volume_id, snapshot_id = new_id(), new_id()
    make(rig, volume_id)
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    with pytest.raises(exception.VolumeHasSnapshots) as refused:
        rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
    with pytest.raises(exception.VolumeHasSnapshots) as again:
        rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    rig.run()
    assert exception.to_primitive(again.value) == exception.to_primitive(refused.value)
    assert status(rig, models.volumes, volume_id) == "available"


def test_a_deletion_that_joined_another_one_spares_what_is_made_anew(rig: Rig) -> None:
    volume_id = new_id()
    make(rig, volume_id)
    running = rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    joined = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert joined["operation_id"] == running["operation_id"]
    rig.run()
    make(rig, volume_id)
    late = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert (late["operation_id"], late["state"]) == (running["operation_id"], "done")
    rig.run()
    assert status(rig, models.volumes, volume_id) == "available"


def test_a_creation_that_was_refused_does_not_come_later(rig: Rig) -> None:
    volume_id = new_id()
    make(rig, volume_id)
    with pytest.raises(exception.AlreadyExists):
        rig.submit(volumes.CreateVolume, key=KEY, volume_id=volume_id, size=2)
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    with pytest.raises(exception.AlreadyExists):
        rig.submit(volumes.CreateVolume, key=KEY, volume_id=volume_id, size=2)
    rig.run()
    assert status(rig, models.volumes, volume_id) is None


def test_what_may_be_tried_again_is_no_outcome(rig: Rig) -> None:
    make(rig, volume_id := new_id())
    other = Rig(rig.folder, database=rig.database, host="other@sim")
    with pytest.raises(exception.Moved):
        other.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    operation = rig.do(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert operation is not None and operation.state == "done"


def test_two_copies_at_once_have_one_outcome(rig: Rig) -> None:
    """The second copy is admitted while the first one is on its way to being refused: the first one follows it."""
    volume_id, snapshot_id = new_id(), new_id()
    make(rig, volume_id)
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    keep, answers = rig.dispatcher._keep, []

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        if not answers:
            answers.append(None)
            rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
            answers[0] = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
        return keep(*args, **kwargs)

    rig.dispatcher._keep = overtaken  # type: ignore[method-assign]
    told = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert told["operation_id"] == answers[0]["operation_id"]
    rig.run()
    assert status(rig, models.volumes, volume_id) is None

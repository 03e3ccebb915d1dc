# SPDX-License-Identifier: Apache-2.0
"""Existing storage becomes a volume or a snapshot; whatever goes wrong leaves the storage, and no row."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models
from volmgr.operations import manage_existing, snapshots, undelete, volumes
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig
from volmgr.types import GiB

DATA = b"written long before"
REF = {"source-name": "legacy"}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


def new_id() -> str:
    return str(uuid.uuid4())


def names(rig: Rig) -> list[str]:
    return [name for name, _size in rig.driver.store.entries()]


def test_existing_storage_becomes_a_volume(rig: Rig) -> None:
    rig.driver.put_foreign("legacy", GiB + 1, DATA)
    volume_id, key = new_id(), new_id()
    operation = rig.do(manage_existing.ManageExisting, key=key, volume_id=volume_id, ref=REF, name="old")
    assert operation is not None and operation.state == "done", operation
    (row,) = rig.rows(models.volumes)
    assert (row["status"], row["size"], row["display_name"]) == ("available", 2, "old")
    assert violations(rig.database, rig.driver) == []
    again = rig.submit(manage_existing.ManageExisting, key=key, volume_id=volume_id, ref=REF, name="old")
    assert (again["operation_id"], again["state"]) == (operation.id, "done")


def test_a_reference_that_names_nothing_changes_nothing(rig: Rig) -> None:
    with pytest.raises(exception.ManageExistingInvalidReference):
        rig.submit(manage_existing.ManageExisting, volume_id=new_id(), ref=REF)
    assert [row["state"] for row in rig.rows(models.operations)] == ["failed"] and rig.rows(models.volumes) == []


NO_REFERENCES = [None, {}, [], {"source-name": 5}, {"source-name": "a\x00b"}, {"source-name": "x" * 300}]


@pytest.mark.parametrize("bad", NO_REFERENCES)
def test_what_is_no_reference_is_refused(rig: Rig, bad: Any) -> None:
    with pytest.raises(exception.Invalid) as error:
        rig.submit(manage_existing.ManageExisting, volume_id=new_id(), ref=bad)
    assert str(error.value.details["field"]).startswith("ref")


def test_another_worker_s_storage_is_another_worker_s(rig: Rig) -> None:
    with pytest.raises(exception.Moved):
        rig.submit(manage_existing.ManageExisting, volume_id=new_id(), ref=REF, host="other@sim")


def test_whose_it_is_comes_before_what_this_worker_s_driver_can_do(
    tmp_path: Path, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume_id = new_id()
    assert rig.do(volumes.CreateVolume, volume_id=volume_id, size=1) is not None
    other = Rig(tmp_path, database=rig.database, host="other@plain")
    cls = type(other.driver)
    unable = {"manage_existing_snapshot", "manage_existing_snapshot_get_size", "manage_existing"}
    monkeypatch.setattr(cls, "_supported", cls._supported - unable)
    with pytest.raises(exception.Moved):
        other.submit(manage_existing.ManageExistingSnapshot, snapshot_id=new_id(), volume_id=volume_id, ref=REF)
    with pytest.raises(exception.Moved):
        other.submit(manage_existing.ManageExisting, volume_id=new_id(), ref=REF, host=rig.settings.host)
    with pytest.raises(exception.Unsupported):
        rig.submit(manage_existing.ManageExistingSnapshot, snapshot_id=new_id(), volume_id=volume_id, ref=REF)


def test_what_is_in_another_worker_s_trash_is_brought_back_there(
    tmp_path: Path, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume_id = new_id()
    rig.settings = dataclasses.replace(rig.settings, trash_retention=3600)
    rig.dispatcher.backend.settings = rig.settings
    for verb in (volumes.CreateVolume, volumes.DeleteVolume):
        values = {"size": 1} if verb is volumes.CreateVolume else {}
        assert rig.do(verb, volume_id=volume_id, **values) is not None
    other = Rig(tmp_path, database=rig.database, host="other@plain")
    cls = type(other.driver)
    monkeypatch.setattr(cls, "_supported", cls._supported - {"restore_volume"})
    with pytest.raises(exception.Moved):
        other.submit(undelete.UndeleteVolume, volume_id=volume_id)
    with pytest.raises(exception.Unsupported):
        rig.submit(undelete.UndeleteVolume, volume_id=volume_id)


@pytest.mark.parametrize("when", ["before", "building", "after"])
def test_a_failure_leaves_the_storage_and_no_row(rig: Rig, when: str) -> None:
    rig.driver.put_foreign("legacy", GiB, DATA)
    rig.driver.faults.fail("manage_existing", exception.BackendDown(), when=when)
    operation = rig.do(manage_existing.ManageExisting, volume_id=new_id(), ref=REF)
    assert operation is not None and operation.state == "failed"
    assert rig.rows(models.volumes) == [] and rig.rows(models.objects) == []
    assert len(names(rig)) == 1
    assert violations(rig.database, rig.driver) == []


def test_a_kill_in_the_middle_is_finished_by_the_next_life(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def kill(name: str) -> None:
        if name == "manage_existing/take/after":
            raise Killed

    first = Rig(tmp_path, killpoint=kill)
    first.driver.put_foreign("legacy", GiB, DATA)
    with pytest.raises(Killed):
        first.do(manage_existing.ManageExisting, volume_id=new_id(), ref=REF)
    second = Rig(tmp_path)
    second.dispatcher.recover()
    second.run()
    assert [row["status"] for row in second.rows(models.volumes)] == ["available"]
    assert violations(second.database, second.driver) == []
    second.close()


def test_a_volume_and_its_snapshot_are_let_go_and_managed_again(rig: Rig) -> None:
    volume_id, snapshot_id = new_id(), new_id()
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=2)
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id, unmanage_only=True)
    ref = {"source-name": f"unmanaged-snapshot-{snapshot_id}"}
    assert ref["source-name"] in names(rig)
    again = new_id()
    operation = rig.do(manage_existing.ManageExistingSnapshot, snapshot_id=again, volume_id=volume_id, ref=ref)
    assert operation is not None and operation.state == "done", operation
    (row,) = rig.rows(models.snapshots)
    assert (row["id"], row["status"], row["volume_size"]) == (again, "available", 2)
    assert violations(rig.database, rig.driver) == []


def test_a_snapshot_of_a_volume_that_is_not_there(rig: Rig) -> None:
    with pytest.raises(exception.VolumeNotFound):
        rig.submit(manage_existing.ManageExistingSnapshot, snapshot_id=new_id(), volume_id=new_id(), ref=REF)

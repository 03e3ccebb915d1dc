# SPDX-License-Identifier: Apache-2.0
"""Backups over the real journal and the simulator: bytes, chains, restarts, failures, cancellations."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, names, types
from volmgr.backups import format as form
from volmgr.backups.stores import DEFAULT, Stores
from volmgr.db import models
from volmgr.operations import backups, snapshots, volumes
from volmgr.testing.backups import MemoryStore
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig
from volmgr.types import MiB

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


class Dead(BaseException):
    """The end of a worker's life."""


class Scene:
    """A rig with one volume, whose lives can end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stores = Stores({})
        self.store = MemoryStore()
        self.stores.add(DEFAULT, self.store)
        self.kill_at = ""
        self.rig = self.life()
        self.volume_id = new_id()
        self.do(volumes.CreateVolume, volume_id=self.volume_id, size=1)

    def life(self) -> Rig:
        self.rig = Rig(self.folder, stores=self.stores, killpoint=self._reach)
        self.rig.dispatcher.recover()
        return self.rig

    def _reach(self, name: str) -> None:
        if self.kill_at and name == self.kill_at:
            self.kill_at = ""
            raise Dead(name)

    def write(self, offset: int, data: bytes, volume_id: str = "") -> None:
        self.rig.driver.store.write(self.object_name(volume_id or self.volume_id), offset, data)

    def read(self, volume_id: str, offset: int, length: int) -> bytes:
        found: bytes = self.rig.driver.store.read(self.object_name(volume_id), offset, length)
        return found

    def object_name(self, volume_id: str) -> str:
        (row,) = self.rig.rows(models.volumes, id=volume_id)
        return names.object_name("volume", row["object_id"])

    def do(self, cls: Any, **arguments: Any) -> types.OperationRecord:
        record = self.rig.do(cls, **arguments)
        assert record is not None
        assert record.state == "done", record.error
        return record

    def backup(self, **arguments: Any) -> str:
        backup_id = new_id()
        self.do(backups.CreateBackup, backup_id=backup_id, volume_id=self.volume_id, **arguments)
        return backup_id

    def restored(self, backup_id: str) -> str:
        volume_id = new_id()
        self.do(volumes.CreateVolume, volume_id=volume_id, backup_id=backup_id)
        return volume_id

    def row(self, backup_id: str) -> dict[str, Any]:
        (row,) = self.rig.rows(models.backups, id=backup_id)
        return row

    def check(self) -> None:
        self.rig.run()
        assert violations(self.rig.database, self.rig.driver) == []
        known = {row["id"] for row in self.rig.rows(models.backups) if row["status"] == "available"}
        assert set(self.store.folders()) == known


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.check()
    made.rig.close()


def test_what_a_volume_had_comes_back(scene: Scene) -> None:
    scene.write(3 * MiB, b"first")
    full = scene.backup(name="monday", description="before")
    scene.write(3 * MiB, b"later")
    scene.write(900 * MiB, b"more")
    added = scene.backup(incremental=True)
    assert scene.row(added)["parent_id"] == full
    old, new = scene.restored(full), scene.restored(added)
    assert scene.read(old, 3 * MiB, 5) + scene.read(old, 900 * MiB, 4) == b"first\0\0\0\0"
    assert scene.read(new, 3 * MiB, 5) + scene.read(new, 900 * MiB, 4) == b"latermore"
    row = scene.row(full)
    assert (row["status"], row["size"], row["store"], row["host"]) == ("available", 1, DEFAULT, None)
    assert row["object_count"] == 2
    assert row["data_at"] is not None


def test_an_incremental_backup_moves_what_has_changed(scene: Scene) -> None:
    scene.write(0, b"a" * (20 * MiB))
    scene.backup()
    before = len(scene.store.puts)
    scene.write(5 * MiB + 1, b"b" * MiB)
    record = scene.do(
        backups.CreateBackup, backup_id=new_id(), volume_id=scene.volume_id, incremental=True
    )
    chunks = [name for name in scene.store.puts[before:] if "/chunks/" in name]
    assert len(chunks) == 2
    assert record.result["moved_bytes"] == sum(len(scene.store.objects[name]) for name in scene.store.puts[before:])


def test_a_backup_of_a_named_parent_and_of_a_snapshot(scene: Scene) -> None:
    scene.write(0, b"one")
    first = scene.backup()
    scene.backup(incremental=True)
    snapshot_id = new_id()
    scene.write(0, b"two")
    scene.do(snapshots.CreateSnapshot, volume_id=scene.volume_id, snapshot_id=snapshot_id)
    scene.write(0, b"six")
    third = scene.backup(snapshot_id=snapshot_id, parent_id=first)
    assert scene.row(third)["parent_id"] == first
    assert scene.read(scene.restored(third), 0, 3) == b"two"


def test_a_volume_in_use_is_backed_up_as_of_one_instant(scene: Scene) -> None:
    scene.write(0, b"then")
    scene.rig.attachments.attach(scene.volume_id, new_id(), None, None, "rw", new_id())
    driver, seen = scene.rig.driver, []

    def later() -> None:
        (row,) = scene.rig.rows(models.volumes, id=scene.volume_id)
        seen.append(row["status"])
        scene.write(0, b"now!")

    driver.faults.kill("backup_volume", hook=later)
    backup_id = scene.backup()
    assert seen == ["backing-up"]
    assert scene.read(scene.restored(backup_id), 0, 4) == b"then"
    (row,) = scene.rig.rows(models.volumes, id=scene.volume_id)
    assert row["status"] == "in-use"
    assert not scene.rig.rows(models.objects, kind="snapshot")


def test_a_restore_leaves_no_byte_of_before(scene: Scene) -> None:
    scene.write(2 * MiB, b"kept")
    backup_id = scene.backup()
    scene.do(volumes.ExtendVolume, volume_id=scene.volume_id, new_size=2)
    for offset in (0, 2 * MiB, 5 * MiB - 2, 1024 * MiB, 2048 * MiB - 3):
        scene.write(offset, b"old")
    serial = scene.rig.rows(models.objects, resource_id=scene.volume_id)[0]["serial"]
    scene.do(backups.RestoreBackup, backup_id=backup_id, volume_id=scene.volume_id)
    assert scene.read(scene.volume_id, 2 * MiB, 4) == b"kept"
    for offset in (0, 5 * MiB - 2, 1024 * MiB, 2048 * MiB - 3):
        assert scene.read(scene.volume_id, offset, 3) == b"\0\0\0", offset
    assert scene.rig.rows(models.objects, resource_id=scene.volume_id)[0]["serial"] == serial


@pytest.mark.parametrize("step", ["before", "after"])
@pytest.mark.parametrize("point", ["snapshot", "copy", "discard-*"])
def test_a_backup_whose_worker_dies_is_finished(scene: Scene, point: str, step: str) -> None:
    scene.write(0, b"x" * MiB)
    backup_id = new_id()

    def reach(name: str) -> None:
        verb, at, when = name.split("/")
        if verb == "create_backup" and at.split("-")[0] == point.split("-")[0] and when == step:
            raise Dead(name)

    scene.rig.dispatcher.runner.killpoint = reach
    scene.rig.submit(backups.CreateBackup, backup_id=backup_id, volume_id=scene.volume_id)
    with pytest.raises(Dead):
        scene.rig.run()
    scene.life().run()
    assert scene.row(backup_id)["status"] == "available"
    assert scene.read(scene.restored(backup_id), 0, MiB) == b"x" * MiB


def dies_at(scene: Scene, verb: str, number: int) -> Callable[[str], None]:
    """Let the store's worker die before the n-th call of a method."""
    calls = [0]

    def reach(method: str) -> None:
        calls[0] += method == verb
        if calls[0] == number and method == verb:
            scene.store.reach = lambda _method: None
            raise Dead(method)

    return reach


def test_a_restart_in_the_middle_goes_on_behind_the_last_whole_chunk(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volmgr.tasks.PROGRESS_INTERVAL", 0.0)
    scene.write(0, b"".join(bytes([number]) * (2 * MiB) for number in range(1, 9)))
    backup_id = new_id()
    scene.rig.submit(backups.CreateBackup, backup_id=backup_id, volume_id=scene.volume_id)
    scene.store.reach = dies_at(scene, "put", 6)
    with pytest.raises(Dead):
        scene.rig.run()
    reads: list[int] = []
    driver = scene.life().driver
    read = driver.store.read

    def seen(name: str, offset: int, length: int) -> bytes:
        reads.append(offset)
        found: bytes = read(name, offset, length)
        return found

    monkeypatch.setattr(driver.store, "read", seen)
    scene.rig.run()
    monkeypatch.undo()
    chunks = [name for name in scene.store.puts if "/chunks/" in name]
    assert len(chunks) == len(set(chunks)) == 8
    assert reads == [offset * 2 * MiB for offset in range(4, 8)]
    assert scene.row(backup_id)["status"] == "available"
    assert scene.read(scene.restored(backup_id), 15 * MiB, 3) == b"\x08\x08\x08"


def test_a_restore_whose_worker_dies_is_finished(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volmgr.backups.copying.SYNC_BYTES", 1)
    monkeypatch.setattr("volmgr.tasks.PROGRESS_INTERVAL", 0.0)
    scene.write(0, b"y" * (8 * MiB))
    backup_id = scene.backup()
    scene.write(0, b"z" * (12 * MiB))
    scene.rig.submit(backups.RestoreBackup, backup_id=backup_id, volume_id=scene.volume_id)
    gets: list[str] = []
    scene.store.reach = dies_at(scene, "get", 6)
    with pytest.raises(Dead):
        scene.rig.run()
    scene.store.reach = gets.append
    scene.life().run()
    assert gets.count("get") < 7
    assert scene.read(scene.volume_id, 0, 8 * MiB) == b"y" * (8 * MiB)
    assert scene.read(scene.volume_id, 8 * MiB, 4 * MiB) == bytes(4 * MiB)


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_backup_that_fails_leaves_nothing_in_the_store(scene: Scene) -> None:
    scene.write(0, b"x")
    backup_id = new_id()
    scene.rig.driver.faults.fail("backup_volume", exception.NoSpace("full"), when="after")
    record = scene.rig.do(backups.CreateBackup, backup_id=backup_id, volume_id=scene.volume_id)
    assert record is not None and record.state == "failed"
    assert scene.row(backup_id)["status"] == "error"
    assert scene.store.folders() == []
    (row,) = scene.rig.rows(models.volumes, id=scene.volume_id)
    assert row["status"] == "available"
    scene.do(backups.DeleteBackup, backup_id=backup_id)
    assert scene.rig.rows(models.backups) == []


def test_a_cancelled_backup_was_never_there(scene: Scene) -> None:
    scene.write(0, b"x" * (6 * MiB))
    answer = scene.rig.submit(backups.CreateBackup, backup_id=new_id(), volume_id=scene.volume_id)
    calls = [0]

    def reach(method: str) -> None:
        calls[0] += method == "put"
        if calls[0] == 2:
            scene.rig.dispatcher.cancel(answer["operation_id"])

    scene.store.reach = reach
    scene.rig.run()
    record = scene.rig.dispatcher.get(answer["operation_id"])
    assert record.error is not None and record.error["code"] == "volmgr.cancelled"
    assert scene.rig.rows(models.backups) == []
    assert scene.store.folders() == []


def test_a_restore_that_fails_says_so_and_can_be_done_again(scene: Scene) -> None:
    scene.write(0, b"good" * MiB)
    backup_id = scene.backup()
    name = next(name for name in scene.store.objects if "/chunks/" in name)
    whole, scene.store.objects[name] = scene.store.objects[name], b"rotten"
    record = scene.rig.do(backups.RestoreBackup, backup_id=backup_id, volume_id=scene.volume_id)
    assert record is not None and record.error is not None
    assert record.error["code"] == "volmgr.inconsistent"
    assert "may have a part" in record.error["hint"]
    (row,) = scene.rig.rows(models.volumes, id=scene.volume_id)
    assert row["status"] == "error"
    assert scene.row(backup_id)["status"] == "available"
    scene.store.objects[name] = whole
    scene.do(backups.RestoreBackup, backup_id=backup_id, volume_id=scene.volume_id)
    assert scene.read(scene.volume_id, 0, 4) == b"good"


def test_a_volume_made_from_a_damaged_backup_is_in_error_and_has_nothing(scene: Scene) -> None:
    scene.write(0, b"good")
    backup_id, volume_id = scene.backup(), new_id()
    scene.store.objects[form.index_name(backup_id, 0)] = b"rotten"
    record = scene.rig.do(volumes.CreateVolume, volume_id=volume_id, backup_id=backup_id)
    assert record is not None and record.state == "failed"
    (row,) = scene.rig.rows(models.volumes, id=volume_id)
    assert row["status"] == "error"


def test_what_others_were_made_against_is_not_deleted(scene: Scene) -> None:
    scene.write(0, b"x")
    first = scene.backup()
    second = scene.backup(incremental=True)
    with pytest.raises(exception.BackupHasDependants, match=second):
        scene.rig.submit(backups.DeleteBackup, backup_id=first)
    scene.do(backups.DeleteBackup, backup_id=second)
    scene.do(backups.DeleteBackup, backup_id=first)
    assert scene.store.folders() == []
    assert scene.rig.submit(backups.DeleteBackup, backup_id=first)["result"]["unchanged"]


def test_requests_that_make_no_sense_change_nothing(scene: Scene) -> None:
    backup_id = scene.backup()
    other = new_id()
    scene.do(volumes.CreateVolume, volume_id=other, size=1)
    large = new_id()
    scene.do(volumes.ExtendVolume, volume_id=scene.volume_id, new_size=2)
    bigger = scene.backup()
    before = scene.rig.rows(models.backups)
    for arguments, error in (
        ({"volume_id": other, "incremental": True}, exception.Invalid),
        ({"volume_id": other, "parent_id": backup_id}, exception.Invalid),
        ({"volume_id": scene.volume_id, "parent_id": new_id()}, exception.BackupNotFound),
        ({"volume_id": scene.volume_id, "store": "absent"}, exception.Invalid),
        ({"volume_id": new_id()}, exception.VolumeNotFound),
        ({"volume_id": scene.volume_id, "snapshot_id": new_id()}, exception.SnapshotNotFound),
    ):
        with pytest.raises(error):
            scene.rig.submit(backups.CreateBackup, backup_id=new_id(), **arguments)
    with pytest.raises(exception.Invalid, match="needs 2"):
        scene.rig.submit(backups.RestoreBackup, backup_id=bigger, volume_id=other)
    with pytest.raises(exception.Invalid, match="at least"):
        scene.rig.submit(volumes.CreateVolume, volume_id=large, backup_id=bigger, size=1)
    scene.rig.attachments.initialize("volume", other, CONNECTOR)
    with pytest.raises(exception.VolumeAttached):
        scene.rig.submit(backups.RestoreBackup, backup_id=backup_id, volume_id=other)
    assert scene.rig.rows(models.backups) == before


def test_a_project_has_as_many_backups_as_its_quota_allows(tmp_path: Path) -> None:
    rig = Rig(tmp_path, quota={"volumes": -1, "snapshots": -1, "gigabytes": -1, "backups": 2, "backup_gigabytes": 5})
    small, large = new_id(), new_id()
    rig.do(volumes.CreateVolume, volume_id=small, size=1)
    rig.do(volumes.CreateVolume, volume_id=large, size=5)
    rig.do(backups.CreateBackup, backup_id=new_id(), volume_id=small)
    with pytest.raises(exception.QuotaExceeded, match="backup_gigabytes"):
        rig.submit(backups.CreateBackup, backup_id=new_id(), volume_id=large)
    rig.do(backups.CreateBackup, backup_id=new_id(), volume_id=small)
    with pytest.raises(exception.QuotaExceeded, match="for backups"):
        rig.submit(backups.CreateBackup, backup_id=new_id(), volume_id=small)
    rig.do(backups.DeleteBackup, backup_id=rig.rows(models.backups)[0]["id"])
    rig.do(backups.CreateBackup, backup_id=new_id(), volume_id=small)
    assert violations(rig.database, rig.driver) == []
    rig.close()


def test_another_store_in_the_place_of_a_backups_own_is_noticed(scene: Scene) -> None:
    backup_id = scene.backup()
    other = MemoryStore()
    scene.stores.add(DEFAULT, other)
    record = scene.rig.do(backups.DeleteBackup, backup_id=backup_id)
    assert record is not None and record.error is not None
    assert "not the store" in record.error["message"]
    scene.stores.add(DEFAULT, scene.store)
    scene.do(backups.DeleteBackup, backup_id=backup_id)


def snapshot_of(scene: Scene, snapshot_id: str | None = None) -> str:
    made = snapshot_id or new_id()
    scene.do(snapshots.CreateSnapshot, volume_id=scene.volume_id, snapshot_id=made)
    return made


def test_only_what_has_changed_is_read_while_the_parents_snapshot_is_there(scene: Scene) -> None:
    scene.write(0, b"a" * (20 * MiB))
    monday = snapshot_of(scene)
    scene.backup(snapshot_id=monday)
    scene.write(5 * MiB + 1, b"b" * MiB)
    tuesday = new_id()
    done = scene.do(
        backups.CreateBackup, backup_id=tuesday, volume_id=scene.volume_id, snapshot_id=snapshot_of(scene),
        incremental=True,
    )
    assert (done.result["read_bytes"], scene.row(tuesday)["status"]) == (4 * MiB, "available")
    copy = scene.restored(tuesday)
    assert scene.read(copy, 4 * MiB, 3 * MiB) == b"a" * (MiB + 1) + b"b" * MiB + b"a" * (MiB - 1)
    # Of the volume itself it is the same; and the snapshot is free again.
    scene.backup(snapshot_id=monday)
    latest = scene.do(backups.CreateBackup, backup_id=new_id(), volume_id=scene.volume_id, incremental=True)
    assert latest.result["read_bytes"] == 4 * MiB
    scene.do(snapshots.DeleteSnapshot, snapshot_id=monday)


@pytest.mark.parametrize("again", [False, True])
def test_without_the_parents_snapshot_all_is_read(scene: Scene, again: bool) -> None:
    """Another one under the same id is not that snapshot."""
    scene.write(0, b"a" * (20 * MiB))
    monday = snapshot_of(scene)
    scene.backup(snapshot_id=monday)
    scene.write(0, b"b" * MiB)
    scene.do(snapshots.DeleteSnapshot, snapshot_id=monday)
    scene.rig.run()
    if again:
        snapshot_of(scene, monday)
    scene.write(10 * MiB, b"c")
    latest = new_id()
    done = scene.do(backups.CreateBackup, backup_id=latest, volume_id=scene.volume_id, incremental=True)
    assert done.result["read_bytes"] == 20 * MiB
    copy = scene.restored(latest)
    assert scene.read(copy, 0, 1) + scene.read(copy, 10 * MiB, 1) == b"bc"

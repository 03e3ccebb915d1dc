# SPDX-License-Identifier: Apache-2.0
"""Incremental backups of thin volumes: only the blocks that the pool's metadata calls different are read."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr.backups.copying import BackupService, Reader
from volmgr.backups.directory import DirectoryStore
from volmgr.backups.format import Manifest
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.lab.lvm_factories import GROUP, LvmThin
from volmgr.tools import lvm_dm
from volmgr.types import Backup, MiB, Snapshot, Volume

MATRIX_DRIVER = "lvm-thin"
#: 10 MiB that begin and end in the middle of chunks, which have 2 MiB.
CHANGE, AT = 10 * MiB, 5 * MiB + 4096
MOST = 16 * MiB


@pytest.fixture(scope="module")
def driver(nothing_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("backups")
    factory = LvmThin(None, state_path=str(folder))
    with factory.world(folder, neighbour=False):
        made = factory.make(folder)
        yield made
        factory.end(made, folder)


class Scene:
    """A volume with 24 MiB of data, a snapshot of it, its backup, and a second snapshot after a change."""

    def __init__(self, driver: Any, folder: Path) -> None:
        rng = random.Random(7)
        folder.mkdir()
        self.driver, self.store = driver, DirectoryStore(str(folder))
        self.volume = Volume(id=str(uuid.uuid4()), size=1)
        driver.create_volume(self.volume)
        self.path = Path(driver.local_path(self.volume))
        write_device(self.path, rng.randbytes(24 * MiB))
        self.first = self.snapshot()
        self.parent = self.backup(self.first).manifest
        write_device(self.path, rng.randbytes(CHANGE), offset=AT)
        self.second = self.snapshot()

    def snapshot(self) -> Snapshot:
        made = Snapshot(id=str(uuid.uuid4()), volume_id=self.volume.id, volume_size=1, volume=self.volume)
        self.driver.create_snapshot(made)
        return made

    def backup(self, source: Snapshot, base: Snapshot | None = None) -> BackupService:
        backup_id = str(uuid.uuid4())
        draft = Manifest(backup_id, {"id": self.volume.id}, source.size_bytes, (backup_id,))
        service = BackupService(self.store, draft, self.parent if base is not None else None)
        backup = Backup(backup_id, self.volume.id, 1, "store", source=source, base=base)
        self.driver.backup_volume(None, backup, service)
        return service

    def check(self, made: BackupService, folder: Path) -> None:
        """Compare what is restored with what the second snapshot has."""
        target = folder / "restored"
        assert made.manifest is not None
        with target.open("w+b") as file:
            file.truncate(made.manifest.size_bytes)
            Reader(self.store, made.manifest).restore(file, made.manifest.size_bytes, blank=True)
        wanted = read_device(Path(self.driver.local_path(self.second)), 26 * MiB)
        with target.open("rb") as file:
            assert file.read(26 * MiB) == wanted

    def end(self) -> None:
        for snapshot in (self.first, self.second):
            self.driver.delete_snapshot(snapshot)
        self.driver.delete_volume(self.volume)


@pytest.fixture
def scene(driver: Any, tmp_path: Path) -> Iterator[Scene]:
    made = Scene(driver, tmp_path / "store")
    yield made
    made.end()


def sectors_read(path: str) -> int:
    """Return how many sectors of a device have been read (Documentation/block/stat.rst, third field)."""
    name = os.path.basename(os.path.realpath(path))
    return int(Path("/sys/block", name, "stat").read_text().split()[2])


def frozen(driver: Any) -> bool:
    """Return whether the pool's metadata is frozen for somebody: the seventh field of its status says where."""
    pool = lvm_dm.pool_device(GROUP, driver.pool)
    return run("dmsetup", "status", pool).split()[6] != "-"


def test_a_change_of_ten_mebibytes_reads_and_moves_little(scene: Scene, tmp_path: Path) -> None:
    path = scene.driver.local_path(scene.second)
    before = sectors_read(path)
    made = scene.backup(scene.second, scene.first)
    read = (sectors_read(path) - before) * 512
    assert CHANGE <= made.moved_bytes <= MOST
    assert CHANGE <= read <= MOST
    assert made.read_bytes <= MOST
    assert not frozen(scene.driver)
    scene.check(made, tmp_path)


def test_metadata_that_is_frozen_already_is_let_go_only_if_we_froze_it(scene: Scene, tmp_path: Path) -> None:
    driver = scene.driver
    pool = lvm_dm.pool_device(GROUP, driver.pool)
    run("dmsetup", "message", pool, "0", "reserve_metadata_snap")
    made = scene.backup(scene.second, scene.first)
    assert made.read_bytes > 20 * MiB, "it was read although nothing was known"
    assert made.moved_bytes <= MOST
    assert frozen(driver), "somebody else's was let go"
    scene.check(made, tmp_path)
    # A life of ours that ended in the middle has left a note.
    note = Path(driver.configuration.state_path) / "thin-metadata" / f"{GROUP}-{driver.pool}"
    note.touch()
    assert scene.backup(scene.second, scene.first).read_bytes <= MOST
    assert not frozen(driver) and not note.exists()

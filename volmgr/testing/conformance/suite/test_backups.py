# SPDX-License-Identifier: Apache-2.0
"""Conformance: a driver's bytes go into a backup store and come back, whatever its volumes are. Knows no driver."""

from __future__ import annotations

import dataclasses
import uuid

import pytest

from volmgr import exception
from volmgr.backups.copying import BackupService
from volmgr.backups.format import CHUNK, Manifest
from volmgr.testing.backups import MemoryStore
from volmgr.testing.conformance.bench import Bench
from volmgr.testing.conformance.suite.test_volumes import DATA
from volmgr.types import Backup, GiB, Snapshot, Volume

OLD = b"of a tenant before"


def back_up(bench: Bench, store: MemoryStore, source: Snapshot, parent: Manifest | None = None) -> Manifest:
    """Let the driver back a snapshot up."""
    backup = Backup(str(uuid.uuid4()), source.volume_id, source.size, "memory", source=source)
    draft = Manifest(backup.id, {}, source.size_bytes, (backup.id,))
    service = BackupService(store, draft, parent)
    bench.driver.backup_volume(None, backup, service)
    assert service.manifest is not None
    return service.manifest


def restore(bench: Bench, store: MemoryStore, made: Manifest, volume: Volume, *, blank: bool = False) -> None:
    """Let the driver restore a backup."""
    backup = Backup(made.id, volume.id, volume.size, "memory")
    service = BackupService(store, blank=blank, size_bytes=volume.size_bytes)
    bench.driver.restore_backup(None, backup, volume, service)


class TestBackups:
    def test_what_a_snapshot_has_comes_back(self, bench: Bench) -> None:
        bench.need("create_snapshot", "backup_volume", "restore_backup", "local_path")
        volume, store = bench.created(data=DATA, offset=3 * CHUNK - 4), MemoryStore()
        first = bench.snapped(volume)
        bench.write(volume, 0, OLD)
        full = back_up(bench, store, first)
        second = bench.snapped(volume)
        added = back_up(bench, store, second, full)
        assert added.object_count == 2, "one chunk has changed, and its index"
        new = bench.created()
        restore(bench, store, full, new, blank=True)
        assert bench.read(new, 3 * CHUNK - 4, len(DATA)) == DATA
        assert bench.read(new, 0, len(OLD)) == bytes(len(OLD))
        restore(bench, store, added, new)
        assert bench.read(new, 0, len(OLD)) == OLD
        assert bench.read(new, 3 * CHUNK - 4, len(DATA)) == DATA

    def test_nothing_of_before_is_left(self, bench: Bench) -> None:
        bench.need("create_snapshot", "backup_volume", "restore_backup", "local_path")
        volume, store = bench.created(data=DATA), MemoryStore()
        made = back_up(bench, store, bench.snapped(volume))
        target = bench.created(2)
        places = (0, CHUNK - 5, 7 * CHUNK + 4096, GiB - len(OLD), GiB, 2 * GiB - len(OLD))
        for place in places:
            bench.write(target, place, OLD)
        restore(bench, store, made, target)
        assert bench.read(target, 0, len(DATA)) == DATA
        for place in places[1:]:
            assert bench.read(target, place, len(OLD)) == bytes(len(OLD)), place

    def test_what_is_not_there_is_neither_read_nor_written(self, bench: Bench) -> None:
        bench.need("create_snapshot", "backup_volume", "restore_backup", "local_path")
        volume, store = bench.created(), MemoryStore()
        made = back_up(bench, store, bench.snapped(volume))
        with pytest.raises(exception.NotFound):
            back_up(bench, store, dataclasses.replace(bench.snapshot(volume)))
        with pytest.raises(exception.NotFound):
            restore(bench, store, made, bench.volume())
        device, is_snapshot = bench.driver.get_backup_device(None, Backup("b", "v", 1, "s", source=volume))
        assert (device, is_snapshot) == (volume, False)

# SPDX-License-Identifier: Apache-2.0
"""Bytes into a store and out again: full, against a parent, broken off, damaged."""

from __future__ import annotations

import io
import json
import os
import random
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from volmgr import exception
from volmgr.backups import format as form
from volmgr.backups.copying import Reader, Writer, manifest_of, remove
from volmgr.backups.directory import DirectoryStore
from volmgr.backups.format import Manifest
from volmgr.backups.store import BackupStore
from volmgr.drivers import progress
from volmgr.testing.backups import MemoryStore
from volmgr.types import MiB

#: nothing of it waits for anybody, so that one kind of threads is enough.
pytestmark = pytest.mark.once


class Memory:
    """A journal's memory, written every few reports; ``stop_at`` reports end the work like a death does."""

    def __init__(self, stop_at: int = 0, every: int = 1) -> None:
        self.checkpoints: dict[str, Any] = {}
        self._left = stop_at
        self._every = every
        self._reports = 0
        self._kept: dict[str, Any] = {}

    def keep(self, **data: Any) -> None:
        self._kept |= data

    def report(self, _fraction: float) -> None:
        self._reports += 1
        if self._reports % self._every == 0:
            self.checkpoints = json.loads(json.dumps(self._kept))
        self._left -= 1
        if self._left == 0:
            raise exception.Cancelled


def draft(size: int, backup_id: str = "", **values: Any) -> Manifest:
    backup_id = backup_id or str(uuid.uuid4())
    return Manifest(backup_id, {}, size, (backup_id,), **values)


def small(size: int, backup_id: str = "") -> Manifest:
    return draft(size, backup_id, chunk_bytes=16, segment_chunks=4)


def restored(store: BackupStore, manifest: Manifest, size: int, before: bytes = b"\xee") -> bytes:
    target = io.BytesIO((before * size)[:size])
    Reader(store, manifest_of(store, manifest.id)).restore(target, size, blank=before == b"\0")
    return target.getvalue()


def file_of(path: Path, size: int, data: Mapping[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, part in data.items():
            file.seek(offset)
            file.write(part)
    return path


PARTS = [b"\0" * 16, b"a" * 16, b"b" * 16, b"\0" * 15 + b"c"]


@given(st.lists(st.sampled_from(PARTS), max_size=14), st.binary(max_size=15))
def test_what_goes_in_comes_out(parts: list[bytes], tail: bytes) -> None:
    data = b"".join(parts) + tail
    store = MemoryStore()
    made = Writer(store, small(len(data))).write(io.BytesIO(data))
    assert restored(store, made, len(data) + 7) == data + bytes(7)
    assert restored(store, made, len(data) + 7, b"\0") == data + bytes(7)
    assert made.stored_bytes + len(store.get(form.manifest_name(made.id))) == sum(map(len, store.objects.values()))
    assert made.object_count + 1 == len(store.objects)


@given(st.lists(st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=40)), max_size=4), max_size=5))
def test_every_backup_of_a_chain_has_the_bytes_of_its_time(changes: list[list[tuple[int, bytes]]]) -> None:
    store, data, parent, made = MemoryStore(), bytearray(200), None, []
    for change in changes:
        for offset, part in change:
            data[offset : offset + len(part)] = part
        parent = Writer(store, small(len(data)), parent).write(io.BytesIO(bytes(data)))
        made.append((parent, bytes(data)))
    for manifest, then in made:
        assert restored(store, manifest, len(then)) == then


@settings(max_examples=40)
@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 2**32))
def test_a_backup_that_was_broken_off_goes_on_and_puts_no_chunk_twice(stop_at: int, every: int, seed: int) -> None:
    rng, store = random.Random(seed), MemoryStore()
    old = b"".join(rng.choice([b"\0" * 16, rng.randbytes(16)]) for _ in range(14))
    parent = Writer(store, small(len(old))).write(io.BytesIO(old))
    data = bytearray(old)
    for _ in range(4):
        data[rng.randrange(len(data))] ^= 1
    first, memory = small(len(data)), Memory(stop_at, every)
    try:
        with progress.reporting(memory.report, memory):
            whole = Writer(store, first, parent).write(io.BytesIO(bytes(data)))
    except exception.Cancelled:
        assert form.manifest_name(first.id) not in store.objects
        with progress.reporting(memory.report, memory):
            whole = Writer(store, first, parent).write(io.BytesIO(bytes(data)))
    assert restored(store, whole, len(data)) == data
    chunks = [name for name in store.puts if "/chunks/" in name]
    assert len(chunks) == len(set(chunks))
    own = [item for item in store.list_objects(whole.id) if item.name != form.manifest_name(whole.id)]
    assert (whole.object_count, whole.stored_bytes) == (len(own), sum(item.size for item in own))


def test_a_run_over_other_bytes_leaves_nothing_of_the_run_before() -> None:
    store, memory, first = MemoryStore(), Memory(3), small(96)
    with pytest.raises(exception.Cancelled), progress.reporting(memory.report, memory):
        Writer(store, first).write(io.BytesIO(b"x" * 96))
    whole = Writer(store, first).write(io.BytesIO(b"y" * 96))
    assert restored(store, whole, 96) == b"y" * 96
    assert len(list(store.list_objects(first.id))) == whole.object_count + 1


def test_a_restore_that_was_broken_off_goes_on_behind_what_is_safe() -> None:
    store, data = MemoryStore(), random.Random(1).randbytes(200)
    made = Writer(store, small(len(data))).write(io.BytesIO(data))
    target, memory = io.BytesIO(b"\xee" * 200), Memory(7)
    with pytest.raises(exception.Cancelled), progress.reporting(memory.report, memory):
        Reader(store, made).restore(target, 200)
    reader = Reader(store, made)
    with progress.reporting(memory.report, memory):
        reader.restore(target, 200)
    assert target.getvalue() == data
    assert reader.moved.objects == 13 - 4


def test_a_backup_that_goes_on_removes_what_a_write_has_left(tmp_path: Path) -> None:
    store, first = DirectoryStore(str(tmp_path)), small(64)
    left = tmp_path / first.id / "chunks" / "000000" / ".part-left"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    Writer(store, first).write(io.BytesIO(b"x" * 64))
    assert not left.exists()


def test_ten_changed_mebibytes_move_at_most_sixteen(tmp_path: Path) -> None:
    """The worst place: the change begins and ends in the middle of chunks, and nothing of it can be compressed."""
    rng, size = random.Random(2), 64 * MiB
    path = file_of(tmp_path / "volume", size, {0: rng.randbytes(40 * MiB)})
    (tmp_path / "store").mkdir()
    store = DirectoryStore(str(tmp_path / "store"))
    with path.open("rb") as file:
        parent = Writer(store, draft(size)).write(file)
    with path.open("r+b") as file:
        file.seek(5 * MiB + 4096)
        file.write(rng.randbytes(10 * MiB))
    with path.open("rb") as file:
        writer = Writer(store, draft(size), parent)
        made = writer.write(file)
    assert 10 * MiB <= writer.moved.bytes <= 16 * MiB
    assert sum(item.size for item in store.list_objects(made.id)) == writer.moved.bytes
    target = file_of(tmp_path / "target", size, {0: b"\xee" * size})
    with target.open("r+b") as file:
        Reader(store, manifest_of(store, made.id)).restore(file, size)
    assert target.read_bytes() == path.read_bytes()
    assert os.stat(target).st_blocks * 512 < 50 * MiB, "the holes were not made"


def test_holes_are_neither_read_nor_stored(tmp_path: Path) -> None:
    size, store = 4096 * MiB, MemoryStore()
    path = file_of(tmp_path / "volume", size, {3 * MiB: b"here", size - 10: b"end"})
    with path.open("rb") as file:
        made = Writer(store, draft(size)).write(file)
    assert len([name for name in store.objects if "/chunks/" in name]) == 2
    assert made.segments.count(None) == 2
    target = file_of(tmp_path / "target", size, {5 * MiB: b"old"})
    with target.open("r+b") as file:
        Reader(store, made).restore(file, size)
    with target.open("rb") as file:
        for offset, wanted in ((3 * MiB, b"here"), (5 * MiB, b"\0\0\0"), (size - 10, b"end")):
            file.seek(offset)
            assert file.read(len(wanted)) == wanted


@pytest.mark.parametrize("kind", ["chunks", "index", "manifest"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "other", "empty"])
def test_damage_is_found_before_it_is_written(kind: str, damage: str) -> None:
    store, data = MemoryStore(), random.Random(3).randbytes(64)
    made = Writer(store, small(64)).write(io.BytesIO(data))
    name = next(name for name in store.objects if f"/{kind}" in name)
    found = store.objects[name]
    changed = {
        "flip": found[:-2] + bytes([found[-2] ^ 1]) + found[-1:],
        "cut": found[:-3],
        "other": zstandard.ZstdCompressor().compress(b"z" * 16),
        "empty": b"",
    }
    if damage == "gone":
        del store.objects[name]
    else:
        store.objects[name] = changed[damage]
    target = io.BytesIO(b"\xee" * 64)
    with pytest.raises((exception.Inconsistent, exception.BackupNotFound)):
        Reader(store, manifest_of(store, made.id)).restore(target, 64)
    for start in range(0, 64, 16):
        assert target.getvalue()[start : start + 16] in (b"\xee" * 16, data[start : start + 16])


def test_an_object_cannot_fill_the_memory() -> None:
    store = MemoryStore()
    made = Writer(store, small(16)).write(io.BytesIO(b"x" * 16))
    name = next(name for name in store.objects if "/chunks/" in name)
    store.objects[name] = zstandard.ZstdCompressor().compress(bytes(256 * MiB))
    with pytest.raises(exception.Inconsistent, match="says that it has"):
        Reader(store, made).restore(io.BytesIO(bytes(16)), 16)


@pytest.mark.parametrize(
    "change",
    [
        {"holders": ["../../etc"]}, {"chunk_bytes": 2**40}, {"chunk_bytes": 0}, {"segments": []}, {"size_bytes": -1},
        {"segments": ["x"]}, {"id": str(uuid.UUID(int=1))}, {"format": "tar"}, {"holders": None}, {"size_bytes": "9"},
    ],
)
def test_a_manifest_with_a_right_checksum_is_not_believed_either(change: dict[str, Any]) -> None:
    manifest = Writer(MemoryStore(), small(16)).write(io.BytesIO(b"x" * 16))
    content = json.loads(manifest.to_bytes())
    content.pop("sha256")
    content |= change
    forged = json.dumps({**content, "sha256": form._digest_of(content)}).encode()
    with pytest.raises(exception.Inconsistent):
        Manifest.from_bytes(forged, manifest.id)


def test_a_newer_format_is_not_guessed_at() -> None:
    manifest = small(16)
    content = json.loads(manifest.to_bytes()) | {"version": 2}
    with pytest.raises(exception.Unsupported):
        Manifest.from_bytes(json.dumps(content).encode(), manifest.id)


def test_a_removed_backup_is_never_half_whole() -> None:
    store, removed = MemoryStore(), []
    made = Writer(store, small(64)).write(io.BytesIO(b"x" * 64))
    other = Writer(store, small(64)).write(io.BytesIO(b"x" * 64))
    delete = store.delete
    store.delete = lambda names: delete([removed.append(name) or name for name in names])  # type: ignore[method-assign,func-returns-value]
    remove(store, made.id)
    assert removed[0] == form.manifest_name(made.id)
    assert store.folders() == [other.id]
    assert restored(store, other, 64) == b"x" * 64


def test_where_no_holes_can_be_made_only_what_is_no_zero_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a thin volume: zeros that are written take space that what was never written does not have."""
    monkeypatch.setattr("volmgr.backups.device.punch", lambda *_: False)
    size, store = 64 * MiB, MemoryStore()
    empty = file_of(tmp_path / "volume", size, {})
    with empty.open("rb") as file:
        made = Writer(store, draft(size)).write(file)
    target = file_of(tmp_path / "target", 2 * size, {5 * MiB + 7: b"old", 2 * size - 3: b"old"})
    before = os.stat(target).st_blocks
    with target.open("r+b") as file:
        Reader(store, made).restore(file, 2 * size)
    assert target.read_bytes() == bytes(2 * size)
    assert os.stat(target).st_blocks <= before + 2 * MiB // 512


def test_a_device_that_fails_is_a_typed_error() -> None:
    store = MemoryStore()
    made = Writer(store, draft(MiB)).write(io.BytesIO(b"x" * MiB))
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(exception.NoSpace, match="cannot be written"):
        Reader(store, made).restore(full, MiB)
    with open(os.devnull, "rb", buffering=0) as empty, pytest.raises(exception.Inconsistent, match="after 0 bytes"):
        Writer(store, draft(MiB)).write(empty)

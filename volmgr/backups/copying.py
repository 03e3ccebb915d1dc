# SPDX-License-Identifier: Apache-2.0
"""Bytes into a store and out of it. It tells how far it is, keeps that for a later run, and stops when told to.

All of that goes by :mod:`volmgr.drivers.progress`, so the same code runs inside an operation, where a restart goes on
behind the last whole chunk, and inside a command that has neither daemon nor database.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

from volmgr import exception
from volmgr.backups import format as form
from volmgr.backups.device import Sink, Source, sink_of, source_of
from volmgr.backups.format import Chunk, Entry, Manifest
from volmgr.backups.store import BackupStore
from volmgr.drivers import progress
from volmgr.types import MiB

LOG = logging.getLogger(__name__)

_WRITTEN, _RESTORED = "backup", "restored"
#: after so many bytes a restored volume is flushed and what was reached is kept for a later run.
SYNC_BYTES = 64 * MiB
#: objects that are removed between two reports.
REMOVE_BATCH = 1000


@dataclass
class Moved:
    """What went over the wire: objects and bytes, the manifest and the indexes with them."""

    objects: int = 0
    bytes: int = 0


def manifest_of(store: BackupStore, backup_id: str) -> Manifest:
    """Return the manifest of a whole backup.

    :raises BackupNotFound: the store has none of that id, or it is not whole.
    """
    try:
        data = store.get(form.manifest_name(backup_id))
    except exception.NotFound as error:
        raise exception.BackupNotFound(
            f"The store has no whole backup {backup_id}", hint="List what it has: volmgr store list URL",
            id=backup_id,
        ) from error
    return Manifest.from_bytes(data, backup_id)


def remove(store: BackupStore, backup_id: str) -> None:
    """Remove all that a store has of a backup; from its first moment on it cannot be taken for a whole one."""
    store.delete([form.manifest_name(backup_id)])
    left = [item.name for item in store.list_objects(backup_id)]
    for start in range(0, len(left), REMOVE_BATCH):
        progress.report(start / len(left))
        store.delete(left[start : start + REMOVE_BATCH])


class Writer:
    """Makes one backup.

    :param draft: its manifest, but for what only the bytes can tell. :param parent: what it is made against.
    :param level: of the compression, 1 to 19.
    """

    def __init__(self, store: BackupStore, draft: Manifest, parent: Manifest | None = None, level: int = 3) -> None:
        if parent is not None:
            draft = dataclasses.replace(
                draft,
                parent_id=parent.id,
                holders=(*parent.holders, draft.id),
                chunk_bytes=parent.chunk_bytes,
                segment_chunks=parent.segment_chunks,
            )
        draft = dataclasses.replace(draft, segments=(None,) * -(-draft.chunks // draft.segment_chunks))
        self.store = store
        self.draft = draft
        self.parent = parent
        self.moved = Moved()
        #: how many bytes of the source were read; the rest was known to be holes, or as it was.
        self.read_bytes = 0
        self._level = level
        self._own = len(draft.holders) - 1
        self._zeros = bytes(draft.chunk_bytes)
        self._stored = Moved()
        self._present: dict[str, int] = {}

    def write(self, file: Any) -> Manifest:
        """Copy the bytes of a file; returns the manifest, which is put last, so that what lacks it is not whole.

        :raises Cancelled: it was told to stop; :func:`remove` takes away what is there.
        """
        source, draft = source_of(file), self.draft
        if left := self.store.sweep(draft.id):
            LOG.info("%d objects of the backup %s were broken off by an earlier run", left, draft.id)
        # What an earlier run of this backup has put; its names say what is in it.
        self._present = {item.name: item.size for item in self.store.list_objects(draft.id)}
        begun = (progress.kept(_WRITTEN) or {}) if self._present else {}
        first, entries = int(begun.get("segment", 0)), form.entries_of(begun.get("entries", ()))
        segments = [self._again(segment) for segment in range(first)]
        for segment in range(first, len(draft.segments)):
            entries = self._segment(source, segment, entries)
            segments.append(self._put_index(segment, entries))
            entries = []
        whole = dataclasses.replace(
            draft, segments=tuple(segments), stored_bytes=self._stored.bytes, object_count=self._stored.objects
        )
        self._present.pop(form.manifest_name(draft.id), None)
        # Left of a run whose snapshot was another one.
        self.store.delete(list(self._present))
        self._put(form.manifest_name(draft.id), whole.to_bytes())
        progress.keep(_WRITTEN, None)
        return whole

    def _segment(self, source: Source, segment: int, entries: list[Entry]) -> list[Entry]:
        draft, before = self.draft, self._before(segment)
        start = segment * draft.segment_chunks
        end = min(start + draft.segment_chunks, draft.chunks)
        for place, entry in enumerate(entries):
            self._account(entry, start + place)
        state = [_plain(entry) for entry in entries]
        for number in range(start + len(entries), end):
            place = number - start
            entry = self._chunk(source, number, before[place] if place < len(before) else None)
            entries.append(entry)
            state.append(_plain(entry))
            progress.keep(_WRITTEN, {"segment": segment, "entries": state})
            progress.report(number / draft.chunks)
        return entries

    def _before(self, segment: int) -> list[Entry]:
        """Return what the parent has in a segment; a chunk that is shorter there never has the same digest."""
        parent = self.parent
        if parent is None or segment >= len(parent.segments) or parent.segments[segment] is None:
            return []
        return read_index(self.store, parent, segment)

    def _chunk(self, source: Source, number: int, before: Entry) -> Entry:
        draft = self.draft
        offset, length = number * draft.chunk_bytes, draft.length(number)
        if source.is_hole(offset, length):
            return None
        if self._is_as_before(number) and source.is_same(offset, length):
            return before
        data = source.read(offset, length)
        self.read_bytes += length
        if data == (self._zeros if length == draft.chunk_bytes else bytes(length)):
            return None
        digest = source.work(form.digest, data)
        if before is not None and before.digest == digest:
            return before
        name = form.chunk_name(draft.id, number, digest)
        stored = self._present.pop(name, None)
        if stored is None:
            packed = source.work(form.pack_chunk, data, self._level)
            self._put(name, packed)
            stored = len(packed)
        self._stored.objects += 1
        self._stored.bytes += stored
        return Chunk(self._own, digest, stored)

    def _is_as_before(self, number: int) -> bool:
        """Return whether the parent has this chunk, and as long."""
        parent = self.parent
        return parent is not None and number < parent.chunks and parent.length(number) == self.draft.length(number)

    def _account(self, entry: Entry, number: int) -> None:
        """Count a chunk that an earlier run has put."""
        if entry is not None and entry.holder == self._own:
            self._present.pop(form.chunk_name(self.draft.id, number, entry.digest), None)
            self._stored.objects += 1
            self._stored.bytes += entry.stored

    def _put_index(self, segment: int, entries: list[Entry]) -> str | None:
        if not any(entries):
            return None
        packed = form.pack_index(entries)
        name = form.index_name(self.draft.id, segment)
        self._present.pop(name, None)
        self._put(name, packed)
        self._stored.objects += 1
        self._stored.bytes += len(packed)
        return form.digest(packed)

    def _again(self, segment: int) -> str | None:
        """Take a segment over that an earlier run has finished."""
        name = form.index_name(self.draft.id, segment)
        if (size := self._present.pop(name, None)) is None:
            return None
        packed = self.store.get(name)
        digest = form.digest(packed)
        self._stored.objects += 1
        self._stored.bytes += size
        trusted = dataclasses.replace(self.draft, segments=(None,) * segment + (digest,))
        start = segment * self.draft.segment_chunks
        for place, entry in enumerate(form.unpack_index(packed, trusted, segment)):
            self._account(entry, start + place)
        return digest

    def _put(self, name: str, data: bytes) -> None:
        self.store.put(name, data)
        self.moved.objects += 1
        self.moved.bytes += len(data)


def _plain(entry: Entry) -> list[Any] | None:
    return None if entry is None else [entry.holder, entry.digest, entry.stored]


def read_index(store: BackupStore, manifest: Manifest, segment: int) -> list[Entry]:
    """Return the entries of a segment that is not all holes.

    :raises Inconsistent: the index is damaged or gone.
    """
    try:
        data = store.get(form.index_name(manifest.id, segment))
    except exception.NotFound as error:
        raise exception.Inconsistent(f"The index {segment} of backup {manifest.id} is gone from the store") from error
    return form.unpack_index(data, manifest, segment)


class Reader:
    """Writes a backup to a device, each chunk verified before it is written."""

    def __init__(self, store: BackupStore, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest
        self.moved = Moved()

    def restore(self, file: Any, size_bytes: int, *, blank: bool = False) -> None:
        """Give a device the backup's bytes, and zeros behind them up to ``size_bytes``.

        :param blank: the device reads as zeros already, so none need be written.
        :raises Inconsistent: a chunk is damaged or gone; what was written before it is there.
        """
        manifest, sink = self.manifest, sink_of(file)
        next_ = int(progress.kept(_RESTORED) or 0)
        synced = 0
        for segment in range(next_ // manifest.segment_chunks, len(manifest.segments)):
            start = segment * manifest.segment_chunks
            end = min(start + manifest.segment_chunks, manifest.chunks)
            entries = self._entries(segment, end - start)
            number = max(start, next_)
            while number < end:
                count = self._piece(sink, number, entries[number - start :], blank)
                number += count
                synced += count * manifest.chunk_bytes
                if synced >= SYNC_BYTES or number == end:
                    sink.sync()
                    synced = 0
                    progress.keep(_RESTORED, number)
                progress.report(number / manifest.chunks)
        if size_bytes > manifest.size_bytes and not blank:
            sink.zero(manifest.size_bytes, size_bytes - manifest.size_bytes)
        sink.sync()
        progress.keep(_RESTORED, None)

    def _entries(self, segment: int, count: int) -> list[Entry]:
        if self.manifest.segments[segment] is None:
            return [None] * count
        return read_index(self.store, self.manifest, segment)

    def _piece(self, sink: Sink, number: int, entries: list[Entry], blank: bool) -> int:
        """Write a chunk, or all the holes up to the next one; returns how many chunks that were."""
        manifest, entry = self.manifest, entries[0]
        offset, length = number * manifest.chunk_bytes, manifest.length(number)
        if entry is None:
            count = next((place for place, item in enumerate(entries) if item is not None), len(entries))
            if not blank:
                last = number + count - 1
                sink.zero(offset, last * manifest.chunk_bytes + manifest.length(last) - offset)
            return count
        what = f"The chunk {number} of backup {manifest.id}"
        try:
            packed = self.store.get(form.chunk_name(manifest.holders[entry.holder], number, entry.digest))
        except exception.NotFound as error:
            raise exception.Inconsistent(f"{what} is gone from the store", hint="Restore another backup") from error
        self.moved.objects += 1
        self.moved.bytes += len(packed)
        sink.write(offset, form.unpack_chunk(packed, length, entry.digest, what))
        return 1


@dataclass
class BackupService:
    """What a driver is given beside the backup, in the verbs ``backup_volume`` and ``restore_backup``.

    :param draft: of a backup that is to be made. :param blank: whether what is restored to reads as zeros.
    """

    store: BackupStore
    draft: Manifest | None = None
    parent: Manifest | None = None
    level: int = 3
    blank: bool = False
    size_bytes: int = 0
    manifest: Manifest | None = None
    moved_bytes: int = 0
    read_bytes: int = 0

    def backup(self, backup: Any, file: Any) -> None:
        """Copy the bytes of ``file``, a binary file of the volume's size, into the store."""
        assert self.draft is not None
        writer = Writer(self.store, self.draft, self.parent, self.level)
        self.manifest = writer.write(file)
        self.moved_bytes, self.read_bytes = writer.moved.bytes, writer.read_bytes

    def restore(self, backup: Any, volume_id: str, file: Any) -> None:
        """Write the backup to ``file``, opened for reading and writing."""
        manifest = manifest_of(self.store, backup["id"])
        if manifest.size_bytes > self.size_bytes:
            raise exception.Inconsistent(
                f"The backup {manifest.id} has {manifest.size_bytes} bytes, the volume {volume_id} {self.size_bytes}"
            )
        Reader(self.store, manifest).restore(file, self.size_bytes, blank=self.blank)

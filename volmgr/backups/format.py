# SPDX-License-Identifier: Apache-2.0
"""What a backup looks like in its store: names, the manifest, the index, chunks. Pure: bytes in, bytes out.

What is read may come from a store that others can write to: nothing of it is believed before it was checked, and no
number in it decides how much memory is taken.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zstandard

from volmgr import exception
from volmgr.types import MiB

FORMAT, VERSION = "volmgr-backup", 1
#: bytes of a chunk. A change of 10 contiguous MiB touches at most 6 of them, wherever it begins.
CHUNK = 2 * MiB
#: chunks of a segment, which is what one index object describes: 1 GiB.
SEGMENT = 512
LARGEST_CHUNK, LARGEST_SEGMENT = 64 * MiB, 65536
_ENTRY_BYTES = 160
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Chunk:
    """Where a chunk that is no hole lies: ``holder`` counts in the manifest's holders; ``stored`` is in bytes."""

    holder: int
    digest: str
    stored: int


Entry = Chunk | None


@dataclass(frozen=True)
class Manifest:
    """One backup.

    :param volume: what the volume was: id, name, description, size (GiB), serial, metadata, …
    :param size_bytes: of the volume. :param parent_id: the backup that this one was made against.
    :param holders: ids of the backups in whose folders chunks of this one lie; the last is its own.
    :param segments: by number the SHA-256 of its index object, None for a segment of holes, which has none.
    :param stored_bytes: and ``object_count``: what this backup has added to the store, without the manifest.
    :param data_at: the instant whose bytes these are, ISO 8601.
    """

    id: str
    volume: Mapping[str, Any]
    size_bytes: int
    holders: tuple[str, ...]
    segments: tuple[str | None, ...] = ()
    parent_id: str | None = None
    snapshot_id: str | None = None
    chunk_bytes: int = CHUNK
    segment_chunks: int = SEGMENT
    stored_bytes: int = 0
    object_count: int = 0
    data_at: str | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chunks(self) -> int:
        """How many chunks the volume has, holes with them."""
        return -(-self.size_bytes // self.chunk_bytes)

    def length(self, number: int) -> int:
        """Return the bytes of a chunk; the last may be shorter than the others."""
        return min(self.chunk_bytes, self.size_bytes - number * self.chunk_bytes)

    def to_bytes(self) -> bytes:
        """Return the object: JSON with the SHA-256 of all the rest of it."""
        content = {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}
        return json.dumps({**content, "sha256": _digest_of(content)}, indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes, backup_id: str) -> Manifest:
        """Return the manifest that :meth:`to_bytes` wrote.

        :raises Inconsistent: it is damaged, or another backup's. :raises Unsupported: a newer volmgr wrote it.
        """
        try:
            content = json.loads(data)
            if content.get("format") != FORMAT:
                raise ValueError(f"its format is {content.get('format')!r}")
            if content["version"] != VERSION:
                raise exception.Unsupported(
                    f"The backup {backup_id} has the format version {content['version']}, this volmgr reads {VERSION}",
                    hint="Use the volmgr that made it, or a newer one",
                    verb="restore_backup",
                )
            told = content.pop("sha256")
            if told != _digest_of(content):
                raise ValueError("its checksum is wrong")
            known = {item.name for item in dataclasses.fields(cls)}
            made = cls(**{key: value for key, value in content.items() if key in known})
            made = dataclasses.replace(made, holders=tuple(made.holders), segments=tuple(made.segments))
            made._check(backup_id)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(f"The manifest of backup {backup_id}", error) from error
        return made

    def _check(self, backup_id: str) -> None:
        if self.id != backup_id or self.holders[-1:] != (backup_id,) or not all(map(_UUID.match, self.holders)):
            raise ValueError("it is another backup's")
        if not 0 < self.chunk_bytes <= LARGEST_CHUNK or not 0 < self.segment_chunks <= LARGEST_SEGMENT:
            raise ValueError("its chunks have no possible size")
        if self.size_bytes < 0 or len(self.segments) != -(-self.chunks // self.segment_chunks):
            raise ValueError("its size and its segments do not agree")
        if not all(item is None or _DIGEST.match(item) for item in self.segments):
            raise ValueError("a segment's checksum is none")


def _digest_of(content: Mapping[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def _damaged(what: str, error: Exception) -> exception.Inconsistent:
    return exception.Inconsistent(f"{what} is damaged: {error}", hint="Restore another backup of the volume")


def digest(data: bytes) -> str:
    """Return the SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


# --- names ----------------------------------------------------------------------------------------------------------


def manifest_name(backup_id: str) -> str:
    """Return the name of a backup's manifest."""
    return f"{backup_id}/manifest.json"


def index_name(backup_id: str, segment: int) -> str:
    """Return the name of the index object of a segment."""
    return f"{backup_id}/index/{segment:08x}"


def chunk_name(backup_id: str, number: int, chunk_digest: str) -> str:
    """Return the name of a chunk; the digest in it tells a later run of a broken-off backup what is there already."""
    return f"{backup_id}/chunks/{number >> 12:06x}/{number & 0xFFF:03x}-{chunk_digest[:32]}"


# --- index ----------------------------------------------------------------------------------------------------------


def pack_index(entries: Sequence[Entry]) -> bytes:
    """Return the index object of a segment: zstd of a JSON list, null for a hole, else [holder, digest, stored]."""
    content = [None if item is None else [item.holder, item.digest, item.stored] for item in entries]
    return zstandard.ZstdCompressor().compress(json.dumps(content, separators=(",", ":")).encode())


def unpack_index(data: bytes, manifest: Manifest, segment: int) -> list[Entry]:
    """Return the entries of a segment, as many as it has chunks.

    :raises Inconsistent: they are damaged.
    """
    count = min(manifest.segment_chunks, manifest.chunks - segment * manifest.segment_chunks)
    try:
        if digest(data) != manifest.segments[segment]:
            raise ValueError("its checksum is wrong")
        content = json.loads(_inflate(data, 16 + count * _ENTRY_BYTES))
        entries = entries_of(content)
        if len(entries) != count or any(item and item.holder >= len(manifest.holders) for item in entries):
            raise ValueError("it does not fit its manifest")
    except (ValueError, TypeError, zstandard.ZstdError) as error:
        raise _damaged(f"The index {segment} of backup {manifest.id}", error) from error
    return entries


def entries_of(content: Any) -> list[Entry]:
    """Return entries from their JSON form.

    :raises ValueError, TypeError: they are none.
    """
    entries: list[Entry] = []
    for item in content:
        if item is None:
            entries.append(None)
            continue
        holder, chunk_digest, stored = item
        if not isinstance(holder, int) or holder < 0 or not _DIGEST.match(chunk_digest):
            raise ValueError("an entry is none")
        entries.append(Chunk(holder, chunk_digest, int(stored)))
    return entries


# --- chunks ---------------------------------------------------------------------------------------------------------


def pack_chunk(data: bytes, level: int) -> bytes:
    """Return what is stored of a chunk: one zstd frame, which says how long the chunk is."""
    return zstandard.ZstdCompressor(level=level).compress(data)


def unpack_chunk(data: bytes, length: int, chunk_digest: str, what: str) -> bytes:
    """Return the bytes of a chunk, verified.

    :param what: how an error calls it. :raises Inconsistent: it is damaged.
    """
    try:
        found = _inflate(data, length)
        if len(found) != length or digest(found) != chunk_digest:
            raise ValueError("its checksum is wrong")
    except (ValueError, zstandard.ZstdError) as error:
        raise _damaged(what, error) from error
    return found


def _inflate(data: bytes, limit: int) -> bytes:
    """Return what a zstd frame holds, if that is at most ``limit`` bytes: a small object must not fill the memory."""
    size = zstandard.frame_content_size(data)
    if not 0 <= size <= limit:
        raise ValueError(f"it says that it has {size} bytes")
    return zstandard.ZstdDecompressor().decompress(data)

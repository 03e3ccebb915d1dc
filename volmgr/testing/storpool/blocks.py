# SPDX-License-Identifier: Apache-2.0
"""The bytes of volumes and snapshots: a sparse file each, that shares blocks with its source where it can.

Snapshots are clones of files on file systems that have them, else copies of what was ever written. Knows no volume.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

_FICLONE = 0x40049409
_CHUNK = 8 * 1024 * 1024


class Blocks:
    """Files named by numbers in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, number: int) -> Path:
        """Return the file of an object."""
        return self.folder / str(number)

    def create(self, number: int, size: int) -> None:
        """Make an object of ``size`` bytes, all zeros."""
        with self.path(number).open("xb") as file:
            file.truncate(size)

    def resize(self, number: int, size: int) -> None:
        """Give an object another size in bytes; what is new reads as zeros."""
        os.truncate(self.path(number), size)

    def write(self, number: int, offset: int, data: bytes) -> None:
        """Write ``data`` into an object."""
        with self.path(number).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def remove(self, number: int) -> None:
        """Remove an object."""
        self.path(number).unlink(missing_ok=True)

    def copy(self, source: int, number: int, size: int) -> None:
        """Give object ``number`` the bytes of ``source``, and ``size`` bytes in all; what it was is replaced."""
        with self.path(source).open("rb") as old, self.path(number).open("r+b" if self._is(number) else "xb") as new:
            new.truncate(0)
            try:
                fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            except OSError:
                _copy_data(old.fileno(), new.fileno())
            new.truncate(size)

    def _is(self, number: int) -> bool:
        return self.path(number).exists()

    def numbers(self) -> set[int]:
        """Return the objects that are there."""
        return {int(entry.name) for entry in self.folder.iterdir()}


class MemoryBlocks:
    """The same in memory, for a cluster inside a test's own process: an object is its size and pieces by place."""

    PIECE = 4096

    def __init__(self) -> None:
        self._objects: dict[int, tuple[int, dict[int, bytes]]] = {}

    def twin(self) -> MemoryBlocks:
        """Return others with the same bytes."""
        made = MemoryBlocks()
        made._objects = {number: (size, dict(pieces)) for number, (size, pieces) in self._objects.items()}
        return made

    def path(self, number: int) -> Path:
        """Refuse: there is no file.

        :raises LookupError: always.
        """
        raise LookupError(f"object {number} is in memory and has no file")

    def create(self, number: int, size: int) -> None:
        """Make an object of ``size`` bytes, all zeros."""
        self._objects[number] = size, {}

    def resize(self, number: int, size: int) -> None:
        """Give an object another size in bytes; what is new reads as zeros."""
        _old, pieces = self._objects[number]
        kept = {place: data for place, data in pieces.items() if (place + 1) * self.PIECE <= size}
        self._objects[number] = size, kept

    def write(self, number: int, offset: int, data: bytes) -> None:
        """Write ``data`` into an object."""
        _size, pieces = self._objects[number]
        while data:
            place, inside = divmod(offset, self.PIECE)
            part = data[: self.PIECE - inside]
            old = pieces.get(place, bytes(self.PIECE))
            pieces[place] = old[:inside] + part + old[inside + len(part) :]
            offset, data = offset + len(part), data[len(part) :]

    def read(self, number: int, offset: int, length: int) -> bytes:
        """Return bytes of an object."""
        _size, pieces = self._objects[number]
        first, last = offset // self.PIECE, (offset + length - 1) // self.PIECE
        whole = b"".join(pieces.get(place, bytes(self.PIECE)) for place in range(first, last + 1))
        return whole[offset - first * self.PIECE :][:length]

    def remove(self, number: int) -> None:
        """Remove an object."""
        self._objects.pop(number, None)

    def copy(self, source: int, number: int, size: int) -> None:
        """Give object ``number`` the bytes of ``source``, and ``size`` bytes in all; what it was is replaced."""
        self._objects[number] = size, dict(self._objects[source][1])

    def numbers(self) -> set[int]:
        """Return the objects that are there."""
        return set(self._objects)


def _copy_data(old: int, new: int) -> None:
    end, start = os.fstat(old).st_size, 0
    os.ftruncate(new, end)
    with contextlib.suppress(_NoMoreData):
        while start < end:
            start = _seek(old, start, os.SEEK_DATA)
            stop = _seek(old, start, os.SEEK_HOLE)
            while start < stop:
                data = os.pread(old, min(_CHUNK, stop - start), start)
                os.pwrite(new, data, start)
                start += len(data)


class _NoMoreData(Exception):
    """Behind the place there is only a hole."""


def _seek(descriptor: int, offset: int, whence: int) -> int:
    try:
        return os.lseek(descriptor, offset, whence)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _NoMoreData from error
        raise

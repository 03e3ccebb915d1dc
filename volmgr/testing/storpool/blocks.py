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

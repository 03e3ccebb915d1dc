# SPDX-License-Identifier: Apache-2.0
"""The bytes of a volume, to be read or written in pieces at places of one's own choice.

A driver gives a binary file. One with a descriptor (a file, a block device) is read and written on native threads, its
holes are known and can be made; of any other seek, read and write are used, and ``next_data`` and ``zero`` where it has
those. Either may have ``is_same``. It knows no store.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import Any

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.tools.punch import punch
from volmgr.types import MiB

_ZEROS = bytes(MiB)


class Source:
    """What is read. :meth:`work` runs what takes a processor: a digest, a compression."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._hole = (0, 0)

    def is_hole(self, offset: int, length: int) -> bool:
        """Return whether these bytes are known to be zeros without being read; bytes in order cost least."""
        start, end = self._hole
        if not start <= offset < end:
            self._hole = (offset, self._next_data(offset))
        return offset + length <= self._hole[1]

    def _next_data(self, offset: int) -> int:
        """Return from where on the next bytes are that may be no zeros; ``offset`` where that is not known."""
        known = getattr(self._file, "next_data", None)
        return offset if known is None else int(known(offset))

    def is_same(self, offset: int, length: int) -> bool:
        """Return whether these bytes are known to be what the parent's source had there."""
        known = getattr(self._file, "is_same", None)
        return known is not None and bool(known(offset, length))

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes.

        :raises Inconsistent: the device ends before them.
        """
        self._file.seek(offset)
        return _whole(self._file.read(length), offset, length)

    def work(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what a function returns."""
        return function(*args)


class FdSource(Source):
    """What is read by a descriptor."""

    def __init__(self, file: Any, fd: int) -> None:
        super().__init__(file)
        self._fd = fd
        self._sparse = stat.S_ISREG(os.fstat(fd).st_mode)

    def _next_data(self, offset: int) -> int:
        with _typed("read"):
            return int(offload(_next_data, self._fd, offset)) if self._sparse else offset

    def read(self, offset: int, length: int) -> bytes:
        with _typed("read"):
            return _whole(offload(_pread, self._fd, offset, length), offset, length)

    def work(self, function: Callable[..., Any], *args: Any) -> Any:
        return offload(function, *args)


class Sink:
    """What is written."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, offset: int, data: bytes) -> None:
        """Write bytes."""
        self._file.seek(offset)
        self._file.write(data)

    def zero(self, offset: int, length: int) -> None:
        """Make bytes read as zeros, whatever was there."""
        if (make := getattr(self._file, "zero", None)) is not None:
            make(offset, length)
            return
        while length:
            count = min(length, len(_ZEROS))
            self.write(offset, _ZEROS[:count])
            offset, length = offset + count, length - count

    def sync(self) -> None:
        """Return once everything that was written would survive a loss of power."""
        self._file.flush()


class FdSink(Sink):
    """What is written by a descriptor."""

    def __init__(self, file: Any, fd: int) -> None:
        super().__init__(file)
        self._fd = fd

    def write(self, offset: int, data: bytes) -> None:
        with _typed("written"):
            offload(_pwrite, self._fd, offset, data)

    def zero(self, offset: int, length: int) -> None:
        with _typed("cleared"):
            if offload(punch, self._fd, offset, length):
                return
            end = offset + length
            for start in range(offset, end, len(_ZEROS)):
                offload(_clear, self._fd, start, min(len(_ZEROS), end - start))

    def sync(self) -> None:
        with _typed("flushed"):
            offload(os.fsync, self._fd)


def source_of(file: Any) -> Source:
    """Return the source that a binary file is."""
    fd = _descriptor(file)
    return Source(file) if fd is None else FdSource(file, fd)


def sink_of(file: Any) -> Sink:
    """Return the sink that a binary file is."""
    fd = _descriptor(file)
    return Sink(file) if fd is None else FdSink(file, fd)


def _descriptor(file: Any) -> int | None:
    try:
        return int(file.fileno())
    except (AttributeError, io.UnsupportedOperation):
        return None


def _whole(data: bytes, offset: int, length: int) -> bytes:
    if len(data) != length:
        raise exception.Inconsistent(f"The device ends after {offset + len(data)} bytes, in the middle of the volume")
    return data


def _next_data(fd: int, offset: int) -> int:
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        # Nothing but a hole is left; or the file system cannot say, and all is read.
        return sys.maxsize if error.errno == errno.ENXIO else offset


def _pread(fd: int, offset: int, length: int) -> bytes:
    parts = []
    while length and (part := os.pread(fd, length, offset)):
        parts.append(part)
        offset, length = offset + len(part), length - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _clear(fd: int, offset: int, length: int) -> None:
    """Write zeros where there are none: what reads as zeros may have no space yet, and is to have none after it."""
    zeros = _ZEROS[:length]
    if _pread(fd, offset, length) != zeros:
        _pwrite(fd, offset, zeros)


@contextlib.contextmanager
def _typed(what: str) -> Iterator[None]:
    """Turn what the kernel says of a device into an error of ours."""
    try:
        yield
    except OSError as error:
        said = f"The volume's device cannot be {what}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise exception.NoSpace(said, hint="Make room in the backend") from error
        raise exception.BackendDown(said, hint="See: dmesg") from error


def _pwrite(fd: int, offset: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done

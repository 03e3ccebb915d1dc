# SPDX-License-Identifier: Apache-2.0
"""Copies a volume from one path of this host to another, files or block devices, or to a disk that is reached by other
means; either way, zeros left out.

Holes are skipped where the source knows of them (lseek(2), SEEK_DATA), and blocks of zeros everywhere, so the copy
takes no more space than what was written. It knows no volume.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from typing import Protocol

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.types import MiB

CHUNK = MiB
#: Bytes of the source between two flushes of the copy, after which a later run may go on.
FLUSH_BYTES = 64 * MiB
_NO_HOLES = {errno.EINVAL, errno.ENOTSUP, errno.ENOTTY}


class Disk(Protocol):
    """What is written to and is no file; its methods run on native threads and raise errors of ours."""

    def pread(self, length: int, offset: int) -> bytes:
        """Return bytes."""

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write bytes; returns how many were written."""

    def flush(self) -> None:
        """Return once everything that was written would survive a loss of power."""


class _File:
    """A file or block device as a disk."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def pread(self, length: int, offset: int) -> bytes:
        return os.pread(self._fd, length, offset)

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(self._fd, data, offset)

    def flush(self) -> None:
        os.fdatasync(self._fd)


def copy(
    source: str,
    target: str | Disk,
    size_bytes: int,
    *,
    start: int = 0,
    progress: Callable[[float], None] = lambda _fraction: None,
    keep: Callable[[int], None] = lambda _position: None,
    spend: Callable[[int], None] = lambda _count: None,
    compare: bool = False,
) -> int:
    """Copy the bytes of ``source`` to ``target``; returns how many were written.

    :param target: a path, or a disk; it exists, has at least ``size_bytes`` and, unless ``compare``, reads as zeros
        from ``start`` on, or as an earlier run of the same copy left it.
    :param start: where to go on. :param keep: told a position up to which the copy is on stable storage.
    :param progress: told how far it is, 0 to 1; what it raises stops the copy.
    :param spend: called with the number of bytes of each chunk; it may wait, to keep a pace.
    :param compare: the target has the bytes of an earlier moment: read it, and write only what differs.
    :raises NotFound: one of the two is not there. :raises NoSpace: the target is full. :raises BackendDown: I/O error.
    :raises Inconsistent: the source is shorter than it should be.
    """
    written, flushed = 0, start
    with _opened(source, os.O_RDONLY) as reader, _writer(target) as writer:
        # A target that serves a device goes past the page cache, which may have old pages of it.
        offload(os.posix_fadvise, reader, 0, 0, os.POSIX_FADV_DONTNEED)
        if os.lseek(reader, 0, os.SEEK_END) < size_bytes:
            raise exception.Inconsistent(f"{source} is shorter than {size_bytes} bytes")
        position = start
        while position < size_bytes:
            position, count = offload(_chunk, reader, writer, position, size_bytes, compare)
            written += count
            spend(count)
            if position - flushed >= FLUSH_BYTES and count:
                offload(writer.flush)
                flushed = position
                keep(position)
            progress(position / size_bytes)
        offload(writer.flush)
    return written


def _chunk(reader: int, writer: Disk, position: int, end: int, compare: bool) -> tuple[int, int]:
    """Copy at most one chunk; returns (where to go on, bytes written)."""
    first = position if compare else _next_data(reader, position, end)
    if first >= end:
        return end, 0
    # Aligned, so that the ends of the chunks are the same in every run.
    length = min(CHUNK - first % CHUNK, end - first)
    data = os.pread(reader, length, first)
    if not data:
        raise exception.Inconsistent(f"The source ends at {first} bytes, it should have {end}")
    same = writer.pread(len(data), first) == data if compare else data.count(0) == len(data)
    if same:
        return first + len(data), 0
    view, place = memoryview(data), first
    while view:
        done = writer.pwrite(view, place)
        view, place = view[done:], place + done
    return first + len(data), len(data)


def _next_data(reader: int, position: int, end: int) -> int:
    """Return the first position from ``position`` on that may not be zero."""
    try:
        return os.lseek(reader, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        if error.errno in _NO_HOLES:  # a block device knows of no holes
            return position
        raise


@contextlib.contextmanager
def _writer(target: str | Disk) -> Iterator[Disk]:
    """Give what is written to; of a path nothing stays in the page cache."""
    if not isinstance(target, str):
        yield target
        return
    with _opened(target, os.O_RDWR) as fd:
        yield _File(fd)
        offload(os.fsync, fd)
        offload(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        text = f"{path}: {error.strerror}"
        if error.errno in (errno.ENOENT, errno.ENXIO):
            raise exception.NotFound(text, resource="device", id=path) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise exception.NoSpace(text, hint="Make room on the destination") from error
        raise exception.BackendDown(text, hint="See: dmesg", errno=error.errno) from error

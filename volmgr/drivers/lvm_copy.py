# SPDX-License-Identifier: Apache-2.0
"""Zeroes and copies block devices in bounded chunks, past the page cache, telling after each how far it is.

What the storage can do by itself is left to it: zeros are made by unmapping where that is promised to read as zeros
(fallocate(2) on a block device), else by the kernel (ioctl BLKZEROOUT), else written. It knows devices, not volumes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.tools.ioprio import offloaded
from volmgr.tools.punch import CANNOT, punch
from volmgr.types import MiB

BLKDISCARD, BLKZEROOUT = 0x1277, 0x127F
#: Bytes between two reports, where the storage makes zeros by itself, and where bytes are moved.
UNMAP_CHUNK, ZERO_CHUNK, COPY_CHUNK = 1024 * MiB, 256 * MiB, 4 * MiB
#: Seconds between two places that are kept.
KEEP_INTERVAL = 2.0
_ZEROS = bytes(COPY_CHUNK)

Progress = Callable[[float], None]


class Pace:
    """Keeps work below a number of bytes per second; 0 is no limit."""

    def __init__(self, bytes_per_second: int) -> None:
        self._limit = bytes_per_second
        self._due = time.monotonic()

    def chunk(self, longest: int) -> int:
        """Return how much to do at once: at most ``longest`` bytes, hardly more than a second's."""
        if not self._limit:
            return longest
        return min(longest, max(COPY_CHUNK, self._limit // COPY_CHUNK * COPY_CHUNK))

    def spend(self, count: int) -> None:
        """Wait until ``count`` more bytes may be used up."""
        if self._limit:
            now = time.monotonic()
            self._due = max(now, self._due + count / self._limit)
            time.sleep(self._due - now)


@contextlib.contextmanager
def opened(path: str, *, write: bool) -> Iterator[int]:
    """Open a block device past the page cache; for writing exclusively, so that nothing mounted is ever hit.

    :raises NotFound: it is not there. :raises Busy: something has it mounted or layered. :raises BackendDown: I/O error
        inside the block.
    """
    flags = os.O_DIRECT | os.O_CLOEXEC | (os.O_RDWR | os.O_EXCL if write else os.O_RDONLY)
    try:
        fd = os.open(path, flags)
        try:
            yield fd
        finally:
            os.close(fd)
    except OSError as error:
        text = f"{path}: {error.strerror}"
        if error.errno in (errno.ENOENT, errno.ENXIO):
            raise exception.NotFound(text, resource="device", id=path) from error
        if error.errno == errno.EBUSY:
            raise exception.Busy(text, hint=f"See who has it open: fuser -v {path}", resource="device") from error
        if error.errno == errno.ENOSPC:
            raise exception.NoSpace(text, hint="Make the thin pool or the snapshot's space larger") from error
        raise exception.BackendDown(text, hint="See: dmesg", errno=error.errno) from error


def size_of(fd: int) -> int:
    """Return the size of an open device in bytes."""
    return os.lseek(fd, 0, os.SEEK_END)


def unmap(
    path: str, progress: Progress, start: int = 0, end: int | None = None, priority: int | None = None
) -> bool:
    """Make a device read as zeros at once from ``start`` to ``end``, if its storage can do that without writing them.

    :param priority: of the work's I/O, see :mod:`volmgr.tools.ioprio`.
    :returns: False if it cannot; then nothing is promised of its bytes.
    """
    with opened(path, write=True) as fd:
        end = size_of(fd) if end is None else min(end, size_of(fd))
        for position in range(start, end, UNMAP_CHUNK):
            if not offloaded(priority, punch, fd, position, min(UNMAP_CHUNK, end - position)):
                return False
            progress(min(1.0, (position + UNMAP_CHUNK - start) / (end - start)))
        offloaded(priority, os.fsync, fd)
    return True


def discard(path: str, progress: Progress, priority: int | None = None) -> bool:
    """Tell the storage that nobody needs a device's bytes any more; what it reads as afterwards is not promised.

    :param priority: as for :func:`unmap`. :returns: False if it has no use for that.
    """
    with opened(path, write=True) as fd:
        size = size_of(fd)
        for start in range(0, size, UNMAP_CHUNK):
            if not offloaded(priority, _ioctl_range, fd, BLKDISCARD, start, min(UNMAP_CHUNK, size - start)):
                return False
            progress(min(1.0, (start + UNMAP_CHUNK) / size))
    return True


def zero(
    path: str,
    progress: Progress,
    *,
    start: int = 0,
    end: int | None = None,
    pace: Pace | None = None,
    keep: Callable[[int], None] | None = None,
    priority: int | None = None,
) -> None:
    """Make a device read as zeros from ``start`` to ``end`` (bytes; all of it without).

    :param progress: called with the fraction that is done after each chunk; what it raises stops the work.
    :param keep: called every few seconds with the place up to which the zeros would survive a loss of power.
    :param priority: as for :func:`unmap`.
    """
    if unmap(path, progress, start, end, priority):
        return
    pace = pace or Pace(0)
    with opened(path, write=True) as fd:
        end = min(size_of(fd), end) if end is not None else size_of(fd)
        position, safe = start, time.monotonic()
        while position < end:
            length = min(pace.chunk(ZERO_CHUNK), end - position)
            if not offloaded(priority, _ioctl_range, fd, BLKZEROOUT, position, length):
                length = min(COPY_CHUNK, length)
                offloaded(priority, _write_zeros, fd, position, length)
            position += length
            if keep is not None and time.monotonic() - safe >= KEEP_INTERVAL:
                offloaded(priority, os.fsync, fd)
                keep(position)
                safe = time.monotonic()
            progress(position / end if keep is not None else (position - start) / (end - start))
            pace.spend(length)
        offloaded(priority, os.fsync, fd)


def block(text: str) -> int:
    """Return the bytes that ``1M``, ``512K`` or ``8192`` mean, as what one read and one write of a copy can be.

    That is a multiple of 4 KiB, which any device takes past the page cache, and at most :data:`COPY_CHUNK`.
    """
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 0)
    size = int(text[:-1]) * unit if unit else int(text)
    return min(-(-size // 4096) * 4096, COPY_CHUNK)


def copy(
    source: str,
    destination: str,
    length: int,
    progress: Progress,
    *,
    sparse: bool,
    pace: Pace,
    chunk: int = COPY_CHUNK,
) -> None:
    """Copy the first ``length`` bytes of a device to another.

    :param sparse: the destination reads as zeros already, so zeros are not written.
    :param chunk: bytes of one read and one write, as :func:`block` returns them.
    """
    with opened(source, write=False) as source_fd, opened(destination, write=True) as fd:
        length = min(length, size_of(source_fd))
        with mmap.mmap(-1, chunk) as buffer:
            for position in range(0, length, chunk):
                count = min(chunk, length - position)
                offload(_copy_chunk, source_fd, fd, buffer, position, count, sparse)
                progress((position + count) / length)
                pace.spend(count)
        offload(os.fsync, fd)


def copy_ranges(
    source: str,
    destination: str,
    ranges: Sequence[tuple[int, int]],
    progress: Progress,
    *,
    pace: Pace,
    chunk: int = COPY_CHUNK,
) -> int:
    """Copy some bytes of a device to the same places of another, zeros too; returns how many.

    :param ranges: where each begins and ends, in bytes; what lies behind the source's end is left out.
    :param chunk: bytes of one read and one write, as :func:`block` returns them.
    """
    with opened(source, write=False) as source_fd, opened(destination, write=True) as fd:
        size, done = size_of(source_fd), 0
        wanted = [(start, min(end, size)) for start, end in ranges if start < size]
        total = sum(end - start for start, end in wanted)
        with mmap.mmap(-1, chunk) as buffer:
            for start, end in wanted:
                for position in range(start, end, chunk):
                    count = min(chunk, end - position)
                    offload(_copy_chunk, source_fd, fd, buffer, position, count, False)
                    done += count
                    progress(done / total)
                    pace.spend(count)
        offload(os.fsync, fd)
    return total


def _copy_chunk(source_fd: int, fd: int, buffer: mmap.mmap, position: int, count: int, sparse: bool) -> None:
    with memoryview(buffer) as whole, whole[:count] as view:
        done = 0
        while done < count:
            with view[done:] as rest:
                got = os.preadv(source_fd, [rest], position + done)
            if not got:
                raise OSError(errno.EIO, "the source ended early")
            done += got
        if not (sparse and bytes(view) == _ZEROS[:count]):
            _write_all(fd, view, position)


def _write_zeros(fd: int, position: int, length: int) -> None:
    with mmap.mmap(-1, length) as buffer, memoryview(buffer) as view:
        _write_all(fd, view, position)


def _write_all(fd: int, view: memoryview, position: int) -> None:
    written = 0
    while written < len(view):
        with view[written:] as rest:
            written += os.pwritev(fd, [rest], position + written)


def _ioctl_range(fd: int, request: int, start: int, length: int) -> bool:
    try:
        fcntl.ioctl(fd, request, struct.pack("=QQ", start, length))
    except OSError as error:
        if error.errno in CANNOT:
            return False
        raise
    return True

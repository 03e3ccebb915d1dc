# SPDX-License-Identifier: Apache-2.0
"""Raw images to and from what a driver stores on this host, as streams: nothing is kept beside the volume.

An image service is whatever has ``show(context, image_id)``, ``download(context, image_id, file)`` and
``update(context, image_id, image_meta, file)``, as image services of this tree have. It knows no driver and no store.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.types import GiB, MiB

RAW = "raw"
CHUNK = 4 * MiB
#: Bytes that are looked at together whether they are zeros.
GRAIN = 64 * 1024
_ZEROS = bytes(GRAIN)

Progress = Callable[[float], None]


def need_raw(image_meta: Mapping[str, Any]) -> None:
    """Return if the image is a raw one.

    :raises Unsupported: it has another format, or none is told.
    """
    told = image_meta.get("disk_format")
    if told != RAW:
        raise exception.Unsupported(
            f"An image of the format {told} cannot be copied",
            hint="Convert it first: qemu-img convert -O raw IMAGE IMAGE.raw",
            verb="copy_image_to_volume",
        )


class Sink:
    """What an image is written into: a device or file that reads as zeros, so zeros are left out.

    :param fd: opened for writing. :param limit: bytes that fit. :param progress: called with the fraction of ``total``.
    """

    def __init__(self, fd: int, limit: int, total: int | None, progress: Progress) -> None:
        self._fd = fd
        self._limit = limit
        self._total = total
        self._progress = progress
        self.position = 0

    def write(self, data: bytes) -> int:
        """Write the next bytes.

        :raises Invalid: the image is larger than the volume; nothing behind its end was written.
        """
        if self.position + len(data) > self._limit:
            raise self._too_large()
        offload(self._put, data)
        self.position += len(data)
        self._progress(min(1.0, self.position / (self._total or self._limit)))
        return len(data)

    def seek(self, position: int) -> int:
        """Go on at ``position``, which is not before the present one; what lies between is zeros.

        :raises Invalid: that is behind the volume's end.
        """
        if position > self._limit:
            raise self._too_large()
        self.position = max(self.position, position)
        self._progress(min(1.0, self.position / (self._total or self._limit)))
        return self.position

    def fileno(self) -> int:
        """Return the descriptor, for who writes by itself and then seeks to where it is."""
        return self._fd

    def _too_large(self) -> exception.Invalid:
        return exception.Invalid(
            f"The image is larger than the volume, {self._limit // GiB} GiB", hint="Make the volume larger",
            field="size",
        )

    def _put(self, data: bytes) -> None:
        start = 0
        for offset in range(0, len(data), GRAIN):
            part = data[offset : offset + GRAIN]
            if part == _ZEROS[: len(part)]:
                self._put_run(data, start, offset)
                start = offset + len(part)
        self._put_run(data, start, len(data))

    def _put_run(self, data: bytes, start: int, end: int) -> None:
        view = memoryview(data)
        while start < end:
            start += os.pwrite(self._fd, view[start:end], self.position + start)

    def flush(self) -> None:
        """Make what was written survive a loss of power."""
        offload(os.fsync, self._fd)


class Source:
    """What an image is read from: the bytes of a device or file up to ``limit``."""

    def __init__(self, fd: int, limit: int, progress: Progress) -> None:
        self._fd = fd
        self._limit = limit
        self._progress = progress
        self.position = 0

    @property
    def limit(self) -> int:
        """Where the volume ends."""
        return self._limit

    def fileno(self) -> int:
        """Return the descriptor, for who reads by itself."""
        return self._fd

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most ``size`` and no more than 4 MiB; empty at the end.

        :raises Inconsistent: the device ends before its size.
        """
        left = self._limit - self.position
        wanted = min(left, CHUNK if size < 0 else min(size, CHUNK))
        if not wanted:
            return b""
        data: bytes = offload(os.pread, self._fd, wanted, self.position)
        if not data:
            raise exception.Inconsistent(f"The volume's device ends after {self.position} of {self._limit} bytes")
        self.position += len(data)
        self._progress(self.position / self._limit)
        return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read():
            yield data


@contextlib.contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    """Open a volume's device or file.

    :raises VolumeNotFound: it is not there.
    """
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise exception.VolumeNotFound(f"{path} is not there", id=path) from error
    try:
        yield fd
    finally:
        os.close(fd)


def fetch(context: Any, image_service: Any, image_id: str, path: str, size_bytes: int, progress: Progress) -> None:
    """Write a raw image to the device or file at ``path``, which reads as zeros and has ``size_bytes``."""
    meta = image_service.show(context, image_id)
    need_raw(meta)
    total = meta.get("size")
    if total is not None and int(total) > size_bytes:
        raise exception.Invalid(
            f"The image has {total} bytes, the volume {size_bytes}", hint="Make the volume larger", field="size"
        )
    with opened(path, os.O_WRONLY) as fd:
        sink = Sink(fd, size_bytes, int(total) if total else None, progress)
        image_service.download(context, image_id, sink)
        sink.flush()
    if total is not None and sink.position != int(total):
        raise exception.Inconsistent(f"The image has {total} bytes, {sink.position} came", id=image_id)


def upload(
    context: Any, image_service: Any, image_meta: Mapping[str, Any], path: str, size_bytes: int, progress: Progress
) -> None:
    """Give the bytes of the device or file at ``path`` to the image service as a raw image."""
    need_raw(image_meta)
    with opened(path, os.O_RDONLY) as fd:
        # A target that has the device open keeps old pages of it in the cache; what it writes itself goes past them.
        offload(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED)
        image_service.update(context, image_meta["id"], dict(image_meta), Source(fd, size_bytes, progress))

# SPDX-License-Identifier: Apache-2.0
"""What a driver is given as its image service: one image, shown as a raw one whatever it is in its store.

So every driver that copies raw images copies all that can be read. An image that is raw goes from file to volume with
its holes left out and its checksum taken on the way; another is checked first and then written by qemu-img into the
very device or file that the driver has open. An upload is the same backwards.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.drivers import progress as reports
from volmgr.images.base import CHUNK, RAW, ZEROS, Hasher, ImageInfo, ImageStore, Upload
from volmgr.images.directory import GRAIN
from volmgr.images.staging import Staged, Staging
from volmgr.tools.qemu_img import QemuImg

#: the part of the work that fetching an image from another host counts for.
_FETCHING = 0.5


def extents(fd: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what may hold data in an open file or device; of a device that is all of it."""
    end = os.lseek(fd, 0, os.SEEK_END)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        yield 0, end
        return
    position = 0
    while position < end:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        position = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, position - start


@dataclass(frozen=True)
class Tools:
    """What transfers work with."""

    staging: Staging
    qemu: QemuImg


class Download:
    """One image on its way to one volume; made and used as a context, in which the image's bytes are at hand.

    :param key: names what is kept for a later try; the volume's object. :param volume_bytes: what fits.
    """

    def __init__(self, tools: Tools, store: ImageStore, info: ImageInfo, key: str, volume_bytes: int) -> None:
        self._tools = tools
        self._store = store
        self.info = info
        self._key = key
        self._volume_bytes = volume_bytes
        self.moved = 0

    @contextlib.contextmanager
    def prepared(self) -> Iterator[Download]:
        """Fetch the image if this host has it not, find out what it is, and let drivers download it inside.

        :raises ImageUnacceptable: it cannot be used, see :mod:`volmgr.images.inspection`.
        :raises ImageTooLarge: it does not fit; nothing was written.
        """
        # The format inspector costs memory, which a worker without images need not have.
        from volmgr.images import inspection

        def fetching(fraction: float) -> None:
            reports.report(fraction * _FETCHING)

        with self._tools.staging.opened(self._store, self.info, self._key, fetching) as self._staged:
            self._is = inspection.inspect(self._staged.fd, self.info, self._tools.qemu)
            if self._is.virtual_size > self._volume_bytes:
                raise exception.ImageTooLarge(
                    id=self.info.id, needed_bytes=self._is.virtual_size, volume_bytes=self._volume_bytes
                )
            yield self

    @property
    def virtual_size(self) -> int:
        """Bytes of the disk in the image; inside :meth:`prepared`."""
        return self._is.virtual_size

    def show(self, context: Any, image_id: str) -> dict[str, Any]:
        """Return the image as drivers see it: raw."""
        return {
            **self.info.to_json(), "id": image_id, "disk_format": RAW, "container_format": "bare",
            "size": self._is.virtual_size,
        }

    def download(self, context: Any, image_id: str, file: Any) -> None:
        """Write the image's disk into ``file``, which reads as zeros and is at its beginning.

        :param file: with ``write`` and ``seek``, and for images that are not raw with ``fileno``.
        """
        if self._is.format == RAW:
            _Checked(self._staged, self.info).copy_to(file)
        else:
            _Checked(self._staged, self.info).read_all()
            size = self._is.virtual_size
            self._tools.qemu.to_raw(self._staged.fd, self._is.format, file.fileno(), size, reports.report)
            file.seek(size)


class _Checked:
    """The bytes of an image with its checksum, unless that was found right already."""

    def __init__(self, staged: Staged, info: ImageInfo) -> None:
        self._fd = staged.fd
        self._info = info
        wanted = info.checksum if not staged.checked and info.hash_algo else None
        self._hash = Hasher(info.hash_algo or "") if wanted else None

    def read_all(self) -> None:
        """Read the image for its checksum."""
        if self._hash is not None:
            for _offset, _data in self._pieces():
                continue
            self._compare()

    def copy_to(self, file: Any) -> None:
        """Write all that is not zeros; an image whose checksum is wrong has then been written all the same."""
        end = os.fstat(self._fd).st_size
        for offset, data in self._pieces():
            file.seek(offset)
            file.write(data)
        file.seek(end)
        self._compare()

    def _pieces(self) -> Iterator[tuple[int, bytes]]:
        position, end = 0, os.fstat(self._fd).st_size
        for start, length in extents(self._fd):
            self._skip(start - position)
            for offset in range(start, start + length, CHUNK):
                yield offset, offload(self._read, offset, min(CHUNK, start + length - offset))
            position = start + length
        self._skip(end - position)

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise exception.ImageCorrupt(id=self._info.id, reason="it became shorter while it was read")
        if self._hash is not None:
            self._hash.update(data)
        return data

    def _skip(self, count: int) -> None:
        if self._hash is not None and count:
            offload(self._hash.zeros, count)

    def _compare(self) -> None:
        if self._hash is not None and self._hash.hexdigest() != self._info.checksum:
            raise exception.ImageCorrupt(
                id=self._info.id, reason=f"its {self._info.hash_algo} is not the one that the store tells"
            )


class Uploading:
    """One volume on its way to one image.

    :param info: what the image is to be; its ``version`` is the uploader's own. :param key: names what is staged.
    """

    def __init__(self, tools: Tools, store: ImageStore, info: ImageInfo, key: str) -> None:
        self._tools = tools
        self._store = store
        self.info = info
        self._key = key
        self.made: ImageInfo | None = None

    def update(self, context: Any, image_id: str, image_meta: Mapping[str, Any], file: Any) -> None:
        """Read the volume from ``file`` and make the image of it.

        :param file: with ``read``, and with ``fileno`` unless the image is to be raw.
        """
        if self.info.disk_format == RAW:
            upload = self._store.upload(self.info)
            _pour(file, upload)
            self.made = upload.commit()
            return
        folder, name = self._tools.staging.folder, f"{self._key}.upload"
        folder.create(name, 0)
        try:
            with folder.opened(name) as fd:
                size = os.lseek(file.fileno(), 0, os.SEEK_END)
                self._tools.qemu.from_raw(file.fileno(), self.info.disk_format, fd, size, reports.report)
                upload = self._store.upload(self.info)
                with open(fd, "rb", closefd=False) as converted:
                    converted.seek(0)
                    _pour(converted, upload)
                self.made = upload.commit()
        finally:
            folder.remove(name)


def _pour(file: Any, upload: Upload) -> None:
    """Give a volume's bytes to an upload, with its holes and zeros left out.

    :param file: with ``fileno``, and ``limit`` where the volume is shorter than its device; else with ``read``.
    """
    fileno = getattr(file, "fileno", None)
    if fileno is None:
        while data := file.read(CHUNK):
            _give(upload, data)
        return
    fd, position = fileno(), 0
    limit: int = getattr(file, "limit", None) or os.lseek(fd, 0, os.SEEK_END)
    for start, length in extents(fd):
        end = min(start + length, limit)
        if end > max(position, start):
            upload.skip(start - position)
        for position in range(start, end, CHUNK):
            data = offload(os.pread, fd, min(CHUNK, end - position), position)
            if len(data) != min(CHUNK, end - position):
                raise exception.Inconsistent(f"The volume's device ends before its size of {limit} bytes")
            _give(upload, data)
            reports.report(position / limit)
        position = max(position, end)
    upload.skip(limit - position)
    reports.report(1.0)


def _give(upload: Upload, data: bytes) -> None:
    start = 0
    for offset in range(0, len(data), GRAIN):
        part = data[offset : offset + GRAIN]
        if part == ZEROS[: len(part)]:
            if offset > start:
                upload.write(data[start:offset])
            upload.skip(len(part))
            start = offset + len(part)
    if start < len(data):
        upload.write(data[start:])

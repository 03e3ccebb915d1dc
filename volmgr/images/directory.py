# SPDX-License-Identifier: Apache-2.0
"""Images in a folder: ``ID.json`` says what ``ID.VERSION.data`` is.

The manifest is the image: it appears, by a hard link that never replaces another, once the bytes are on the disk, and
goes first when the image is deleted. Whoever is killed in between leaves a data file that no manifest names, which the
next upload or removal of that version takes away. Holes stay holes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.drivers.folder import Folder
from volmgr.images.base import CHUNK, HASH_ALGO, ZEROS, Hasher, ImageInfo, ImageStore, Upload, is_image_id

MANIFEST = ".json"
MAX_MANIFEST = 256 * 1024
#: Bytes that are looked at together whether they are zeros.
GRAIN = 64 * 1024


def manifest_of(image_id: str, store: str, text: bytes) -> tuple[ImageInfo, str]:
    """Return (what a manifest says of an image, the name of its data file).

    :raises ImageUnacceptable: it says nothing that could be understood.
    """
    try:
        values = json.loads(text)
        data = values["data"]
        info = ImageInfo.from_json({**values, "id": image_id, "store": store})
        plain = isinstance(data, str) and is_image_id(data) and isinstance(info.version, str)
        if not plain or not isinstance(info.disk_format, str):
            raise ValueError("data, version and disk_format must be plain names")
        _need_counts(info)
    except (ValueError, KeyError, TypeError) as error:
        raise exception.ImageUnacceptable(id=image_id, reason=f"its manifest is not valid ({error})") from error
    return info, data


def _need_counts(info: ImageInfo) -> None:
    for value in (info.size, info.virtual_size, info.min_disk):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise ValueError("sizes must be whole numbers")


class DirectoryStore(ImageStore):
    """See the module.

    :param path: the folder; it is made, for us alone, if it is not there.
    """

    writable: ClassVar[bool] = True

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.path = path
        self._opened: Folder | None = None

    @property
    def _folder(self) -> Folder:
        if self._opened is None or not self._opened.in_place():
            self._opened = Folder(self.path)
        return self._opened

    def _manifest(self, image_id: str) -> tuple[ImageInfo, str]:
        if not is_image_id(image_id):
            raise exception.ImageNotFound(id=str(image_id)[:128], store=self.name)
        try:
            text = self._folder.read(image_id + MANIFEST, 0, MAX_MANIFEST)
        except exception.NotFound as error:
            raise exception.ImageNotFound(id=image_id, store=self.name) from error
        return manifest_of(image_id, self.name, text)

    def find(self, image_id: str) -> ImageInfo:
        return offload(self._manifest, image_id)[0]

    def list(self) -> Sequence[ImageInfo]:
        return offload(self._list)

    def _list(self) -> Sequence[ImageInfo]:
        found = []
        for name, _status in sorted(self._folder.entries()):
            if name.endswith(MANIFEST):
                # One that goes meanwhile, or says nothing, must not hide the others.
                with contextlib.suppress(exception.ImageNotFound, exception.ImageUnacceptable):
                    found.append(self._manifest(name.removesuffix(MANIFEST))[0])
        return found

    @contextlib.contextmanager
    def local(self, info: ImageInfo) -> Iterator[int | None]:
        found, data = offload(self._manifest, info.id)
        if found.version != info.version:
            raise exception.ImageCorrupt(id=info.id, reason="it was replaced by another version")
        with self._folder.opened(data, os.O_RDONLY) as fd:
            if info.size is not None and os.fstat(fd).st_size != info.size:
                raise exception.ImageCorrupt(
                    id=info.id, reason=f"it should have {info.size} bytes and has {os.fstat(fd).st_size}"
                )
            yield fd

    def stream(self, info: ImageInfo, offset: int = 0) -> Iterator[bytes]:
        with self.local(info) as fd:
            assert fd is not None
            while data := offload(os.pread, fd, CHUNK, offset):
                yield data
                offset += len(data)

    # --- upload -------------------------------------------------------------------------------------------------

    def upload(self, info: ImageInfo) -> Upload:
        self._need_absent(info.id)
        offload(self._remove_parts, info.id, info.version)
        return _Upload(self._folder, info)

    def _need_absent(self, image_id: str) -> None:
        if not is_image_id(image_id):
            raise exception.Invalid(f"{image_id!r} cannot be the id of an image", field="image_meta.id")
        if self._folder.size(image_id + MANIFEST) is not None:
            raise exception.AlreadyExists(resource="image", id=image_id)

    def _remove_parts(self, image_id: str, version: str) -> None:
        self._folder.remove(data_name(image_id, version))
        self._folder.remove(part_name(image_id, version))

    def discard(self, image_id: str, version: str) -> None:
        with contextlib.suppress(exception.ImageNotFound):
            if self.find(image_id).version == version:
                offload(self._folder.remove, image_id + MANIFEST)
        offload(self._remove_parts, image_id, version)

    def delete(self, image_id: str) -> None:
        with contextlib.suppress(exception.ImageNotFound):
            _info, data = offload(self._manifest, image_id)
            offload(self._folder.remove, image_id + MANIFEST)
            offload(self._folder.remove, data)


def data_name(image_id: str, version: str) -> str:
    """Return the name of a data file."""
    return f"{image_id}.{version}.data"


def part_name(image_id: str, version: str) -> str:
    """Return the name of a manifest that is being written."""
    return f"{image_id}.{version}.manifest"


class _Upload(Upload):
    def __init__(self, folder: Folder, info: ImageInfo) -> None:
        self._folder = folder
        self._info = info
        self._name = data_name(info.id, info.version)
        self._hash = Hasher(HASH_ALGO)
        self._size = 0
        offload(folder.create, self._name, 0)

    def write(self, data: bytes) -> None:
        offload(self._write, data)

    def _write(self, data: bytes) -> None:
        with self._folder.opened(self._name) as fd:
            self._hash.update(data)
            for start in range(0, len(data), GRAIN):
                part = data[start : start + GRAIN]
                if part != ZEROS[: len(part)]:
                    _write_all(fd, part, self._size + start)
        self._size += len(data)

    def skip(self, count: int) -> None:
        offload(self._hash.zeros, count)
        self._size += count

    def commit(self) -> ImageInfo:
        return offload(self._commit)

    def _commit(self) -> ImageInfo:
        folder, info = self._folder, self._info
        folder.resize(self._name, self._size)
        made = dataclasses.replace(
            info, size=self._size, checksum=self._hash.hexdigest(), hash_algo=HASH_ALGO
        )
        values: dict[str, Any] = {**made.to_json(), "data": self._name}
        values.pop("store")
        part = part_name(info.id, info.version)
        folder.create(part, 0)
        folder.write(part, 0, json.dumps(values, indent=1).encode())
        folder.flush(part)
        try:
            # A link never replaces what is there: of two uploads under one id one wins.
            os.link(folder.path_of(part), folder.path_of(info.id + MANIFEST), follow_symlinks=False)
        except FileExistsError as error:
            raise exception.AlreadyExists(resource="image", id=info.id) from error
        folder.remove(part)
        return made


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written

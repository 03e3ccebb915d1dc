# SPDX-License-Identifier: Apache-2.0
"""Images in memory, for simulations: a store whose every call is a place where faults can strike; no file, no tool."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, cast

from volmgr import exception
from volmgr.images.access import Images
from volmgr.images.base import ImageInfo, ImageStore, Upload
from volmgr.images.stores import Stores
from volmgr.images.transfer import Download, Tools

STORE = "local"


class MemoryImageStore(ImageStore):
    """Images in a dictionary; what is being uploaded is in ``parts``, by id and version.

    :param reach: called with the name of a method before it does anything.
    """

    writable: ClassVar[bool] = True

    def __init__(self, reach: Callable[[str], None] = lambda _method: None) -> None:
        super().__init__(STORE)
        self.images: dict[str, tuple[ImageInfo, bytes]] = {}
        self.parts: dict[tuple[str, str], bytes] = {}
        self.reach = reach

    def find(self, image_id: str) -> ImageInfo:
        self.reach("find")
        if image_id not in self.images:
            raise exception.ImageNotFound(id=image_id, store=self.name)
        return self.images[image_id][0]

    def list(self) -> Sequence[ImageInfo]:
        self.reach("list")
        return [info for info, _data in self.images.values()]

    def stream(self, info: ImageInfo, offset: int = 0) -> Iterator[bytes]:
        self.reach("stream")
        yield self.images[info.id][1][offset:]

    def upload(self, info: ImageInfo) -> Upload:
        self.reach("upload")
        if info.id in self.images:
            raise exception.AlreadyExists(resource="image", id=info.id)
        return _Upload(self, info)

    def discard(self, image_id: str, version: str) -> None:
        self.reach("discard")
        self.parts.pop((image_id, version), None)
        if image_id in self.images and self.images[image_id][0].version == version:
            del self.images[image_id]

    def delete(self, image_id: str) -> None:
        self.reach("delete")
        self.images.pop(image_id, None)


class _Upload(Upload):
    def __init__(self, store: MemoryImageStore, info: ImageInfo) -> None:
        self._store = store
        self._info = info
        self._key = (info.id, info.version)
        store.parts[self._key] = b""

    def write(self, data: bytes) -> None:
        self._store.reach("write")
        self._store.parts[self._key] += data

    def skip(self, count: int) -> None:
        """Leave zeros out: what is simulated are steps, not sizes."""

    def commit(self) -> ImageInfo:
        self._store.reach("commit")
        if self._info.id in self._store.images:
            raise exception.AlreadyExists(resource="image", id=self._info.id)
        data = self._store.parts.pop(self._key)
        made = dataclasses.replace(self._info, size=len(data))
        self._store.images[self._info.id] = made, data
        return made


class _Download(Download):
    @contextlib.contextmanager
    def prepared(self) -> Iterator[Download]:
        if self.virtual_size > self._volume_bytes:
            raise exception.ImageTooLarge(
                id=self.info.id, needed_bytes=self.virtual_size, volume_bytes=self._volume_bytes
            )
        yield self

    @property
    def virtual_size(self) -> int:
        return self.info.size or 0

    def show(self, context: Any, image_id: str) -> dict[str, Any]:
        return {**self.info.to_json(), "id": image_id}

    def download(self, context: Any, image_id: str, file: Any) -> None:
        for data in self._store.stream(self.info):
            file.write(data)


class MemoryImages(Images):
    """What a worker has to do with images, over one :class:`MemoryImageStore`."""

    def __init__(self, store: MemoryImageStore) -> None:
        # Uploads of raw images need no tools, and nothing is staged.
        super().__init__(Stores({STORE: store}, STORE), cast(Tools, None))

    def download(self, info: ImageInfo, key: str, volume_bytes: int) -> Download:
        return _Download(self.tools, self.store_of(info), info, key, volume_bytes)

    def staged(self) -> set[str]:
        return set()

    def forget(self, key: str) -> None:
        """There is nothing to forget."""

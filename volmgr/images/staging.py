# SPDX-License-Identifier: Apache-2.0
"""An image as a file of this host: the store's own, or a copy of it that is fetched first, checked and resumable.

A copy lies in the staging folder under a name of whoever needs it. What an earlier try had fetched of the same version
is kept: its bytes are read again for the checksum, which is cheaper than their way here. What is fetched has the
checksum that the store tells before anything of it is used.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.drivers.folder import Folder
from volmgr.images.base import CHUNK, Hasher, ImageInfo, ImageStore
from volmgr.types import MiB

#: Bytes of the staging folder's file system that are left free for others.
MARGIN = 64 * MiB
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Staged:
    """An image's bytes.

    :ivar fd: a descriptor open for reading. :ivar checked: whether the checksum was found right already.
    """

    fd: int
    checked: bool


class Staging:
    """The staging folder.

    :param path: it is made, for us alone, if it is not there.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def folder(self) -> Folder:
        """The folder, open."""
        return Folder(self.path)

    def keys(self) -> set[str]:
        """Return the keys under which something is staged; without the folder there is nothing."""
        if not os.path.isdir(self.path):
            return set()
        return {name.partition(".")[0] for name, _status in self.folder.entries()}

    def forget(self, key: str) -> None:
        """Remove what was staged under a key; absent is success."""
        folder = self.folder
        for name, _status in folder.entries():
            if name.startswith(f"{key}."):
                folder.remove(name)

    @contextlib.contextmanager
    def opened(self, store: ImageStore, info: ImageInfo, key: str, progress: Progress) -> Iterator[Staged]:
        """Yield an image's bytes; a copy stays until :meth:`forget`.

        :param key: names the copy; a later call with the same one goes on with it.
        :param progress: called with the fraction that was fetched; what it raises stops the transfer.
        :raises ImageCorrupt: what came is not what the store told. :raises NoSpace: there is no room for a copy.
        """
        with store.local(info) as fd:
            if fd is not None:
                yield Staged(fd, checked=False)
                return
        folder, name = self.folder, f"{key}.image"
        if folder.size(name) is None:
            folder.create(name, 0)
        with folder.opened(name) as copy:
            have = os.fstat(copy).st_size
            self._need_room(folder, info, have)
            _fetch(store, info, copy, have, progress)
            yield Staged(copy, checked=True)

    @staticmethod
    def _need_room(folder: Folder, info: ImageInfo, have: int) -> None:
        space = folder.space()
        free = space.f_bavail * space.f_frsize - MARGIN
        if info.size is not None and info.size - have > free:
            raise exception.NoSpace(
                f"{folder.path} has room for {max(0, free)} bytes, the image {info.full_id} has {info.size}",
                hint="Free space there, or set [images] staging_path to a larger folder",
            )


def _fetch(store: ImageStore, info: ImageInfo, fd: int, have: int, progress: Progress) -> None:
    hasher = Hasher(info.hash_algo) if info.checksum and info.hash_algo else None
    if info.size is not None and have > info.size:
        os.ftruncate(fd, 0)
        have = 0
    if hasher is not None:
        for offset in range(0, have, CHUNK):
            hasher.update(offload(os.pread, fd, min(CHUNK, have - offset), offset))
    position = have
    if info.size is None or position < info.size:
        for data in store.stream(info, position):
            if info.size is not None and position + len(data) > info.size:
                raise _wrong(fd, info, f"more than its {info.size} bytes came")
            offload(_put, fd, data, position, hasher)
            position += len(data)
            progress(position / info.size if info.size else 0.0)
    if info.size is not None and position != info.size:
        raise _wrong(fd, info, f"{position} of its {info.size} bytes came")
    if hasher is not None and hasher.hexdigest() != info.checksum:
        raise _wrong(fd, info, f"its {info.hash_algo} is not the one that the store tells")
    offload(os.fsync, fd)


def _wrong(fd: int, info: ImageInfo, reason: str) -> exception.ImageCorrupt:
    # A later try must not go on from bytes that are wrong.
    os.ftruncate(fd, 0)
    return exception.ImageCorrupt(id=info.id, reason=reason)


def _put(fd: int, data: bytes, offset: int, hasher: Hasher | None) -> None:
    if hasher is not None:
        hasher.update(data)
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written

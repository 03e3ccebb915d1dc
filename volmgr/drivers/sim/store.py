# SPDX-License-Identifier: Apache-2.0
"""Where the simulator's objects lie: in memory, or as sparse files that outlive the process.

A store knows names, sizes and bytes; nothing of volumes, verbs or faults.
"""

from __future__ import annotations

import abc
import errno
import os
import socket
import threading
import uuid
import weakref
from collections.abc import Iterator, Sequence

from volmgr import exception
from volmgr.drivers.folder import Folder
from volmgr.tools.punch import punch
from volmgr.types import MiB

BLOCK = 4096
LONGEST_NAME = 255
REPLICA_SUFFIX = ".replica"
_stores: dict[str, MemoryStore] = {}
_folders: weakref.WeakValueDictionary[str, FolderStore] = weakref.WeakValueDictionary()
_stores_lock = threading.Lock()

#: (name of the source, name of the copy, size of the copy in bytes).
Copy = tuple[str, str, int]


class Store(abc.ABC):
    """Objects by name. Every call is one atomic change."""

    @abc.abstractmethod
    def size(self, name: str) -> int | None:
        """Return the size in bytes, None if there is no such object."""

    @abc.abstractmethod
    def create(self, name: str, size_bytes: int) -> None:
        """Make an object of zeros; one that has the name already is replaced."""

    @abc.abstractmethod
    def copy(self, source: str, name: str, size_bytes: int) -> None:
        """Make an object with the bytes of ``source``, zeros behind them; one that has the name is replaced."""

    @abc.abstractmethod
    def copy_all(self, copies: Sequence[Copy]) -> None:
        """Make several copies, all of one instant: no write through the store falls between them; all or none."""

    @abc.abstractmethod
    def rename(self, name: str, new_name: str) -> bool:
        """Rename, replacing; returns whether there was such an object."""

    @abc.abstractmethod
    def adopt(self, name: str, new_name: str) -> bool:
        """Rename without replacing; returns whether there was such an object.

        :raises AlreadyExists: another one has the new name.
        """

    @abc.abstractmethod
    def mark(self, name: str, text: str) -> None:
        """Write a mark on an object that is there; a copy does not have it, a renamed object does."""

    @abc.abstractmethod
    def mark_of(self, name: str) -> str | None:
        """Return the mark of an object, None if it has none or is not there, UNKNOWN where no marks are kept."""

    @abc.abstractmethod
    def remove(self, name: str) -> bool:
        """Remove; returns whether there was such an object."""

    @abc.abstractmethod
    def resize(self, name: str, size_bytes: int) -> None:
        """Change the size of an object that is there."""

    @abc.abstractmethod
    def read(self, name: str, offset: int, length: int) -> bytes:
        """Return bytes of an object that is there."""

    @abc.abstractmethod
    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write bytes into an object that is there."""

    @abc.abstractmethod
    def zero(self, name: str, offset: int, length: int) -> None:
        """Make bytes of an object that is there zeros, so that they take no room."""

    @abc.abstractmethod
    def next_data(self, name: str, offset: int) -> int:
        """Return from where on the next bytes are that may be no zeros in an object that is there, else its end."""

    @abc.abstractmethod
    def pieces(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) of what is not known to be zeros in an object that is there."""

    @abc.abstractmethod
    def identity(self) -> str:
        """Return what two stores have in common only if they are the same one."""

    @abc.abstractmethod
    def entries(self) -> list[tuple[str, int]]:
        """Return (name, size in bytes) of every object."""

    def empty(self) -> bool:
        """Return whether there is certainly nothing in the store."""
        return False

    @abc.abstractmethod
    def path(self, name: str) -> str | None:
        """Return the file that holds an object, None where there are no files."""

    @abc.abstractmethod
    def provisioned(self) -> int:
        """Return the sum of all sizes in bytes, without a walk over the objects."""


class _Blocks:
    __slots__ = ("blocks", "mark", "size")

    def __init__(self, size: int, blocks: dict[int, bytes], mark: str | None = None) -> None:
        self.size = size
        self.blocks = blocks
        self.mark = mark


class MemoryStore(Store):
    """Objects in this process; see :func:`memory_store`."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._objects: dict[str, _Blocks] = {}
        self._lock = threading.Lock()
        self._provisioned = 0
        self._identity = f"memory:{uuid.uuid4()}"

    def _put(self, name: str, item: _Blocks) -> None:
        before = self._objects.get(name)
        self._provisioned += item.size - (before.size if before is not None else 0)
        self._objects[name] = item

    def _get(self, name: str) -> _Blocks:
        try:
            return self._objects[name]
        except KeyError:
            raise exception.NotFound(resource="object", id=name) from None

    def size(self, name: str) -> int | None:
        item = self._objects.get(name)
        return item.size if item is not None else None

    def create(self, name: str, size_bytes: int) -> None:
        with self._lock:
            self._put(name, _Blocks(size_bytes, {}))

    def copy(self, source: str, name: str, size_bytes: int) -> None:
        with self._lock:
            self._put(name, _Blocks(size_bytes, dict(self._get(source).blocks)))

    def copy_all(self, copies: Sequence[Copy]) -> None:
        with self._lock:
            made = [(name, _Blocks(size, dict(self._get(source).blocks))) for source, name, size in copies]
            for name, item in made:
                self._put(name, item)

    def rename(self, name: str, new_name: str) -> bool:
        with self._lock:
            item = self._objects.pop(name, None)
            if item is None:
                return False
            self._provisioned -= item.size
            self._put(new_name, item)
            return True

    def adopt(self, name: str, new_name: str) -> bool:
        with self._lock:
            if name not in self._objects:
                return False
            if new_name in self._objects:
                raise exception.AlreadyExists(resource="object", id=new_name)
            self._objects[new_name] = self._objects.pop(name)
            return True

    def mark(self, name: str, text: str) -> None:
        with self._lock:
            self._get(name).mark = text

    def mark_of(self, name: str) -> str | None:
        item = self._objects.get(name)
        return item.mark if item is not None else None

    def remove(self, name: str) -> bool:
        with self._lock:
            item = self._objects.pop(name, None)
            if item is None:
                return False
            self._provisioned -= item.size
            return True

    def resize(self, name: str, size_bytes: int) -> None:
        with self._lock:
            item = self._get(name)
            kept = {index: data for index, data in item.blocks.items() if (index + 1) * BLOCK <= size_bytes}
            self._put(name, _Blocks(size_bytes, kept, item.mark))

    def read(self, name: str, offset: int, length: int) -> bytes:
        with self._lock:
            item = self._get(name)
            end = min(offset + length, item.size)
            if end <= offset:
                return b""
            first = offset // BLOCK
            zeros = bytes(BLOCK)
            whole = b"".join(item.blocks.get(index, zeros) for index in range(first, (end - 1) // BLOCK + 1))
            return whole[offset - first * BLOCK : end - first * BLOCK]

    def write(self, name: str, offset: int, data: bytes) -> None:
        with self._lock:
            item = self._get(name)
            if offset + len(data) > item.size:
                raise exception.Invalid("The write goes past the end of the object", field="data")
            position = 0
            while position < len(data):
                index, inside = divmod(offset + position, BLOCK)
                part = data[position : position + BLOCK - inside]
                block = bytearray(item.blocks.get(index, bytes(BLOCK)))
                block[inside : inside + len(part)] = part
                item.blocks[index] = bytes(block)
                position += len(part)

    def zero(self, name: str, offset: int, length: int) -> None:
        first, last = -(-offset // BLOCK), (offset + length) // BLOCK
        edges = ((offset, min(first * BLOCK, offset + length)), (max(last * BLOCK, offset), offset + length))
        with self._lock:
            item = self._get(name)
            for index in [index for index in item.blocks if first <= index < last]:
                del item.blocks[index]
        for start, end in edges:
            if start < end:
                self.write(name, start, bytes(end - start))

    def next_data(self, name: str, offset: int) -> int:
        with self._lock:
            item, first = self._get(name), offset // BLOCK
            if first in item.blocks:
                return offset
            found = min((index for index in item.blocks if index > first), default=None)
            return item.size if found is None else found * BLOCK

    def pieces(self, name: str) -> Iterator[tuple[int, bytes]]:
        with self._lock:
            item = self._get(name)
            size, blocks = item.size, sorted(item.blocks.items())
        for index, data in blocks:
            yield index * BLOCK, data[: size - index * BLOCK]

    def identity(self) -> str:
        return self._identity

    def entries(self) -> list[tuple[str, int]]:
        with self._lock:
            return [(name, item.size) for name, item in self._objects.items()]

    def empty(self) -> bool:
        return not self._objects

    def path(self, name: str) -> str | None:
        return None

    def provisioned(self) -> int:
        return self._provisioned


def is_usable(name: object) -> bool:
    """Return whether ``name``, which came from outside, can be an object's; it never leads out of a folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        return False
    try:
        return len(name.encode()) <= LONGEST_NAME
    except UnicodeEncodeError:
        return False


def memory_store(name: str) -> MemoryStore:
    """Return the store of that name in this process, so that a driver made anew finds its objects again."""
    with _stores_lock:
        if name not in _stores:
            _stores[name] = MemoryStore(name)
        return _stores[name]


def forget_store(name: str) -> None:
    """Drop a store and all that is in it, and that of its replicas."""
    with _stores_lock:
        _stores.pop(name, None)
        _stores.pop(name + REPLICA_SUFFIX, None)


class FolderStore(Store):
    """Objects as sparse files: they survive the end of the process, not a crash of the machine.

    See :func:`folder_store`. Who writes to the files by other ways than this object is not held by :meth:`copy_all`.
    """

    def __init__(self, path: str) -> None:
        self._folder = Folder(path, durable=False)
        self._lock = threading.Lock()
        self._instant = threading.Lock()
        self._provisioned = 0
        self.recount()

    def in_place(self) -> bool:
        """Return whether the folder is still the one that the path leads to."""
        return self._folder.in_place()

    def recount(self) -> None:
        """Add up the sizes anew: another process may have changed the folder."""
        with self._lock:
            self._provisioned = sum(size for _name, size in self.entries())

    def _charge(self, size_bytes: int, name: str) -> None:
        with self._lock:
            self._provisioned += size_bytes - (self._folder.size(name) or 0)

    def size(self, name: str) -> int | None:
        return self._folder.size(name)

    def create(self, name: str, size_bytes: int) -> None:
        self._charge(size_bytes, name)
        self._folder.create(name, size_bytes)

    def copy(self, source: str, name: str, size_bytes: int) -> None:
        self._charge(size_bytes, name)
        self._folder.copy_sparse(source, name, size_bytes)

    def copy_all(self, copies: Sequence[Copy]) -> None:
        begun: list[str] = []
        with self._instant:
            try:
                for source, name, size_bytes in copies:
                    begun.append(name)
                    self.copy(source, name, size_bytes)
            except BaseException:
                for name in begun:
                    self.remove(name)
                raise

    def rename(self, name: str, new_name: str) -> bool:
        if self._folder.size(name) is not None:
            self._charge(0, new_name)
        return self._folder.rename(name, new_name)

    def adopt(self, name: str, new_name: str) -> bool:
        with self._lock:
            if self._folder.size(name) is None:
                return False
            if self._folder.size(new_name) is not None:
                raise exception.AlreadyExists(resource="object", id=new_name)
            return self._folder.rename(name, new_name)

    def mark(self, name: str, text: str) -> None:
        self._folder.mark(name, text)

    def mark_of(self, name: str) -> str | None:
        return self._folder.mark_of(name)

    def remove(self, name: str) -> bool:
        self._charge(0, name)
        return self._folder.remove(name)

    def resize(self, name: str, size_bytes: int) -> None:
        self._charge(size_bytes, name)
        self._folder.resize(name, size_bytes)

    def read(self, name: str, offset: int, length: int) -> bytes:
        return self._folder.read(name, offset, length)

    def write(self, name: str, offset: int, data: bytes) -> None:
        with self._instant:
            self._folder.write(name, offset, data)

    def zero(self, name: str, offset: int, length: int) -> None:
        with self._instant, self._folder.opened(name) as fd:
            if punch(fd, offset, length):
                return
        for start in range(offset, offset + length, MiB):
            self.write(name, start, bytes(min(MiB, offset + length - start)))

    def next_data(self, name: str, offset: int) -> int:
        with self._folder.opened(name, os.O_RDONLY) as fd:
            start = _next_data(fd, offset)
            return os.fstat(fd).st_size if start is None else start

    def pieces(self, name: str) -> Iterator[tuple[int, bytes]]:
        with self._folder.opened(name, os.O_RDONLY) as fd:
            position = 0
            while (start := _next_data(fd, position)) is not None:
                end = os.lseek(fd, start, os.SEEK_HOLE)
                for position in range(start, end, MiB):
                    yield position, os.pread(fd, min(MiB, end - position), position)
                position = end

    def identity(self) -> str:
        status = os.stat(self._folder.path)
        return f"folder:{socket.gethostname()}:{status.st_dev}:{status.st_ino}"

    def entries(self) -> list[tuple[str, int]]:
        return [(name, status.st_size) for name, status in self._folder.entries()]

    def path(self, name: str) -> str | None:
        return self._folder.path_of(name)

    def provisioned(self) -> int:
        return self._provisioned


def folder_store(path: str) -> FolderStore:
    """Return the store in that folder; drivers of one process share it, so that it counts and locks for all of them."""
    key = os.path.realpath(path)
    with _stores_lock:
        found = _folders.get(key)
        if found is not None and found.in_place():
            found.recount()
            return found
        _folders[key] = made = FolderStore(path)
        return made


def copy_across(source: Store, name: str, destination: Store, new_name: str, size_bytes: int) -> None:
    """Copy an object to another store, with zeros behind its bytes; one that has the new name is replaced.

    :raises NotFound: there is no such object.
    """
    if source.size(name) is None:
        raise exception.NotFound(resource="object", id=name)
    destination.create(new_name, size_bytes)
    for offset, data in source.pieces(name):
        destination.write(new_name, offset, data)


def _next_data(fd: int, position: int) -> int | None:
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole is left
            return None
        raise

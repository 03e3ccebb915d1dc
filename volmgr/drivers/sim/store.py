# SPDX-License-Identifier: Apache-2.0
"""Where the simulator's objects lie: in memory, or as sparse files that outlive the process.

A store knows names, sizes and bytes; nothing of volumes, verbs or faults.
"""

from __future__ import annotations

import abc
import threading

from volmgr import exception
from volmgr.drivers.folder import Folder

BLOCK = 4096
_stores: dict[str, MemoryStore] = {}
_stores_lock = threading.Lock()


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
    def rename(self, name: str, new_name: str) -> bool:
        """Rename, replacing; returns whether there was such an object."""

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
    def entries(self) -> list[tuple[str, int]]:
        """Return (name, size in bytes) of every object."""

    @abc.abstractmethod
    def path(self, name: str) -> str | None:
        """Return the file that holds an object, None where there are no files."""

    @abc.abstractmethod
    def provisioned(self) -> int:
        """Return the sum of all sizes in bytes, without a walk over the objects."""


class _Blocks:
    __slots__ = ("blocks", "size")

    def __init__(self, size: int, blocks: dict[int, bytes]) -> None:
        self.size = size
        self.blocks = blocks


class MemoryStore(Store):
    """Objects in this process; see :func:`memory_store`."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._objects: dict[str, _Blocks] = {}
        self._lock = threading.Lock()
        self._provisioned = 0

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

    def rename(self, name: str, new_name: str) -> bool:
        with self._lock:
            item = self._objects.pop(name, None)
            if item is None:
                return False
            self._provisioned -= item.size
            self._put(new_name, item)
            return True

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
            self._put(name, _Blocks(size_bytes, kept))

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

    def entries(self) -> list[tuple[str, int]]:
        with self._lock:
            return [(name, item.size) for name, item in self._objects.items()]

    def path(self, name: str) -> str | None:
        return None

    def provisioned(self) -> int:
        return self._provisioned


def memory_store(name: str) -> MemoryStore:
    """Return the store of that name in this process, so that a driver made anew finds its objects again."""
    with _stores_lock:
        if name not in _stores:
            _stores[name] = MemoryStore(name)
        return _stores[name]


def forget_store(name: str) -> None:
    """Drop a store and all that is in it."""
    with _stores_lock:
        _stores.pop(name, None)


class FolderStore(Store):
    """Objects as sparse files: they survive the end of the process, not a crash of the machine."""

    def __init__(self, path: str) -> None:
        self._folder = Folder(path, durable=False)
        self._lock = threading.Lock()
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

    def rename(self, name: str, new_name: str) -> bool:
        if self._folder.size(name) is not None:
            self._charge(0, new_name)
        return self._folder.rename(name, new_name)

    def remove(self, name: str) -> bool:
        self._charge(0, name)
        return self._folder.remove(name)

    def resize(self, name: str, size_bytes: int) -> None:
        self._charge(size_bytes, name)
        self._folder.resize(name, size_bytes)

    def read(self, name: str, offset: int, length: int) -> bytes:
        return self._folder.read(name, offset, length)

    def write(self, name: str, offset: int, data: bytes) -> None:
        self._folder.write(name, offset, data)

    def entries(self) -> list[tuple[str, int]]:
        return [(name, status.st_size) for name, status in self._folder.entries()]

    def path(self, name: str) -> str | None:
        return self._folder.path_of(name)

    def provisioned(self) -> int:
        return self._provisioned

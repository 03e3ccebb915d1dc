# SPDX-License-Identifier: Apache-2.0
"""A backup store in memory, for tests and simulations; what was put into it is on record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from volmgr import exception
from volmgr.backups.store import BackupStore, Stored


class MemoryStore(BackupStore):
    """Objects in a dictionary.

    :param reach: called with the name of a method before it does anything; faults can strike there.
    """

    def __init__(self, reach: Callable[[str], None] = lambda _method: None) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.reach = reach

    def put(self, name: str, data: bytes) -> None:
        self.reach("put")
        self.puts.append(name)
        self.objects[name] = data

    def get(self, name: str) -> bytes:
        self.reach("get")
        if name not in self.objects:
            raise exception.NotFound(resource="object", id=name)
        return self.objects[name]

    def list_objects(self, folder: str) -> Iterator[Stored]:
        self.reach("list")
        found = [Stored(name, len(data)) for name, data in self.objects.items() if name.startswith(f"{folder}/")]
        yield from found

    def folders(self) -> list[str]:
        self.reach("list")
        return sorted({name.split("/")[0] for name in self.objects if "/" in name})

    def delete(self, names: Iterable[str]) -> None:
        self.reach("delete")
        for name in names:
            self.objects.pop(name, None)

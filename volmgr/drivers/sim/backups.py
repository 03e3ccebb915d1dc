# SPDX-License-Identifier: Apache-2.0
"""The simulator's backups: an object of either store as a binary file, with a place for faults between two chunks.

It knows no backup store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from volmgr.drivers.naming import missing
from volmgr.drivers.sim.base import SimBase
from volmgr.drivers.sim.faults import AFTER, BEFORE, BUILDING
from volmgr.drivers.sim.store import Store
from volmgr.types import Volume


class SimBackups(SimBase, abstract=True):
    """Backups and what is restored from them."""

    def backup_volume(self, context: Any, backup: Any, backup_service: Any) -> None:
        source, _is_snapshot = self.get_backup_device(context, backup)
        self._at("backup_volume", BEFORE, backup["id"])
        if self.store.size(source.name) is None:
            raise missing(source)
        between = self._between("backup_volume", backup["id"])
        base = backup.get("base")
        before = base.name if base is not None and self.store.size(base.name) is not None else None
        backup_service.backup(backup, _ObjectFile(self.store, source.name, between, before))
        self._at("backup_volume", AFTER, backup["id"])

    def restore_backup(self, context: Any, backup: Any, volume: Volume, backup_service: Any) -> None:
        self._at("restore_backup", BEFORE, volume.id)
        if self.store.size(volume.name) is None:
            raise missing(volume)
        between = self._between("restore_backup", volume.id)
        backup_service.restore(backup, volume.id, _ObjectFile(self.store, volume.name, between))
        self._at("restore_backup", AFTER, volume.id)

    def _between(self, verb: str, resource_id: str) -> Callable[[], None]:
        return lambda: self._at(verb, BUILDING, resource_id)


class _ObjectFile:
    """An object as a file that knows its holes.

    :param between: called before each piece that is read or written.
    :param before: an object that holds what its bytes were.
    """

    def __init__(self, store: Store, name: str, between: Callable[[], None], before: str | None = None) -> None:
        self._before = before
        self._store = store
        self._name = name
        self._between = between
        self._offset = 0

    def seek(self, offset: int) -> int:
        self._offset = offset
        return offset

    def read(self, length: int) -> bytes:
        self._between()
        return self._store.read(self._name, self._offset, length)

    def write(self, data: bytes) -> int:
        self._between()
        self._store.write(self._name, self._offset, data)
        return len(data)

    def is_same(self, offset: int, length: int) -> bool:
        """Return whether these bytes are known to be what they were; a simulator knows by looking."""
        before = self._before
        if before is None or offset + length > (self._store.size(before) or 0):
            return False
        return self._store.read(self._name, offset, length) == self._store.read(before, offset, length)

    def next_data(self, offset: int) -> int:
        """Return from where on the next bytes are that may be no zeros."""
        return self._store.next_data(self._name, offset)

    def zero(self, offset: int, length: int) -> None:
        """Make these bytes zeros."""
        if self.next_data(offset) < offset + length:
            self._between()
            self._store.zero(self._name, offset, length)

    def flush(self) -> None:
        """Do nothing: an object does not outlive the machine."""

# SPDX-License-Identifier: Apache-2.0
"""What all schedules of a process share, because making it anew would cost more than a schedule: the configuration,
the database file with its compiled statements, the key, and the beginnings (stages) that were made once and copied.

The database has one more table than the product's, filled by triggers: what happened to rows, in the order in which it
was committed.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volmgr import conf as config
from volmgr import crypto
from volmgr.db import schema, services
from volmgr.drivers.sim import MemoryStore
from volmgr.testing.simulation.database import SimDatabase
from volmgr.testing.simulation.rooms import Room, SimRoom, copied

HOST = "node@b"
_CONFIG = """[DEFAULT]
state_path = {folder}/state
host = node
enabled_backends = b
reconcile_interval = 20
[b]
aoe_last_shelf_id = 1
"""
#: by table: what is written down of a row's change.
_NOTED = {
    "operations": "state",
    "volumes": "status",
    "snapshots": "status",
    "groups": "status",
    "cgsnapshots": "status",
    "backups": "status",
    "findings": "kind",
}
HISTORY = "CREATE TABLE sim_history (seq INTEGER PRIMARY KEY, noun TEXT, id TEXT, old TEXT, new TEXT, operation TEXT)"


def _triggers() -> list[str]:
    made = []
    for table, column in _NOTED.items():
        holder = {"operations": "id", "findings": "resource_id"}.get(table, "operation_id")
        insert = "INSERT INTO sim_history (noun, id, old, new, operation) VALUES"
        changed = f"OLD.{column} <> NEW.{column}"
        held = "" if holder != "operation_id" else " OR OLD.operation_id IS NOT NEW.operation_id"
        made += [
            f"CREATE TRIGGER sim_{table}_i AFTER INSERT ON {table} BEGIN "
            f"{insert} ('{table}', NEW.id, NULL, NEW.{column}, NEW.{holder}); END",
            f"CREATE TRIGGER sim_{table}_d AFTER DELETE ON {table} BEGIN "
            f"{insert} ('{table}', OLD.id, OLD.{column}, NULL, OLD.{holder}); END",
            f"CREATE TRIGGER sim_{table}_u AFTER UPDATE ON {table} WHEN {changed}{held} BEGIN "
            f"{insert} ('{table}', NEW.id, OLD.{column}, NEW.{column}, coalesce(OLD.{holder}, NEW.{holder})); END",
        ]
    return made


@dataclass
class Beginning:
    """A stage as it is copied: a copy of the database in memory, the store, the target's exports, the backup store.

    :ivar replicas: the store of the replicas. :ivar keys: of the offers, by their ids; nothing else ever tells them.
    """

    database: sqlite3.Connection
    store: Any
    exports: dict[str, Any]
    backups: dict[str, bytes] = field(default_factory=dict)
    replicas: MemoryStore = field(default_factory=lambda: MemoryStore("replicas"))
    keys: dict[str, str] = field(default_factory=dict)


class Bench:
    """See the module; :meth:`close` removes its folder.

    :param room: which driver the schedules run; the simulator by default.
    """

    #: the class of its worlds, if it is another than usual; and whether the database's clock is the schedule's.
    world: type[Any] | None = None
    virtual = False

    def __init__(self, room: Room | None = None) -> None:
        self.room = room or SimRoom()
        shared = "/dev/shm"
        place = shared if os.access(shared, os.W_OK) else None
        self._folder = tempfile.TemporaryDirectory(prefix="volmgr-simulation-", dir=place)
        folder = Path(self._folder.name)
        file = folder / "volmgr.conf"
        file.write_text(_CONFIG.format(folder=folder) + self.room.furnish(folder))
        self.conf = config.load(["--config-file", str(file)])
        (self.options,) = config.backends(self.conf)
        self.database = SimDatabase(f"sqlite:///{folder}/volmgr.sqlite", virtual=self.virtual)
        schema.prepare(self.database, embedded=True)
        self.cipher = crypto.Cipher.open(str(folder / "keys.json"), self.database)
        with self.database.writer() as conn:
            for statement in (HISTORY, *_triggers()):
                conn.exec_driver_sql(statement)
            services.register(conn, HOST, topic="volume", rpc_version="1.0", incarnation="simulated")
        self._empty = self.keep(self.room.store(), {})
        self.stages: dict[Any, Beginning] = {}

    def _raw(self) -> Any:
        return self.database.engine.raw_connection()

    def keep(
        self,
        store: Any,
        exports: dict[str, Any],
        backups: dict[str, bytes] | None = None,
        replicas: MemoryStore | None = None,
        keys: dict[str, str] | None = None,
    ) -> Beginning:
        """Return what is there now, to begin from later."""
        connection = self._raw()
        try:
            raw: sqlite3.Connection = connection.dbapi_connection
            raw.execute("DELETE FROM sim_history")
            database = sqlite3.connect(":memory:", check_same_thread=False)
            raw.backup(database)
        finally:
            connection.close()
        kept = copied(replicas or MemoryStore("replicas"))
        return Beginning(database, self.room.copy(store), dict(exports), dict(backups or {}), kept, dict(keys or {}))

    def reset(self, beginning: Beginning | None) -> tuple[Any, dict[str, Any]]:
        """Make the database as it was; returns copies of the store and of the target's exports."""
        beginning = beginning or self._empty
        connection = self._raw()
        try:
            beginning.database.backup(connection.dbapi_connection)
        finally:
            connection.close()
        return self.room.copy(beginning.store), dict(beginning.exports)

    def raw(self, statement: str) -> list[Any]:
        """Return the rows of a SELECT, past everything that counts, caches or yields."""
        connection = self._raw()
        try:
            return list(connection.dbapi_connection.execute(statement))
        finally:
            connection.close()

    def history(self) -> list[tuple[str, str, str | None, str | None, str | None]]:
        """Return (noun, id, old, new, operation) of every change, in the order of the commits."""
        return self.raw("SELECT noun, id, old, new, operation FROM sim_history ORDER BY seq")

    def close(self) -> None:
        """Remove everything."""
        for beginning in (self._empty, *self.stages.values()):
            beginning.database.close()
        self.database.close()
        self._folder.cleanup()

# SPDX-License-Identifier: Apache-2.0
"""Several daemons as processes that serve one backend together: the simulator, with a store that they share.

For tests and benchmarks of clusters. The database and the broker are the caller's; what a member has of its own is its
folder, its host name and, where wanted, its way to both.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import crypto, exception, states
from volmgr.db import members, models, schema
from volmgr.db.engine import Database
from volmgr.drivers.naming import describe
from volmgr.testing.chaos.outside import files
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.invariants import violations
from volmgr.testing.waiting import wait_until

CLUSTER = "rack"
#: nothing here is about how fast something is: whatever takes longer does not come at all.
PATIENCE = 180.0
QUORUM = {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True}


class Rack:
    """The daemons of one cluster, by name; none is started yet.

    :param names: the ``host`` of each. :param database: URL of an empty database. :param broker: transport URL.
    :param lease: ``cluster_lease`` in seconds. :param grace: ``cluster_grace`` in seconds.
    :param leases: by name, the ``cluster_lease`` of those that have another.
    :param ways: by name, the URLs of database and broker as that one reaches them, where it has a way of its own.
    :param under: by name, what its command line begins with. :param environments: by name, further variables.
    :param backend: further options of the backend.
    :param options: further options of ``[DEFAULT]``. :param sections: further sections.
    :ivar service: the cluster's backend. :ivar config_file: a client's. :ivar new_client: makes one.
    :ivar database: past everything that the daemons go through.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        *,
        database: str,
        broker: str,
        lease: float,
        grace: float,
        leases: Mapping[str, float] | None = None,
        ways: Mapping[str, tuple[str, str]] | None = None,
        under: Mapping[str, Sequence[str]] | None = None,
        environments: Mapping[str, dict[str, str]] | None = None,
        backend: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        sections: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.store, self._faults = folder / "sim", folder / "faults.json"
        self.database = Database(database, pool_size=5)
        schema.upgrade(self.database)
        crypto.Cipher.open(str(folder / "keys.json"), self.database)  # made once, by whoever deploys
        topic = f"volume-{uuid.uuid4().hex[:8]}"
        shared: dict[str, Any] = {
            "cluster": CLUSTER, "cluster_grace": grace, "volume_topic": topic, "control_exchange": topic,
            "key_file": str(folder / "keys.json"), "report_interval": 1, **(options or {}),
        }  # fmt: skip
        sim = {
            "volume_driver": "sim", "target_helper": "fake", "target_ip_address": "127.0.0.1",
            "sim_store_path": str(self.store), "sim_faults_file": str(self._faults), **(backend or {}),
        }  # fmt: skip

        def made(name: str, way: tuple[str, str]) -> Daemon:
            return Daemon(
                folder / name,
                backend=sim,
                options={
                    **shared,
                    "host": name,
                    "transport_url": way[1],
                    "cluster_lease": (leases or {}).get(name, lease),
                },
                sections={"database": {"connection": way[0]}, "oslo_messaging_rabbit": QUORUM, **(sections or {})},
                under=(under or {}).get(name, ()),
                environment=(environments or {}).get(name),
            )

        straight = (database, broker)
        self.daemons = {name: made(name, (ways or {}).get(name, straight)) for name in names}
        asking = made("client", straight)
        self.config_file = asking.config_file
        self.new_client = asking.client
        self.client: Client = self.new_client()
        self.service = f"{CLUSTER}@b"
        self._lives: dict[str, str] = {}

    def close(self) -> None:
        """End the daemons that live and hang up."""
        self.client.api.close()
        for daemon in self.daemons.values():
            if daemon.process is not None:
                daemon.process.kill()
                daemon.process.wait()
                daemon.process = None
        self.database.close()

    # --- who is there ---------------------------------------------------------------------------------------------

    def start(self, names: Iterable[str] | None = None) -> None:
        """Start whoever of these, or of all, does not run; returns once they are members and serve requests.

        :raises RuntimeError: one ended instead.
        """
        wanted = set(self.daemons if names is None else names)
        for name in wanted:
            if self.daemons[name].process is None:
                self.daemons[name].start(wait=False)
        for name in wanted:
            wait_until(lambda name=name: self.serves(name), PATIENCE, f"{name} serves")  # type: ignore[misc]
        wait_until(lambda: self.members() >= wanted, PATIENCE, "they are members")

    def serves(self, name: str) -> bool:
        """Return whether a daemon answers by its own name.

        :raises RuntimeError: it has ended.
        """
        daemon = self.daemons[name]
        if daemon.process is None or (code := daemon.process.poll()) is not None:
            raise RuntimeError(f"{name} has ended with {code}:\n{daemon.tail()}")
        try:
            self.client.api.call(self.client.context, "get_capabilities", host=daemon.host, rpc_timeout=5)
        except (exception.BackendDown, exception.Timeout):
            return False
        return True

    def members(self) -> set[str]:
        """Return the names of the daemons that are members."""
        with self.database.reader() as conn:
            found = {item["id"]: item["name"].partition("@")[0] for item in members.listed(conn)}
        self._lives |= found
        return set(found.values())

    def ended(self, name: str) -> int:
        """Wait for a daemon to end by itself; returns its status, negative for a signal."""
        daemon = self.daemons[name]
        assert daemon.process is not None
        code = daemon.process.wait(PATIENCE)
        daemon.process = None
        return code

    # --- what they do ---------------------------------------------------------------------------------------------

    def hang(self, ids: Iterable[str]) -> None:
        """Let the next creation of each of these volumes stop in the middle: its storage is there, not in its place."""
        rules = [
            {"verb": "create_volume", "when": "building", "action": "hang", "match": item, "id": item, "deadline": 3600}
            for item in ids
        ]
        self._order(rules)

    def release(self) -> None:
        """Let what hangs go on."""
        self._order([])

    def _order(self, rules: list[dict[str, Any]]) -> None:
        new = self._faults.with_suffix(".new")
        new.write_text(json.dumps(rules))
        new.replace(self._faults)

    def reached(self) -> set[str]:
        """Return the volumes whose creation has come to where :meth:`hang` stops it."""
        spent = Path(f"{self._faults}.spent")
        return {json.loads(line) for line in spent.read_text().splitlines()} if spent.exists() else set()

    def create(self, ids: Iterable[str]) -> dict[str, str]:
        """Ask whoever takes it for volumes; returns the operation of each."""
        api, context = self.client.api, self.client.context
        return {item: api.create_volume(context, item, size=1)["operation_id"] for item in ids}

    def await_done(self, operations: Iterable[str]) -> None:
        """Wait for the end of operations.

        :raises VolmgrError: what one failed with.
        """
        for operation_id in operations:
            self.client.api.wait_operation(self.client.context, operation_id, PATIENCE)

    def owners(self, operations: Iterable[str]) -> dict[str, str]:
        """Return for each operation the name of the daemon that runs it or has ended it."""
        self.members()
        table = models.operations
        query = sa.select(table.c.id, table.c.incarnation).where(table.c.id.in_(list(operations)))
        with self.database.reader() as conn:
            return {row.id: self._lives.get(row.incarnation, "nobody") for row in conn.execute(query)}

    # --- what is left ---------------------------------------------------------------------------------------------

    def settle(self) -> list[str]:
        """Wait until nothing runs; returns what does not fit together then, in words."""
        table = models.operations

        def idle() -> bool:
            with self.database.reader() as conn:
                unfinished = sa.select(table.c.id).where(table.c.state.in_(states.UNFINISHED)).limit(1)
                return conn.execute(unfinished).first() is None and not self._locks(conn)

        wait_until(idle, PATIENCE, "every operation has ended")
        return self.wrong()

    @staticmethod
    def _locks(conn: Connection) -> list[str]:
        return list(conn.execute(sa.select(models.cluster_locks.c.key)).scalars())

    def wrong(self) -> list[str]:
        """Return everything that does not fit together, in words; nothing may be running."""
        with self.database.reader() as conn:
            found = [f"the lock {key} is held" for key in self._locks(conn)]
        found += [f"{path} is nobody's" for path in self.store.iterdir() if describe(path.name, 0) is None]
        return found + violations(self.database, storage=files([self.store]))

    def answers(self, ids: Iterable[str]) -> dict[str, list[str]]:
        """Return for each volume how the operations that were to make it have ended."""
        table, found = models.operations, {item: [] for item in ids}  # type: ignore[var-annotated]
        query = sa.select(table.c.resource_id, table.c.state).where(table.c.verb == "create_volume")
        with self.database.reader() as conn:
            for row in conn.execute(query.where(table.c.resource_id.in_(list(found)))):
                found[row.resource_id].append(row.state)
        return found


def new_ids(count: int) -> list[str]:
    """Return ids of volumes that nobody has."""
    return [str(uuid.uuid4()) for _ in range(count)]

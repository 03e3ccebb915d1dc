# SPDX-License-Identifier: Apache-2.0
"""Two daemons that serve one backend together, on PostgreSQL and RabbitMQ: what one leaves the other ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from volmgr.db import members, models, schema
from volmgr.db.engine import Database
from volmgr.testing.cutting_proxy import CuttingProxy
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.database import empty_database_url
from volmgr.testing.invariants import violations
from volmgr.testing.servers import RabbitMQServer, ServerUnavailable
from volmgr.testing.servers.pytest_fixtures import unavailable
from volmgr.testing.waiting import wait_until

pytest_plugins = ("volmgr.testing.servers.pytest_fixtures",)

NAMES = ("one", "two")
LEASE, GRACE = 10.0, 2.0
WAIT = 120.0


def new_id() -> str:
    return str(uuid.uuid4())


@dataclass
class Cluster:
    """Both daemons, a client of whichever takes a request, and the database past the proxy of the first daemon."""

    daemons: dict[str, Daemon]
    client: Client
    database: Database
    proxy: CuttingProxy
    faults: Path

    def names(self) -> set[str]:
        with self.database.reader() as conn:
            return {item["name"] for item in members.listed(conn)}

    def together(self) -> None:
        """Wait until both are members."""
        wait_until(lambda: self.names() == {"one@b", "two@b"}, WAIT, "both daemons are members")

    def order(self, **rule: object) -> None:
        """Let the next creation of a volume, whoever does it, meet a fault."""
        self.faults.write_text(json.dumps([{"verb": "create_volume", "when": "building", "id": new_id(), **rule}]))

    def submit(self, count: int) -> list[str]:
        """Ask for volumes; returns the operations."""
        asked = [self.client.api.create_volume(self.client.context, new_id(), size=1) for _ in range(count)]
        return [answer["operation_id"] for answer in asked]

    def all_end(self, operations: list[str]) -> None:
        for operation_id in operations:
            self.client.api.wait_operation(self.client.context, operation_id, WAIT)

    def owner(self, operation_id: str) -> str | None:
        """Return the name of the daemon whose life runs an operation, if it is a member."""
        of, table = models.operations, models.members
        query = sa.select(table.c.name).join(of, of.c.incarnation == table.c.id).where(of.c.id == operation_id)
        with self.database.reader() as conn:
            name = conn.execute(query).scalar()
        return str(name).partition("@")[0] if name else None

    def ended(self, name: str) -> int:
        """Wait for a daemon to end by itself; returns its status."""
        daemon = self.daemons[name]
        assert daemon.process is not None
        code = daemon.process.wait(WAIT)
        daemon.process = None
        return code

    def fallen(self) -> list[str]:
        """Return the daemons that have ended by themselves."""
        return [name for name, item in self.daemons.items() if item.process and item.process.poll() is not None]

    def is_whole(self) -> None:
        with self.database.reader() as conn:
            left = conn.execute(sa.select(models.cluster_locks.c.key)).scalars().all()
        assert left == []
        assert violations(self.database) == []


@pytest.fixture
def cluster(
    tmp_path: Path, make_daemon: Callable[..., Daemon], rabbitmq_server: RabbitMQServer
) -> Iterator[Cluster]:
    try:
        url = sa.make_url(empty_database_url("postgresql"))
    except ServerUnavailable as error:
        unavailable(str(error))
    database = Database(url.render_as_string(hide_password=False))
    schema.upgrade(database)
    assert url.port is not None
    proxy = CuttingProxy(url.port, deliver=False)
    faults, topic = tmp_path / "faults.json", f"volume-{uuid.uuid4().hex[:8]}"
    daemons = {}
    for name in NAMES:
        own = url.set(host="127.0.0.1", port=proxy.port) if name == "one" else url
        daemons[name] = make_daemon(
            name,
            backend={
                "volume_driver": "sim", "target_helper": "fake", "target_ip_address": "127.0.0.1",
                "sim_store_path": str(tmp_path / "sim"), "sim_faults_file": str(faults),
            },
            options={
                "host": name, "cluster": "rack", "cluster_lease": LEASE, "cluster_grace": GRACE,
                "transport_url": rabbitmq_server.url, "volume_topic": topic, "control_exchange": topic,
                "key_file": str(tmp_path / "keys.json"), "report_interval": 1, "service_down_time": 5,
            },
            sections={"database": {"connection": own.render_as_string(hide_password=False)}},
        )
    with contextlib.ExitStack() as stack:
        stack.callback(database.close)
        stack.callback(proxy.close)
        for daemon in daemons.values():
            daemon.start()
        client = stack.enter_context(daemons["two"].client())
        made = Cluster(daemons, client, database, proxy, faults)
        made.together()
        yield made
        for daemon in daemons.values():
            if daemon.process is not None:
                assert daemon.stop() == 0
                assert "Traceback" not in daemon.log.read_text(errors="replace"), daemon.tail(100)


def test_what_a_killed_or_stopped_one_was_at(cluster: Cluster) -> None:
    volume = new_id()
    cluster.client.do("create_volume", volume, size=1)
    found = cluster.client.api.get_volume(cluster.client.context, volume)
    assert found["host"].startswith("rack@b#")
    assert [item["host"] for item in cluster.client.api.list_services(cluster.client.context)] == ["rack@b"]

    # The daemon that meets the fault kills itself in the middle of a driver's call; nobody starts it again.
    cluster.order(action="kill")
    operations = cluster.submit(6)
    cluster.all_end(operations)
    wait_until(cluster.fallen, WAIT, "one daemon has ended")
    (dead,) = cluster.fallen()
    assert cluster.ended(dead) == -signal.SIGKILL
    assert cluster.names() == {f"{name}@b" for name in NAMES if name != dead}
    cluster.is_whole()

    # It comes back, and the other one is stopped in order: what it has queued is done by whoever is left.
    cluster.daemons[dead].start()
    cluster.together()
    (other,) = set(NAMES) - {dead}
    operations = cluster.submit(6)
    assert cluster.daemons[other].stop() == 0
    cluster.all_end(operations)
    wait_until(lambda: cluster.names() == {f"{dead}@b"}, WAIT, "the other one has left")
    cluster.is_whole()


def test_nobody_outlives_his_lease(cluster: Cluster) -> None:
    # Stopped in the middle of a driver's call: the kernel ends it, and the call never goes on.
    cluster.order(action="delay", seconds=600.0)
    (operation,) = cluster.submit(1)
    wait_until(lambda: cluster.faults.with_name("faults.json.spent").exists(), WAIT, "the driver is at it")
    owner = cluster.owner(operation)
    assert owner is not None
    os.kill(cluster.daemons[owner].pid, signal.SIGSTOP)
    assert cluster.ended(owner) == -signal.SIGKILL
    cluster.all_end([operation])
    cluster.is_whole()
    cluster.daemons[owner].start()
    cluster.together()

    # Cut off from the database it cannot renew; the other one goes on, and ends what it had begun.
    operations = cluster.submit(4)
    cluster.proxy.close()
    assert cluster.ended("one") == -signal.SIGKILL
    cluster.all_end([*operations, *cluster.submit(2)])
    wait_until(lambda: cluster.names() == {"two@b"}, WAIT, "the first one is no member any more")
    cluster.is_whole()


def test_an_operator_drains_one(cluster: Cluster) -> None:
    command = [sys.executable, "-m", "volmgr.cmd.manage", "--config-file", str(cluster.daemons["two"].config_file)]

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run([*command, "member", *words], capture_output=True, text=True, check=False, timeout=WAIT)
        return done.returncode, done.stdout

    assert run("drain", "one@b")[0] == 0
    assert "draining" in run("list")[1]
    wait_until(lambda: "drains" in cluster.daemons["one"].log.read_text(), WAIT, "it has heard of it")
    operations = cluster.submit(4)
    cluster.all_end(operations)
    with cluster.database.reader() as conn:
        lives = {item["id"]: item["name"] for item in members.listed(conn)}
        done = conn.execute(
            sa.select(models.operations.c.incarnation).where(models.operations.c.id.in_(operations))
        ).scalars()
        assert {lives[item] for item in done} == {"two@b"}
    assert run("undrain", "one@b")[0] == 0
    assert "draining" not in run("list")[1]
    assert run("fence", "one@b", "--i-know-it-is-dead")[0] == 1

# SPDX-License-Identifier: Apache-2.0
"""A daemon as a fleet runs it: on PostgreSQL that keeps every commit, behind a private RabbitMQ if asked for.

Servers are the distribution's, on free ports of the loopback, and end with the block. This module measures nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy

from benchmarks.figures import tell

QUORUM = {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True}
#: more than any benchmark makes: what is limited is not what is measured.
UNLIMITED = {"volumes": -1, "snapshots": -1, "gigabytes": -1}


@contextlib.contextmanager
def postgresql() -> Iterator[Any]:
    """Run a private PostgreSQL with ``fsync`` on."""
    from volmgr.testing.servers import PostgreSQLServer

    tell("starting a private PostgreSQL")
    server = PostgreSQLServer(durable=True)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def rabbitmq() -> Iterator[str]:
    """Run a private RabbitMQ; yields its URL."""
    from volmgr.testing.servers import RabbitMQServer

    tell("starting a private RabbitMQ")
    server = RabbitMQServer()
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextlib.contextmanager
def node(folder: Path, database_url: str, *, transport_url: str = "", keeps: bool = False) -> Iterator[Any]:
    """Run a daemon with the simulator on a new database.

    :param transport_url: a broker's; without one the daemon listens on ``unix://``.
    :param keeps: the simulator's objects outlive the daemon, as files.
    """
    from volmgr.db import schema
    from volmgr.db.engine import Database
    from volmgr.testing.daemon import Daemon

    made = Database(database_url, pool_size=5)
    schema.upgrade(made)
    made.close()
    backend = {"volume_driver": "sim", "target_helper": "fake", "target_ip_address": "127.0.0.1"}
    if keeps:
        backend["sim_store_path"] = str(folder / "sim")
    sections: dict[str, dict[str, Any]] = {"database": {"connection": database_url}, "quota": UNLIMITED}
    options: dict[str, Any] = {}
    if transport_url:
        options |= {"transport_url": transport_url, "volume_topic": "volume-fleet", "control_exchange": "fleet"}
        sections["oslo_messaging_rabbit"] = QUORUM
    daemon = Daemon(folder, backend=backend, options=options, sections=sections)
    try:
        daemon.start()
        yield daemon
    finally:
        if daemon.process is not None:
            daemon.kill()


def unfinished(database_url: str) -> int:
    """Return how many operations have not ended."""
    engine = sqlalchemy.create_engine(database_url, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as conn:
        counted = conn.execute(sqlalchemy.text("SELECT count(*) FROM operations WHERE finished_at IS NULL"))
        return int(counted.scalar_one())

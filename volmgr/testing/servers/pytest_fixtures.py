# SPDX-License-Identifier: Apache-2.0
"""One private server of each kind for a whole test session; a test skips, with the reason, where none can be had.

Name this module in ``pytest_plugins``. A server that is installed but does not start is an error, not a skip.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NoReturn, TypeVar

import pytest

from volmgr.testing.servers import MariaDBServer, PostgreSQLServer, PrivateServer, RabbitMQServer, ServerUnavailable

Server = TypeVar("Server", bound=PrivateServer)


def unavailable(reason: str) -> NoReturn:
    """End the running test: skipped with ``reason``, or failed where ``VOLMGR_STRICT`` asks that nothing is skipped."""
    if os.environ.get("VOLMGR_STRICT", "0") not in ("", "0"):
        pytest.fail(f"cannot run here: {reason}", pytrace=False)
    pytest.skip(reason)


def _serve(server: Server) -> Iterator[Server]:
    try:
        server.start()
    except ServerUnavailable as error:
        unavailable(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQLServer]:
    """A PostgreSQL for the session; take a database of its own for each test by ``create_database``."""
    yield from _serve(PostgreSQLServer())


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """A MariaDB for the session; take a database of its own for each test by ``create_database``."""
    yield from _serve(MariaDBServer())


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQServer]:
    """A RabbitMQ node for the session; give each test topics of its own."""
    yield from _serve(RabbitMQServer())

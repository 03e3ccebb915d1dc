# SPDX-License-Identifier: Apache-2.0
"""A fresh database with the schema, of the kind that the environment asks for, for tests of anything that uses SQL.

``VOLMGR_TEST_DATABASE`` is ``sqlite`` (the default), ``postgresql`` or ``mariadb``. Name this module in
``pytest_plugins`` for the fixture ``database``; the servers are started once for the process, when first asked for.
"""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest

from volmgr.db import schema
from volmgr.db.engine import Database

KINDS = ("sqlite", "postgresql", "mariadb")
ENVIRONMENT = "VOLMGR_TEST_DATABASE"

_numbers = itertools.count()
_servers: dict[str, Callable[[str], str]] = {}
_folder: str | None = None


def kind_asked_for() -> str:
    """Return the kind of database that this run is for.

    :raises ValueError: the environment names none of :data:`KINDS`.
    """
    kind = os.environ.get(ENVIRONMENT, "sqlite")
    if kind not in KINDS:
        raise ValueError(f"{ENVIRONMENT} is {kind!r}; it must be one of {', '.join(KINDS)}")
    return kind


def empty_database_url(kind: str) -> str:
    """Return the URL of a new database without any table.

    :raises ServerUnavailable: its server is not installed here.
    """
    name = f"volmgr_{os.getpid()}_{next(_numbers)}"
    if kind == "sqlite":
        return f"sqlite:///{_sqlite_folder()}/{name}.sqlite"
    if kind not in _servers:
        _servers[kind] = _start(kind)
    return _servers[kind](name)


def fresh_database(kind: str | None = None, *, pool_size: int = 20) -> Database:
    """Return a new database with the schema; close it when done.

    :param kind: one of :data:`KINDS`; None for what the environment asks for.
    :raises ServerUnavailable: its server is not installed here.
    """
    made = Database(empty_database_url(kind or kind_asked_for()), pool_size=pool_size)
    schema.upgrade(made)
    return made


def _sqlite_folder() -> str:
    global _folder
    if _folder is None:
        _folder = tempfile.mkdtemp(prefix="volmgr-test-")
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    return _folder


def _start(kind: str) -> Callable[[str], str]:
    from volmgr.testing.servers import MariaDBServer, PostgreSQLServer

    server = PostgreSQLServer() if kind == "postgresql" else MariaDBServer()
    server.start()
    atexit.register(server.stop)
    return server.create_database


@pytest.fixture
def database() -> Iterator[Database]:
    """A fresh database with the schema, of the kind that the environment asks for; skips where it cannot be had."""
    from volmgr.testing.servers import ServerUnavailable
    from volmgr.testing.servers.pytest_fixtures import unavailable

    try:
        made = fresh_database()
    except ServerUnavailable as error:
        unavailable(str(error))
    yield made
    made.close()

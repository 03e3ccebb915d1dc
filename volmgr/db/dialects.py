# SPDX-License-Identifier: Apache-2.0
"""What differs between SQLite, PostgreSQL and MariaDB when a connection is opened. Knows no table.

Sources: sqlite.org (pragma.html, wal.html, lang_transaction.html), PostgreSQL "Client Connection Defaults", MariaDB
"Server System Variables".
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from volmgr import concurrency, exception

SCHEMES = {
    "sqlite": ("sqlite", "sqlite+pysqlite"),
    "postgresql": ("postgresql", "postgresql+psycopg2"),
    "postgres": ("postgresql", "postgresql+psycopg2"),
    "mysql": ("mysql", "mysql+pymysql"),
    "mariadb": ("mysql", "mysql+pymysql"),
}

# Where threads are green, SQLite's own busy wait would stop all of them; the wait for BEGIN is done here instead.
GREEN_BUSY_MILLISECONDS = 20
CONNECT_TIMEOUT_SECONDS = 10
SHORTEST_IDLE_SECONDS = 5
#: how much longer than a statement may take its connection waits for the server, at most.
ANSWER_SECONDS = 30
_PSYCOPG2_INERROR = 3


@dataclass(frozen=True)
class Settings:
    """How connections to one database are opened."""

    kind: str
    url: URL
    on_connect: Callable[[Any, Any], None]
    connect_args: Mapping[str, Any]
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    is_failed: Callable[[Any], bool] = lambda dbapi_connection: False
    #: has each statement be a transaction of its own, where that costs nothing and saves BEGIN and ROLLBACK.
    set_autocommit: Callable[[Any, bool], None] = lambda dbapi_connection, on: None


class database_now(FunctionElement[Any]):
    """The database's own time of day, UTC: the one clock that all hosts share."""

    type = sa.DateTime()
    inherit_cache = True


@compiles(database_now)
def _sqlite_now(element: Any, compiler: Any, **kwargs: Any) -> str:
    # The same text that SQLAlchemy stores, so that comparisons work.
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(database_now, "postgresql")
def _postgresql_now(element: Any, compiler: Any, **kwargs: Any) -> str:
    return "timezone('utc', clock_timestamp())"


@compiles(database_now, "mysql")
@compiles(database_now, "mariadb")
def _mysql_now(element: Any, compiler: Any, **kwargs: Any) -> str:
    return "utc_timestamp(6)"


class database_later(FunctionElement[Any]):
    """The database's time of day in so many seconds, which may be fewer than none: ``database_later(seconds)``."""

    type = sa.DateTime()
    inherit_cache = True


@compiles(database_later)
def _sqlite_later(element: Any, compiler: Any, **kwargs: Any) -> str:
    seconds = compiler.process(element.clauses, **kwargs)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', ({seconds}) || ' seconds') || '000')"


@compiles(database_later, "postgresql")
def _postgresql_later(element: Any, compiler: Any, **kwargs: Any) -> str:
    seconds = compiler.process(element.clauses, **kwargs)
    return f"(timezone('utc', clock_timestamp()) + make_interval(secs => {seconds}))"


@compiles(database_later, "mysql")
@compiles(database_later, "mariadb")
def _mysql_later(element: Any, compiler: Any, **kwargs: Any) -> str:
    return f"timestampadd(microsecond, 1000000 * ({compiler.process(element.clauses, **kwargs)}), utc_timestamp(6))"


def settings(url: str, busy_timeout: float, statement_timeout: float) -> Settings:
    """Return how to open a database; times are seconds.

    :raises InvalidConfiguration: the URL cannot be used; the message shows no password.
    """
    try:
        parsed = make_url(url)
        kind, driver = SCHEMES[parsed.drivername.partition("+")[0]]
    except (sa.exc.ArgumentError, KeyError, ValueError) as error:
        raise exception.InvalidConfiguration(
            reason="[database] connection names no database that volmgr can use",
            hint=f"It begins with one of {', '.join(sorted(SCHEMES))}, as in sqlite:////var/lib/volmgr/volmgr.sqlite",
        ) from error
    parsed = parsed.set(drivername=driver)
    make = {"sqlite": _sqlite, "postgresql": _postgresql, "mysql": _mysql}[kind]
    return make(parsed, busy_timeout, statement_timeout)


# --- SQLite -------------------------------------------------------------------------------------------------------


def _sqlite(url: URL, busy_timeout: float, statement_timeout: float) -> Settings:
    path = url.database
    if not path or path == ":memory:" or path.startswith("file:"):
        raise exception.InvalidConfiguration(
            reason="an embedded database needs a file of its own", hint="Give sqlite:////absolute/path"
        )
    busy = GREEN_BUSY_MILLISECONDS if concurrency.is_green() else int(busy_timeout * 1000)
    prepare_file(path)

    def on_connect(connection: Any, _record: Any) -> None:
        _sqlite_pragmas(connection, busy, busy_timeout)

    return Settings(
        "sqlite",
        url.set(database=os.path.abspath(path)),
        on_connect,
        {"timeout": busy / 1000, "isolation_level": None, "check_same_thread": False, "cached_statements": 256},
    )


def prepare_file(path: str) -> None:
    """Make a database's folder and file, for its owner only, if they are not there.

    :raises InvalidConfiguration: the folder cannot be written.
    """
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
        # Only ever a new file: closing a descriptor of one that SQLite has open would drop its locks.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise exception.InvalidConfiguration(
            reason=f"the database file {path} cannot be made: {error.strerror}",
            hint="Set state_path or [database] connection to a folder that this user may write",
        ) from error


def _sqlite_pragmas(connection: sqlite3.Connection, busy_milliseconds: int, busy_timeout: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {busy_milliseconds}")
    # The change to WAL does not always wait for another process that makes it at the same moment.
    _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"), busy_timeout)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA journal_size_limit = 67108864")


def begin_immediate(connection: sqlite3.Connection, busy_timeout: float) -> None:
    """Begin a writing transaction, waiting for other processes at most ``busy_timeout`` seconds, threads friendly.

    :raises sqlite3.OperationalError: the database stayed busy.
    """
    _patiently(lambda: connection.execute("BEGIN IMMEDIATE"), busy_timeout)


def _patiently(action: Callable[[], Any], timeout: float) -> None:
    deadline: float | None = None
    pause = 0.001
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            now = time.monotonic()
            deadline = deadline or now + timeout
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or now >= deadline:
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(pause * 2, 0.05)


# --- servers ------------------------------------------------------------------------------------------------------


def _idle_seconds(busy_timeout: float) -> int:
    """Return how long a transaction may do nothing before the server ends it.

    Its client may be cut off, and others wait for its locks: they get them before their own patience ends.
    """
    return max(SHORTEST_IDLE_SECONDS, int(busy_timeout * 2 / 3))


def _answer_seconds(statement_timeout: float) -> float:
    return statement_timeout + min(ANSWER_SECONDS, statement_timeout)


def _postgresql(url: URL, busy_timeout: float, statement_timeout: float) -> Settings:
    session = {
        "default_transaction_isolation": "read\\ committed",
        "lock_timeout": f"{int(busy_timeout * 1000)}",
        "statement_timeout": f"{int(statement_timeout * 1000)}",
        "idle_in_transaction_session_timeout": f"{_idle_seconds(busy_timeout) * 1000}",
        "timezone": "UTC",
    }
    return Settings(
        "postgresql",
        url,
        lambda connection, record: None,
        {
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": "volmgr",
            "options": " ".join(f"-c {name}={value}" for name, value in session.items()),
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": int(_answer_seconds(statement_timeout) * 1000),
        },
        {"client_encoding": "utf8"},
        lambda connection: bool(connection.info.transaction_status == _PSYCOPG2_INERROR),
        # A flag of the client's, which nothing is sent for.
        lambda connection, on: setattr(connection, "autocommit", on),
    )


def _mysql(url: URL, busy_timeout: float, statement_timeout: float) -> Settings:
    def on_connect(connection: Any, _record: Any) -> None:
        session = [
            f"innodb_lock_wait_timeout = {max(1, int(busy_timeout))}",
            "sql_mode = 'TRADITIONAL'",
            "time_zone = '+00:00'",
        ]
        if "MariaDB" in connection.get_server_info():
            session.append(f"max_statement_time = {statement_timeout:g}")
            session.append(f"idle_write_transaction_timeout = {_idle_seconds(busy_timeout)}")
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION " + ", ".join(session))

    return Settings(
        "mysql",
        url,
        on_connect,
        # SQLAlchemy adds FOUND_ROWS, so that a compare-and-swap counts matched rows.
        {
            "charset": "utf8mb4",
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "read_timeout": _answer_seconds(statement_timeout),
            "write_timeout": _answer_seconds(statement_timeout),
        },
        {"isolation_level": "READ COMMITTED"},
    )

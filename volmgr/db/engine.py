# SPDX-License-Identifier: Apache-2.0
"""Connections and transactions: the only module that begins, commits and rolls back.

SQLite (embedded), PostgreSQL and MariaDB behave the same to callers: one transaction per ``with``, committed at its
end, rolled back by an exception, with errors that say what to do. This module knows no table. It does not import
``sqlalchemy.orm``, which costs memory and start-up time.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import sqlalchemy as sa
from oslo_db.sqlalchemy import exc_filters
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from volmgr import exception
from volmgr.db import dialects
from volmgr.db.faults import (
    CommitUnknown,
    DatabaseBusy,
    DatabaseDown,
    DatabaseFull,
    classify,
    is_duplicate,
    rolled_back,
    translate,
)
from volmgr.db.turns import Turns
from volmgr.runtime import Clock, SystemClock

__all__ = [
    "CommitUnknown",
    "Count",
    "Database",
    "DatabaseBusy",
    "DatabaseDown",
    "DatabaseFull",
    "classify",
    "is_duplicate",
    "utcnow",
]

LOG = logging.getLogger(__name__)

# The filters log, with a traceback, what they raise anyway; whoever catches it knows whether it is worth a line.
logging.getLogger("oslo_db.sqlalchemy.exc_filters").setLevel(logging.ERROR)

T = TypeVar("T")

# A connection that rested longer is asked whether it still lives before it is used again.
PING_AFTER_SECONDS = 1.0
FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.5


def utcnow() -> datetime.datetime:
    """Return the time of day in UTC, without a zone, as the columns keep it."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


@dataclass
class Count:
    """How much was asked of the database: statements without BEGIN, COMMIT and pragmas, and transactions."""

    statements: int = 0
    transactions: int = 0


class Database:
    """One database and its pool of connections.

    :param url: as SQLAlchemy writes it; ``sqlite:////path``, ``postgresql://…`` or ``mysql://…`` (``mariadb://…``).
    :param pool_size: connections at most; as many as threads that use the database at once, or they wait.
    :param busy_timeout: seconds to wait for another transaction's locks, for a connection of the pool, and for the
        server's answer to a connection attempt.
    :param statement_timeout: seconds that one statement may take on a server.
    :param retry_timeout: seconds after which :meth:`retrying` begins no further try.
    :param clock: what :meth:`retrying` measures its pauses by.
    :raises InvalidConfiguration: the URL names no database that volmgr can use.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 20,
        busy_timeout: float = 15.0,
        statement_timeout: float = 60.0,
        retry_timeout: float = 15.0,
        clock: Clock | None = None,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.busy_timeout = busy_timeout
        self.retry_timeout = retry_timeout
        self.count = Count()
        self._settings = dialects.settings(url, busy_timeout, statement_timeout)
        self.url = self._settings.url
        self.kind = self._settings.kind
        self.name = self.url.render_as_string(hide_password=True)
        self.path = self.url.database if self.kind == "sqlite" else None
        self._turns = Turns() if self.kind == "sqlite" else None
        self._lock_owner: int | None = None
        self.engine = self._make_engine(pool_size)

    @classmethod
    def from_config(cls, group: Any, pool_size: int) -> Database:
        """Return the database that a ``[database]`` group names."""
        return cls(
            group.connection,
            pool_size=pool_size,
            busy_timeout=group.busy_timeout,
            statement_timeout=group.statement_timeout,
            retry_timeout=group.retry_timeout,
        )

    def _make_engine(self, pool_size: int) -> Engine:
        options: dict[str, Any] = dict(self._settings.engine_options)
        engine = sa.create_engine(
            self.url,
            connect_args=self._settings.connect_args,
            poolclass=sa.QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=self.busy_timeout,
            pool_use_lifo=True,
            # Transactions end here and nowhere else; a second ROLLBACK would be one more round trip.
            pool_reset_on_return=None,
            # Parameters may be ciphertext or user data: errors and logs show none.
            hide_parameters=True,
            query_cache_size=1000,
            **options,
        )
        exc_filters.register_engine(engine)
        event.listen(engine, "connect", self._settings.on_connect)
        event.listen(engine, "before_cursor_execute", self._note_statement)
        if self.kind != "sqlite":
            event.listen(engine, "checkout", self._ping_if_stale)
            event.listen(engine, "checkin", _note_rest)
        return engine

    def _note_statement(self, *_arguments: Any) -> None:
        self.count.statements += 1

    def _ping_if_stale(self, dbapi_connection: Any, record: Any, _proxy: Any) -> None:
        rested_since = record.info.get("rested_since")
        if rested_since is None or time.monotonic() - rested_since < PING_AFTER_SECONDS:
            return
        try:
            alive = self.engine.dialect.do_ping(dbapi_connection)
        except Exception as error:
            LOG.debug("A pooled connection to %s is dead: %s", self.name, error)
            alive = False
        if not alive:
            raise sa.exc.DisconnectionError("the connection died in the pool")

    def writer(self, *, urgent: bool = False) -> Transaction:
        """Return a context manager whose value is a connection inside one transaction that may write.

        Committed at the end, rolled back on any exception. On SQLite writers take turns, so do not wait for anything
        inside; a second writer inside the first is an error at once.

        :param urgent: a caller waits for the outcome: it goes before writers that nobody waits for.
        :raises DatabaseBusy, DatabaseDown, DatabaseFull: nothing was changed.
        :raises CommitUnknown: the connection broke at COMMIT.
        """
        return Transaction(self, write=True, urgent=urgent)

    def reader(self) -> Transaction:
        """Return a context manager whose value is a connection inside one transaction that only reads.

        On SQLite it sees one instant; on servers each statement sees what was committed before it. Always rolled back.

        :raises DatabaseBusy, DatabaseDown: as they say.
        """
        return Transaction(self, write=False)

    def retrying(self, function: Callable[[], T]) -> T:
        """Call a function that holds one whole transaction, again after a deadlock or a lost connection.

        The pauses grow and are random. A commit of unknown outcome is never repeated here.

        :param function: it must change nothing but the database.
        :returns: what ``function`` returns.
        :raises DatabaseBusy, DatabaseDown: still so after ``retry_timeout`` seconds.
        """
        return self._repeat(function, (DatabaseBusy, DatabaseDown))

    def repeating(self, function: Callable[[], T]) -> T:
        """Like :meth:`retrying`, for a function that may have committed and then runs again: twice is as once.

        So it is called again after a commit of unknown outcome, too.

        :param function: it must change nothing but the database; of two runs the second one's result counts.
        :raises DatabaseBusy, DatabaseDown, CommitUnknown: still so after ``retry_timeout`` seconds.
        """
        return self._repeat(function, (DatabaseBusy, DatabaseDown, CommitUnknown))

    def _repeat(self, function: Callable[[], T], errors: tuple[type[exception.VolmgrError], ...]) -> T:
        deadline = self.clock.monotonic() + self.retry_timeout
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return function()
            except errors as error:
                if self.clock.monotonic() + pause >= deadline:
                    raise
                LOG.debug("Transaction is tried again: %s", error)
            self.clock.wait(threading.Event(), pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    @contextlib.contextmanager
    def counting(self) -> Iterator[Count]:
        """Count what everybody asks of this database inside the ``with``; the result is complete after it."""
        before = Count(self.count.statements, self.count.transactions)
        result = Count()
        try:
            yield result
        finally:
            result.statements = self.count.statements - before.statements
            result.transactions = self.count.transactions - before.transactions

    def close(self) -> None:
        """Close the pooled connections; those in use are closed when they come back."""
        self.engine.dispose()

    # --- what Transaction needs -----------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        try:
            return self.engine.connect()
        except Exception as error:
            translated = translate(error, self.name)
            if translated is error:
                # A refused login or a missing database: the server is there and will not have us.
                raise DatabaseDown(
                    database=self.name, hint=f"Check user, password and name in [database] connection ({_first(error)})"
                ) from error
            raise translated from error

    def _lock(self, urgent: bool) -> None:
        if self._turns is None:
            return
        if self._lock_owner == threading.get_ident():
            raise RuntimeError("a writer inside a writer of the same thread would wait for itself")
        if not self._turns.acquire(self.busy_timeout, urgent=urgent):
            raise DatabaseBusy(database=self.name)
        self._lock_owner = threading.get_ident()

    def _unlock(self) -> None:
        if self._turns is not None:
            self._lock_owner = None
            self._turns.release()

    def _begin(self, conn: Connection, write: bool) -> None:
        if self.kind == "sqlite":
            dbapi: Any = conn.connection.dbapi_connection
            if write:
                dialects.begin_immediate(dbapi, self.busy_timeout)
            else:
                dbapi.execute("BEGIN")
        elif not write:
            self._settings.set_autocommit(conn.connection.dbapi_connection, True)
        conn.begin()
        self.count.transactions += 1

    def _end_reading(self, conn: Connection) -> None:
        conn.rollback()
        if not conn.invalidated:  # to look at one that broke would open another
            self._settings.set_autocommit(conn.connection.dbapi_connection, False)


class Transaction:
    """One transaction; made by :meth:`Database.writer` and :meth:`Database.reader`."""

    __slots__ = ("_conn", "_db", "_urgent", "_write")

    def __init__(self, db: Database, write: bool, urgent: bool = False) -> None:
        self._db = db
        self._write = write
        self._urgent = urgent
        self._conn: Connection | None = None

    def __enter__(self) -> Connection:
        db = self._db
        if self._write:
            db._lock(self._urgent)
        try:
            conn = self._conn = db._connect()
            try:
                db._begin(conn, self._write)
            except BaseException as error:
                _discard(conn)
                if (translated := translate(error, db.name)) is not error:
                    raise translated from error
                raise
        except BaseException:
            if self._write:
                db._unlock()
            raise
        return conn

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        conn, self._conn = self._conn, None
        assert conn is not None
        try:
            if error is not None:
                self._rollback(conn, error)
                if (translated := translate(error, self._db.name)) is not error:
                    raise translated from error
            elif self._write:
                self._commit(conn)
            else:
                self._rollback(conn, None)
        finally:
            conn.close()
            if self._write:
                self._db._unlock()

    def _rollback(self, conn: Connection, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Exception):
            # A killed thread may have left the protocol in the middle of an answer.
            _discard(conn)
            return
        try:
            if self._write:
                conn.rollback()
            else:
                self._db._end_reading(conn)
        except Exception as second:
            # The transaction is over either way: the server rolls back what it loses.
            LOG.debug("ROLLBACK on %s failed: %s", self._db.name, second)
            _discard(conn)

    def _commit(self, conn: Connection) -> None:
        if self._db._settings.is_failed(conn.connection.dbapi_connection):
            # PostgreSQL answers COMMIT of a failed transaction with success, and rolls back.
            self._rollback(conn, None)
            raise exception.Inconsistent(
                "A statement failed, its error was ignored, and the transaction is rolled back", hint="This is a bug"
            )
        try:
            conn.commit()
        except Exception as error:
            proved = rolled_back(error)
            _discard(conn)
            if not proved:
                LOG.error("COMMIT on %s has an unknown outcome: %s", self._db.name, _first(error))
                raise CommitUnknown() from error
            if (translated := translate(error, self._db.name)) is not error:
                raise translated from error
            raise
        except BaseException:
            _discard(conn)
            raise


def _discard(conn: Connection) -> None:
    """Throw a connection away whose state is not known."""
    with contextlib.suppress(Exception):  # it is being thrown away: no error of it can matter any more
        conn.invalidate()
    conn.close()


def _note_rest(_dbapi_connection: Any, record: Any) -> None:
    record.info["rested_since"] = time.monotonic()


def _first(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__

# SPDX-License-Identifier: Apache-2.0
"""What an error of a database driver means for the transaction that met it.

oslo.db's filters give duplicates and deadlocks their types; lock waits, time limits, full disks and SQLite's codes are
told apart here, by SQLSTATE and error number, which no server translates. This module opens no connection.
"""

from __future__ import annotations

import enum

from oslo_db import exception as db_exception
from sqlalchemy import exc as sa_exc

from volmgr import exception

_POSTGRESQL_CONTENTION = frozenset({"40001", "40P01", "55P03", "57014"})
_POSTGRESQL_LOST = frozenset({"57P01", "57P02", "57P03", "53300"})
_MYSQL_CONTENTION = frozenset({1020, 1205, 1213, 1969, 3572})
_MYSQL_LOST = frozenset({0, 1040, 1047, 1053, 1077, 1079, 1927, 2002, 2003, 2006, 2013, 2014, 2055})
_SQLITE_CONTENTION = frozenset({5, 6})
_SQLITE_FULL = 13
# READONLY, IOERR, CORRUPT, CANTOPEN, NOTADB: the file itself is the trouble.
_SQLITE_BROKEN = frozenset({8, 10, 11, 14, 26})


class Fault(enum.Enum):
    """What is to be done about an error."""

    CONTENTION = "contention"
    DOWN = "down"
    FULL = "full"
    OTHER = "other"


class DatabaseDown(exception.BackendDown):
    """The database does not answer, or its file cannot be used."""

    code = "volmgr.backend_down.database"
    sentence = "The database {database} does not answer"


class DatabaseBusy(exception.Busy):
    """Another transaction holds what this one needs, and kept it longer than the limit."""

    code = "volmgr.busy.database"
    sentence = "The database {database} is busy: another transaction did not end in time"
    default_hint = "Send the request again"


class DatabaseFull(exception.NoSpace):
    """The database's disk is full; nothing was changed."""

    code = "volmgr.no_space.database"
    sentence = "The disk of the database {database} is full"
    default_hint = "Free some space there; nothing was changed"


class CommitUnknown(exception.BackendDown):
    """The connection broke at COMMIT: whether the transaction counts must be looked up by the operation's id."""

    code = "volmgr.backend_down.commit_unknown"
    sentence = "The connection to the database was lost during COMMIT"
    default_hint = "Look the operation up before sending the request again"


def driver_error(error: BaseException) -> BaseException | None:
    """Return the database driver's own error inside ``error``, or None if there is none."""
    if isinstance(error, db_exception.DBError) and error.inner_exception is not None:
        error = error.inner_exception
    if isinstance(error, sa_exc.DBAPIError):
        return error.orig
    module = type(error).__module__.partition(".")[0]
    return error if module in ("sqlite3", "psycopg2", "pymysql") else None


def classify(error: BaseException) -> Fault:
    """Return what is to be done about an error of a statement, a connection attempt or a COMMIT."""
    if isinstance(error, db_exception.DBDeadlock | db_exception.DBConsistencyError):
        return Fault.CONTENTION
    if isinstance(error, db_exception.DBConnectionError):
        return Fault.DOWN
    if isinstance(error, sa_exc.TimeoutError):
        return Fault.CONTENTION
    orig = driver_error(error)
    if orig is None:
        return Fault.OTHER
    if (number := getattr(orig, "sqlite_errorcode", None)) is not None:
        return _sqlite(number & 0xFF)
    if hasattr(orig, "pgcode"):
        return _postgresql(orig)
    if isinstance(error, sa_exc.DBAPIError) and error.connection_invalidated:
        return Fault.DOWN
    if type(orig).__module__.startswith("pymysql"):
        return _mysql(orig)
    return Fault.OTHER


def _sqlite(number: int) -> Fault:
    if number in _SQLITE_CONTENTION:
        return Fault.CONTENTION
    if number == _SQLITE_FULL:
        return Fault.FULL
    return Fault.DOWN if number in _SQLITE_BROKEN else Fault.OTHER


def _postgresql(orig: BaseException) -> Fault:
    state = getattr(orig, "pgcode", None)
    if state is None:
        # Without a SQLSTATE it was libpq that failed, not the server: the connection is gone.
        broken = type(orig).__name__ in ("OperationalError", "InterfaceError", "DatabaseError")
        return Fault.DOWN if broken else Fault.OTHER
    if state in _POSTGRESQL_CONTENTION:
        return Fault.CONTENTION
    if state in _POSTGRESQL_LOST or state.startswith("08"):
        return Fault.DOWN
    return Fault.FULL if state == "53100" else Fault.OTHER


def _mysql(orig: BaseException) -> Fault:
    number = orig.args[0] if orig.args and isinstance(orig.args[0], int) else 0
    if number in _MYSQL_CONTENTION:
        return Fault.CONTENTION
    if number in _MYSQL_LOST:
        return Fault.DOWN
    return Fault.FULL if number in (1021, 1114) else Fault.OTHER


def translate(error: BaseException, database: str) -> BaseException:
    """Return the typed error for a fault that the caller's own code cannot be blamed for, else ``error`` itself.

    :param database: the URL without its password.
    """
    fault = classify(error)
    if fault is Fault.CONTENTION:
        return DatabaseBusy(database=database)
    if fault is Fault.FULL:
        return DatabaseFull(database=database)
    if fault is Fault.DOWN:
        hint = "Check that the server of [database] connection runs and lets this host in; volmgr tries again by itself"
        if database.startswith("sqlite"):
            hint = "Check the file, its folder, their permissions and the disk"
        return DatabaseDown(database=database, hint=f"{hint} ({_reason(error)})")
    return error


def _reason(error: BaseException) -> str:
    # The driver's first line only: no SQL, no parameters.
    text = str(driver_error(error) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def rolled_back(error: BaseException) -> bool:
    """Return whether an error of COMMIT proves that nothing was committed."""
    if isinstance(error, db_exception.DBDuplicateEntry | db_exception.DBDeadlock):
        return True
    orig = driver_error(error)
    if (number := getattr(orig, "sqlite_errorcode", None)) is not None:
        # After a failed write or sync of the log, SQLite itself cannot say what a restart will find.
        return number & 0xFF in (5, 6, 8, 13, 19)
    state = getattr(orig, "pgcode", None)
    if state is not None:
        return bool(state[:2] in ("23", "40"))
    return bool(orig is not None and orig.args and orig.args[0] in (1062, 1213))


def is_duplicate(error: BaseException) -> bool:
    """Return whether ``error`` says that a row with this key exists already."""
    return isinstance(error, db_exception.DBDuplicateEntry)


def is_missing_table(error: BaseException) -> bool:
    """Return whether ``error`` says that a table does not exist."""
    if isinstance(error, db_exception.DBNonExistentTable):
        return True
    orig = driver_error(error)
    if getattr(orig, "sqlite_errorcode", None) is not None:
        return "no such table" in str(orig)
    if (state := getattr(orig, "pgcode", None)) is not None:
        return bool(state == "42P01")
    return bool(orig is not None and orig.args and orig.args[0] == 1146)

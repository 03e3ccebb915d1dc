# SPDX-License-Identifier: Apache-2.0
"""Which schema the database has, and making it the one that this code needs.

A start with a current schema costs one SELECT and never imports alembic. An empty embedded database gets all tables at
once, which tests prove equal to running every migration.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception
from volmgr.db import faults, models
from volmgr.db.engine import Database

#: The revisions that this code knows, oldest first. They are numbers, so that code can tell older from newer.
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]
#: The oldest revision whose code may still run on the schema of HEAD.
OLDEST_CODE = "0001"

LOCK_TIMEOUT_SECONDS = 120.0
_ADVISORY_KEY = 0x766F6C6D6772  # "volmgr"
_VERSION = sa.Table(
    "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), nullable=False, primary_key=True)
)
_WINDOW = sa.select(models.schema_window.c.oldest_code)


def current(conn: Connection) -> str | None:
    """Return the revision of the schema, or None where there is none. On PostgreSQL None ends the transaction."""
    try:
        return conn.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()
    except Exception as error:
        if faults.is_missing_table(error):
            return None
        raise


def version(db: Database) -> str | None:
    """Return the revision of the schema, or None where there is none."""
    with db.reader() as conn:
        return current(conn)


def check(db: Database) -> None:
    """Return if this code may run on the schema.

    A newer schema is good as long as its window still lets this code in, so that hosts can be upgraded one by one.

    :raises SchemaMismatch: it is older, or too new.
    """
    found = version(db)
    if found == HEAD:
        return
    if found is None or found in REVISIONS:
        raise exception.SchemaMismatch(found=found or "not made yet", wanted=HEAD)
    with db.reader() as conn:
        oldest = conn.execute(_WINDOW).scalar_one_or_none()
    if oldest is None or oldest > HEAD:
        raise exception.SchemaMismatch(
            found=found, wanted=HEAD, hint="A newer volmgr has upgraded this database: upgrade volmgr on this host too"
        )


def prepare(db: Database, *, embedded: bool) -> None:
    """Make sure at start that this code can run: check the schema, or make an embedded one so.

    :param embedded: the database is this host's own file.
    :raises SchemaMismatch: it is older and not embedded, or too new.
    """
    if embedded and version(db) in (None, *REVISIONS[:-1]):
        upgrade(db)
    check(db)


def upgrade(db: Database) -> str:
    """Bring the schema to what this code needs; safe to run twice, at once too. Returns the revision.

    :raises SchemaMismatch: it is newer than this code. :raises Timeout: another upgrade does not end.
    """
    with _alone(db):
        found = version(db)
        if found is not None and found not in REVISIONS:
            check(db)
            return found
        if found is None and db.kind == "sqlite" and _is_empty(db):
            _create(db)
        elif found != HEAD:
            migrate(db, HEAD)
    return HEAD


def _is_empty(db: Database) -> bool:
    with db.reader() as conn:
        return not conn.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()


def _create(db: Database) -> None:
    with db.writer() as conn:
        models.metadata.create_all(conn, checkfirst=False)
        # As alembic writes it, with the name of its constraint.
        conn.exec_driver_sql(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
            "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
        conn.execute(sa.insert(_VERSION), {"version_num": HEAD})
        conn.execute(sa.insert(models.schema_window), {"id": 1, "oldest_code": OLDEST_CODE})


def migrate(db: Database, revision: str) -> None:
    """Run the migrations up to ``revision`` in one transaction; callers see to it that nobody else does."""
    from alembic import command
    from alembic.config import Config

    with db.writer() as conn:
        if db.kind == "postgresql":
            # A migration may rewrite large tables; the limits are for requests.
            conn.exec_driver_sql("SET LOCAL statement_timeout = 0")
        elif db.kind == "mysql" and conn.dialect.is_mariadb:  # type: ignore[attr-defined]
            conn.exec_driver_sql("SET STATEMENT max_statement_time = 0 FOR SELECT 1")
        config = Config()
        config.set_main_option("script_location", os.path.join(os.path.dirname(__file__), "migrations"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = conn
        command.upgrade(config, revision)


# --- one upgrade at a time ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(db: Database) -> Iterator[None]:
    if db.kind == "sqlite":
        assert db.path is not None
        with _file_lock(f"{db.path}.upgrade"):
            yield
        return
    conn: Any = db.engine.connect()
    with conn:
        lock, unlock = _LOCKS[db.kind]
        _acquire(lambda: bool(conn.exec_driver_sql(lock).scalar_one()), db.name)
        # The lock is the session's: the transaction need not stay open while the upgrade runs on another connection.
        conn.rollback()
        try:
            yield
        finally:
            conn.exec_driver_sql(unlock)
            conn.rollback()


_LOCKS = {
    "postgresql": (f"SELECT pg_try_advisory_lock({_ADVISORY_KEY})", f"SELECT pg_advisory_unlock({_ADVISORY_KEY})"),
    "mysql": (
        "SELECT get_lock(concat(database(), '.volmgr'), 0)",
        "SELECT release_lock(concat(database(), '.volmgr'))",
    ),
}


@contextlib.contextmanager
def _file_lock(path: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(lambda: _try_flock(descriptor), path)
        yield
    finally:
        os.close(descriptor)


def _try_flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _acquire(attempt: Any, what: str) -> None:
    """Try again until it is ours; polled, as a blocking wait would stop all green threads."""
    deadline = time.monotonic() + LOCK_TIMEOUT_SECONDS
    while not attempt():
        if time.monotonic() >= deadline:
            raise exception.Timeout(
                f"Another upgrade of {what} did not end within {LOCK_TIMEOUT_SECONDS:g} s",
                hint="See which volmgr-manage or volmgr-volume runs it, and wait for it",
            )
        time.sleep(0.02)

# SPDX-License-Identifier: Apache-2.0
"""Transactions on an embedded database: real files, a second process's locks, green threads. Servers have their own."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from volmgr import exception
from volmgr.db import engine
from volmgr.db.dialects import database_now
from volmgr.db.engine import Database

THINGS = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(20), unique=True),
)


def names(db: Database) -> list[str]:
    with db.reader() as conn:
        return list(conn.execute(sa.select(THINGS.c.name).order_by(THINGS.c.id)).scalars())


def insert(db: Database, name: str) -> None:
    with db.writer() as conn:
        conn.execute(sa.insert(THINGS), {"name": name})


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/sub/test.sqlite", busy_timeout=0.3, retry_timeout=0.2)
    with made.writer() as conn:
        THINGS.create(conn)
    yield made
    made.close()


@pytest.fixture
def other(db: Database) -> Iterator[sqlite3.Connection]:
    """What another process would hold."""
    assert db.path is not None
    connection = sqlite3.connect(db.path, isolation_level=None)
    yield connection
    connection.close()


def test_commit_at_the_end_and_rollback_on_any_exception(db: Database) -> None:
    insert(db, "kept")

    def fail(error: BaseException) -> None:
        with db.writer() as conn:
            conn.execute(sa.insert(THINGS), {"name": "lost"})
            raise error

    with pytest.raises(KeyError):
        fail(KeyError("no"))
    with pytest.raises(SystemExit):
        fail(SystemExit())
    assert names(db) == ["kept"]


def test_what_a_reader_writes_is_rolled_back(db: Database) -> None:
    with db.reader() as conn:
        conn.execute(sa.insert(THINGS), {"name": "nothing"})
    assert names(db) == []


def test_a_reader_sees_one_instant_while_writers_go_on(db: Database) -> None:
    with db.reader() as conn:
        count = sa.select(sa.func.count()).select_from(THINGS)
        assert conn.execute(count).scalar_one() == 0
        insert(db, "new")
        assert conn.execute(count).scalar_one() == 0
    assert names(db) == ["new"]


def test_the_file_is_private_and_durable(db: Database) -> None:
    assert db.path is not None
    assert stat.S_IMODE(os.stat(db.path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(db.path)).st_mode) == 0o700
    with db.reader() as conn:
        wanted = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
        assert {name: conn.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in wanted} == wanted


def test_a_duplicate_is_recognised_and_undoes_its_transaction(db: Database) -> None:
    insert(db, "one")
    with pytest.raises(Exception, match="UNIQUE") as caught:
        insert(db, "one")
    assert engine.is_duplicate(caught.value)
    assert not engine.is_duplicate(ValueError("UNIQUE"))
    assert names(db) == ["one"]


def test_errors_show_no_parameters(db: Database) -> None:
    insert(db, "hush")
    with pytest.raises(Exception, match="UNIQUE") as caught:
        insert(db, "hush")
    assert "hush" not in str(caught.value)


def test_a_writer_inside_a_writer_is_refused_not_waited_for(db: Database) -> None:
    with pytest.raises(RuntimeError, match="wait for itself"), db.writer(), db.writer():
        pass
    insert(db, "still works")


def test_another_process_that_keeps_its_lock_makes_us_busy(db: Database, other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(engine.DatabaseBusy) as caught:
        insert(db, "late")
    assert isinstance(caught.value, exception.Busy)
    assert caught.value.retryable
    other.execute("ROLLBACK")
    insert(db, "now")
    assert names(db) == ["now"]


def test_a_busy_transaction_is_tried_again(db: Database, other: sqlite3.Connection) -> None:
    db.retry_timeout = 30
    other.execute("BEGIN IMMEDIATE")
    tries = []

    def write() -> str:
        tries.append(1)
        if len(tries) == 2:
            other.execute("ROLLBACK")
        insert(db, "second")
        return "done"

    assert db.retrying(write) == "done"
    assert len(tries) == 2
    assert names(db) == ["second"]


def test_retrying_gives_up_after_its_time(db: Database, other: sqlite3.Connection) -> None:
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(engine.DatabaseBusy):
        db.retrying(lambda: insert(db, "never"))


def test_retrying_does_not_repeat_other_errors(db: Database) -> None:
    tries = []

    def wrong() -> None:
        tries.append(1)
        raise exception.Conflict(resource="volume", id="1")

    with pytest.raises(exception.Conflict):
        db.retrying(wrong)
    assert len(tries) == 1


def test_a_commit_of_unknown_outcome_is_not_repeated(db: Database) -> None:
    tries = []

    def unknown() -> None:
        tries.append(1)
        raise engine.CommitUnknown()

    with pytest.raises(engine.CommitUnknown):
        db.retrying(unknown)
    assert len(tries) == 1


def test_a_full_disk_is_no_space_and_changes_nothing(db: Database) -> None:
    def fill() -> None:
        with db.writer() as conn:
            conn.exec_driver_sql("PRAGMA max_page_count = 4")
            for number in range(2000):
                conn.execute(sa.insert(THINGS), {"name": f"thing {number}"})

    with pytest.raises(engine.DatabaseFull) as caught:
        fill()
    assert isinstance(caught.value, exception.NoSpace)
    assert names(db) == []


def test_a_damaged_file_is_down_with_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "text.sqlite"
    path.write_text("this is no database, whatever its name says\n" * 50)
    with pytest.raises(engine.DatabaseDown) as caught, Database(f"sqlite:///{path}").reader():
        pass
    assert "Check the file" in caught.value.hint


def test_a_pool_that_is_empty_is_busy_not_a_hang(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/t.sqlite", pool_size=1, busy_timeout=0.1)
    with db.reader(), pytest.raises(engine.DatabaseBusy), db.reader():
        pass
    with db.reader() as conn:
        assert conn.exec_driver_sql("SELECT 1").scalar_one() == 1
    db.close()


def test_counting_leaves_out_begin_and_commit(db: Database) -> None:
    with db.counting() as count:
        insert(db, "a")
        with db.reader() as conn:
            conn.execute(sa.select(THINGS))
            conn.execute(sa.select(THINGS))
    assert (count.statements, count.transactions) == (3, 2)


def test_connections_are_reused(db: Database) -> None:
    opened: list[object] = []
    sa.event.listen(db.engine, "connect", lambda connection, record: opened.append(connection))
    for number in range(5):
        insert(db, str(number))
    assert opened == []


def test_threads_that_write_lose_nothing(db: Database) -> None:
    db.busy_timeout = 60.0

    def work(letter: str) -> None:
        for number in range(20):
            insert(db, f"{letter}{number}")

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(names(db)) == 80


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "oracle://u:secret-word@h/x", "no url", ""])
def test_a_url_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(exception.InvalidConfiguration) as caught:
        Database(url)
    assert "secret-word" not in str(caught.value)
    assert caught.value.hint


def test_the_database_clock_is_what_columns_hold(db: Database) -> None:
    before = engine.utcnow()
    with db.reader() as conn:
        now = conn.execute(sa.select(database_now())).scalar_one()
    assert before.replace(microsecond=before.microsecond // 1000 * 1000) <= now <= engine.utcnow()


def _python(code: str, *argv: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *argv],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_green_writers_that_yield_take_turns(tmp_path: Path) -> None:
    """A writer that yields inside its transaction must not stop the hub in SQLite's busy wait."""
    code = """
        import sys, threading, time
        from volmgr import concurrency
        concurrency.setup("eventlet")
        from volmgr.db.engine import Database
        db = Database("sqlite:///" + sys.argv[1], busy_timeout=30)
        with db.writer() as conn:
            conn.exec_driver_sql("CREATE TABLE t (n INTEGER)")
        ticks = []
        def write():
            for _ in range(5):
                with db.writer() as conn:
                    n = conn.exec_driver_sql("SELECT count(*) FROM t").scalar_one()
                    time.sleep(0.001)
                    conn.exec_driver_sql("INSERT INTO t VALUES (?)", (n,))
        threads = [threading.Thread(target=write) for _ in range(4)]
        [t.start() for t in threads]
        [t.join(30) for t in threads]
        with db.reader() as conn:
            print([row[0] for row in conn.exec_driver_sql("SELECT n FROM t ORDER BY n")])
    """
    assert _python(code, str(tmp_path / "green.sqlite")).strip() == str(list(range(20)))


def test_no_orm_is_imported() -> None:
    rooms = "engine, schema, quotas, services, types, operations, listing"
    code = f"import sys; from volmgr.db import {rooms}; print('sqlalchemy.orm' in sys.modules)"
    assert _python(code).strip() == "False"


def test_a_current_schema_imports_no_alembic(tmp_path: Path) -> None:
    code = """
        import sys
        from volmgr.db import schema
        from volmgr.db.engine import Database
        for _ in range(2):
            db = Database("sqlite:///" + sys.argv[1])
            with db.counting() as count:
                schema.prepare(db, embedded=True)
            db.close()
        print("alembic" in sys.modules, count.statements)
    """
    assert _python(code, str(tmp_path / "s.sqlite")).strip() == "False 2"

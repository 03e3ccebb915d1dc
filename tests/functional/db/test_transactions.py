# SPDX-License-Identifier: Apache-2.0
"""What transactions promise on every database: compare-and-swap, deadlocks, lost connections, limits of waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import exception
from volmgr.db import engine, models
from volmgr.db.dialects import database_now
from volmgr.db.engine import Database
from volmgr.testing.cutting_proxy import CuttingProxy

KEYS = models.keys
WAIT = 60.0


def put(db: Database, *names: str) -> None:
    with db.writer() as conn:
        for name in names:
            conn.execute(sa.insert(KEYS), {"name": name, "canary": "0", "created_at": engine.utcnow()})


def swap(conn: sa.Connection, name: str, old: str, new: str) -> int:
    return conn.execute(sa.update(KEYS).where(KEYS.c.name == name, KEYS.c.canary == old).values(canary=new)).rowcount


def value(db: Database, name: str) -> str | None:
    with db.reader() as conn:
        return value_in(conn, name)


def value_in(conn: sa.Connection, name: str) -> str | None:
    return conn.execute(sa.select(KEYS.c.canary).where(KEYS.c.name == name)).scalar_one_or_none()


def together(*works: Callable[[], Any]) -> list[Any]:
    """Run each in a thread of its own; returns what they returned or raised."""
    results: list[Any] = [None] * len(works)

    def run(index: int, work: Callable[[], Any]) -> None:
        try:
            results[index] = work()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=item) for item in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads)
    return results


def spoil(transaction: engine.Transaction) -> None:
    with transaction as conn:
        assert value_in(conn, "a") == "0"
        swap(conn, "a", "0", "1")
        raise KeyError


def test_a_writer_after_a_reader_on_the_same_connection_is_a_transaction_still(database: Database) -> None:
    """A reader of PostgreSQL's has each statement by itself, which must not stay with the connection."""
    put(database, "a")
    assert value(database, "a") == "0"
    with pytest.raises(KeyError):
        spoil(database.writer())
    assert value(database, "a") == "0"


def test_a_matched_row_counts_though_nothing_changes(database: Database) -> None:
    put(database, "a")
    with database.writer() as conn:
        assert swap(conn, "a", "0", "0") == 1
        assert swap(conn, "a", "1", "2") == 0


def test_one_of_many_wins_a_compare_and_swap(database: Database) -> None:
    put(database, "a")

    def try_it(number: int) -> int:
        with database.writer() as conn:
            return swap(conn, "a", "0", str(number))

    results = together(*(lambda number=number: database.retrying(lambda: try_it(number)) for number in range(1, 9)))
    assert sorted(results) == [0] * 7 + [1]


def test_a_deadlock_is_tried_again_and_both_end(database: Database) -> None:
    put(database, "a", "b")
    both = threading.Barrier(2)

    def work(first: str, second: str) -> None:
        met = []

        def once() -> None:
            with database.writer() as conn:
                conn.execute(sa.update(KEYS).where(KEYS.c.name == first).values(canary=KEYS.c.canary + first))
                if not met and database.kind != "sqlite":
                    met.append(both.wait(WAIT))
                conn.execute(sa.update(KEYS).where(KEYS.c.name == second).values(canary=KEYS.c.canary + first))

        database.retrying(once)

    assert together(lambda: work("a", "b"), lambda: work("b", "a")) == [None, None]
    assert {"".join(sorted(value(database, name) or "")) for name in "ab"} == {"0ab"}


def test_a_lock_that_is_kept_ends_the_wait(database: Database) -> None:
    put(database, "a")
    impatient = Database(database.url.render_as_string(hide_password=False), pool_size=1, busy_timeout=1.0)
    with database.writer() as conn:
        swap(conn, "a", "0", "1")
        with pytest.raises(engine.DatabaseBusy), impatient.writer() as other:
            swap(other, "a", "0", "2")
    impatient.close()
    assert value(database, "a") == "1"


def test_a_duplicate_is_recognised(database: Database) -> None:
    put(database, "a")
    with pytest.raises(Exception) as caught:
        put(database, "a")
    assert engine.is_duplicate(caught.value)


def test_an_ignored_error_does_not_pass_for_a_commit(database: Database) -> None:
    """PostgreSQL rolls such a transaction back and calls it a success; the others keep what came before."""
    put(database, "a")

    def careless() -> None:
        with database.writer() as conn:
            swap(conn, "a", "0", "1")
            try:
                conn.execute(sa.insert(KEYS), {"name": "a", "canary": "", "created_at": engine.utcnow()})
            except Exception as error:
                assert engine.is_duplicate(error)

    if database.kind == "postgresql":
        with pytest.raises(exception.Inconsistent):
            careless()
        assert value(database, "a") == "0"
    else:
        careless()
        assert value(database, "a") == "1"


def test_json_and_times_come_back_as_they_were(database: Database) -> None:
    now = engine.utcnow()
    text = {"name": "Übergröße 𝄞 日本", "list": [1, None, True]}
    with database.writer() as conn:
        conn.execute(
            sa.insert(models.volume_types),
            {"id": "1", "name": "𝄞 fast", "is_public": True, "extra_specs": text, "created_at": now},
        )
    with database.reader() as conn:
        row = conn.execute(sa.select(models.volume_types)).one()
    assert (row.name, row.extra_specs, row.created_at, row.qos_id) == ("𝄞 fast", text, now, None)


def test_the_clock_is_utc(database: Database) -> None:
    with database.reader() as conn:
        now = conn.execute(sa.select(database_now())).scalar_one()
    assert abs((now - engine.utcnow()).total_seconds()) < 60


# --- connections that break -----------------------------------------------------------------------------------------


@pytest.fixture
def broken(database: Database) -> Iterator[Callable[..., tuple[Database, CuttingProxy]]]:
    """The same database by way of a proxy that loses connections."""
    made: list[Any] = []

    def make(*, deliver: bool) -> tuple[Database, CuttingProxy]:
        assert database.url.port is not None
        proxy = CuttingProxy(database.url.port, deliver=deliver)
        url = database.url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        db = Database(url, pool_size=2, retry_timeout=30)
        made.extend([db, proxy])
        value(db, "warm")
        return db, proxy

    yield make
    for item in made:
        item.close()


@pytest.mark.server_database
@pytest.mark.parametrize("deliver", [False, True])
def test_a_connection_lost_at_commit_is_an_unknown_outcome(
    database: Database, broken: Callable[..., tuple[Database, CuttingProxy]], deliver: bool
) -> None:
    db, proxy = broken(deliver=deliver)
    proxy.cut_at = b"COMMIT"
    with pytest.raises(engine.CommitUnknown) as caught:
        db.retrying(lambda: put(db, "a"))
    assert caught.value.details == {}
    assert proxy.cuts == 1
    # Only the database can tell.
    assert value(db, "a") == ("0" if deliver else None)


@pytest.mark.server_database
def test_a_connection_lost_before_commit_is_tried_again(
    broken: Callable[..., tuple[Database, CuttingProxy]],
) -> None:
    db, proxy = broken(deliver=False)
    proxy.cut_at = b"INSERT"
    db.retrying(lambda: put(db, "a"))
    assert proxy.cuts == 1
    assert value(db, "a") == "0"


@pytest.mark.server_database
def test_a_connection_that_died_in_the_pool_is_replaced(
    broken: Callable[..., tuple[Database, CuttingProxy]], monkeypatch: pytest.MonkeyPatch
) -> None:
    db, proxy = broken(deliver=False)
    monkeypatch.setattr(engine, "PING_AFTER_SECONDS", 0.0)
    proxy.drop()
    put(db, "a")
    assert value(db, "a") == "0"


@pytest.mark.server_database
def test_a_server_that_is_not_there_is_down_with_a_hint(
    broken: Callable[..., tuple[Database, CuttingProxy]],
) -> None:
    db, proxy = broken(deliver=False)
    proxy.close()
    db.close()
    with pytest.raises(engine.DatabaseDown) as caught:
        value(db, "a")
    assert isinstance(caught.value, exception.BackendDown)
    assert caught.value.retryable
    password = db.url.password
    assert password is None or password not in f"{caught.value} {caught.value.details}"


@pytest.mark.server_database
def test_a_login_that_is_refused_is_down_with_a_hint(database: Database, tmp_path: Path) -> None:
    url = database.url.set(password="wrong-word").render_as_string(hide_password=False)
    db = Database(url, pool_size=1)
    with pytest.raises(engine.DatabaseDown) as caught, db.reader():
        pass
    assert "wrong-word" not in str(caught.value)

# SPDX-License-Identifier: Apache-2.0
"""Changing the key over a real database: every secret is under the new key, and no key goes that a row needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import crypto, exception, keys
from volmgr.crypto import Cipher
from volmgr.db import initiators, models, services
from volmgr.db.engine import Database
from volmgr.keys import Keys
from volmgr.testing import database as testing
from volmgr.types import Secret

MANY = 2 * keys.BATCH + 7


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Callable[..., Keys]:
    path = str(tmp_path / "keys.json")

    def _make(*, host: str = "here", embedded: bool = True, now: float = 1000.0) -> Keys:
        Cipher.open(path, database)
        return Keys(path, database, host=host, embedded=embedded, now=lambda: now)

    return _make


def remember(db: Database, cipher: Cipher, count: int = MANY) -> None:
    with db.writer() as conn:
        for number in range(count):
            initiators.save(conn, cipher, f"iqn.%_:{number}", "h@b", {"set_values": {"word": f"secret {number}"}})


def recalled(db: Database, path: str, count: int = MANY) -> bool:
    cipher = crypto.read_key_file(path)
    with db.reader() as conn:
        return all(
            initiators.get(conn, cipher, f"iqn.%_:{number}", "h@b") == {"word": f"secret {number}"}
            for number in range(count)
        )


def states(of: Keys) -> list[tuple[str, int]]:
    return [(key.state, key.rows) for key in of.all()]


def test_every_secret_comes_under_a_new_key_and_the_old_one_goes(database: Database, make: Callable[..., Keys]) -> None:
    of = make()
    remember(database, crypto.read_key_file(of.path))
    before = crypto.read_ring(of.path).current
    done = of.rotate()
    assert (done.rows, done.retired, done.kept, done.damaged) == (MANY, [before], {}, [])
    assert done.current != before
    assert states(of) == [("current", MANY)]
    assert list(crypto.read_ring(of.path).keys) == [done.current]
    assert recalled(database, of.path)
    Cipher.open(of.path, database)  # the canaries are those of the file


def test_no_transaction_grows_with_what_there_is(
    database: Database, make: Callable[..., Keys], monkeypatch: pytest.MonkeyPatch
) -> None:
    of, sizes = make(), list[int]()
    remember(database, crypto.read_key_file(of.path))
    page = Keys._page

    def counted(*args: Any) -> Any:
        found = page(*args)
        sizes.append(found.changed)
        return found

    monkeypatch.setattr(Keys, "_page", counted)
    of.rotate()
    assert max(sizes) == keys.BATCH
    assert sum(sizes) == MANY


def test_a_row_that_no_key_opens_is_told_and_its_key_stays(database: Database, make: Callable[..., Keys]) -> None:
    of = make()
    remember(database, crypto.read_key_file(of.path), 3)
    with database.writer() as conn:
        table = models.initiator_data
        text = conn.execute(sa.select(table.c.value).where(table.c.initiator == "iqn.%_:0")).scalar_one()
        conn.execute(sa.update(table).where(table.c.initiator == "iqn.%_:1").values(value=text))
    before = crypto.read_ring(of.path).current
    for _ in range(2):
        done = of.rotate()
        assert done.damaged == ["initiator_data.value of iqn.%_:1/h@b/word"]
        assert done.kept == {before: "1 secrets need it"}
        assert before in crypto.read_ring(of.path).keys
    assert states(of) == [("current", 2), ("old", 1)]


def test_what_is_written_while_rows_are_encrypted_again_is_kept(
    database: Database, make: Callable[..., Keys], monkeypatch: pytest.MonkeyPatch
) -> None:
    if testing.kind_asked_for() == "sqlite":
        pytest.skip("does not apply: on SQLite nobody else writes within a transaction")
    of = make()
    remember(database, crypto.read_key_file(of.path), 1)
    decrypt, daemon = Cipher.decrypt, crypto.read_key_file(of.path)

    def meanwhile(self: Cipher, table: str, column: str, key: str, text: str) -> Secret:
        if table == "initiator_data":
            monkeypatch.undo()
            with database.writer() as conn:
                initiators.save(conn, daemon, "iqn.%_:0", "h@b", {"set_values": {"word": "newer"}})
        return decrypt(self, table, column, key, text)

    monkeypatch.setattr(Cipher, "decrypt", meanwhile)
    done = of.rotate()
    with database.reader() as conn:
        assert initiators.get(conn, crypto.read_key_file(of.path), "iqn.%_:0", "h@b") == {"word": "newer"}
    assert (done.rows, done.damaged) == (0, [])
    assert [key.state for key in of.all()] == ["current"]


def test_other_hosts_are_given_the_key_before_it_encrypts(database: Database, make: Callable[..., Keys]) -> None:
    with database.writer() as conn:
        for host in ("here@a", "there@a"):
            services.register(conn, host, topic="volume", rpc_version="1.0", incarnation=host)
    of = make(embedded=False, now=1000.0)
    before = crypto.read_ring(of.path)
    with pytest.raises(exception.Conflict, match="there") as refused:
        of.rotate()
    assert "--prepare" in (refused.value.hint or "")
    assert crypto.read_ring(of.path) == before
    prepared = of.prepare()
    assert of.prepare() == prepared
    assert crypto.read_key_file(of.path).current == before.current
    copy = crypto.read_ring(of.path)  # the operator gives it to the other host
    assert of.rotate().kept == {before.current: "there may still use it"}
    there = Cipher(copy.current, copy.keys)
    remember(database, there, 2)  # it encrypts with the old key until it has the file once more
    assert recalled(database, of.path, 2)
    done = make(embedded=False, now=1000.0 + keys.GRACE).rotate(copied=True)
    assert (done.current, done.made, done.rows, done.retired) == (prepared, False, 2, [before.current])


def test_an_old_key_outlives_what_began_before_the_change(make: Callable[..., Keys]) -> None:
    first = make(embedded=False, now=1000.0)
    done = first.rotate()
    assert list(done.kept.values()) == ["what began before the change may still use it for 60 s"]
    assert make(embedded=False, now=1059.0).rotate().kept
    done = make(embedded=False, now=1060.0).rotate()
    assert (len(done.retired), done.kept) == (1, {})


def test_a_key_that_the_file_lacks_is_told(database: Database, make: Callable[..., Keys]) -> None:
    of = make()
    remember(database, Cipher.generate(), 2)
    assert [(state, rows) for state, rows in states(of) if state != "current"] == [("missing", 2)]


def test_one_change_at_a_time(make: Callable[..., Keys]) -> None:
    of = make()
    with of._alone(), pytest.raises(exception.Busy):
        make().rotate()
    assert of.rotate().made

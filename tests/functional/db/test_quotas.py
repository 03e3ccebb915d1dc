# SPDX-License-Identifier: Apache-2.0
"""Quota on every database: one statement, never over the limit, never below zero."""

from __future__ import annotations

import datetime
import random
import threading
import uuid
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import engine, quotas, reservations
from volmgr.db.engine import Database

DEFAULTS = {"volumes": 3, "snapshots": -1, "gigabytes": 100}


def charge(db: Database, volume_type: str | None = None, **amounts: int) -> None:
    with db.writer() as conn:
        quotas.charge(conn, "p", volume_type, defaults=DEFAULTS, **amounts)


def release(db: Database, volume_type: str | None = None, **amounts: int) -> None:
    with db.writer() as conn:
        quotas.release(conn, "p", volume_type, **amounts)


def in_use(db: Database, volume_type: str | None = None) -> dict[str, int]:
    with db.reader() as conn:
        found = quotas.get(conn, "p", volume_type_id=volume_type, defaults=DEFAULTS)
    return {name: item["in_use"] for name, item in found.items()}


def limit(db: Database, volume_type: str | None = None, **limits: int | None) -> None:
    with db.writer() as conn:
        quotas.set_limits(conn, "p", limits, volume_type_id=volume_type)


def test_a_charge_and_a_release_are_one_statement_each(database: Database) -> None:
    charge(database, "gold", volumes=1, gigabytes=10)
    with database.counting() as count:
        charge(database, "gold", volumes=1, gigabytes=10)
        release(database, "gold", volumes=1, gigabytes=10)
    assert (count.statements, count.transactions) == (2, 2)
    assert in_use(database) == in_use(database, "gold") == {"volumes": 1, "snapshots": 0, "gigabytes": 10}


def test_nothing_to_charge_asks_nothing(database: Database) -> None:
    with database.counting() as count:
        charge(database)
        release(database)
    assert count.statements == 0


def test_the_limit_is_named_and_nothing_is_counted(database: Database) -> None:
    charge(database, volumes=2, gigabytes=99)
    with pytest.raises(exception.QuotaExceeded) as caught:
        charge(database, volumes=1, gigabytes=2)
    details = caught.value.details
    assert (details["quota"], details["limit"], details["in_use"], details["requested"]) == ("gigabytes", 100, 99, 2)
    assert in_use(database) == {"volumes": 2, "snapshots": 0, "gigabytes": 99}
    charge(database, volumes=1, gigabytes=1)


def test_the_first_charge_is_checked_too(database: Database) -> None:
    with pytest.raises(exception.QuotaExceeded) as caught:
        charge(database, "gold", volumes=4)
    assert caught.value.details["in_use"] == 0
    assert in_use(database)["volumes"] == 0


def test_a_types_limit_counts_beside_the_projects(database: Database) -> None:
    limit(database, "gold", volumes=1)
    charge(database, "gold", volumes=1)
    with pytest.raises(exception.QuotaExceeded) as caught:
        charge(database, "gold", volumes=1)
    assert caught.value.details["volume_type_id"] == "gold"
    charge(database, "tin", volumes=1)
    assert (in_use(database)["volumes"], in_use(database, "gold")["volumes"]) == (2, 1)


def test_limits_can_be_lifted_and_reset(database: Database) -> None:
    charge(database, volumes=3)
    limit(database, volumes=-1)
    charge(database, volumes=5)
    limit(database, volumes=None)
    with pytest.raises(exception.QuotaExceeded):
        charge(database, volumes=1)
    with database.reader() as conn:
        assert quotas.list_quotas(conn, project_id="p", defaults=DEFAULTS) == [
            {
                "id": "p",
                "project_id": "p",
                "volume_type_id": None,
                "volumes": {"limit": 3, "in_use": 8},
                "snapshots": {"limit": -1, "in_use": 0},
                "gigabytes": {"limit": 100, "in_use": 0},
            }
        ]


@pytest.mark.parametrize("limits", [{"beds": 1}, {"volumes": -2}, {"volumes": "3"}, {"volumes": True}])
def test_a_limit_that_cannot_be_is_invalid(database: Database, limits: dict[str, int | None]) -> None:
    with pytest.raises(exception.Invalid) as caught:
        limit(database, **limits)
    assert caught.value.details["field"] in limits


def test_more_than_was_counted_cannot_be_given_back(database: Database) -> None:
    charge(database, volumes=1, gigabytes=5)
    for amounts in ({"volumes": 2}, {"volumes": 1, "gigabytes": 6}, {"snapshots": 1}):
        with pytest.raises(exception.Inconsistent):
            release(database, **amounts)
    with pytest.raises(exception.Inconsistent):
        release(database, "gold", volumes=1)
    assert in_use(database) == {"volumes": 1, "snapshots": 0, "gigabytes": 5}


def test_many_at_once_never_exceed_the_limit(database: Database) -> None:
    limit(database, volumes=10)
    won: list[int] = []
    refused: list[int] = []
    failed: list[Exception] = []

    def work(seed: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(6):
                try:
                    database.retrying(lambda: charge(database, "gold", volumes=1))
                except exception.QuotaExceeded:
                    refused.append(1)
                    continue
                won.append(1)
                if dice.random() < 0.3:
                    database.retrying(lambda: release(database, "gold", volumes=1))
                    won.pop()
                assert in_use(database)["volumes"] <= 10
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failed == []
    assert refused
    assert in_use(database)["volumes"] == in_use(database, "gold")["volumes"] == len(won) == 10


def listed(db: Database, **page: Any) -> list[str]:
    with db.reader() as conn:
        return [row["id"] for row in quotas.list_quotas(conn, defaults=DEFAULTS, **page)]


def test_the_list_has_pages(database: Database) -> None:
    kind = str(uuid.uuid4())
    with database.writer() as conn:
        for project in ("a", "b/c", "d"):
            quotas.charge(conn, project, kind, volumes=1, defaults=DEFAULTS)
    whole = listed(database)
    assert whole == ["a", f"a/{kind}", "b/c", f"b/c/{kind}", "d", f"d/{kind}"]
    for down in (False, True):
        seen: list[str] = []
        while page := listed(database, limit=2, marker=seen[-1] if seen else None, descending=down):
            seen += page
        assert seen == (whole[::-1] if down else whole)


def reserve(db: Database, reservation_id: str, seconds: float = 60, volume_type: str | None = None) -> None:
    until = engine.utcnow() + datetime.timedelta(seconds=seconds)
    amounts = {"volumes": 2, "gigabytes": 10}
    with db.writer() as conn:
        reservations.make(conn, reservation_id, "p", volume_type, amounts, expires_at=until, defaults=DEFAULTS)


def test_a_reservation_counts_until_it_is_taken_or_expires(database: Database) -> None:
    reserve(database, "r", volume_type="gold")
    reserve(database, "r", volume_type="gold")
    assert in_use(database) == in_use(database, "gold") == {"volumes": 2, "snapshots": 0, "gigabytes": 10}
    with pytest.raises(exception.QuotaExceeded):
        reserve(database, "s")
    with database.writer() as conn:
        assert reservations.take(conn, ["r", "x"], "another") == 0
        assert reservations.take(conn, ["r", "x"], "p") == 1
        assert reservations.take(conn, ["r"], "p") == 0
    assert in_use(database)["volumes"] == in_use(database, "gold")["gigabytes"] == 0
    reserve(database, "past", seconds=-1)
    with database.writer() as conn:
        assert reservations.expired(conn, engine.utcnow())
        assert reservations.expire(conn, engine.utcnow()) == 1
        assert not reservations.expired(conn, engine.utcnow())
    assert in_use(database)["volumes"] == 0

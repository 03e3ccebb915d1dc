# SPDX-License-Identifier: Apache-2.0
"""The members of clusters on every database: leases by its clock, locks that die with their holder."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import exception
from volmgr.cluster import ClusterLocks, Member, Membership
from volmgr.db import engine, members, models, operations
from volmgr.db.engine import Database
from volmgr.locks import KeyedLocks
from volmgr.runtime import SystemClock

LONG = 600.0
SERVICE = "rack@b"


def member(name: str, *, boot: str = "boot", path: str | None = None) -> Member:
    return Member(str(uuid.uuid4()), SERVICE, f"{name}@b", "machine", boot, path or f"/locks/{name}")


def join(db: Database, lease: float = LONG, **kwargs: Any) -> Member:
    made = member(**kwargs)
    with db.writer() as conn:
        members.join(conn, made, lease)
    return made


def take(db: Database, key: str, of: Member) -> bool:
    with db.writer() as conn:
        return members.take(conn, SERVICE, key, of.id)


def begin(db: Database, incarnation: str) -> str:
    """Write an operation that a life is at."""
    operation_id, now = str(uuid.uuid4()), engine.utcnow()
    with db.writer() as conn:
        operations.insert(conn, {
            "id": operation_id, "request_key": operation_id, "verb": "create_volume", "version": 1,
            "resource": "volume", "resource_id": str(uuid.uuid4()), "host": SERVICE, "state": "running",
            "lane": "control", "claimed": True, "claims": [], "epoch": 1, "incarnation": incarnation, "context": {},
            "args": {}, "created_at": now, "started_at": now,
        })
    return operation_id


def orphans(db: Database) -> list[str]:
    with db.reader() as conn:
        return [row.id for row in members.orphans(conn, SERVICE, 100)]


class Timer:
    """A timer that only notes what it is told."""

    def __init__(self) -> None:
        self.at: float | None = None
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def set(self, at: float | None) -> None:
        self.at = at


def membership(db: Database, name: str, *, fences: bool = True, **kwargs: Any) -> tuple[Membership, Timer]:
    timer = Timer()
    made = Membership(
        db, SystemClock(), member(name, **kwargs), lease=LONG, grace=0.0, timer=timer, fence=lambda _other: fences
    )
    return made, timer


def test_a_lease_that_has_ended_is_not_renewed(database: Database) -> None:
    living, dead = join(database, name="one"), join(database, 0.0, name="two")
    with database.writer() as conn:
        assert members.renew(conn, living.id, LONG)
        assert not members.renew(conn, dead.id, LONG)
        assert members.ended(conn, SERVICE, 0.0) == [dead]
        assert members.ended(conn, SERVICE, LONG) == []
        assert members.ended(conn, "other@b", 0.0) == []
        row = conn.execute(sa.select(models.members).where(models.members.c.id == living.id)).one()
        left = (row.expires_at - row.created_at).total_seconds()
    assert LONG <= left < LONG + 300
    with database.reader() as conn:
        assert [(item["name"], item["holds"]) for item in members.listed(conn)] == [("one@b", True), ("two@b", False)]


def test_a_lock_dies_with_its_holder(database: Database) -> None:
    one, two = join(database, name="one"), join(database, name="two")
    assert take(database, "v", one)
    assert take(database, "v", one)  # a commit of unknown outcome that is repeated
    assert not take(database, "v", two)
    with database.reader() as conn:
        assert members.holder(conn, SERVICE, "v") == "one@b"
        assert members.held(conn, SERVICE) == ["v"]
    with database.writer() as conn:
        members.give(conn, SERVICE, "v", two.id)  # not its own
    assert not take(database, "v", two)
    with database.writer() as conn:
        # As a late write of a life that is no member any more: its row went, and then it takes a lock.
        assert members.remove(conn, one)
    assert take(database, "v", one)
    assert take(database, "v", two)
    with database.writer() as conn:
        members.give(conn, SERVICE, "v", two.id)
    with database.reader() as conn:
        assert members.holder(conn, SERVICE, "v") is None


def test_what_is_nobodys_is_taken_over(database: Database) -> None:
    mine, _timer = membership(database, "one")
    mine.join()
    dead = join(database, 0.0, name="two")
    held, left = begin(database, mine.member.id), begin(database, dead.id)
    assert orphans(database) == []
    mine.look()
    assert orphans(database) == [left]
    with database.reader() as conn:
        assert members.ended(conn, SERVICE, -LONG) == [mine.member]
    assert held not in orphans(database)


def test_without_a_fence_it_is_parked_until_somebody_knows(database: Database) -> None:
    mine, _timer = membership(database, "one", fences=False)
    mine.join()
    dead = join(database, 0.0, name="two")
    operation_id = begin(database, dead.id)
    mine.look()
    mine.look()
    assert orphans(database) == []
    with database.reader() as conn:
        record = operations.get(conn, operation_id)
    assert record is not None
    assert (record.state, record.parked_for, record.epoch) == ("parked", "fence", 2)
    assert "member fence two@b" in str((record.data or {})["why"])
    now = engine.utcnow()
    with database.writer() as conn:
        assert not operations.requeue(conn, operation_id, now)  # no retry goes past the fence
        with pytest.raises(exception.LeaseLost):
            operations.note(conn, operation_id, 1, now, step="late")  # nor does the life that is thought dead
        assert operations.retryable(conn, SERVICE, now + datetime.timedelta(days=1)) == []
        members.remove(conn, dead)
        assert [item.id for item in operations.retryable(conn, SERVICE, now)] == [operation_id]


def test_the_timer_is_counted_from_before_the_renewal(database: Database) -> None:
    mine, timer = membership(database, "one")
    mine.join()
    assert timer.at == timer.time + LONG
    assert mine.may_begin()
    timer.time += 100
    assert mine.renew()
    assert timer.at == timer.time + LONG
    timer.time += LONG * 0.9  # nothing is begun in the last sixth
    assert not mine.may_begin()
    with pytest.raises(exception.LeaseLost):
        mine.check()
    with database.writer() as conn:
        members.remove(conn, mine.member)
    assert not mine.renew()
    assert timer.at == timer.time  # it has lost: it ends now


def test_who_leaves_gives_everything_up(database: Database) -> None:
    mine, timer = membership(database, "one")
    mine.join()
    operation_id = begin(database, mine.member.id)
    assert mine.leave(lambda: False)
    assert timer.at is None
    assert orphans(database) == [operation_id]
    assert not mine.may_begin()
    other, timer = membership(database, "two")
    other.join()
    assert not other.leave(lambda: True)  # something is under way: the others wait for the lease's end
    assert timer.at is not None


def test_a_worker_that_starts_again_is_no_second_member(database: Database) -> None:
    first, _ = membership(database, "one")
    rebooted = join(database, name="one", boot="earlier")
    elsewhere = join(database, name="one", path="/elsewhere/one")
    first.join()
    again, _ = membership(database, "one")
    with database.writer() as conn:
        assert members.drain(conn, "one@b", draining=True)
    again.join()
    with database.reader() as conn:
        there = {item["id"]: item["draining"] for item in members.listed(conn)}
    assert there == {again.member.id: True, elsewhere.id: True}  # it still drains
    assert rebooted.id not in there


def test_members_wait_for_each_others_locks(database: Database) -> None:
    one, two = membership(database, "one")[0], membership(database, "two")[0]
    for item in (one, two):
        item.join()
    here, there = (ClusterLocks(item, KeyedLocks()) for item in (one, two))
    with here.hold("v"), pytest.raises(exception.Timeout, match="one@b holds it"), there.hold("v", 0.05):
        raise AssertionError("both hold it")
    with there.hold("v"), here.watching() as touched:
        assert touched == {"v"}
    assert not here.busy()
    with here.hold("v"):
        assert here.busy()

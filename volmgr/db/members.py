# SPDX-License-Identifier: Apache-2.0
"""The members of clusters and the locks that they hold on what they sync; see :mod:`volmgr.cluster`.

Who has a row may still be at work; what bears the id of a life without a row is anybody's to take. Times are the
database's, the one clock that all hosts share.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, states
from volmgr.db import models
from volmgr.db.dialects import database_later, database_now

_M, _L, _O = models.members, models.cluster_locks, models.operations
_LASTS = database_later(sa.bindparam("lease", type_=sa.Float()))
_LIVING = sa.select(_M.c.id)
_KEY_LENGTH = 512


@dataclass(frozen=True)
class Member:
    """One life of a worker of a cluster.

    :param id: the incarnation's. :param service: the cluster's backend.
    :param name: the worker's own, ``host@backend``. :param machine: which machine it runs on.
    :param boot: since which start of that machine.
    :param lock_path: the file whose lock the life and its children hold.
    """

    id: str
    service: str
    name: str
    machine: str
    boot: str
    lock_path: str


def _member(row: Any) -> Member:
    return Member(row.id, row.service, row.name, row.machine, row.boot, row.lock_path)


def join(conn: Connection, member: Member, lease: float) -> None:
    """Make a life a member for ``lease`` seconds from now; whether its worker drains is as it was."""
    drains = sa.select(_M.c.id).where(_M.c.service == member.service, _M.c.name == member.name, _M.c.draining)
    draining = conn.execute(drains).first() is not None
    statement = sa.insert(_M).values(
        id=member.id, service=member.service, name=member.name, machine=member.machine, boot=member.boot,
        lock_path=member.lock_path, draining=draining, expires_at=_LASTS, created_at=database_now(),
    )
    conn.execute(statement, {"lease": lease})


_RENEW = (
    sa.update(_M).where(_M.c.id == sa.bindparam("member"), _M.c.expires_at > database_now()).values(expires_at=_LASTS)
)


def renew(conn: Connection, member_id: str, lease: float) -> bool:
    """Let a member's lease end in ``lease`` seconds from now; returns False if it has ended already."""
    return bool(conn.execute(_RENEW, {"member": member_id, "lease": lease}).rowcount)


def is_draining(conn: Connection, member_id: str) -> bool:
    """Return whether a member is to begin nothing more."""
    return bool(conn.execute(sa.select(_M.c.draining).where(_M.c.id == member_id)).scalar())


def ended(conn: Connection, service: str, grace: float) -> list[Member]:
    """Return the members whose lease has ended ``grace`` seconds ago or longer."""
    over = _M.c.expires_at <= database_later(sa.literal(-grace, sa.Float()))
    return [_member(row) for row in conn.execute(sa.select(_M).where(_M.c.service == service, over))]


def namesakes(conn: Connection, member: Member) -> list[Member]:
    """Return other lives of a member's worker."""
    others = sa.select(_M).where(_M.c.service == member.service, _M.c.name == member.name, _M.c.id != member.id)
    return [_member(row) for row in conn.execute(others)]


def remove(conn: Connection, member: Member) -> bool:
    """Take a member's row away for good: what was its is anybody's. Returns whether it had one.

    What was parked until it is known that the member writes no more goes on.
    """
    conn.execute(sa.delete(_L).where(_L.c.member_id == member.id))
    release(conn, member)
    return bool(conn.execute(sa.delete(_M).where(_M.c.id == member.id)).rowcount)


# --- operations -----------------------------------------------------------------------------------------------------


def orphans(conn: Connection, service: str, limit: int) -> list[Any]:
    """Return rows of operations of a backend whose owner is no member, oldest first."""
    query = (
        sa.select(_O)
        .where(
            _O.c.host == service,
            _O.c.state.in_(("running", "undoing")),
            sa.or_(_O.c.incarnation.is_(None), _O.c.incarnation.not_in(_LIVING)),
        )
        .order_by(_O.c.created_at)
        .limit(limit)
    )
    return list(conn.execute(query))


def cancelled(conn: Connection, service: str, member_id: str) -> list[str]:
    """Return the operations of a member that somebody has asked to stop, at whichever member."""
    going = _O.c.state.in_(("running", "undoing"))
    query = sa.select(_O.c.id).where(_O.c.host == service, going, _O.c.incarnation == member_id, _O.c.cancel)
    return list(conn.execute(query).scalars())


def park(conn: Connection, member: Member) -> list[str]:
    """Park what a member was at until somebody knows that it writes no more; returns the operations."""
    running = _O.c.state.in_(("running", "undoing"))
    mine = (_O.c.host == member.service) & (_O.c.incarnation == member.id) & running
    why = exception.to_primitive(unfenced(member.name))
    done = []
    for row in conn.execute(sa.select(_O.c.id, _O.c.epoch, _O.c.data).where(mine)).all():
        values = {
            "state": "parked", "parked_for": "fence", "epoch": row.epoch + 1, "not_before": None,
            "data": {**(row.data or {}), "why": why},
        }
        still = (_O.c.id == row.id) & (_O.c.epoch == row.epoch) & running
        if conn.execute(sa.update(_O).where(still).values(values)).rowcount:
            done.append(row.id)
    return done


def release(conn: Connection, member: Member) -> int:
    """Let what was parked because of a member be tried again by any other one; returns how many operations."""
    mine = (_O.c.host == member.service) & (_O.c.incarnation == member.id) & (_O.c.parked_for == "fence")
    values = {"parked_for": "backend", "not_before": None, "deaths": _O.c.deaths + 1}
    return conn.execute(sa.update(_O).where(mine, _O.c.state == "parked").values(values)).rowcount


def unfenced(name: str) -> exception.VolmgrError:
    """Return why what a member was at does not go on."""
    return exception.Inconsistent(
        f"Nothing proves that {name}, whose lease has ended, writes no more",
        hint=f"Once its host is known to be off: volmgr-manage member fence {name} --i-know-it-is-dead",
    )


# --- what operators see ---------------------------------------------------------------------------------------------


def listed(conn: Connection) -> list[dict[str, Any]]:
    """Return all members, each with ``holds`` (whether its lease lasts) and ``unfinished``, how much it is at."""
    count = (
        sa.select(sa.func.count())
        .where(_O.c.host == _M.c.service, _O.c.incarnation == _M.c.id, _O.c.state.in_(states.UNFINISHED))
        .correlate(_M)
        .scalar_subquery()
    )
    query = sa.select(_M, database_now().label("now"), count.label("unfinished")).order_by(_M.c.name, _M.c.created_at)
    return [
        {
            "name": row.name, "service": row.service, "id": row.id, "holds": row.expires_at > row.now,
            "draining": row.draining, "unfinished": row.unfinished,
        }
        for row in conn.execute(query)
    ]


def of_name(conn: Connection, name: str) -> list[tuple[Member, bool]]:
    """Return the lives of a worker that have rows, each with whether its lease lasts."""
    query = sa.select(_M, (_M.c.expires_at > database_now()).label("holds")).where(_M.c.name == name)
    return [(_member(row), bool(row.holds)) for row in conn.execute(query)]


def drain(conn: Connection, name: str, *, draining: bool) -> bool:
    """Let a worker begin nothing more, or again; returns whether it is a member of anything."""
    return bool(conn.execute(sa.update(_M).where(_M.c.name == name).values(draining=draining)).rowcount)


# --- locks ----------------------------------------------------------------------------------------------------------


def _lock_id(service: str, key: str) -> str:
    return hashlib.sha256(f"{service}\n{key}".encode()).hexdigest()


def take(conn: Connection, service: str, key: str, member_id: str) -> bool:
    """Take the lock of a key, if it is free, the member's own already, or that of a life without a row.

    :returns: whether it is the member's now. A unique constraint is violated if another member was first.
    """
    lock_id = _lock_id(service, key)
    free = (_L.c.member_id == member_id) | _L.c.member_id.not_in(_LIVING)
    if conn.execute(sa.update(_L).where(_L.c.id == lock_id, free).values(member_id=member_id)).rowcount:
        return True
    if conn.execute(sa.select(_L.c.id).where(_L.c.id == lock_id)).first() is not None:
        return False
    conn.execute(sa.insert(_L).values(id=lock_id, service=service, key=key[:_KEY_LENGTH], member_id=member_id))
    return True


def give(conn: Connection, service: str, key: str, member_id: str) -> None:
    """Give the lock of a key back, if it is the member's."""
    conn.execute(sa.delete(_L).where(_L.c.id == _lock_id(service, key), _L.c.member_id == member_id))


def held(conn: Connection, service: str) -> list[str]:
    """Return the keys that the members of a backend hold."""
    return list(conn.execute(sa.select(_L.c.key).where(_L.c.service == service)).scalars())


def holder(conn: Connection, service: str, key: str) -> str | None:
    """Return the name of the member that holds a key's lock, None if it is free."""
    query = sa.select(_M.c.name).join(_L, _L.c.member_id == _M.c.id).where(_L.c.id == _lock_id(service, key))
    return conn.execute(query).scalar()

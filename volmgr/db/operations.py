# SPDX-License-Identifier: Apache-2.0
"""The journal: one row per changing request, which is the queue, the lock's holder, the outcome and the tombstone.

Every write after admission is ``WHERE id AND epoch``: whoever has lost an operation writes nothing any more.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, states, types
from volmgr.db import models, records

T = models.operations

_INSERT = sa.insert(T)
_BY_ID = sa.select(T).where(T.c.id == sa.bindparam("op_id"))
_BY_KEY = sa.select(T).where(T.c.request_key == sa.bindparam("op_key"))
_MINE = (T.c.id == sa.bindparam("op_id")) & (T.c.epoch == sa.bindparam("op_epoch"))
_OPEN = T.c.state.in_(states.UNFINISHED)
_FINISH = (
    sa.update(T)
    .where(_MINE, _OPEN)
    .values(
        state=sa.bindparam("new_state"),
        result=sa.bindparam("new_result"),
        error=sa.bindparam("new_error"),
        finished_at=sa.bindparam("now"),
        updated_at=sa.bindparam("now"),
        progress=sa.bindparam("new_progress"),
        parked_for=None,
    )
)
_DUE = (
    sa.select(T)
    .where(
        T.c.host == sa.bindparam("due_host"),
        T.c.state == "queued",
        sa.or_(T.c.not_before.is_(None), T.c.not_before <= sa.bindparam("due_now")),
    )
    .order_by(T.c.created_at)
    .limit(sa.bindparam("due_limit"))
)
#: an operation that waits for its backend is tried again after this at the latest.
LONGEST_BACKOFF = datetime.timedelta(minutes=10)
_RETRYABLE = sa.select(T).where(
    T.c.host == sa.bindparam("due_host"),
    T.c.state == "parked",
    T.c.parked_for.in_(("backend", "worker")),
    # No back-off is that long: the clock was put back since.
    sa.or_(
        T.c.not_before.is_(None),
        T.c.not_before <= sa.bindparam("due_now"),
        T.c.not_before > sa.bindparam("due_latest"),
    ),
)
_START = (
    sa.update(T)
    .where(_MINE, T.c.state.in_(("queued", "parked")))
    .values(
        state=sa.bindparam("new_state"),
        claimed=True,
        claims=sa.bindparam("new_claims"),
        epoch=T.c.epoch + 1,
        incarnation=sa.bindparam("new_incarnation"),
        data=sa.bindparam("new_data"),
        started_at=sa.func.coalesce(T.c.started_at, sa.bindparam("now")),
        updated_at=sa.bindparam("now"),
        parked_for=None,
    )
)
_PROGRESS = (
    sa.update(T)
    .where(_MINE, _OPEN)
    .values(progress=sa.bindparam("new_progress"), data=sa.bindparam("new_data"), updated_at=sa.bindparam("now"))
)


def insert(conn: Connection, values: dict[str, Any]) -> None:
    """Write a new row; a request key that exists already violates the unique constraint."""
    conn.execute(_INSERT, values)


def get(conn: Connection, operation_id: str) -> types.OperationRecord | None:
    """Return one operation, or None."""
    row = conn.execute(_BY_ID, {"op_id": operation_id}).first()
    return records.operation(row) if row is not None else None


def by_key(conn: Connection, request_key: str) -> types.OperationRecord | None:
    """Return the operation of a request key, or None."""
    row = conn.execute(_BY_KEY, {"op_key": request_key}).first()
    return records.operation(row) if row is not None else None


def due(
    conn: Connection, host: str, now: datetime.datetime, limit: int, verbs: Sequence[str] | None = None
) -> list[types.OperationRecord]:
    """Return queued operations of a worker whose time has come, oldest first; only of these verbs, if any are named."""
    rows = conn.execute(_of(_DUE, verbs), {"due_host": host, "due_now": now, "due_limit": limit})
    return [records.operation(row) for row in rows]


def retryable(
    conn: Connection, host: str, now: datetime.datetime, verbs: Sequence[str] | None = None
) -> list[types.OperationRecord]:
    """Return the operations of a worker that wait for its backend, or for another worker, and are to look again.

    :param verbs: only of these.
    """
    rows = conn.execute(_of(_RETRYABLE, verbs), {
        "due_host": host, "due_now": now, "due_latest": now + LONGEST_BACKOFF,
    })
    return [records.operation(row) for row in rows]


def _of(query: sa.Select[Any], verbs: Sequence[str] | None) -> sa.Select[Any]:
    return query if verbs is None else query.where(T.c.verb.in_(verbs))


def abandoned(
    conn: Connection, host: str, incarnation: str, limit: int, verbs: Sequence[str] | None = None
) -> list[types.OperationRecord]:
    """Return operations that an earlier incarnation of a worker had begun; only of these verbs, if any are named."""
    query = (
        sa.select(T)
        .where(T.c.host == host, T.c.state.in_(("running", "undoing")), T.c.incarnation != incarnation)
        .order_by(T.c.created_at)
        .limit(limit)
    )
    return [records.operation(row) for row in conn.execute(_of(query, verbs))]


def start(
    conn: Connection,
    operation: types.OperationRecord,
    *,
    incarnation: str,
    now: datetime.datetime,
    data: Any,
    held: list[dict[str, Any]],
) -> bool:
    """Take a queued or parked operation; returns whether this worker got it. Its epoch goes up by one.

    :param held: all the claims that it holds from now on.
    """
    values = {
        "op_id": operation.id,
        "op_epoch": operation.epoch,
        "new_state": "undoing" if operation.error else "running",
        "new_incarnation": incarnation,
        "new_data": data,
        "new_claims": held,
        "now": now,
    }
    return bool(conn.execute(_START, values).rowcount)


def take_over(
    conn: Connection, operation: types.OperationRecord, *, incarnation: str, now: datetime.datetime
) -> bool:
    """Take an operation whose worker has died; the death is counted. Returns whether this worker got it.

    A worker that drained let go of it first, so its end is no death.
    """
    died = 1 if operation.incarnation else 0
    statement = (
        sa.update(T)
        .where(T.c.id == operation.id, T.c.epoch == operation.epoch, T.c.state.in_(("running", "undoing")))
        .values(epoch=T.c.epoch + 1, deaths=T.c.deaths + died, incarnation=incarnation, updated_at=now)
    )
    return bool(conn.execute(statement).rowcount)


def let_go(conn: Connection, host: str, incarnation: str) -> int:
    """Mark what a draining worker leaves unfinished, so that its next life goes on with it; returns how many."""
    mine = (T.c.host == host) & (T.c.incarnation == incarnation) & T.c.state.in_(("running", "undoing"))
    return conn.execute(sa.update(T).where(mine).values(incarnation="")).rowcount


def note(conn: Connection, operation_id: str, epoch: int, now: datetime.datetime, **values: Any) -> None:
    """Write where an operation is (``step``, ``data``, ``pivoted``, ``state``, ``error``…).

    :raises LeaseLost: it is not the caller's any more.
    """
    statement = sa.update(T).where(T.c.id == operation_id, T.c.epoch == epoch, _OPEN).values(**values, updated_at=now)
    _must(conn.execute(statement).rowcount, operation_id)


def touch(conn: Connection, operation_id: str, epoch: int) -> None:
    """Lock an operation's row until the transaction ends.

    :raises LeaseLost: it is not the caller's any more.
    """
    statement = sa.update(T).where(T.c.id == operation_id, T.c.epoch == epoch, _OPEN).values(epoch=epoch)
    _must(conn.execute(statement).rowcount, operation_id)


def renew(
    conn: Connection, operation_id: str, epoch: int, now: datetime.datetime, progress: float | None, data: Any
) -> None:
    """Write progress (0 to 1) and checkpoints.

    :raises LeaseLost: it is not the caller's any more.
    """
    values = {"op_id": operation_id, "op_epoch": epoch, "now": now, "new_progress": progress, "new_data": data}
    _must(conn.execute(_PROGRESS, values).rowcount, operation_id)


def finish(
    conn: Connection,
    operation_id: str,
    epoch: int,
    now: datetime.datetime,
    *,
    result: Any = None,
    error: dict[str, Any] | None = None,
) -> None:
    """End an operation: done with its result, or failed with its error.

    :raises LeaseLost: it is not the caller's any more.
    """
    values = {
        "op_id": operation_id,
        "op_epoch": epoch,
        "now": now,
        "new_state": "failed" if error else "done",
        "new_result": result,
        "new_error": error,
        "new_progress": None if error else 1.0,
    }
    _must(conn.execute(_FINISH, values).rowcount, operation_id)


def park(
    conn: Connection,
    operation_id: str,
    epoch: int,
    now: datetime.datetime,
    *,
    reason: str,
    data: Any,
    error: dict[str, Any] | None,
    not_before: datetime.datetime | None,
) -> None:
    """Set an operation aside: it stays unfinished and keeps its claims until it is retried or abandoned.

    :param reason: backend, worker, fence, external or operator.
    """
    values = {"state": "parked", "parked_for": reason, "data": data, "not_before": not_before}
    if error is not None:
        values["error"] = error
    note(conn, operation_id, epoch, now, **values)


def hand_over(
    conn: Connection, operation_id: str, epoch: int, now: datetime.datetime, *, host: str, data: Any
) -> None:
    """Put an operation, with its claims, into another worker's journal, to begin there from its first step.

    :raises LeaseLost: it is not the caller's any more.
    """
    begun = {"step": None, "error": None, "incarnation": None, "progress": None, "parked_for": None}
    note(conn, operation_id, epoch, now, host=host, state="queued", not_before=None, data=data, **begun)


def request_cancel(conn: Connection, operation_id: str, now: datetime.datetime) -> bool:
    """Ask an unfinished operation to stop at its next safe point; returns whether it was unfinished."""
    at_once = sa.case((T.c.parked_for == "worker", now), else_=T.c.not_before)
    values = {"cancel": True, "updated_at": now, "not_before": at_once}
    statement = sa.update(T).where(T.c.id == operation_id, _OPEN, ~T.c.pivoted).values(values)
    return bool(conn.execute(statement).rowcount)


def requeue(conn: Connection, operation_id: str, now: datetime.datetime) -> bool:
    """Let a parked operation be tried again; returns whether it was parked, and not for want of a fence."""
    statement = (
        sa.update(T)
        .where(T.c.id == operation_id, T.c.state == "parked", T.c.parked_for.is_distinct_from("fence"))
        .values(parked_for="backend", not_before=now, deaths=0, updated_at=now)
    )
    return bool(conn.execute(statement).rowcount)


def count_unfinished(conn: Connection, host: str, now: datetime.datetime) -> dict[str, int]:
    """Return how many operations of a worker go on by themselves by now (``unfinished``), and how many are parked."""
    parked = T.c.state == "parked"
    later = sa.func.coalesce(T.c.not_before, now) > now
    going = sa.func.sum(sa.case((parked | later, 0), else_=1))
    row = conn.execute(
        sa.select(going.label("going"), sa.func.sum(sa.case((parked, 1), else_=0)).label("parked"))
        .where(T.c.host == host, _OPEN)
    ).one()
    return {"unfinished": int(row.going or 0), "parked": int(row.parked or 0)}


def unfinished_of(conn: Connection, resource_id: str) -> list[types.OperationRecord]:
    """Return the operations about a resource that have not ended, oldest first."""
    query = sa.select(T).where(T.c.resource_id == resource_id, _OPEN).order_by(T.c.created_at)
    return [records.operation(row) for row in conn.execute(query)]


def holding(conn: Connection, resource_id: str) -> list[types.OperationRecord]:
    """Return the unfinished operations that hold a resource or share it, oldest first."""
    mine = sa.type_coerce(T.c.claims, sa.Text).contains(resource_id)
    return [records.operation(row) for row in conn.execute(sa.select(T).where(_OPEN, mine).order_by(T.c.created_at))]


def history(conn: Connection, resource_id: str, limit: int) -> list[types.OperationRecord]:
    """Return the newest operations about a resource."""
    query = sa.select(T).where(T.c.resource_id == resource_id).order_by(T.c.created_at.desc()).limit(limit)
    return [records.operation(row) for row in conn.execute(query)]


def purge(conn: Connection, before: datetime.datetime, limit: int) -> int:
    """Remove tombstones that ended before a time; returns how many."""
    old = sa.select(T.c.id).where(T.c.finished_at < before).limit(limit)
    ids: Sequence[str] = conn.execute(old).scalars().all()
    if ids:
        conn.execute(sa.delete(T).where(T.c.id.in_(ids)))
    return len(ids)


def _must(rowcount: int, operation_id: str) -> None:
    if not rowcount:
        raise exception.LeaseLost(id=operation_id)

# SPDX-License-Identifier: Apache-2.0
"""Holds on resources, by compare-and-swap: the journal is the lock.

Exclusive: ``operation_id`` is set by the row's own UPDATE, which also checks the status and that nobody shares it.
Shared: ``use_count`` goes up in one. Both survive a crash and name their holder.
"""

from __future__ import annotations

import datetime
import functools
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import states, types
from volmgr.db import failovers, models, records

TABLES: dict[str, sa.Table] = {
    "volume": models.volumes,
    "snapshot": models.snapshots,
    "group": models.groups,
    "cgsnapshot": models.cgsnapshots,
    "backup": models.backups,
}
#: those that an object embodies, and that can be exported.
STORED = ("volume", "snapshot")
COLUMNS: dict[str, tuple[sa.Column[Any], ...]] = {
    "volume": records.VOLUME_COLUMNS,
    "snapshot": records.SNAPSHOT_COLUMNS,
    "group": records.GROUP_COLUMNS,
    "cgsnapshot": records.CGSNAPSHOT_COLUMNS,
    "backup": records.BACKUP_COLUMNS,
}

_RANKS = ("attached", "attaching", "detaching", "reserved")


def settled_status() -> sa.ColumnElement[str]:
    """Return the SQL expression for the status of an idle volume: it follows from its attachments."""
    table = models.attachments
    rank = sa.case({status: index for index, status in enumerate(_RANKS)}, value=table.c.status, else_=len(_RANKS))
    best = (
        sa.select(sa.func.min(rank))
        .where(table.c.volume_id == models.volumes.c.id)
        .correlate(models.volumes)
        .scalar_subquery()
    )
    meaning = {index: states.volume_status_of([status]) for index, status in enumerate(_RANKS)}
    return sa.case(meaning, value=best, else_="available")


@dataclass(frozen=True)
class Shared:
    """A claim on something that is whole and unused by others than clones."""

    resource: str
    id: str
    sources: tuple[str, ...] = ("available",)
    status: str | None = None
    exclusive: bool = False
    childless: bool = False


@functools.cache
def _claim_statement(
    resource: str, sources: tuple[str, ...], status: str | None, childless: bool, returning: bool
) -> sa.sql.dml.Update:
    table = TABLES[resource]
    where = [
        table.c.id == sa.bindparam("claim_id"),
        table.c.operation_id.is_(None),
        table.c.status.in_(sources),
    ]
    values: dict[str, Any] = {"updated_at": sa.bindparam("claim_now")}
    if status is not None:
        where.append(table.c.use_count == 0)
        values |= {"status": status, "operation_id": sa.bindparam("claim_operation")}
    else:
        values |= {"use_count": table.c.use_count + 1}
    if childless:
        where.append(~sa.exists().where(models.snapshots.c.volume_id == table.c.id))
    statement = sa.update(table).where(*where).values(values)
    return statement.returning(*COLUMNS[resource]) if returning else statement


@functools.cache
def _row_statement(resource: str) -> sa.Select[Any]:
    return sa.select(*COLUMNS[resource]).where(TABLES[resource].c.id == sa.bindparam("claim_id"))


def row(conn: Connection, resource: str, resource_id: str) -> Any:
    """Return a resource's row, or None."""
    return conn.execute(_row_statement(resource), {"claim_id": resource_id}).first()


def take(conn: Connection, claim: Any, operation_id: str, now: datetime.datetime) -> Any:
    """Take one claim; returns the resource's row as it is now, or None if it could not be taken.

    :param claim: a :class:`volmgr.operations.base.Claim`.
    """
    # MariaDB has no UPDATE ... RETURNING; the row cannot change before our own transaction ends.
    returning = conn.dialect.name != "mysql" and conn.dialect.name != "mariadb"
    statement = _claim_statement(claim.resource, claim.sources, claim.status, claim.childless, returning)
    values = {"claim_id": claim.id, "claim_now": now}
    if claim.exclusive:
        values["claim_operation"] = operation_id
    result = conn.execute(statement, values)
    if returning:
        return result.first()
    return row(conn, claim.resource, claim.id) if result.rowcount else None


def drop_shared(conn: Connection, resource: str, resource_id: str) -> bool:
    """Give a shared claim back; returns whether the row was there."""
    return bool(conn.execute(_drop_statement(resource), {"claim_id": resource_id}).rowcount)


@functools.cache
def _drop_statement(resource: str) -> sa.sql.dml.Update:
    table = TABLES[resource]
    return (
        sa.update(table)
        .where(table.c.id == sa.bindparam("claim_id"), table.c.use_count > 0)
        .values(use_count=table.c.use_count - 1)
    )


@dataclass(frozen=True)
class Obstacle:
    """Why a claim could not be taken: the resource's status, and who holds it.

    :ivar snapshots: how many a volume has. :ivar leaving: how many of those are being deleted.
    :ivar loss: what a failover has to do with a volume that is in error.
    """

    status: str
    project_id: str | None
    holders: tuple[types.OperationRecord, ...]
    snapshots: int
    attachments: int
    host: str | None = None
    leaving: int = 0
    loss: failovers.Loss | None = None


def obstacle(conn: Connection, claim: Any) -> Obstacle | None:
    """Return what is in the way of a claim, or None if the resource does not exist."""
    found = row(conn, claim.resource, claim.id)
    if found is None:
        return None
    operations = models.operations
    # Also one that still waits for its own claims: it holds the row that it is going to make.
    unfinished = operations.c.state.in_(states.UNFINISHED)
    mine = sa.type_coerce(operations.c.claims, sa.Text).contains(claim.id)
    holders = conn.execute(sa.select(operations).where(unfinished, mine).order_by(operations.c.created_at)).all()
    statuses: list[str] = []
    attachments, loss = 0, None
    if claim.resource == "volume":
        loss = failovers.loss(conn, found)
        children, users = models.snapshots, models.attachments
        statuses = list(conn.execute(sa.select(children.c.status).where(children.c.volume_id == claim.id)).scalars())
        count = sa.select(sa.func.count()).select_from(users).where(users.c.volume_id == claim.id)
        attachments = int(conn.execute(count).scalar_one())
    held_by = tuple(records.operation(item) for item in holders)
    leaving = statuses.count("deleting")
    return Obstacle(found.status, found.project_id, held_by, len(statuses), attachments, found.host, leaving, loss)

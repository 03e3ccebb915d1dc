# SPDX-License-Identifier: Apache-2.0
"""Small mendings of SQL by SQL: holds, statuses, usage and rows that nothing stands behind.

Each is one transaction that checks again what it mends, and says in the journal what it changed and for whom.
"""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import states
from volmgr.db import audit, claims, models, operations

_T, _Q = models.operations, models.quotas
MACHINES = {
    "volume": states.VOLUME,
    "snapshot": states.SNAPSHOT,
    "group": states.CONSISTENCY_GROUP,
    "cgsnapshot": states.CGSNAPSHOT,
    "backup": states.BACKUP,
}


def holder_of(conn: Connection, row: Any) -> str | None:
    """Return the unfinished operation that holds a resource's row, or None."""
    if row.operation_id is None:
        return None
    query = sa.select(_T.c.id).where(_T.c.id == row.operation_id, _T.c.state.in_(states.UNFINISHED))
    return conn.execute(query).scalar()


def users_of(conn: Connection, resource_id: str) -> int:
    """Return how many unfinished operations share a resource."""
    mine = sa.type_coerce(_T.c.claims, sa.Text)
    query = sa.select(mine).where(_T.c.state.in_(states.UNFINISHED), _T.c.claimed, mine.contains(resource_id))
    found = (json.loads(text) for text in conn.execute(query).scalars())
    return sum(any(item["id"] == resource_id and not item["exclusive"] for item in held) for held in found)


class Unsettled(NamedTuple):
    """A resource whose hold or status nothing stands behind; ``users`` is how many operations share it."""

    id: str
    status: str
    operation_id: str | None
    use_count: int
    users: int
    stuck: bool


def unsettled(conn: Connection, resource: str, *where: sa.ColumnElement[bool]) -> list[Unsettled]:
    """Return the resources of a noun that are held by no operation that still runs, and say so or look so.

    :param where: which ones are looked at.
    """
    table, transitional = claims.TABLES[resource], MACHINES[resource].transitional
    held = sa.exists().where(_T.c.id == table.c.operation_id, _T.c.state.in_(states.UNFINISHED))
    odd = table.c.status.in_(transitional) | table.c.operation_id.is_not(None) | (table.c.use_count > 0)
    query = sa.select(table.c.id, table.c.status, table.c.operation_id, table.c.use_count)
    found = conn.execute(query.where(odd, ~held, *where).order_by(table.c.id)).all()
    rows = [Unsettled(*row, users_of(conn, row.id), row.status in transitional) for row in found]
    return [row for row in rows if row.operation_id or row.stuck or row.use_count > row.users]


def settle(
    conn: Connection, resource: str, resource_id: str, now: datetime.datetime, status: str | None = None
) -> tuple[str, str] | None:
    """Give a resource that no operation holds the status and the use count that it should have.

    :param status: None: what a lost operation leaves, and for a volume what its attachments say.
    :returns: (status before, status now), or None if it is gone or held.
    """
    table = claims.TABLES[resource]
    row = conn.execute(sa.select(table).where(table.c.id == resource_id).with_for_update()).first()
    if row is None or holder_of(conn, row) is not None:
        return None
    machine = MACHINES[resource]
    chosen: Any = status or states.LOST[resource].get(row.status)
    if chosen is None and resource != "volume":
        chosen = row.status if row.status in machine.stable else "available"
    elif chosen is None:
        idle = row.status not in machine.stable or row.status in states.IDLE or _unoffered(conn, row)
        chosen = claims.settled_status() if idle else row.status
    values: dict[str, Any] = {"operation_id": None, "use_count": users_of(conn, resource_id), "updated_at": now}
    if resource == "volume" and row.migration_status in states.MIGRATION.transitional:
        values["migration_status"] = "error"
    conn.execute(sa.update(table).where(table.c.id == resource_id).values(status=chosen, **values))
    after = conn.execute(sa.select(table.c.status).where(table.c.id == resource_id)).scalar_one()
    return row.status, after


def _unoffered(conn: Connection, volume: Any) -> bool:
    offers = models.transfers
    query = sa.select(offers.c.id).where(offers.c.volume_id == volume.id)
    return volume.status == "awaiting-transfer" and conn.execute(query).first() is None


def recount(conn: Connection, project_id: str) -> list[dict[str, Any]]:
    """Count a project's usage anew; returns what was wrong. Nothing happens while anything of it is being changed."""
    # Whoever charges holds these rows until its own rows are visible.
    conn.execute(sa.select(_Q.c.volumes).where(_Q.c.project_id == project_id).with_for_update()).all()
    mended = []
    for row in audit.quotas(conn, project_id):
        volumes, snapshots, gigabytes = row.used
        values = {"volumes": volumes, "snapshots": snapshots, "gigabytes": gigabytes}
        of = (_Q.c.project_id == project_id) & (_Q.c.volume_type_id == row.volume_type_id)
        if not conn.execute(sa.update(_Q).where(of).values(values)).rowcount:
            conn.execute(sa.insert(_Q).values(project_id=project_id, volume_type_id=row.volume_type_id, **values))
        mended.append({"volume_type_id": row.volume_type_id, "was": list(row.counted), "is": list(row.used)})
    return mended


def forget_object(conn: Connection, object_id: str) -> bool:
    """Remove the row of an object that embodies nothing; returns whether it was there and did not."""
    table = models.objects
    tables = [claims.TABLES[noun] for noun in claims.STORED]
    embodied = [sa.exists().where(other.c.object_id == object_id) for other in tables]
    statement = sa.delete(table).where(table.c.id == object_id, *(~item for item in embodied))
    return bool(conn.execute(statement).rowcount)


def forget_attachment(conn: Connection, attachment_id: str) -> bool:
    """Remove an attachment whose volume is gone; returns whether it was."""
    table, volumes = models.attachments, models.volumes
    gone = ~sa.exists().where(volumes.c.id == table.c.volume_id)
    return bool(conn.execute(sa.delete(table).where(table.c.id == attachment_id, gone)).rowcount)


def forget_cgsnapshot(conn: Connection, cgsnapshot_id: str) -> bool:
    """Remove a cgsnapshot that has no group or no snapshots; those that it has stay, each by itself.

    :returns: whether it was one.
    """
    table, parts, groups = models.cgsnapshots, models.snapshots, models.groups
    grouped = sa.exists().where(groups.c.id == table.c.group_id)
    whole = sa.exists().where(parts.c.cgsnapshot_id == table.c.id)
    free = table.c.operation_id.is_(None) & (table.c.use_count == 0)
    if not conn.execute(sa.delete(table).where(table.c.id == cgsnapshot_id, free, ~grouped | ~whole)).rowcount:
        return False
    conn.execute(sa.update(parts).where(parts.c.cgsnapshot_id == cgsnapshot_id).values(cgsnapshot_id=None))
    return True


def forget_offer(conn: Connection, transfer_id: str) -> bool:
    """Withdraw an offer whose volume is gone or not kept for it; returns whether it was one."""
    table, volumes = models.transfers, models.volumes
    statuses = ("awaiting-transfer", "error", "error_deleting")
    kept = volumes.c.operation_id.is_not(None) | volumes.c.status.in_(statuses)
    held = sa.exists().where(volumes.c.id == table.c.volume_id, kept)
    return bool(conn.execute(sa.delete(table).where(table.c.id == transfer_id, ~held)).rowcount)


def leave(conn: Connection, resource: str, resource_id: str, whole_id: str) -> bool:
    """Take a volume out of a group, or a snapshot out of a cgsnapshot, unless an operation holds it.

    :returns: whether it was in it.
    """
    table = claims.TABLES[resource]
    column = table.c.group_id if resource == "volume" else table.c.cgsnapshot_id
    free = (table.c.id == resource_id) & (column == whole_id) & table.c.operation_id.is_(None)
    return bool(conn.execute(sa.update(table).where(free).values({column.name: None})).rowcount)


def record(
    conn: Connection,
    verb: str,
    resource: str,
    resource_id: str,
    result: dict[str, Any],
    *,
    host: str,
    context: dict[str, Any],
    now: datetime.datetime,
) -> str:
    """Write into the journal what was mended at once; returns the operation's id."""
    operation_id = str(uuid.uuid4())
    operations.insert(
        conn,
        {
            "id": operation_id,
            "request_key": f"{verb}-{operation_id}",
            "verb": verb,
            "version": 1,
            "resource": resource,
            "resource_id": resource_id,
            "host": host,
            "state": "done",
            "lane": "control",
            "claimed": True,
            "claims": [],
            "context": context,
            "args": {"resource": resource, "id": resource_id},
            "result": result,
            "project_id": context.get("project_id"),
            "created_at": now,
            "started_at": now,
            "updated_at": now,
            "finished_at": now,
            "progress": 1.0,
        },
    )
    return operation_id

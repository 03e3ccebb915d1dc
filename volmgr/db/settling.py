# SPDX-License-Identifier: Apache-2.0
"""Small mendings of SQL by SQL: holds, statuses, usage and rows that nothing stands behind.

Each is one transaction that checks again what it mends, and says in the journal what it changed and for whom.
"""

from __future__ import annotations

import datetime
import json
import uuid
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import states
from volmgr.db import audit, claims, models, operations

_T, _Q = models.operations, models.quotas


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
    machine = {
        "volume": states.VOLUME,
        "group": states.CONSISTENCY_GROUP,
        "cgsnapshot": states.CGSNAPSHOT,
        "backup": states.BACKUP,
    }.get(resource, states.SNAPSHOT)
    chosen: Any = status or states.LOST[resource].get(row.status)
    if chosen is None and resource != "volume":
        chosen = row.status if row.status in machine.stable else "available"
    elif chosen is None:
        idle = row.status not in machine.stable or row.status in states.IDLE
        chosen = claims.settled_status() if idle else row.status
    values = {"operation_id": None, "use_count": users_of(conn, resource_id), "updated_at": now}
    conn.execute(sa.update(table).where(table.c.id == resource_id).values(status=chosen, **values))
    after = conn.execute(sa.select(table.c.status).where(table.c.id == resource_id)).scalar_one()
    return row.status, after


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

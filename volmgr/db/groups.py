# SPDX-License-Identifier: Apache-2.0
"""Groups and cgsnapshots: who belongs to which, and what clients read of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, types
from volmgr.db import listing, models, records

_V, _S, _G, _C = models.volumes, models.snapshots, models.groups, models.cgsnapshots


def volume_ids(conn: Connection, group_id: str) -> list[str]:
    """Return the ids of a group's members, sorted."""
    return list(conn.execute(sa.select(_V.c.id).where(_V.c.group_id == group_id).order_by(_V.c.id)).scalars())


def snapshot_ids(conn: Connection, cgsnapshot_id: str) -> list[str]:
    """Return the ids of the snapshots of a cgsnapshot, sorted."""
    of = _S.c.cgsnapshot_id == cgsnapshot_id
    return list(conn.execute(sa.select(_S.c.id).where(of).order_by(_S.c.id)).scalars())


def cgsnapshot_ids(conn: Connection, group_id: str) -> list[str]:
    """Return the ids of a group's cgsnapshots, sorted."""
    return list(conn.execute(sa.select(_C.c.id).where(_C.c.group_id == group_id).order_by(_C.c.id)).scalars())


def statuses(conn: Connection, resource: str, ids: Sequence[str]) -> dict[str, str]:
    """Return the statuses of volumes or snapshots; their rows stay as they are until the transaction ends."""
    table = _V if resource == "volume" else _S
    query = sa.select(table.c.id, table.c.status).where(table.c.id.in_(ids)).with_for_update()
    return {row.id: row.status for row in conn.execute(query)}


def cgsnapshot_of(conn: Connection, snapshot_id: str) -> str | None:
    """Return the cgsnapshot that a snapshot belongs to."""
    found = conn.execute(sa.select(_S.c.cgsnapshot_id).where(_S.c.id == snapshot_id)).scalar()
    return None if found is None else str(found)


def cgsnapshot_over(conn: Connection, volume_id: str) -> str | None:
    """Return a cgsnapshot that has a snapshot of a volume."""
    of = (_S.c.volume_id == volume_id) & _S.c.cgsnapshot_id.is_not(None)
    found = conn.execute(sa.select(_S.c.cgsnapshot_id).where(of).limit(1)).scalar()
    return None if found is None else str(found)


def join(conn: Connection, group_id: str, volume_id: str) -> bool:
    """Make a volume that is in no group a member of one; returns whether it was in none."""
    free = (_V.c.id == volume_id) & _V.c.group_id.is_(None)
    return bool(conn.execute(sa.update(_V).where(free).values(group_id=group_id)).rowcount)


def leave(conn: Connection, group_id: str, volume_id: str) -> bool:
    """Take a volume out of a group; returns whether it was in it."""
    member = (_V.c.id == volume_id) & (_V.c.group_id == group_id)
    return bool(conn.execute(sa.update(_V).where(member).values(group_id=None)).rowcount)


# --- what clients read ------------------------------------------------------------------------------------------------


def group(conn: Connection, group_id: str, project_id: str | None) -> dict[str, Any]:
    """Return a group as clients read it.

    :raises GroupNotFound: there is none, or it is another project's.
    """
    row = conn.execute(sa.select(_G).where(_G.c.id == group_id)).first()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise exception.GroupNotFound(id=group_id)
    return _group_view(records.group(row), volume_ids(conn, group_id), cgsnapshot_ids(conn, group_id))


def groups(conn: Connection, page: listing.Page) -> list[dict[str, Any]]:
    """Return a page of groups."""
    found = [records.group(row) for row in conn.execute(listing.paged(sa.select(_G), _G, page))]
    ids = [item.id for item in found]
    members, copies = _of(conn, _V, _V.c.group_id, ids), _of(conn, _C, _C.c.group_id, ids)
    return [_group_view(item, members.get(item.id, []), copies.get(item.id, [])) for item in found]


def cgsnapshot(conn: Connection, cgsnapshot_id: str, project_id: str | None) -> dict[str, Any]:
    """Return a cgsnapshot as clients read it.

    :raises CgSnapshotNotFound: there is none, or it is another project's.
    """
    row = conn.execute(sa.select(_C).where(_C.c.id == cgsnapshot_id)).first()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise exception.CgSnapshotNotFound(id=cgsnapshot_id)
    return _cgsnapshot_view(records.cgsnapshot(row), snapshot_ids(conn, cgsnapshot_id))


def cgsnapshots(conn: Connection, page: listing.Page) -> list[dict[str, Any]]:
    """Return a page of cgsnapshots."""
    found = [records.cgsnapshot(row) for row in conn.execute(listing.paged(sa.select(_C), _C, page))]
    members = _of(conn, _S, _S.c.cgsnapshot_id, [item.id for item in found])
    return [_cgsnapshot_view(item, members.get(item.id, [])) for item in found]


def _of(conn: Connection, table: sa.Table, column: sa.Column[Any], ids: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if ids:
        query = sa.select(table.c.id, column.label("whole")).where(column.in_(ids)).order_by(table.c.id)
        for row in conn.execute(query):
            found.setdefault(row.whole, []).append(row.id)
    return found


def _common(record: types.Group | types.CgSnapshot) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.display_name,
        "description": record.display_description,
        "status": record.status,
        "host": record.host,
        "project_id": record.project_id,
        "user_id": record.user_id,
        "operation_id": record.operation_id,
        "created_at": records.moment(record.created_at),
        "updated_at": records.moment(record.updated_at),
    }


def _group_view(record: types.Group, volumes: list[str], copies: list[str]) -> dict[str, Any]:
    return {
        **_common(record),
        "availability_zone": record.availability_zone,
        "volume_types": list(record.volume_types),
        "cgsnapshot_id": record.cgsnapshot_id,
        "source_group_id": record.source_group_id,
        "volumes": volumes,
        "cgsnapshots": copies,
    }


def _cgsnapshot_view(record: types.CgSnapshot, snapshots: list[str]) -> dict[str, Any]:
    return {**_common(record), "group_id": record.group_id, "snapshots": snapshots}

# SPDX-License-Identifier: Apache-2.0
"""What an audit reads of groups, cgsnapshots and offers: only the rows that contradict others.

Each question is one statement, so its answer is of one instant on every database. This module decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import states
from volmgr.db import models

_V, _S, _G, _C = models.volumes, models.snapshots, models.groups, models.cgsnapshots
_T, _J = models.transfers, models.operations


class Stray(NamedTuple):
    """A member whose whole is gone (``of_host`` is None then), is elsewhere, or is another project's."""

    kind: str
    id: str
    host: str
    of: str
    of_host: str | None
    project_id: str | None
    of_project: str | None


class Broken(NamedTuple):
    """A cgsnapshot that is not what it says.

    :ivar grouped: whether its group is there. :ivar parts: how many snapshots it has.
    :ivar missing: ids of snapshots that it was made with, as long as the journal knows, and that are gone.
    """

    id: str
    status: str
    group_id: str
    grouped: bool
    parts: int
    missing: tuple[str, ...] = ()


class Offer(NamedTuple):
    """An offer and the volume that it is of, which is gone if ``status`` is None; ``id`` is None where none offers."""

    id: str | None
    volume_id: str
    status: str | None


def strays(conn: Connection, of: Sequence[str]) -> list[Stray]:
    """Return the volumes and snapshots on some hosts whose group or cgsnapshot they cannot be members of."""
    found: list[Stray] = []
    for kind, table, whole, column in (("volume", _V, _G, _V.c.group_id), ("snapshot", _S, _C, _S.c.cgsnapshot_id)):
        other = sa.func.coalesce(whole.c.project_id, "") != sa.func.coalesce(table.c.project_id, "")
        apart = whole.c.id.is_(None) | (whole.c.host != table.c.host) | other
        query = (
            sa.select(
                sa.literal(kind), table.c.id, table.c.host, column, whole.c.host.label("of_host"), table.c.project_id,
                whole.c.project_id.label("of_project"),
            )
            .select_from(table.outerjoin(whole, whole.c.id == column))
            .where(column.is_not(None), table.c.host.in_(of), apart)
            .order_by(table.c.id)
        )
        found += [Stray(*row) for row in conn.execute(query)]
    return found


def broken(conn: Connection, of: Sequence[str]) -> list[Broken]:
    """Return the cgsnapshots on some hosts that have no group, or should have snapshots and lack all or some."""
    parts = sa.select(sa.func.count()).where(_S.c.cgsnapshot_id == _C.c.id).correlate(_C).scalar_subquery()
    grouped = sa.exists().where(_G.c.id == _C.c.group_id).correlate(_C)
    free = _C.c.host.in_(of) & _C.c.operation_id.is_(None)
    query = sa.select(_C.c.id, _C.c.status, _C.c.group_id, grouped.label("grouped"), parts.label("parts"))
    empty = (_C.c.status == "available") & (parts == 0)
    rows = conn.execute(query.where(free, empty | ~grouped).order_by(_C.c.id))
    found = {row.id: Broken(row.id, row.status, row.group_id, bool(row.grouped), row.parts) for row in rows}
    for item, missing in _missing(conn, free).items():
        if item.id not in found:
            found[item.id] = item._replace(missing=tuple(missing))
    return list(found.values())


def _missing(conn: Connection, free: sa.ColumnElement[bool]) -> dict[Broken, list[str]]:
    """Return which snapshots are gone that the journal says a cgsnapshot was made with."""
    made = _J.join(_C, (_J.c.resource_id == _C.c.id) & (_J.c.verb == "create_cgsnapshot") & (_J.c.state == "done"))
    query = (
        sa.select(_C.c.id, _C.c.status, _C.c.group_id, _J.c.result, _S.c.id.label("part"))
        .select_from(made.outerjoin(_S, _S.c.cgsnapshot_id == _C.c.id))
        .where(free, _C.c.status == "available")
        .order_by(_C.c.id, _J.c.created_at)  # of two that had the same id, the later one counts
    )
    wanted: dict[Broken, set[str]] = {}
    there: dict[str, set[str]] = {}
    for row in conn.execute(query):
        made_with = (row.result or {}).get("snapshots") or {}
        there.setdefault(row.id, set()).add(row.part)
        wanted[Broken(row.id, row.status, row.group_id, True, 0)] = set(made_with.values())
    return {item: sorted(ids - there[item.id]) for item, ids in wanted.items() if ids - there[item.id]}


def stale_offers(conn: Connection) -> list[Offer]:
    """Return the offers whose volume is gone, or not kept for them; they are no worker's in particular.

    One that is broken, or that an operation holds, is not: it may come to be what it was.
    """
    kept = _V.c.operation_id.is_not(None) | _V.c.status.in_(("awaiting-transfer", "error", "error_deleting"))
    query = (
        sa.select(_T.c.id, _T.c.volume_id, _V.c.status)
        .select_from(_T.outerjoin(_V, _V.c.id == _T.c.volume_id))
        .where(_V.c.id.is_(None) | ~kept)
        .order_by(_T.c.id)
    )
    return [Offer(*row) for row in conn.execute(query)]


class Halfway(NamedTuple):
    """A volume whose migration_status says that it is being moved, and that no operation holds."""

    id: str
    migration_status: str


def halfway(conn: Connection, of: Sequence[str]) -> list[Halfway]:
    """Return the volumes on some hosts that are said to be moved by nobody."""
    said = _V.c.migration_status.in_(states.MIGRATION.transitional) & _V.c.operation_id.is_(None) & _V.c.host.in_(of)
    return [Halfway(*row) for row in conn.execute(sa.select(_V.c.id, _V.c.migration_status).where(said))]


def unoffered(conn: Connection, of: Sequence[str]) -> list[Offer]:
    """Return the volumes on some hosts that wait for a new owner and are offered to nobody."""
    idle = (_V.c.status == "awaiting-transfer") & _V.c.operation_id.is_(None) & _V.c.host.in_(of)
    query = sa.select(sa.null(), _V.c.id, _V.c.status).where(idle, ~sa.exists().where(_T.c.volume_id == _V.c.id))
    return [Offer(*row) for row in conn.execute(query.order_by(_V.c.id))]

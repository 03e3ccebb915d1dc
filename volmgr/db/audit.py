# SPDX-License-Identifier: Apache-2.0
"""What an audit reads: everything of one worker, in a constant number of statements for each thousand rows.

Pages are read in transactions of their own, so that nobody waits for a long one; what changes in between is the
caller's to leave out. This module decides nothing.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import names, states
from volmgr.db import claims, models
from volmgr.db.audit_rows import (
    AttachmentRow,
    ExportRow,
    GrantRow,
    ObjectRow,
    OperationRow,
    PastRow,
    QuotaRow,
    ResourceRow,
)
from volmgr.db.engine import Database

PAGE = 1000
CHUNK = 500
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_V, _S, _O, _E, _G = models.volumes, models.snapshots, models.objects, models.exports, models.grants
_T, _Q, _A = models.operations, models.quotas, models.attachments

_VOLUMES = sa.select(
    sa.literal("volume").label("kind"), _V.c.id, _V.c.status, claims.settled_status().label("settled"), _V.c.object_id,
    _V.c.operation_id, _V.c.use_count, _V.c.size, _V.c.project_id,
)
_SNAPSHOTS = sa.select(
    sa.literal("snapshot").label("kind"), _S.c.id, _S.c.status, _S.c.status.label("settled"), _S.c.object_id,
    _S.c.operation_id, _S.c.use_count, _S.c.volume_size, _S.c.project_id,
)
_OBJECTS = sa.select(_O.c.id, _O.c.kind, _O.c.resource_id, _O.c.role, _O.c.serial, _O.c.size_bytes)
_EXPORTS = sa.select(_E.c.resource_id, _E.c.kind, _E.c.target_name)
_GRANTS = (
    sa.select(_G.c.id, _G.c.resource_id, _G.c.peer_key, _G.c.initiator, _G.c.wwpns, _G.c.macs, _G.c.attachment_id,
              _A.c.id.label("attachment"))
    .select_from(_G.join(_E, _E.c.resource_id == _G.c.resource_id)
                 .outerjoin(_A, _A.c.id == _G.c.attachment_id))
)


def hosts(conn: Connection, service: str) -> list[str]:
    """Return the hosts of resources, groups and objects that are a worker's: its name, with and without its pools."""
    tables = (_V, _S, _O, models.groups, models.cgsnapshots)
    found = conn.execute(sa.union(*(sa.select(table.c.host) for table in tables))).scalars()
    return [host for host in found if host is not None and names.service_of(host) == service]


def _paged(database: Database, query: sa.Select[Any], key: sa.Column[Any], page: int) -> Iterator[Any]:
    """Yield the rows of a query, ``page`` in each transaction, ordered by a unique column."""
    last: str | None = None
    while True:
        chosen = query if last is None else query.where(key > last)
        with database.reader() as conn:
            rows = conn.execute(chosen.order_by(key).limit(page)).all()
        yield from rows
        if len(rows) < page:
            return
        last = getattr(rows[-1], key.name)
        time.sleep(0)  # the other green threads' turn


def resources(database: Database, of: Sequence[str], page: int = PAGE) -> dict[str, ResourceRow]:
    """Return the volumes and snapshots on some hosts, by id."""
    found: dict[str, ResourceRow] = {}
    for query, table in ((_VOLUMES, _V), (_SNAPSHOTS, _S)):
        for row in _paged(database, query.where(table.c.host.in_(of)), table.c.id, page):
            found[row.id] = ResourceRow._make(row)
    return found


def objects(database: Database, of: Sequence[str], page: int = PAGE) -> dict[str, ObjectRow]:
    """Return the objects on some hosts, by id."""
    rows = _paged(database, _OBJECTS.where(_O.c.host.in_(of)), _O.c.id, page)
    return {row.id: ObjectRow._make(row) for row in rows}


def exports(database: Database, service: str, page: int = PAGE) -> dict[str, ExportRow]:
    """Return what a worker should export, by target name."""
    rows = _paged(database, _EXPORTS.where(_E.c.host == service), _E.c.resource_id, page)
    return {row.target_name: ExportRow._make(row) for row in rows}


def grants(database: Database, service: str, page: int = PAGE) -> dict[str, list[GrantRow]]:
    """Return the grants on what a worker exports, by resource."""
    found: dict[str, list[GrantRow]] = {}
    for row in _paged(database, _GRANTS.where(_E.c.host == service), _G.c.id, page):
        peers = _peers(row)
        orphan = bool(row.attachment_id) and row.attachment is None
        grant = GrantRow(row.id, row.resource_id, frozenset(peers), row.attachment_id, orphan)
        found.setdefault(row.resource_id, []).append(grant)
    return found


def _peers(row: Any) -> list[str]:
    """Return the names by which a target knows who is granted access; a connector may have those of other protocols."""
    protocol = row.peer_key.partition(":")[0]
    if protocol == "fc":
        return list(row.wwpns or ())
    if protocol == "aoe":
        return list(row.macs or ())
    return [row.initiator] if row.initiator else []


def orphan_attachments(conn: Connection) -> list[AttachmentRow]:
    """Return the attachments whose volume is gone; they are no worker's in particular."""
    query = sa.select(_A.c.id, _A.c.volume_id).outerjoin(_V, _V.c.id == _A.c.volume_id).where(_V.c.id.is_(None))
    return [AttachmentRow._make(row) for row in conn.execute(query)]


def operations(
    conn: Connection, service: str, ended_since: datetime.datetime | None = None
) -> list[OperationRow]:
    """Return a worker's unfinished operations, with ``ended_since`` also those that have ended since then."""
    wanted: sa.ColumnElement[bool] = _T.c.state.in_(states.UNFINISHED)
    if ended_since is not None:
        wanted |= _T.c.finished_at >= ended_since
    texts = [sa.type_coerce(column, sa.Text).label(column.name) for column in (_T.c.args, _T.c.data, _T.c.claims)]
    query = sa.select(_T.c.id, _T.c.verb, _T.c.resource_id, _T.c.state, _T.c.parked_for, *texts)
    return [_operation(row) for row in conn.execute(query.where(_T.c.host == service, wanted))]


def _operation(row: Any) -> OperationRow:
    named = _UUID.findall(f"{row.resource_id} {row.args} {row.data} {row.claims}")
    held = json.loads(row.claims)
    shared = frozenset(item["id"] for item in held if not item["exclusive"])
    why = ""
    if row.state == "parked" and row.data:
        why = str((json.loads(row.data).get("why") or {}).get("message", ""))
    return OperationRow(
        row.id, row.verb, row.resource_id, row.state, row.parked_for, why, shared, frozenset(named)
    )


def elsewhere(database: Database, ids: Sequence[str], of: Sequence[str]) -> frozenset[str]:
    """Return which ids are those of resources or objects on other hosts than some."""
    found: set[str] = set()
    for part in _chunks(ids):
        parts = [
            sa.select(table.c.id).where(table.c.id.in_(part), sa.func.coalesce(table.c.host, "").not_in(of))
            for table in (_V, _S, _O)
        ]
        with database.reader() as conn:
            found.update(conn.execute(sa.union(*parts)).scalars())
    return frozenset(found)


def past(database: Database, ids: Sequence[str]) -> dict[str, PastRow]:
    """Return the last operation that the journal has about each of some ids."""
    found: dict[str, PastRow] = {}
    for part in _chunks(ids):
        query = sa.select(_T.c.resource_id, _T.c.verb, _T.c.state).where(_T.c.resource_id.in_(part))
        with database.reader() as conn:
            for row in conn.execute(query.order_by(_T.c.created_at, _T.c.id)):
                found[row.resource_id] = PastRow(row.verb, row.state)
    return found


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


def _usage(table: sa.Table, noun: str, size: sa.Column[int]) -> Any:
    return sa.select(
        sa.literal(noun).label("noun"),
        sa.func.coalesce(table.c.project_id, "").label("project"),
        sa.func.coalesce(table.c.volume_type_id, "").label("of_type"),
        sa.func.count().label("number"),
        sa.cast(sa.func.sum(size), sa.BigInteger).label("gigabytes"),
        sa.cast(sa.literal(0), sa.BigInteger).label("snapshots"),
        sa.func.max(table.c.operation_id).label("held"),
    ).group_by(sa.func.coalesce(table.c.project_id, ""), sa.func.coalesce(table.c.volume_type_id, ""))


# One statement, so that rows and counters are of one instant on every database.
_QUOTA = sa.union_all(
    _usage(_V, "volumes", _V.c.size),
    _usage(_S, "snapshots", _S.c.volume_size),
    sa.select(sa.literal("quota"), _Q.c.project_id, _Q.c.volume_type_id, _Q.c.volumes, _Q.c.gigabytes, _Q.c.snapshots,
              sa.null()),
)


def quotas(conn: Connection, project_id: str | None = None) -> list[QuotaRow]:
    """Return the usages that differ from the rows; projects in which anything is being changed are left out.

    :param project_id: only this project.
    """
    counted: dict[tuple[str, str], tuple[int, int, int]] = {}
    used: dict[tuple[str, str], list[int]] = {}
    held: set[str] = set()
    for row in conn.execute(_QUOTA):
        if project_id is not None and row.project != project_id:
            continue
        if row.noun == "quota":
            counted[row.project, row.of_type] = (row.number, row.snapshots, row.gigabytes)
            continue
        if row.held is not None:
            held.add(row.project)
        for key in {(row.project, ""), (row.project, row.of_type)}:
            sums = used.setdefault(key, [0, 0, 0])
            sums[0 if row.noun == "volumes" else 1] += row.number
            sums[2] += row.gigabytes
    found = []
    for key in sorted({*counted, *used}):
        is_, should = counted.get(key, (0, 0, 0)), tuple(used.get(key, (0, 0, 0)))
        if key[0] not in held and is_ != should:
            found.append(QuotaRow(*key, is_, (should[0], should[1], should[2])))
    return found



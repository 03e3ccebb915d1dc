# SPDX-License-Identifier: Apache-2.0
"""What the last audit of each worker has found, and since when it is so: one row for each finding."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception
from volmgr.db import models, records

_F = models.findings
_CHUNK = 500


def record(
    conn: Connection,
    service: str,
    rows: Sequence[dict[str, Any]],
    now: datetime.datetime,
    kept_kinds: Collection[str] = (),
) -> dict[str, datetime.datetime]:
    """Make ``rows`` all that is known of a worker; returns by id when each was seen first.

    :param kept_kinds: kinds that this audit could not look for; what is known of them stays.
    """
    query = sa.select(_F.c.id, _F.c.kind, _F.c.reason, _F.c.created_at).where(_F.c.host == service)
    known = {row.id: row for row in conn.execute(query)}
    found = {row["id"]: row for row in rows}
    gone = [item for item, row in known.items() if item not in found and row.kind not in kept_kinds]
    for start in range(0, len(gone), _CHUNK):
        conn.execute(sa.delete(_F).where(_F.c.id.in_(gone[start : start + _CHUNK])))
    new = [{**row, "created_at": now, "seen_at": now} for item, row in found.items() if item not in known]
    if new:
        conn.execute(sa.insert(_F), new)
    changed = [row for item, row in found.items() if item in known and known[item].reason != row["reason"]]
    if changed:
        statement = sa.update(_F).where(_F.c.id == sa.bindparam("finding_id"))
        values = [
            {"finding_id": row["id"], "reason": row["reason"], "repair": row["repair"], "safe": row["safe"]}
            for row in changed
        ]
        conn.execute(statement, values)
    looked_at = (_F.c.host == service) & _F.c.kind.not_in(list(kept_kinds))
    if known:
        conn.execute(sa.update(_F).where(looked_at).values(seen_at=now))
    return {item: known[item].created_at if item in known else now for item in found}


def of_resource(conn: Connection, resource_id: str) -> list[dict[str, Any]]:
    """Return what is known about one resource."""
    query = sa.select(_F).where(_F.c.resource_id == resource_id).order_by(_F.c.created_at, _F.c.id)
    return [view(row) for row in conn.execute(query)]


def get(conn: Connection, finding_id: str) -> dict[str, Any]:
    """Return one finding.

    :raises NotFound: it is not known, or not any more.
    """
    row = conn.execute(sa.select(_F).where(_F.c.id == finding_id)).first()
    if row is None:
        raise exception.NotFound(
            f"There is no finding {finding_id}", hint="See: volmgr finding list", resource="finding", id=finding_id
        )
    return view(row)


def view(row: Any) -> dict[str, Any]:
    """Return a finding as clients read it."""
    values = dict(row._mapping)
    for name in ("created_at", "seen_at"):
        values[name] = records.moment(values[name])
    return values

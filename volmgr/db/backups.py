# SPDX-License-Identifier: Apache-2.0
"""Backups in SQL: what one is made against, what was made against one, and which a worker's audit compares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, states
from volmgr.db import models, settling

_T = models.backups


def latest(conn: Connection, volume_id: str, store: str, project_id: str | None) -> str | None:
    """Return the id of a project's newest whole backup of a volume in a store, or None."""
    query = (
        sa.select(_T.c.id)
        .where(_T.c.volume_id == volume_id, _T.c.store == store, _T.c.project_id == project_id)
        .where(_T.c.status == "available")
        .order_by(_T.c.created_at.desc(), _T.c.id)
    )
    found = conn.execute(query.limit(1)).scalar()
    return None if found is None else str(found)


def dependants(conn: Connection, backup_id: str) -> list[str]:
    """Return the ids of the backups that were made against one, oldest first."""
    query = sa.select(_T.c.id).where(_T.c.parent_id == backup_id).order_by(_T.c.created_at, _T.c.id)
    return list(conn.execute(query).scalars())


def complete(conn: Connection, backup_id: str, **columns: Any) -> None:
    """Write what a backup's row could not say when it was made."""
    conn.execute(sa.update(_T).where(_T.c.id == backup_id).values(**columns))


def by_store(conn: Connection) -> dict[str, dict[str, str]]:
    """Return the statuses of all backups by id, by the name of the store."""
    found: dict[str, dict[str, str]] = {}
    for row in conn.execute(sa.select(_T.c.id, _T.c.store, _T.c.status)):
        found.setdefault(row.store, {})[row.id] = row.status
    return found


def maker(conn: Connection, backup_id: str) -> dict[str, Any]:
    """Return the journal's data of the operation that is making a backup; empty where none is."""
    journal = models.operations
    query = sa.select(journal.c.data).where(
        journal.c.resource_id == backup_id,
        journal.c.verb == "create_backup",
        journal.c.state.in_(states.UNFINISHED),
    )
    return dict(conn.execute(query).scalar() or {})


def check_quota(conn: Connection, project_id: str | None, limits: Mapping[str, int]) -> None:
    """Return if a project may have the backups whose rows it has by now.

    They are counted and not kept as a number, so nothing can drift. Admissions of one project wait for each other at
    the row of its usage, which is there since its first volume.

    :param limits: ``backups`` and ``backup_gigabytes``; -1, or a name that is missing, is no limit.
    :raises QuotaExceeded: they are more than that.
    """
    if all(limits.get(name, -1) < 0 for name in ("backups", "backup_gigabytes")):
        return
    usage = models.quotas
    conn.execute(sa.select(usage.c.volumes).where(usage.c.project_id == (project_id or "")).with_for_update()).all()
    counts = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(_T.c.size), 0)).where(
        _T.c.project_id == project_id if project_id is not None else _T.c.project_id.is_(None)
    )
    for name, used in zip(("backups", "backup_gigabytes"), conn.execute(counts).one(), strict=True):
        limit = limits.get(name, -1)
        if 0 <= limit < used:
            raise exception.QuotaExceeded(
                f"The quota for {name} is exceeded: with this one it would be {used}, {limit} are allowed",
                hint=f"Delete backups, or raise {name} in [quota]",
                quota=name,
                limit=limit,
                project_id=project_id,
            )


def unsettled(conn: Connection) -> list[settling.Unsettled]:
    """Return the backups that are held by no operation that still runs, and say so or look so."""
    return settling.unsettled(conn, "backup")

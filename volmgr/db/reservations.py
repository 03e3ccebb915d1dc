# SPDX-License-Identifier: Apache-2.0
"""Quota that a caller counts before it sends the request that uses it.

A reservation's amounts are in use from the moment when it is made. The verb that is given it takes it in its own
transaction, in place of what it would count; one that is refused gives it back; one that nobody uses expires. This
module knows no verb.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr.db import models, quotas

_R = models.reservations
EXPIRE_LIMIT = 100


def make(
    conn: Connection,
    reservation_id: str,
    project_id: str,
    volume_type_id: str | None,
    amounts: Mapping[str, int],
    *,
    expires_at: datetime.datetime,
    defaults: Mapping[str, int],
) -> None:
    """Count amounts now for a request to come; a repeat with the same id counts nothing.

    :param amounts: by name, see :data:`volmgr.db.quotas.NAMES`. :param defaults: see :func:`volmgr.db.quotas.charge`.
    :raises QuotaExceeded: a limit does not allow it.
    """
    if conn.execute(sa.select(_R.c.id).where(_R.c.id == reservation_id)).first() is not None:
        return
    values: dict[str, Any] = {name: amounts.get(name, 0) for name in quotas.NAMES}
    owner = {"id": reservation_id, "project_id": project_id, "volume_type_id": volume_type_id}
    conn.execute(sa.insert(_R), {**owner, **values, "expires_at": expires_at})
    quotas.charge(conn, project_id, volume_type_id, **values, defaults=defaults)


def take(conn: Connection, ids: Sequence[str], project_id: str) -> int:
    """Give a project's reservations back, because their request counts for itself or is refused; returns how many.

    One that is not there has expired or was used: it counts nothing any more.
    """
    if not ids:
        return 0
    query = sa.select(_R).where(_R.c.id.in_(ids), _R.c.project_id == project_id).order_by(_R.c.id)
    return sum(_give_back(conn, row) for row in conn.execute(query).all())


def expired(conn: Connection, now: datetime.datetime) -> bool:
    """Return whether there is something for :func:`expire` to do."""
    return conn.execute(sa.select(_R.c.id).where(_R.c.expires_at < now).limit(1)).first() is not None


def expire(conn: Connection, now: datetime.datetime) -> int:
    """Give back what nobody has used in time; returns how many, at most :data:`EXPIRE_LIMIT`."""
    query = sa.select(_R).where(_R.c.expires_at < now).order_by(_R.c.id).limit(EXPIRE_LIMIT)
    return sum(_give_back(conn, row) for row in conn.execute(query).all())


def end_of_type(conn: Connection, volume_type_id: str) -> None:
    """Give back what is reserved for a volume type that goes."""
    for row in conn.execute(sa.select(_R).where(_R.c.volume_type_id == volume_type_id)).all():
        _give_back(conn, row)


def _give_back(conn: Connection, row: Any) -> int:
    if not conn.execute(sa.delete(_R).where(_R.c.id == row.id)).rowcount:
        return 0  # somebody else was first
    quotas.release(
        conn,
        row.project_id,
        row.volume_type_id,
        volumes=row.volumes,
        snapshots=row.snapshots,
        gigabytes=row.gigabytes,
    )
    return 1

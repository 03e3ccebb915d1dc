# SPDX-License-Identifier: Apache-2.0
"""Limits of speed that volume types are associated with: ``consumer`` says who keeps them.

``front-end``: the compute service, which reads them in connection_info; ``back-end``: the driver, which reads them of
the volume's type; ``both``. This module knows no verb.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception
from volmgr.db import models, records
from volmgr.db.engine import is_duplicate

_Q = models.qos
_TYPES = models.volume_types


def create(
    conn: Connection, qos_id: str, name: str, consumer: str, specs: Mapping[str, str], *, now: datetime.datetime
) -> None:
    """Make a QoS; one that is there already just so is left as it is.

    :raises AlreadyExists: its id or name is taken; the caller's transaction must be rolled back.
    """
    values = {"id": qos_id, "name": name, "consumer": consumer, "specs": dict(specs)}
    row = conn.execute(sa.select(_Q).where(_Q.c.id == qos_id)).first()
    if row is not None and all(getattr(row, key) == value for key, value in values.items()):
        return
    try:
        conn.execute(sa.insert(_Q), {**values, "created_at": now})
    except Exception as error:
        if is_duplicate(error):
            raise exception.AlreadyExists(resource="QoS", id=name) from error
        raise


def update(
    conn: Connection,
    qos_id: str,
    *,
    name: str | None = None,
    consumer: str | None = None,
    specs: Mapping[str, str | None] | None = None,
) -> None:
    """Change what is not None; specs are merged, one that is None is removed.

    :raises QosNotFound: there is none.
    :raises AlreadyExists: the name is taken; the caller's transaction must be rolled back.
    """
    row = hold(conn, qos_id)
    merged = {**row.specs, **(specs or {})}
    values = {
        "name": name if name is not None else row.name,
        "consumer": consumer if consumer is not None else row.consumer,
        "specs": {key: value for key, value in merged.items() if value is not None},
    }
    try:
        conn.execute(sa.update(_Q).where(_Q.c.id == qos_id).values(values))
    except Exception as error:
        if is_duplicate(error):
            raise exception.AlreadyExists(resource="QoS", id=name) from error
        raise


def delete(conn: Connection, qos_id: str, *, force: bool = False) -> bool:
    """Remove a QoS; returns whether there was one.

    :param force: end its associations. :raises Conflict: volume types are associated with it.
    """
    if conn.execute(sa.select(_Q.c.id).where(_Q.c.id == qos_id).with_for_update()).first() is None:
        return False
    found = list(conn.execute(sa.select(_TYPES.c.name).where(_TYPES.c.qos_id == qos_id)).scalars())
    if found and not force:
        raise exception.Conflict(
            f"The volume types {', '.join(sorted(found))} are associated with the QoS {qos_id}",
            hint=f"End that with: volmgr qos disassociate {qos_id} TYPE, or delete it with --force",
            resource="QoS",
            id=qos_id,
        )
    conn.execute(sa.update(_TYPES).where(_TYPES.c.qos_id == qos_id).values(qos_id=None))
    conn.execute(sa.delete(_Q).where(_Q.c.id == qos_id))
    return True


def hold(conn: Connection, qos_id: str) -> Any:
    """Return a QoS's row, and keep it from being changed until the transaction ends.

    :raises QosNotFound: there is none.
    """
    row = conn.execute(sa.select(_Q).where(_Q.c.id == qos_id).with_for_update()).first()
    if row is None:
        raise exception.QosNotFound(id=qos_id)
    return row


def view(row: Any) -> dict[str, Any]:
    """Return a QoS as clients read it."""
    return {
        "id": row.id,
        "name": row.name,
        "consumer": row.consumer,
        "specs": dict(row.specs),
        "created_at": records.moment(row.created_at),
    }


def shown(conn: Connection, name_or_id: str) -> dict[str, Any]:
    """Return a QoS by its id or else by its name, as clients read it, with the types that are associated with it.

    :raises QosNotFound: there is none.
    """
    rows = conn.execute(sa.select(_Q).where((_Q.c.id == name_or_id) | (_Q.c.name == name_or_id))).all()
    row = min(rows, key=lambda row: bool(row.id != name_or_id), default=None)
    if row is None:
        raise exception.QosNotFound(id=name_or_id)
    associated = sa.select(_TYPES.c.id).where(_TYPES.c.qos_id == row.id).order_by(_TYPES.c.id)
    return {**view(row), "volume_types": list(conn.execute(associated).scalars())}

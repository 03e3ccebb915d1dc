# SPDX-License-Identifier: Apache-2.0
"""Who uses a volume, and what that makes of the volume's status."""

from __future__ import annotations

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import types
from volmgr.db import claims, models, records

_T, _V = models.attachments, models.volumes
_BY_ID = sa.select(_T).where(_T.c.id == sa.bindparam("attachment_id"))
_OF_VOLUME = sa.select(_T).where(_T.c.volume_id == sa.bindparam("of_volume")).order_by(_T.c.created_at, _T.c.id)
_IDLE = ("available", "in-use", "reserved", "attaching", "detaching")
_SETTLE = (
    sa.update(_V)
    .where(_V.c.id == sa.bindparam("settle_id"), _V.c.operation_id.is_(None), _V.c.status.in_(_IDLE))
    .values(status=claims.settled_status(), updated_at=sa.bindparam("now"))
)
_LOCK = sa.select(*records.VOLUME_COLUMNS).where(_V.c.id == sa.bindparam("settle_id")).with_for_update()


def lock_volume(conn: Connection, volume_id: str) -> types.Volume | None:
    """Return a volume and keep its row from changing until the transaction ends."""
    row = conn.execute(_LOCK, {"settle_id": volume_id}).first()
    return None if row is None else records.volume(row)


def get(conn: Connection, attachment_id: str) -> types.Attachment | None:
    """Return an attachment, or None."""
    row = conn.execute(_BY_ID, {"attachment_id": attachment_id}).first()
    return None if row is None else records.attachment(row)


def of_volume(conn: Connection, volume_id: str) -> list[types.Attachment]:
    """Return a volume's attachments, oldest first."""
    return [records.attachment(row) for row in conn.execute(_OF_VOLUME, {"of_volume": volume_id})]


def insert(conn: Connection, record: types.Attachment) -> None:
    """Add an attachment."""
    conn.execute(
        sa.insert(_T),
        {column.name: getattr(record, column.name) for column in _T.c}
        | {"connector": dict(record.connector) if record.connector else None},
    )


def update(conn: Connection, attachment_id: str, **values: Any) -> None:
    """Change columns of an attachment."""
    conn.execute(sa.update(_T).where(_T.c.id == attachment_id).values(**values))


def delete(conn: Connection, attachment_id: str) -> None:
    """Remove an attachment."""
    conn.execute(sa.delete(_T).where(_T.c.id == attachment_id))


def delete_of_volume(conn: Connection, volume_id: str) -> None:
    """Remove all attachments of a volume."""
    conn.execute(sa.delete(_T).where(_T.c.volume_id == volume_id))


def settle(conn: Connection, volume_id: str, now: datetime.datetime) -> None:
    """Make an idle volume's status what its attachments say; one that an operation holds is settled at its end."""
    conn.execute(_SETTLE, {"settle_id": volume_id, "now": now})


def of_instance(conn: Connection, instance_uuid: str) -> list[types.Attachment]:
    """Return the attachments of an instance."""
    query = sa.select(_T).where(_T.c.instance_uuid == instance_uuid).order_by(_T.c.created_at)
    return [records.attachment(row) for row in conn.execute(query)]

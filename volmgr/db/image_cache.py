# SPDX-License-Identifier: Apache-2.0
"""Which images a backend keeps as volumes, and which of them goes first: the least recently used.

A kept image is an ordinary volume of a project of its own, so that whatever looks after volumes looks after it; a row
here says which image it is. The row is made with the volume and goes before it does: no clone begins from a volume that
is about to be deleted.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr.db import models

T = models.image_cache


@dataclass(frozen=True)
class CacheSettings:
    """Limits of the cache of one backend.

    :ivar project: whose its volumes are. :ivar max_gb: GiB in all, 0 for any. :ivar max_count: images, 0 for any.
    """

    project: str
    max_gb: int = 0
    max_count: int = 0


def get(conn: Connection, host: str, image_id: str) -> Any:
    """Return the row of a backend's kept image, or None.

    :param host: the backend with its pool. :param image_id: ``STORE/ID``.
    """
    return conn.execute(sa.select(T).where(T.c.host == host, T.c.image_id == image_id)).first()


def of_volume(conn: Connection, volume_id: str) -> Any:
    """Return the row of the kept image that a volume is, or None."""
    return conn.execute(sa.select(T).where(T.c.volume_id == volume_id)).first()


def insert(conn: Connection, host: str, image_id: str, volume_id: str, size: int, now: datetime.datetime) -> None:
    """Note that a volume is going to be a kept image; without a version nobody uses it yet."""
    conn.execute(
        sa.insert(T).values(host=host, image_id=image_id, volume_id=volume_id, size=size, created_at=now, used_at=now)
    )


def fill(conn: Connection, volume_id: str, version: str, size: int, now: datetime.datetime) -> None:
    """Note that a kept image is whole.

    :param version: of the image. :param size: of the volume, in GiB.
    """
    conn.execute(sa.update(T).where(T.c.volume_id == volume_id).values(version=version, size=size, used_at=now))


def touch(conn: Connection, volume_id: str, now: datetime.datetime) -> None:
    """Note that a kept image is used."""
    conn.execute(sa.update(T).where(T.c.volume_id == volume_id).values(used_at=now))


def drop(conn: Connection, volume_id: str) -> bool:
    """Forget that a volume is a kept image; returns whether that was known."""
    return bool(conn.execute(sa.delete(T).where(T.c.volume_id == volume_id)).rowcount)


def superfluous(conn: Connection, host: str, limits: CacheSettings, *, spare: str) -> list[str]:
    """Return the volumes that have to go so that a backend's cache is within its limits, least recently used first.

    :param spare: a volume that stays whatever the limits say.
    """
    rows = conn.execute(_by_use(host)).all()
    count, total, found = len(rows), sum(row.size for row in rows), []
    for row in rows:
        over = (limits.max_count and count > limits.max_count) or (limits.max_gb and total > limits.max_gb)
        if not over:
            break
        if row.volume_id != spare:
            found.append(row.volume_id)
            count, total = count - 1, total - row.size
    return found


def oldest(conn: Connection, host: str) -> str | None:
    """Return the whole kept image of a backend that was not used for the longest time, None if it has none."""
    found = conn.execute(_by_use(host).where(T.c.version.is_not(None)).limit(1)).first()
    return None if found is None else str(found.volume_id)


def _by_use(host: str) -> sa.Select[Any]:
    return sa.select(T).where(T.c.host == host).order_by(T.c.used_at, T.c.volume_id)

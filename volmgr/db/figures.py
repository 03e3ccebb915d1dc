# SPDX-License-Identifier: Apache-2.0
"""Counts for those who watch a worker: a few grouped statements, whatever there is. Nothing here changes anything."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import states
from volmgr.db import models

_O, _F = models.operations, models.findings
_RESOURCES = {"volume": (models.volumes, models.volumes.c.size),
              "snapshot": (models.snapshots, models.snapshots.c.volume_size)}


@dataclass(frozen=True)
class Unfinished:
    """Operations of one verb in one state; ``oldest`` is when the first of them was admitted."""

    verb: str
    state: str
    count: int
    oldest: datetime.datetime


def unfinished(conn: Connection, host: str) -> list[Unfinished]:
    """Return a worker's operations that have not ended, by verb and state.

    :param host: ``host@backend``.
    """
    query = (
        sa.select(_O.c.verb, _O.c.state, sa.func.count().label("count"), sa.func.min(_O.c.created_at).label("oldest"))
        .where(_O.c.host == host, _O.c.state.in_(states.UNFINISHED))
        .group_by(_O.c.verb, _O.c.state)
    )
    return [Unfinished(**row._mapping) for row in conn.execute(query)]


def findings(conn: Connection, host: str) -> dict[str, int]:
    """Return how many findings the last audit of a worker left, by kind."""
    query = sa.select(_F.c.kind, sa.func.count()).where(_F.c.host == host).group_by(_F.c.kind)
    return {kind: count for kind, count in conn.execute(query)}


def resources(conn: Connection, host: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Return how many volumes and snapshots a worker has, and their GiB, by noun and status."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for noun, (table, size) in _RESOURCES.items():
        here = (table.c.host == host) | table.c.host.startswith(f"{host}#", autoescape=True)
        query = sa.select(table.c.status, sa.func.count(), sa.func.sum(size)).where(here).group_by(table.c.status)
        for status, count, gigabytes in conn.execute(query):
            found[noun, status] = (count, int(gigabytes))
    return found

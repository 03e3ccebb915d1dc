# SPDX-License-Identifier: Apache-2.0
"""What the failovers of a backend have left a volume in: whether it is broken, or only not where its backend works now.

This module knows no verb but the one in the journal that it reads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import names
from volmgr.db import models

_S, _T = models.services, models.operations


class Loss(NamedTuple):
    """A volume that has the status error because its backend has failed over, or gone back too early.

    :ivar host: the worker. :ivar active: the replication target that it works on, None for its first storage.
    """

    host: str
    active: str | None


def loss(conn: Connection, volume: Any) -> Loss | None:
    """Return what a volume has lost to a failover; None if it is not in error, or for another reason.

    :param volume: its row, or its record. Where the journal does not reach back to the failover, a volume that was made
        once, on a backend that has failed over, counts as lost to that: the safe side.
    """
    if volume.status != "error" or volume.launched_at is None or volume.host is None:
        return None
    host = names.service_of(volume.host)
    active = conn.execute(sa.select(_S.c.active_backend_id).where(_S.c.host == host)).scalar()
    mine = (_T.c.host == host) & (_T.c.verb == "failover_host") & (_T.c.state == "done")
    last = conn.execute(sa.select(_T.c.result).where(mine).order_by(_T.c.finished_at.desc()).limit(1)).scalar()
    lost = volume.id in (last.get("lost") or ()) if last else active is not None
    return Loss(host, active) if lost else None

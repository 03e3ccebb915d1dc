# SPDX-License-Identifier: Apache-2.0
"""What a worker does about replication beside its operations: freezes, thaws, and asks how the replicas are.

A frozen backend takes no creation and no change; what is attached stays so, and may be attached and detached. Whether
it is frozen stands in its worker's row, so a restart does not thaw it.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import context as ctx
from volmgr import exception
from volmgr.db import listing, models, services
from volmgr.db.closing import UPDATABLE
from volmgr.db.engine import Database

LOG = logging.getLogger(__name__)
_V = models.volumes
#: what a driver may say of a volume that nobody has asked about.
_TOLD = UPDATABLE & {"replication_status", "replication_extended_status", "replication_driver_data"}


class Replicas:
    """The replication of one worker's backend.

    :param host: the worker. :param shared: whether other workers of a cluster serve the backend as well.
    """

    def __init__(self, database: Database, driver: Any, host: str, *, shared: bool = False) -> None:
        self.database = database
        self.driver = driver
        self.host = host
        self._shared = shared
        self._frozen: bool | None = None

    @property
    def frozen(self) -> bool:
        """Whether the backend takes no changes, see :meth:`is_frozen`."""
        return self.is_frozen()

    def is_frozen(self, conn: Connection | None = None) -> bool:
        """Return whether the backend takes no changes; read once, as only this worker changes it, or every time.

        :param conn: of the transaction that the caller is in: who waited for a second connection then, while others
            with one wait for his locks, would wait for himself.
        """
        if self._frozen is None or self._shared:
            self._frozen = bool(self._row("frozen", conn))
        return self._frozen

    @property
    def active_backend_id(self) -> str | None:
        """The replication target that the backend works on, None for its first storage."""
        found = self._row("active_backend_id")
        return str(found) if found else None

    def _row(self, column: str, conn: Connection | None = None) -> Any:
        query = sa.select(models.services.c[column]).where(models.services.c.host == self.host)
        with self.database.reader() if conn is None else contextlib.nullcontext(conn) as own:
            return own.execute(query).scalar()

    def freeze(self) -> bool:
        """Take no changes any more; returns whether that is so."""
        self._write(True)
        if self.driver.supports("freeze_backend"):
            try:
                self.driver.freeze_backend(ctx.admin())
            except exception.VolmgrError as error:
                # It is for the backend's own sake: nothing reaches it any more in any case.
                LOG.warning("%s is frozen, and its driver could not be told: %s", self.host, error)
        return True

    def thaw(self) -> bool:
        """Take changes again; returns whether that is so: a backend that does not agree stays frozen."""
        if self.driver.supports("thaw_backend"):
            try:
                if self.driver.thaw_backend(ctx.admin()) is False:
                    return False
            except exception.VolmgrError as error:
                LOG.error("%s stays frozen: %s", self.host, error)
                return False
        self._write(False)
        return True

    def _write(self, frozen: bool) -> None:
        def write() -> None:
            with self.database.writer() as conn:
                (services.freeze if frozen else services.thaw)(conn, self.host)

        self.database.repeating(write)
        self._frozen = frozen

    def look(self) -> int:
        """Ask the driver which replicas stand otherwise than it last said, and write that; returns how many."""
        if self.driver.supports("get_replication_updates"):
            told = self.driver.get_replication_updates(ctx.admin())
        elif self.driver.supports("get_replication_status"):
            told = self._one_by_one()
        else:
            return 0
        wanted = [
            (item["volume_id"], {key: value for key, value in item["updates"].items() if key in _TOLD})
            for item in told
        ]
        if not wanted:
            return 0

        def write() -> int:
            count = 0
            with self.database.writer() as conn:
                for volume_id, values in wanted:
                    mine = (_V.c.host == self.host) | _V.c.host.startswith(f"{self.host}#", autoescape=True)
                    count += conn.execute(sa.update(_V).where(_V.c.id == volume_id, mine).values(values)).rowcount
            return count

        return self.database.repeating(write)

    def _one_by_one(self) -> list[dict[str, Any]]:
        """Ask a driver that does not tell of many at once about each volume that has a replica; returns changes."""
        with self.database.reader() as conn:
            volumes = listing.replicated(conn, self.host)
        found = []
        for volume in volumes:
            update = dict(self.driver.get_replication_status(ctx.admin(), volume) or {})
            if any(getattr(volume, key) != value for key, value in update.items() if key in _TOLD):
                found.append({"volume_id": volume.id, "updates": update})
        return found

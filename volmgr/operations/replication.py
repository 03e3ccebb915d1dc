# SPDX-License-Identifier: Apache-2.0
"""Replicas of single volumes, and a whole backend that goes over to its replication target and back.

A failover changes what the driver works on, then in one transaction what SQL says of the backend and its volumes, then
what the target serves. A worker that starts makes its driver with the replication target that SQL names, so a death in
between is gone on from.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from volmgr import exception, states, types, validate
from volmgr.db import claims, listing, models, services
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations.base import Args, Claim, Operation, Step, arg
from volmgr.operations.locking import locked_volume_operation
from volmgr.operations.registry import register

if TYPE_CHECKING:
    from volmgr.tasks import Task

LOG = logging.getLogger(__name__)
#: what drivers call the storage that a backend began on.
PRIMARY = "default"
FAILED_OVER = "failed-over"
#: seconds that a failover waits for the end of what runs on the backend, which may never come: it may be dead.
QUIET_SECONDS, PAUSE = 10.0, 0.1
_HOSTS = uuid.UUID("0d1c7c1e-2f43-4a52-8a3e-5e0f6f2b8d11")
_V = models.volumes


@dataclass(frozen=True)
class VolumeArgs(Args):
    """The volume that a verb is about."""

    volume_id: str = arg(validate.uuid)


@register
@locked_volume_operation("promote")
class PromoteReplica(Operation[VolumeArgs]):
    """Let a volume's replica take its place; the copying between the two ends."""

    verb = "promote_replica"
    args = VolumeArgs
    needs = ("promote_replica",)

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def claimed(self, tx: Admitting) -> None:
        check_replica(tx.volume(self.a.volume_id))

    def steps(self, task: Task) -> Sequence[Step]:
        volume = task.volume(self.a.volume_id)

        def promote() -> types.ModelUpdate:
            # Whoever serves the old bytes would go on to do so.
            task.backend.exports.withdraw("volume", volume.id)
            update = task.driver.promote_replica(task.context, volume)
            return dict(update) if update else None

        return (Step("promote", promote),)

    def commit(self, task: Task, tx: Closing) -> Any:
        columns = tx.model_update("volume", self.a.volume_id, task.results.get("promote"))
        tx.release("volume", self.a.volume_id, "available", **columns)
        return {"volume_id": self.a.volume_id, "replication_status": columns.get("replication_status")}


@register
class ReenableReplication(Operation[VolumeArgs]):
    """Let a volume's replica follow it again, after a promotion or an error; the volume may be in use."""

    verb = "reenable_replication"
    args = VolumeArgs
    needs = ("reenable_replication",)

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def claims(self) -> Sequence[Claim]:
        return (Claim("volume", self.a.volume_id, "reenable", exclusive=False),)

    def claimed(self, tx: Admitting) -> None:
        check_replica(tx.volume(self.a.volume_id))

    def steps(self, task: Task) -> Sequence[Step]:
        volume = task.volume(self.a.volume_id)

        def again() -> types.ModelUpdate:
            update = task.driver.reenable_replication(task.context, volume)
            return dict(update) if update else None

        return (Step("reenable", again),)

    def commit(self, task: Task, tx: Closing) -> Any:
        columns = tx.model_update("volume", self.a.volume_id, task.results.get("reenable"))
        if columns:
            tx.conn.execute(sa.update(_V).where(_V.c.id == self.a.volume_id).values(columns))
        return {"volume_id": self.a.volume_id, "replication_status": columns.get("replication_status")}


def check_replica(volume: types.Volume) -> None:
    """Return if a volume has a replica.

    :raises Conflict: it has none.
    """
    if volume.replication_status in (None, "deleted"):
        raise exception.Conflict(
            f"The volume {volume.id} has no replica",
            hint="Give it a type with replication='<is> True': volmgr volume retype",
            resource="volume", id=volume.id, status=volume.status,
        )


@dataclass(frozen=True)
class FailoverArgs(Args):
    """Arguments of failover_host; ``default`` goes back to the storage that the backend began on."""

    secondary_backend_id: str | None = arg(validate.optional(validate.text(255, 1)), default=None)


@register
class FailoverHost(Operation[FailoverArgs]):
    """Let a backend work on its replication target, or on its first storage again.

    Connections go on under the same names, LUNs and serials, to what is there. A volume that is not there has the
    status error until the backend is back.
    """

    verb = "failover_host"
    args = FailoverArgs
    resource = "service"
    needs = ("failover_host",)
    while_frozen = True
    while_down = True

    @property
    def resource_id(self) -> str:
        # One backend to each worker, so all of a worker's failovers are about the same thing.
        return str(uuid.uuid5(_HOSTS, self.a.secondary_backend_id or ""))

    def admit(self, tx: Admitting) -> None:
        table = models.operations
        running = (table.c.host == tx.settings.host) & (table.c.verb == self.verb)
        query = sa.select(table.c.id).where(running, table.c.state.in_(states.UNFINISHED))
        if (other := tx.conn.execute(query).scalar()) is not None:
            raise exception.Conflict(
                f"{tx.settings.host} is failing over already",
                hint=f"volmgr operation wait {other}", resource="service", id=tx.settings.host, operation_id=other,
            )

    def steps(self, task: Task) -> Sequence[Step]:
        host = task.backend.settings.host

        def go(to: str | None) -> tuple[str, list[dict[str, Any]]]:
            with task.database.reader() as conn:
                volumes = listing.of_worker(conn, "volume", host)
            found: tuple[str, list[dict[str, Any]]] = task.driver.failover_host(task.context, volumes, to)
            return found

        def stay() -> None:
            # A driver that has gone over, in whole or in part, would work on other storage than SQL says.
            with task.database.reader() as conn:
                active = services.active_backend(conn, host)
            go(active or PRIMARY)

        def switch() -> dict[str, Any]:
            self._let_end(task)
            backend_id, updates = go(self.a.secondary_backend_id)
            return {"backend": backend_id, "updates": {item["volume_id"]: dict(item["updates"]) for item in updates}}

        return (
            Step("switch", switch, stay, pivot=lambda tx: self._record(task, tx)),
            Step("follow", lambda: {"exports": task.backend.exports.rebuild()}),
        )

    @staticmethod
    def _let_end(task: Task) -> None:
        """Wait a moment for what runs, so that it ends on the storage on which it began."""
        table = models.operations
        mine = (table.c.host == task.backend.settings.host) & (table.c.id != task.id)
        query = sa.select(table.c.id).where(mine, table.c.state.in_(("running", "undoing")))
        deadline = task.clock.monotonic() + QUIET_SECONDS
        while True:
            with task.database.reader() as conn:
                running = conn.execute(query).scalars().all()
            if not running or task.clock.monotonic() >= deadline:
                break
            task.clock.wait(threading.Event(), PAUSE)
        if running:
            LOG.warning("The failover does not wait any longer for %s; they are gone on with there", ", ".join(running))

    def _record(self, task: Task, tx: Closing) -> None:
        """Write which storage the backend works on, and what that is for each volume."""
        host, done = task.backend.settings.host, task.results["switch"]
        back = done["backend"] == PRIMARY
        services.set_active_backend(tx.conn, host, None if back else done["backend"])
        if back:
            services.enable_again(tx.conn, host, FAILED_OVER)
        else:
            services.disable(tx.conn, host, FAILED_OVER)
        lost = []
        for volume_id, update in done["updates"].items():
            values = dict(update)
            status = values.pop("status", None)
            columns = tx.model_update("volume", volume_id, values)
            if status is not None:
                lost.append(volume_id)
                columns["status"] = sa.case((_V.c.operation_id.is_(None), status), else_=_V.c.status)
            if columns:
                tx.conn.execute(sa.update(_V).where(_V.c.id == volume_id).values(columns))
        task.data["lost"] = lost
        self._find_again(task, tx, lost)

    @staticmethod
    def _find_again(task: Task, tx: Closing, lost: list[str]) -> None:
        """Give the volumes that were not on the other side their status back: they were made once, and are here."""
        here = {item.object_id for item in task.driver.observe() if item.state == "current"}
        host = task.backend.settings.host
        mine = (_V.c.host == host) | _V.c.host.startswith(f"{host}#", autoescape=True)
        broken = (_V.c.status == "error") & _V.c.launched_at.is_not(None) & _V.c.operation_id.is_(None)
        offers = models.transfers
        offered = sa.exists().where(offers.c.volume_id == _V.c.id).correlate(_V)
        status = sa.case((offered, "awaiting-transfer"), else_=claims.settled_status())
        for row in tx.conn.execute(sa.select(_V.c.id, _V.c.object_id).where(mine, broken)).all():
            if row.object_id in here and row.id not in lost:
                tx.conn.execute(sa.update(_V).where(_V.c.id == row.id).values(status=status))

    def commit(self, task: Task, tx: Closing) -> Any:
        return {"active_backend_id": task.results["switch"]["backend"], "lost": task.data["lost"]}

    def committed(self, task: Task) -> None:
        task.backend.moved()
        if task.backend.placement is not None:
            task.backend.placement.refresh()

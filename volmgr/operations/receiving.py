# SPDX-License-Identifier: Apache-2.0
"""The destination's part of a move: makes an object, and keeps it until the source's part has ended the one or the
other way.

It is written by the source's operation, holds no resource, and is unfinished as long as its object belongs to nothing:
so an audit knows the object as somebody's, and whoever dies, it is taken away if the move does not come to its pivot.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from volmgr import exception, names, types, validate
from volmgr.db import exports, models, operations
from volmgr.db.closing import Closing
from volmgr.operations.base import Args, Lane, Operation, Step, arg
from volmgr.operations.registry import register

if TYPE_CHECKING:
    from volmgr.tasks import Task

#: What of a connection_info is not for the journal: the exports' rows have it, encrypted.
SECRETS = ("auth_password", "discovery_auth_password")


@dataclass(frozen=True)
class ReceiveArgs(Args):
    """Arguments of the destination's part. ``parent_id`` is the operation that moves the volume.

    ``connector`` is the host that copies into the object, None if that is done by the object's path.
    """

    volume_id: str = arg(validate.uuid)
    object_id: str = arg(validate.uuid)
    parent_id: str = arg(validate.uuid)
    host: str = arg(validate.host)
    volume_type_id: str | None = arg(validate.optional(validate.uuid), default=None)
    connector: dict[str, Any] | None = arg(validate.optional(validate.connector), default=None)


@register
class ReceiveVolume(Operation[ReceiveArgs]):
    """Make an object for a volume that comes from another backend, and keep it until it is the volume or is not."""

    verb = "receive_volume"
    args = ReceiveArgs
    resource = "object"

    @property
    def resource_id(self) -> str:
        return self.a.object_id

    @classmethod
    def row(
        cls, operation_id: str, service: str, now: datetime.datetime, *, project_id: str | None, **arguments: Any
    ) -> dict[str, Any]:
        """Return the journal row that asks a worker for it."""
        return {
            "id": operation_id,
            "request_key": f"receive-{operation_id}",
            "verb": cls.verb,
            "version": cls.version,
            "resource": cls.resource,
            "resource_id": arguments["object_id"],
            "host": service,
            "state": "queued",
            "lane": str(Lane.CONTROL),
            "claimed": True,
            "claims": [],
            "epoch": 0,
            "context": {"is_admin": True},
            "args": arguments,
            "project_id": project_id,
            "created_at": now,
        }

    def steps(self, task: Task) -> Sequence[Step]:
        def build() -> dict[str, Any]:
            self._wanted(task, used=False)
            volume = self._volume(task)
            update = task.driver.create_volume(volume)
            return {"update": dict(update) if update else None, "path": self._path(task, volume)}

        def undo() -> None:
            # All that a driver must know to take storage away is its object; the volume may be gone by now.
            task.driver.delete_volume(types.Volume(id=self.a.volume_id, size=1, object_id=self.a.object_id))

        return (
            Step("build", build, undo),
            Step("offer", lambda: self._offer(task), lambda: self._withdraw(task)),
            Step("hold", lambda: self._hold(task)),
            Step("withdraw", lambda: self._withdraw(task)),
        )

    def _offer(self, task: Task) -> dict[str, Any] | None:
        """Let the host that copies connect to the object, and nobody else; returns connection_info without a secret.

        The export is the object's, not the volume's: no request about a volume reaches it, and nothing that holds for
        the volume's clients holds for it.
        """
        if self.a.connector is None:
            return None
        if task.backend.exports.target is None:
            raise exception.Unsupported(
                f"The backend {self.a.host} exports by itself: nothing can be copied into it from another host",
                hint="Attach the volume and a new one there to one host, copy, then: volmgr volume complete-migration",
                verb="receive_volume",
            )
        info = task.backend.exports.connect(
            names.INCOMING, self.a.object_id, dict(self.a.connector), check=lambda _object: None
        )
        shown = {key: value for key, value in info["data"].items() if key not in SECRETS}
        return {"driver_volume_type": info["driver_volume_type"], "data": shown}

    def _withdraw(self, task: Task) -> None:
        if self.a.connector is not None:
            task.backend.exports.withdraw(names.INCOMING, self.a.object_id)

    def _volume(self, task: Task) -> types.Volume:
        """Return the volume as it will be here."""
        volume = task.volume(self.a.volume_id)
        return dataclasses.replace(
            volume,
            host=self.a.host,
            object_id=self.a.object_id,
            volume_type_id=self.a.volume_type_id,
            volume_type=task.backend.types(self.a.volume_type_id),
            provider_location=None,
            provider_auth=None,
            provider_id=None,
            driver_data=None,
        )

    @staticmethod
    def _path(task: Task, volume: types.Volume) -> str | None:
        if not task.driver.supports("local_path"):
            return None
        try:
            return str(task.driver.local_path(volume))
        except exception.Unsupported:
            return None

    def _wanted(self, task: Task, *, used: bool = True) -> bool:
        """Return whether the object is the volume by now.

        :param used: whether the host that copies may have it attached.
        :raises Cancelled: nobody is going to make it one, and nobody uses it.
        """
        task.check()
        with task.database.reader() as conn:
            parent = operations.get(conn, self.a.parent_id)
        if parent is not None and parent.pivoted:
            return True
        # A parent that has failed detaches the object first, while it is there still.
        lost = parent is not None and parent.error is not None and not (used and self.a.connector is not None)
        if parent is None or parent.finished or lost:
            raise exception.Cancelled("The move that this object was made for has failed")
        return False

    def _hold(self, task: Task) -> None:
        """Wake who waits for the object, and wait for the end of that."""
        if self._wanted(task):
            return
        self._wake(task)
        table = models.operations
        task.wait(
            lambda conn: bool(conn.execute(sa.select(table.c.pivoted).where(table.c.id == self.a.parent_id)).scalar()),
            f"the bytes of the volume {self.a.volume_id} are on their way",
        )

    def _wake(self, task: Task) -> None:
        """Let the operation that moves the volume go on, if it waits for this one."""
        table = models.operations
        waits = (table.c.id == self.a.parent_id) & (table.c.state == "parked") & (table.c.parked_for == "worker")

        def wake() -> str | None:
            with task.database.writer() as conn:
                woken = conn.execute(sa.update(table).where(waits).values(not_before=task.clock.now())).rowcount
                host = sa.select(table.c.host).where(table.c.id == self.a.parent_id)
                return conn.execute(host).scalar() if woken else None

        if (host := task.database.repeating(wake)) is not None:
            task.backend.ring(names.service_of(host))

    def committed(self, task: Task) -> None:
        if self.a.connector is not None:
            self._wake(task)  # it waits for the end of the export

    def commit(self, task: Task, tx: Closing) -> Any:
        return {"volume_id": self.a.volume_id, "object_id": self.a.object_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if task.abandoned:
            # What the target serves, and the storage, are the audit's from now on.
            exports.delete(tx.conn, self.a.object_id)
        else:
            tx.forget_object(self.a.object_id)
        # Whoever waits for the object is to know at once.
        table = models.operations
        waits = (table.c.id == self.a.parent_id) & (table.c.state == "parked") & (table.c.parked_for == "worker")
        tx.conn.execute(sa.update(table).where(waits).values(not_before=tx.now))

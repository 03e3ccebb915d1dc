# SPDX-License-Identifier: Apache-2.0
"""Bringing a deleted volume back while its object is still in the trash."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from volmgr import exception, names, validate
from volmgr.db import models
from volmgr.db import types as volume_types
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations.base import Args, Operation, Step, arg
from volmgr.operations.registry import register
from volmgr.operations.trash import WipeObject, bury
from volmgr.tasks import Task


@dataclass(frozen=True)
class UndeleteArgs(Args):
    """Arguments of undelete_volume."""

    volume_id: str = arg(validate.uuid)


@register
class UndeleteVolume(Operation[UndeleteArgs]):
    """Bring a deleted volume back while its object is still in the trash."""

    verb = "undelete_volume"
    args = UndeleteArgs
    needs = ("restore_volume",)

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def admit(self, tx: Admitting) -> None:
        table = models.objects
        query = (
            sa.select(table)
            .where(table.c.resource_id == self.a.volume_id, table.c.kind == "volume", table.c.role == "trash")
            .order_by(table.c.trashed_at.desc())
        )
        found = next((row for row in tx.conn.execute(query) if row.former), None)
        if found is None:
            raise exception.VolumeNotFound(
                f"The volume {self.a.volume_id} is not in the trash",
                hint="Only within trash_retention seconds of its deletion can a volume be brought back",
                id=self.a.volume_id,
            )
        former = dict(found.former)
        if former["host"] and names.service_of(former["host"]) != tx.settings.host:
            raise exception.Moved(host=former["host"])
        if former["volume_type_id"] is not None and not volume_types.hold(tx.conn, former["volume_type_id"]):
            former["volume_type_id"] = None  # it was removed meanwhile
        self._stop_wiping(tx, found.id)
        for key in ("created_at", "updated_at", "launched_at"):
            former[key] = datetime.datetime.fromisoformat(former[key]).replace(tzinfo=None) if former[key] else None
        former |= {"status": "creating", "operation_id": tx.operation_id}
        tx.conn.execute(sa.insert(models.volumes), former)
        tx.held.append({"resource": "volume", "id": self.a.volume_id, "exclusive": True})
        tx.data["object"] = found.id
        tx.charge(former["project_id"], former["volume_type_id"], volumes=1, gigabytes=former["size"])

    def _stop_wiping(self, tx: Admitting, object_id: str) -> None:
        table = models.operations
        wiping = (table.c.resource_id == object_id) & (table.c.verb == WipeObject.verb)
        if not tx.conn.execute(sa.delete(table).where(wiping, table.c.state == "queued")).rowcount:
            raise exception.Conflict(
                f"The volume {self.a.volume_id} is being wiped", resource="volume", id=self.a.volume_id
            )

    def steps(self, task: Task) -> Sequence[Step]:
        volume = task.volume(self.a.volume_id)
        return (
            Step("restore", lambda: task.driver.restore_volume(volume), lambda: task.driver.trash_volume(volume)),
        )

    def commit(self, task: Task, tx: Closing) -> Any:
        tx.release("volume", self.a.volume_id, "available")
        tx.set_role(task.data["object"], "current")
        return {"volume_id": self.a.volume_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        volume = task.volume(self.a.volume_id)
        bury(task, tx, volume)

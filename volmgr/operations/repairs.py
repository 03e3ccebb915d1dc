# SPDX-License-Identifier: Apache-2.0
"""What an audit mends on storage, as ordinary operations: they wait, are journalled, survive a crash, can be cancelled.

Each checks again, under a claim or under the object's own row, that what the audit saw is still so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from volmgr import exception, names, states, types, validate
from volmgr.db import models
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations.base import Args, Claim, Lane, Operation, Step, arg
from volmgr.operations.registry import register
from volmgr.tasks import Task

_kind = validate.one_of("volume", "snapshot")


@dataclass(frozen=True)
class DiscardArgs(Args):
    """Arguments of discard: the object, its name on the backend, and the resource that it lies beside, if any."""

    object_id: str = arg(validate.uuid)
    name: str = arg(validate.text(255, 1))
    kind: str = arg(_kind, default="volume")
    resource_id: str | None = arg(validate.optional(validate.uuid), default=None)


@register
class Discard(Operation[DiscardArgs]):
    """Free storage that belongs to nothing: an orphan, or an incomplete object beside a whole one.

    Storage that no resource stands beside gets a row in the trash first: while it stands, nothing can be created under
    its id, and nothing that is created later can take the old bytes for its own.
    """

    verb = "discard"
    args = DiscardArgs
    resource = "object"
    lane = Lane.BULK
    needs = ("discard",)

    @property
    def resource_id(self) -> str:
        return self.a.object_id

    def claims(self) -> Sequence[Claim]:
        if self.a.resource_id is None:
            return ()
        return (Claim(self.a.kind, self.a.resource_id, "clone", exclusive=False),)

    def admit(self, tx: Admitting) -> None:
        object_id = self.a.object_id
        if self.a.resource_id is not None:
            if names.parse_object_name(self.a.name) is not None:
                raise exception.Invalid("name is the name of a whole object, which has a resource", field="name")
            return
        if embodied(tx, object_id):
            raise exception.Conflict(f"The object {object_id} embodies a resource", resource="object", id=object_id)
        table = models.operations
        unfinished = (table.c.resource_id == object_id) & table.c.state.in_(states.UNFINISHED)
        if (other := tx.conn.execute(sa.select(table.c.id, table.c.verb).where(unfinished)).first()) is not None:
            raise exception.Conflict(
                f"{other.verb} is at the object {object_id}", hint=f"volmgr operation wait {other.id}",
                resource="object", id=object_id, operation_id=other.id,
            )
        objects = models.objects
        role = tx.conn.execute(sa.select(objects.c.role).where(objects.c.id == object_id)).scalar()
        tx.data["role"] = role
        if role is None:
            tx.insert_object(self.a.kind, object_id, object_id, 0, role="trash")
        else:
            tx.conn.execute(sa.update(objects).where(objects.c.id == object_id).values(role="trash"))

    def steps(self, task: Task) -> Sequence[Step]:
        return (Step("discard", lambda: task.driver.discard(self.a.name, task.progress)),)

    def commit(self, task: Task, tx: Closing) -> Any:
        if self.a.resource_id is None:
            tx.forget_object(self.a.object_id)
        return {"object_id": self.a.object_id, "name": self.a.name}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if self.a.resource_id is not None:
            return
        if task.data.get("role") is None:
            tx.forget_object(self.a.object_id)
        else:
            tx.set_role(self.a.object_id, task.data["role"])


def embodied(tx: Admitting, object_id: str) -> bool:
    """Return whether an object is a resource's."""
    tables = (models.volumes, models.snapshots)
    queries = [sa.select(table.c.id).where(table.c.object_id == object_id) for table in tables]
    return tx.conn.execute(sa.union_all(*queries).limit(1)).first() is not None


@dataclass(frozen=True)
class RestoreArgs(Args):
    """Arguments of restore_storage."""

    kind: str = arg(_kind)
    id: str = arg(validate.uuid)


@register
class RestoreStorage(Operation[RestoreArgs]):
    """Give storage that lies in the trash its own name back, because SQL has its resource still."""

    verb = "restore_storage"
    args = RestoreArgs

    @property
    def resource_id(self) -> str:
        return self.a.id

    def required(self) -> tuple[str, ...]:
        return (f"restore_{self.a.kind}",)

    def claims(self) -> Sequence[Claim]:
        return (Claim(self.a.kind, self.a.id, "clone", exclusive=False),)

    def _resource(self, task: Task) -> types.Volume | types.Snapshot:
        return task.volume(self.a.id) if self.a.kind == "volume" else task.snapshot(self.a.id)

    def steps(self, task: Task) -> Sequence[Step]:
        restore = getattr(task.driver, f"restore_{self.a.kind}")
        return (Step("restore", lambda: restore(self._resource(task))),)

    def commit(self, task: Task, tx: Closing) -> Any:
        return {f"{self.a.kind}_id": self.a.id}

    def committed(self, task: Task) -> None:
        task.backend.exports.sync(self.a.kind, self.a.id)

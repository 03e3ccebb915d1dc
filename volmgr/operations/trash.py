# SPDX-License-Identifier: Apache-2.0
"""What every verb that takes storage away shares: the end of its export, the way to the trash, and the wiper behind."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from volmgr import exception, types, validate
from volmgr.db import models, records
from volmgr.db.closing import Closing
from volmgr.operations.base import Args, Lane, Operation, Step, arg
from volmgr.operations.registry import register
from volmgr.tasks import Task

LOG = logging.getLogger(__name__)


def unexport_step(task: Task, kind: str, resource_id: str) -> Step:
    """Return the step that ends a resource's export and everybody's access to it."""
    return Step(f"unexport-{resource_id}", lambda: task.backend.exports.withdraw(kind, resource_id))


def discard_step(task: Task, resource: types.Volume | types.Snapshot) -> Step:
    """Return the step that takes an object's storage away: to the trash where the driver has one, and back from it."""
    kind = "volume" if isinstance(resource, types.Volume) else "snapshot"
    trash, restore = f"trash_{kind}", f"restore_{kind}"
    verb = trash if task.driver.supports(trash) else f"delete_{kind}"

    def discard() -> None:
        getattr(task.driver, verb)(resource)

    def undo() -> None:
        try:
            getattr(task.driver, restore)(resource)
        except exception.NotFound:
            LOG.warning("The %s %s had no storage that could be brought back", kind, resource.id)

    return Step(f"discard-{resource.id}", discard, undo if verb == trash and task.driver.supports(restore) else None)


def is_discarded(task: Task, kind: str, resource_id: str) -> bool:
    """Return whether a failed operation has taken an object's storage away and could not bring it back."""
    return f"discard-{resource_id}" in task.results and not task.driver.supports(f"restore_{kind}")


def bury(task: Task, tx: Closing, resource: types.Volume | types.Snapshot) -> None:
    """Remove a resource's row, leave its object to the wiper, give its quota back."""
    kind = "volume" if isinstance(resource, types.Volume) else "snapshot"
    retention = task.backend.settings.trash_retention
    tx.delete(kind, resource.id)
    if task.driver.supports(f"trash_{kind}"):
        tx.trash(resource.name_id, former_of(resource) if retention else None)
        tx.enqueue(wipe_row(task, kind, resource.name_id, tx.now, retention))
    else:
        tx.forget_object(resource.name_id)
    amounts = {f"{kind}s": 1, "gigabytes": resource.size}
    tx.uncharge(resource.project_id, resource.volume_type_id, **amounts)


def former_of(resource: types.Volume | types.Snapshot) -> dict[str, Any]:
    """Return a resource's row as JSON, so that it can be brought back from the trash."""
    columns = records.VOLUME_COLUMNS if isinstance(resource, types.Volume) else records.SNAPSHOT_COLUMNS
    row = {column.name: getattr(resource, column.name) for column in columns}
    kept = {
        key: records.moment(value) if isinstance(value, datetime.datetime) else value for key, value in row.items()
    }
    # It comes back by itself: the group may be gone by then, and has gone on without it.
    alone = {"group_id" if isinstance(resource, types.Volume) else "cgsnapshot_id": None}
    return kept | alone | {"metadata": dict(resource.metadata), "operation_id": None, "use_count": 0}


def wipe_row(task: Task, kind: str, object_id: str, now: datetime.datetime, retention: int) -> dict[str, Any]:
    """Return the journal row of the wiping that follows a deletion, ``retention`` seconds later."""
    return wipe_row_on(task.backend.settings.host, kind, object_id, now, retention)


def wipe_row_on(host: str, kind: str, object_id: str, now: datetime.datetime, retention: int = 0) -> dict[str, Any]:
    """Return the journal row of a wiping on a worker."""
    return {
        # Not the object's id: a volume made and deleted again under its old id is wiped again.
        "id": (operation_id := str(uuid.uuid4())),
        "request_key": f"wipe-{operation_id}",
        "verb": WipeObject.verb,
        "version": WipeObject.version,
        "resource": "object",
        "resource_id": object_id,
        "host": host,
        "state": "queued",
        "lane": str(Lane.BULK),
        "claimed": True,
        "claims": [],
        "epoch": 0,
        # There is no way back from the first byte, and an end that is no success would leave the object for ever.
        "pivoted": True,
        "context": {"is_admin": True},
        "args": {"kind": kind, "object_id": object_id},
        "not_before": now + datetime.timedelta(seconds=retention) if retention else None,
        "created_at": now,
    }


@dataclass(frozen=True)
class WipeArgs(Args):
    """Arguments of the wiper."""

    kind: str = arg(validate.one_of("volume", "snapshot"))
    object_id: str = arg(validate.uuid)


@register
class WipeObject(Operation[WipeArgs]):
    """Free the space of an object in the trash, so that no later tenant can read it."""

    verb = "wipe"
    args = WipeArgs
    resource = "object"
    lane = Lane.BULK
    persistent = True

    @property
    def resource_id(self) -> str:
        return self.a.object_id

    def steps(self, task: Task) -> Sequence[Step]:
        return (Step("wipe", lambda: task.driver.wipe(self.a.kind, self.a.object_id, task.progress)),)

    def commit(self, task: Task, tx: Closing) -> Any:
        tx.forget_object(self.a.object_id)
        if self.a.kind == "snapshot":
            # A wipe may have waited for just this one.
            table = models.operations
            waiting = (table.c.verb == self.verb) & (table.c.state == "parked") & (table.c.parked_for == "backend")
            tx.conn.execute(
                sa.update(table).where(waiting, table.c.host == task.operation.host).values(not_before=tx.now)
            )
        return {"object_id": self.a.object_id}


def with_object(volume: types.Volume, object_id: str) -> types.Volume:
    """Return a volume as it would be if another object embodied it."""
    return dataclasses.replace(volume, object_id=object_id)

# SPDX-License-Identifier: Apache-2.0
"""Moving a volume to another backend: by the driver where it can, else by a copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from volmgr import types, validate
from volmgr.db import models
from volmgr.db.closing import Closing
from volmgr.operations.base import Args, Claim, Step, arg
from volmgr.operations.catalogue import usable
from volmgr.operations.moving import MOVE, MOVED, Moving, here, plan_move
from volmgr.operations.registry import register
from volmgr.operations.trash import with_object
from volmgr.tasks import Backend, Task

if TYPE_CHECKING:
    from volmgr.context import RequestContext


@dataclass(frozen=True)
class MigrateArgs(Args):
    """Arguments of migrate_volume; ``host`` is a worker or a pool of one."""

    volume_id: str = arg(validate.uuid)
    host: str = arg(validate.host)
    force_host_copy: bool = arg(validate.boolean, default=False)
    new_type_id: str | None = arg(validate.optional(validate.name), default=None)


@register
class MigrateVolume(Moving):
    """Give a volume another backend; its id, serial, bytes and, unless asked for, type stay what they are.

    A driver that reaches the destination by itself is asked first, unless ``force_host_copy`` is set or it is retyped.
    """

    verb = "migrate_volume"
    args = MigrateArgs
    a: MigrateArgs

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> dict[str, Any]:
        found = volume(self.a.volume_id)
        here(backend, found)
        kind = backend.types(found.volume_type_id)
        if self.a.new_type_id is not None:
            kind = usable(context, backend.find_type(self.a.new_type_id))
        assisted = not self.a.force_host_copy and self.a.new_type_id is None
        return plan_move(backend, found, kind, self.a.host, assisted=assisted)

    def claims(self) -> Sequence[Claim]:
        return (Claim("volume", self.a.volume_id, "migrate", childless=True),)

    def steps(self, task: Task) -> Sequence[Step]:
        return (
            Step("assist", lambda: self._assist(task), pivot=lambda tx: self._assisted(task, tx)),
            *self.move_steps(task),
        )

    def _assist(self, task: Task) -> dict[str, Any]:
        """Let the driver move the volume if it can; whoever goes on after a death asks it again."""
        plan, driver = task.data["plan"], task.driver
        if not plan["assisted"] or not driver.supports("migrate_volume"):
            return {"moved": False}
        task.check()
        placement = task.backend.placement
        pools = placement.pools() if placement is not None else []
        there = next((dict(pool.capabilities) for pool in pools if pool.host == plan["host"]), {})
        self._withdraw(task)  # nothing must have it open
        volume = with_object(task.volume(self.a.volume_id), task.data["old"])
        asked = dataclasses.replace(volume, attach_status="detached")
        moved, update = driver.migrate_volume(task.context, asked, {"host": plan["host"], "capabilities": there})
        return {"moved": bool(moved), "update": dict(update) if update else None}

    def _assisted(self, task: Task, tx: Closing) -> bool:
        """Write where the driver has moved the volume; False if it has not."""
        done = task.results["assist"]
        if not done["moved"]:
            return False
        assert task.data["plan"]["way"] in (MOVE, MOVED)
        task.data["plan"]["way"] = MOVED
        self.settle_on(task, tx, **tx.model_update("volume", self.a.volume_id, done["update"]))
        stored = models.objects.c.id == task.data["old"]
        tx.conn.execute(sa.update(models.objects).where(stored).values(host=task.data["plan"]["host"]))
        return True

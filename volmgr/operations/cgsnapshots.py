# SPDX-License-Identifier: Apache-2.0
"""Snapshots of groups: all members at one instant, or an error.

Each member's snapshot is a snapshot like any other, with the cgsnapshot's id in its row; it can be read, cloned and
reverted to by itself, and is deleted only with the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volmgr import exception, types, validate
from volmgr.db import exports
from volmgr.db import groups as rows
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations import members
from volmgr.operations.base import Args, Claim, Lane, Operation, Rerun, Step, arg
from volmgr.operations.registry import register
from volmgr.operations.trash import bury, unexport_step
from volmgr.tasks import Backend, Task

if TYPE_CHECKING:
    from volmgr.context import RequestContext


@dataclass(frozen=True)
class CreateArgs(Args):
    """Arguments of create_cgsnapshot."""

    cgsnapshot_id: str = arg(validate.uuid)
    group_id: str = arg(validate.uuid)
    name: str | None = arg(validate.optional(validate.name), default=None)
    description: str | None = arg(validate.optional(validate.description), default=None)


@register
class CreateCgSnapshot(Operation[CreateArgs]):
    """Keep the bytes of all members of a group as they are at one instant.

    The members are those that the group has when their claims are taken. When the driver fails, nothing of the set is
    left; when it says which members it has made, those are kept and the cgsnapshot is in error all the same.
    """

    verb = "create_cgsnapshot"
    args = CreateArgs
    resource = "cgsnapshot"
    needs = ("create_cgsnapshot",)

    @property
    def resource_id(self) -> str:
        return self.a.cgsnapshot_id

    def lane_on(self, driver: Any) -> Lane:
        return Lane.CONTROL if driver.instant_clone else Lane.BULK

    def claims(self) -> Sequence[Claim]:
        return (Claim("group", self.a.group_id, "snapshot", exclusive=False),)

    def admit(self, tx: Admitting) -> None:
        group = tx.peek("group", self.a.group_id)
        assert isinstance(group, types.Group)
        tx.insert_held(
            "cgsnapshot",
            self.a.cgsnapshot_id,
            group_id=group.id,
            host=group.host,
            project_id=group.project_id,
            display_name=self.a.name,
            display_description=self.a.description,
        )

    def claimed(self, tx: Admitting) -> None:
        ids = rows.volume_ids(tx.conn, self.a.group_id)
        if not ids:
            raise exception.Conflict(
                f"The group {self.a.group_id} has no volumes",
                hint=f"Add some: volmgr group update --add VOLUME {self.a.group_id}",
                resource="group", id=self.a.group_id,
            )
        members.take(tx, (Claim("volume", item, "snapshot", exclusive=False) for item in ids))
        made = {}
        for volume_id in ids:
            volume = tx.volume(volume_id)
            made[volume_id] = snapshot_id = str(uuid.uuid4())
            tx.insert_snapshot(
                snapshot_id, volume, cgsnapshot_id=self.a.cgsnapshot_id, display_name=self.a.name
            )
            tx.charge(volume.project_id, volume.volume_type_id, snapshots=1, gigabytes=volume.size)
        tx.data["members"] = made

    def _snapshots(self, task: Task) -> list[types.Snapshot]:
        return [task.snapshot(item) for item in (task.data.get("members") or {}).values()]

    def steps(self, task: Task) -> Sequence[Step]:
        cgsnapshot, snapshots = task.cgsnapshot(self.a.cgsnapshot_id), self._snapshots(task)

        def create() -> dict[str, Any]:
            whole, told = task.driver.create_cgsnapshot(task.context, cgsnapshot, snapshots)
            return members.judge(task, [item.id for item in snapshots], whole, told)

        def undo() -> None:
            told = task.data.get("told")
            gone = [item for item in snapshots if told is None or told.get(item.id, "error") != "available"]
            members.unmake(
                task, "snapshot", gone, lambda: task.driver.delete_cgsnapshot(task.context, cgsnapshot, gone)
            )

        # A set whose worker died may be of any moment of its making: it is taken anew.
        return (Step("create", create, undo, Rerun.REBUILD),)

    def commit(self, task: Task, tx: Closing) -> Any:
        told = task.results.get("create") or {}
        for snapshot in self._snapshots(task):
            columns = members.columns_of(tx, "snapshot", snapshot.id, told.get(snapshot.id))
            tx.release("snapshot", snapshot.id, "available", progress="100%", **columns)
        tx.release("cgsnapshot", self.a.cgsnapshot_id, "available")
        return {"cgsnapshot_id": self.a.cgsnapshot_id, "snapshots": task.data["members"]}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        cancelled = isinstance(error, exception.Cancelled)
        for snapshot in self._snapshots(task):
            if cancelled:
                tx.delete("snapshot", snapshot.id)
                tx.forget_object(snapshot.name_id)
                tx.uncharge(snapshot.project_id, snapshot.volume_type_id, snapshots=1, gigabytes=snapshot.size)
            else:
                members.disown(task, tx, snapshot)
                members.settle(tx, "snapshot", snapshot.id, members.told_status(task, snapshot.id))
        if cancelled:
            tx.delete("cgsnapshot", self.a.cgsnapshot_id)
        else:
            tx.release("cgsnapshot", self.a.cgsnapshot_id, "error")


@dataclass(frozen=True)
class DeleteArgs(Args):
    """Arguments of delete_cgsnapshot."""

    cgsnapshot_id: str = arg(validate.uuid)


@register
class DeleteCgSnapshot(Operation[DeleteArgs]):
    """Take a cgsnapshot away with all its snapshots."""

    verb = "delete_cgsnapshot"
    args = DeleteArgs
    resource = "cgsnapshot"
    needs = ("delete_cgsnapshot",)

    @property
    def resource_id(self) -> str:
        return self.a.cgsnapshot_id

    def claims(self) -> Sequence[Claim]:
        return (Claim("cgsnapshot", self.a.cgsnapshot_id, "delete"),)

    def absent(self, claim: Claim) -> Any:
        return {"cgsnapshot_id": self.a.cgsnapshot_id, "unchanged": True}

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> str | None:
        return members.status_before(backend, "cgsnapshot", self.a.cgsnapshot_id)

    def admit(self, tx: Admitting) -> None:
        tx.data["before"] = tx.prepared

    def claimed(self, tx: Admitting) -> None:
        cgsnapshot = tx.cgsnapshot(self.a.cgsnapshot_id)
        ids = rows.snapshot_ids(tx.conn, cgsnapshot.id)
        tx.data["was"] = rows.statuses(tx.conn, "snapshot", ids)
        # Whoever deletes the group waits for this, and then finds it without this cgsnapshot.
        members.take(tx, (Claim("group", cgsnapshot.group_id, "unsnapshot", exclusive=False),))
        members.take(tx, (Claim("snapshot", item, "delete") for item in ids))
        tx.data |= {"exported": exports.exported(tx.conn, ids) if ids else [], "members": ids}

    def steps(self, task: Task) -> Sequence[Step]:
        cgsnapshot = task.cgsnapshot(self.a.cgsnapshot_id)
        snapshots = [task.snapshot(item) for item in task.data.get("members") or ()]

        def delete() -> None:
            whole, told = task.driver.delete_cgsnapshot(task.context, cgsnapshot, snapshots)
            members.judge(task, [item.id for item in snapshots], whole, told)

        steps = [unexport_step(task, "snapshot", item) for item in task.data.get("exported") or ()]
        return (*steps, Step("delete", delete, members.bring_back(task, "snapshot", snapshots)))

    def commit(self, task: Task, tx: Closing) -> Any:
        for snapshot_id in task.data.get("members") or ():
            bury(task, tx, task.snapshot(snapshot_id))
        tx.delete("cgsnapshot", self.a.cgsnapshot_id)
        return {"cgsnapshot_id": self.a.cgsnapshot_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if "members" not in task.data:
            return
        asked = members.was_asked(task, "delete")
        for snapshot_id in task.data["members"]:
            status = members.told_status(task, snapshot_id) if asked else task.data["was"][snapshot_id]
            if status == "deleted":
                bury(task, tx, task.snapshot(snapshot_id))
            else:
                members.settle(tx, "snapshot", snapshot_id, status)
        tx.release("cgsnapshot", self.a.cgsnapshot_id, "error" if asked else task.data.get("before"))

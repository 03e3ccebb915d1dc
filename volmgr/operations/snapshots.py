# SPDX-License-Identifier: Apache-2.0
"""Snapshots: create, delete, and taking a volume back to one."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from volmgr import exception, types, validate
from volmgr.db import claims, exports, models
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations import members
from volmgr.operations.base import Args, Claim, Lane, Operation, Rerun, Step, arg
from volmgr.operations.locking import locked_snapshot_operation, locked_volume_operation
from volmgr.operations.registry import register
from volmgr.operations.trash import bury, discard_step, unexport_step, wipe_row, with_object
from volmgr.tasks import Task

_text = validate.optional(validate.name)


@dataclass(frozen=True)
class CreateArgs(Args):
    """Arguments of create_snapshot. ``force`` allows it while an attachment is being made or taken away."""

    volume_id: str = arg(validate.uuid)
    snapshot_id: str = arg(validate.uuid)
    name: str | None = arg(_text, default=None)
    description: str | None = arg(validate.optional(validate.description), default=None)
    metadata: dict[str, str] | None = arg(validate.optional(validate.metadata), default=None)
    force: bool = arg(validate.boolean, default=False)


@register
class CreateSnapshot(Operation[CreateArgs]):
    """Keep a volume's bytes as they are at one instant."""

    verb = "create_snapshot"
    args = CreateArgs
    resource = "snapshot"
    needs = ("create_snapshot",)

    @property
    def resource_id(self) -> str:
        return self.a.snapshot_id

    def lane_on(self, driver: Any) -> Lane:
        return Lane.CONTROL if driver.instant_clone else Lane.BULK

    def claims(self) -> Sequence[Claim]:
        event = "force-snapshot" if self.a.force else "snapshot"
        return (Claim("volume", self.a.volume_id, event, exclusive=False),)

    def admit(self, tx: Admitting) -> None:
        volume = tx.peek_volume(self.a.volume_id)
        tx.insert_snapshot(
            self.a.snapshot_id,
            volume,
            display_name=self.a.name,
            display_description=self.a.description,
            metadata=self.a.metadata,
        )
        tx.charge(volume.project_id, volume.volume_type_id, snapshots=1, gigabytes=volume.size)

    def claimed(self, tx: Admitting) -> None:
        tx.grow("snapshot", self.a.snapshot_id, tx.volume(self.a.volume_id).size)

    def steps(self, task: Task) -> Sequence[Step]:
        snapshot = task.snapshot(self.a.snapshot_id)

        def create() -> types.ModelUpdate:
            update = task.driver.create_snapshot(snapshot)
            return dict(update) if update else None

        # A snapshot whose worker died may be of any moment of its making: it is taken anew.
        return (Step("create", create, lambda: task.driver.delete_snapshot(snapshot), Rerun.REBUILD),)

    def commit(self, task: Task, tx: Closing) -> Any:
        columns = tx.model_update("snapshot", self.a.snapshot_id, task.results.get("create"))
        tx.release("snapshot", self.a.snapshot_id, "available", progress="100%", **columns)
        return {"snapshot_id": self.a.snapshot_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        row = claims.row(tx.conn, "snapshot", self.a.snapshot_id)
        object_id = row.object_id or row.id
        # While it waited, the volume may have become another one's storage; of a volume that is gone nobody deletes it.
        gone = claims.row(tx.conn, "volume", self.a.volume_id) is None
        if not gone and not isinstance(error, exception.Cancelled):
            if not task.abandoned:
                tx.exchange_object("snapshot", row.id, object_id)
            tx.release("snapshot", row.id, "error")
            return
        tx.delete("snapshot", row.id)
        tx.forget_object(object_id)
        tx.uncharge(row.project_id, row.volume_type_id, snapshots=1, gigabytes=row.volume_size)


@dataclass(frozen=True)
class DeleteArgs(Args):
    """Arguments of delete_snapshot."""

    snapshot_id: str = arg(validate.uuid)
    unmanage_only: bool = arg(validate.boolean, default=False)


@register
@locked_snapshot_operation(lambda a: "unmanage" if a.unmanage_only else "delete")
class DeleteSnapshot(Operation[DeleteArgs]):
    """Take a snapshot away: no connection, no export, storage to the trash, row gone."""

    verb = "delete_snapshot"
    args = DeleteArgs
    resource = "snapshot"

    @property
    def resource_id(self) -> str:
        return self.a.snapshot_id

    def required(self) -> tuple[str, ...]:
        return ("unmanage_snapshot",) if self.a.unmanage_only else ("delete_snapshot",)

    def claimed(self, tx: Admitting) -> None:
        members.keep_whole(tx, self.a.snapshot_id)
        tx.data["exported"] = exports.exported(tx.conn, [self.a.snapshot_id])

    def absent(self, claim: Claim) -> Any:
        return {"snapshot_id": self.a.snapshot_id, "unchanged": True}

    def steps(self, task: Task) -> Sequence[Step]:
        snapshot = task.snapshot(self.a.snapshot_id)
        steps = [unexport_step(task, "snapshot", snapshot.id)] if task.data.get("exported") else []
        if self.a.unmanage_only:
            return (*steps, Step("unmanage", lambda: task.driver.unmanage_snapshot(snapshot)))
        return (*steps, discard_step(task, snapshot))

    def commit(self, task: Task, tx: Closing) -> Any:
        snapshot = task.snapshot(self.a.snapshot_id)
        if self.a.unmanage_only:
            tx.delete("snapshot", snapshot.id)
            tx.forget_object(snapshot.name_id)
            tx.uncharge(snapshot.project_id, snapshot.volume_type_id, snapshots=1, gigabytes=snapshot.size)
        else:
            bury(task, tx, snapshot)
        return {"snapshot_id": snapshot.id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if task.operation.claims:
            kinds = exception.Cancelled if self.a.unmanage_only else exception.Busy | exception.Cancelled
            failed = "error" if self.a.unmanage_only else "error_deleting"
            tx.release("snapshot", self.a.snapshot_id, "available" if isinstance(error, kinds) else failed)


@dataclass(frozen=True)
class RevertArgs(Args):
    """Arguments of revert_to_snapshot."""

    volume_id: str = arg(validate.uuid)
    snapshot_id: str = arg(validate.uuid)


@register
@locked_volume_operation("revert")
@locked_snapshot_operation("revert")
class RevertToSnapshot(Operation[RevertArgs]):
    """Take a volume back to a snapshot: a new object is made from it, takes the old one's place, the old one goes.

    Before the pivot a failure leaves the volume as it was; from it on the volume has the snapshot's bytes. The serial
    moves along, so initiators see the same disk. A driver with ``reverts_in_place`` changes the object itself; then the
    pivot comes before that.
    """

    verb = "revert_to_snapshot"
    args = RevertArgs
    needs = ("create_volume_from_snapshot",)

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def lane_on(self, driver: Any) -> Lane:
        return Lane.CONTROL if driver.instant_clone else Lane.BULK

    def claimed(self, tx: Admitting) -> None:
        volume, snapshot = tx.volume(self.a.volume_id), tx.snapshot(self.a.snapshot_id)
        if snapshot.volume_id != volume.id:
            raise exception.Invalid(
                f"snapshot_id {snapshot.id} is not a snapshot of the volume {volume.id}", field="snapshot_id"
            )
        new = str(uuid.uuid4())
        tx.insert_object(
            "volume", volume.id, new, volume.size, role="building", serial=tx.serial_of(volume.name_id)
        )
        tx.data |= {"old": volume.name_id, "new": new}

    def steps(self, task: Task) -> Sequence[Step]:
        if task.data.setdefault("in_place", bool(task.driver.reverts_in_place)):
            return self._in_place(task)
        volume, snapshot = task.volume(self.a.volume_id), task.snapshot(self.a.snapshot_id)
        old, new = with_object(volume, task.data["old"]), with_object(volume, task.data["new"])

        def build() -> types.ModelUpdate:
            update = task.driver.create_volume_from_snapshot(new, snapshot)
            return dict(update) if update else None

        def switch(tx: Closing) -> None:
            table = models.volumes
            held = (table.c.id == volume.id) & (table.c.operation_id == task.id)
            tx.conn.execute(sa.update(table).where(held).values(object_id=new.name_id))
            tx.set_role(new.name_id, "current")
            tx.trash(old.name_id, None)

        def follow() -> None:
            task.backend.exports.sync("volume", volume.id)

        return (
            Step("build", build, lambda: task.driver.delete_volume(new), Rerun.REBUILD, pivot=switch),
            Step("follow", follow),
            discard_step(task, old),
        )

    def _in_place(self, task: Task) -> Sequence[Step]:
        volume, snapshot = task.volume(self.a.volume_id), task.snapshot(self.a.snapshot_id)
        both = (("volume", volume.id), ("snapshot", snapshot.id))

        def release() -> None:
            for kind, resource_id in both:
                task.backend.exports.withdraw(kind, resource_id)
            task.driver.check_revert(volume, snapshot)

        def follow() -> None:
            for kind, resource_id in both:
                task.backend.exports.sync(kind, resource_id)

        def revert() -> None:
            task.driver.revert_to_snapshot(task.context, volume, snapshot)

        return (
            Step("release", release, follow, pivot=lambda _tx: None),
            Step("revert", revert),
            Step("follow", follow),
        )

    def commit(self, task: Task, tx: Closing) -> Any:
        if task.data["in_place"]:
            tx.forget_object(task.data["new"])
            tx.release("volume", self.a.volume_id, "available")
            tx.release("snapshot", self.a.snapshot_id, "available")
            return {"volume_id": self.a.volume_id, "snapshot_id": self.a.snapshot_id}
        columns = tx.model_update("volume", self.a.volume_id, task.results.get("build"))
        tx.release("volume", self.a.volume_id, "available", **columns)
        tx.release("snapshot", self.a.snapshot_id, "available")
        if task.driver.supports("trash_volume"):
            tx.enqueue(wipe_row(task, "volume", task.data["old"], tx.now, 0))
        else:
            tx.forget_object(task.data["old"])
        return {"volume_id": self.a.volume_id, "snapshot_id": self.a.snapshot_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if "new" in task.data and not task.abandoned:
            tx.forget_object(task.data["new"])

# SPDX-License-Identifier: Apache-2.0
"""The end of a move that the compute service made: it has copied a volume in use to a new one, and uses that instead.

The volume takes the new one's object with its place, export, grants and attachments, so whoever is connected stays so,
and the new one's row goes. The target keeps the name that it has: initiators are logged in to it.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from volmgr import exception, names, types, validate
from volmgr.db import claims, exports, models
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations.base import Args, Claim, Operation, Step, arg
from volmgr.operations.registry import register
from volmgr.operations.trash import discard_step, wipe_row, with_object
from volmgr.operations.volumes import DeleteVolume

if TYPE_CHECKING:
    from volmgr.tasks import Task

_V, _O, _S, _A = models.volumes, models.objects, models.snapshots, models.attachments
#: what the storage decides, and so comes with it.
_WITH_STORAGE = (
    "object_id", "host", "availability_zone", "volume_type_id", "provider_location", "provider_id", "driver_data",
    "replication_status", "replication_extended_status", "replication_driver_data",
)


@dataclass(frozen=True)
class CompletionArgs(Args):
    """Arguments of migrate_volume_completion. ``error``: the copy has failed, the new volume is to go."""

    volume_id: str = arg(validate.uuid)
    new_volume_id: str = arg(validate.uuid)
    error: bool = arg(validate.boolean, default=False)


@register
class MigrateVolumeCompletion(Operation[CompletionArgs]):
    """Let a volume be the new one that the compute service has copied it to; or take that one away, with ``error``."""

    verb = "migrate_volume_completion"
    args = CompletionArgs

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def claims(self) -> Sequence[Claim]:
        return (Claim("volume", self.a.volume_id, "migrate", childless=not self.a.error),)

    def claimed(self, tx: Admitting) -> None:
        volume = tx.volume(self.a.volume_id)
        if self.a.new_volume_id == volume.id:
            raise exception.Invalid("new_volume_id is the volume itself", field="new_volume_id")
        tx.data |= {"old": volume.name_id, "type": volume.volume_type_id}
        if self.a.error:
            new = claims.row(tx.conn, "volume", self.a.new_volume_id)
            tx.data["new_host"] = new.host if new is not None else None
            return
        new = self._take_new(tx, volume)
        query = sa.select(models.exports.c.target_name).where(models.exports.c.resource_id == volume.id)
        tx.data |= {
            "new": new.object_id, "host": new.host, "target": tx.conn.execute(query).scalar(),
            "values": {name: getattr(new, name) for name in _WITH_STORAGE},
        }

    def _take_new(self, tx: Admitting, volume: types.Volume) -> Any:
        """Hold the new volume, which is another worker's; returns its row.

        :raises Conflict: it is held, is no copy of this one, or has something that cannot go along.
        """
        claim = Claim("volume", self.a.new_volume_id, "migrate", childless=True)
        row = claims.take(tx.conn, claim, tx.operation_id, tx.now)
        found = row if row is not None else claims.row(tx.conn, "volume", claim.id)
        if found is None or found.project_id != volume.project_id:
            raise exception.VolumeNotFound(id=claim.id)
        if row is None or row.group_id is not None or volume.group_id is not None or row.size != volume.size:
            raise exception.Conflict(
                f"The volume {claim.id} ({found.status}, {found.size} GiB) cannot take the place of {volume.id}: both "
                "must have one size, no snapshots, no group, and no operation",
                hint=f"volmgr volume why {claim.id}", resource="volume", id=claim.id, status=found.status,
            )
        tx.held.append(claim.to_json())
        return row

    def steps(self, task: Task) -> Sequence[Step]:
        if self.a.error:
            return ()
        old = with_object(task.volume(self.a.volume_id), task.data["old"])
        if task.pivoted:  # the row has the new storage's columns by now
            old = dataclasses.replace(old, host=task.backend.settings.place)

        def unserve() -> None:
            if task.data["target"] is not None:
                task.backend.exports.end_target("volume", self.a.volume_id, task.data["target"])

        return (
            Step("swap", lambda: None, pivot=lambda tx: self._swap(task, tx), exports_of=self.a.volume_id),
            Step("unserve", unserve),
            discard_step(task, old),
        )

    def _swap(self, task: Task, tx: Closing) -> None:
        """Let the volume have all that the new one's storage brings; the new one's row has it no more."""
        volume_id, new_id = self.a.volume_id, self.a.new_volume_id
        held = _V.c.operation_id == task.id
        values = dict(task.data["values"])
        exports.delete(tx.conn, volume_id)
        moved = exports.give(tx.conn, new_id, volume_id, task.backend.cipher)
        if not moved:
            # Nobody has seen the new one's serial, so the volume keeps its own.
            serial = sa.select(_O.c.serial).where(_O.c.id == task.data["old"]).scalar_subquery()
            tx.conn.execute(sa.update(_O).where(_O.c.id == task.data["new"]).values(serial=serial))
        tx.conn.execute(sa.delete(_A).where(_A.c.volume_id == volume_id))
        tx.conn.execute(sa.update(_A).where(_A.c.volume_id == new_id).values(volume_id=volume_id))
        both = {"updated_at": tx.now, "migration_status": "completing"}
        if not tx.conn.execute(sa.update(_V).where(_V.c.id == new_id, held).values(object_id=None)).rowcount:
            raise exception.LeaseLost(id=task.id)
        if not tx.conn.execute(sa.update(_V).where(_V.c.id == volume_id, held).values(values | both)).rowcount:
            raise exception.LeaseLost(id=task.id)
        tx.conn.execute(sa.update(_O).where(_O.c.id == task.data["new"]).values(resource_id=volume_id))
        tx.trash(task.data["old"], None)

    def commit(self, task: Task, tx: Closing) -> Any:
        volume = task.volume(self.a.volume_id)
        if self.a.error:
            self._remove_new(task, tx)
            tx.release("volume", volume.id, migration_status="error")
            return {"volume_id": volume.id, "moved": False}
        tx.delete("volume", self.a.new_volume_id)
        tx.release("volume", volume.id, migration_status="success")
        if task.driver.supports("trash_volume"):
            tx.enqueue(wipe_row(task, "volume", task.data["old"], tx.now, 0))
        else:
            tx.forget_object(task.data["old"])
        # Of the two that were counted the one with the old type is gone.
        tx.uncharge(volume.project_id, task.data["type"], volumes=1, gigabytes=volume.size)
        return {"volume_id": volume.id, "moved": True, "host": task.data["host"]}

    def _remove_new(self, task: Task, tx: Closing) -> None:
        """Ask the new volume's worker to take it away, with whoever uses it."""
        host = task.data["new_host"]
        if host is None:
            return
        operation_id = str(uuid.uuid4())
        arguments = {"volume_id": self.a.new_volume_id, "unmanage_only": False, "cascade": True, "force": True}
        tx.enqueue({
            "id": operation_id, "request_key": f"given-up-{operation_id}", "verb": DeleteVolume.verb,
            "version": DeleteVolume.version, "resource": "volume", "resource_id": self.a.new_volume_id,
            "host": names.service_of(host), "state": "queued", "lane": str(DeleteVolume.lane), "claimed": False,
            "claims": [], "epoch": 0, "context": {**task.operation.context, "request_key": None}, "args": arguments,
            "project_id": task.operation.project_id, "created_at": tx.now,
        })

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if task.pivoted:
            tx.delete("volume", self.a.new_volume_id)
            volume = task.volume(self.a.volume_id)
            tx.release("volume", volume.id, migration_status="success")
            tx.uncharge(volume.project_id, task.data["type"], volumes=1, gigabytes=volume.size)


@dataclass(frozen=True)
class UpdateArgs(Args):
    """Arguments of update_migrated_volume; ``volume_status`` is what the volume was before it was moved."""

    volume_id: str = arg(validate.uuid)
    new_volume_id: str = arg(validate.uuid)
    volume_status: str = arg(validate.text(32, 1), default="available")


@register
class UpdateMigratedVolume(Operation[UpdateArgs]):
    """Give a moved volume's storage the name that a volume's first object has, where the driver can.

    Nothing depends on it: operators recognise the storage by it. A driver that keeps the name it has changes nothing.
    """

    verb = "update_migrated_volume"
    args = UpdateArgs

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def claims(self) -> Sequence[Claim]:
        return (Claim("volume", self.a.volume_id, "migrate"),)

    def claimed(self, tx: Admitting) -> None:
        volume = tx.volume(self.a.volume_id)
        taken = tx.conn.execute(sa.select(_O.c.id).where(_O.c.id == volume.id)).first() is not None
        used = exports.granted(tx.conn, volume.id) or volume.attach_status != "detached"
        # The old object may lie in the trash under that id still.
        tx.data |= {"object": volume.name_id, "free": not taken and not used}

    def steps(self, task: Task) -> Sequence[Step]:
        volume = with_object(task.volume(self.a.volume_id), task.data["object"])

        def rename() -> dict[str, Any]:
            if not task.data["free"]:
                return {"_name_id": volume.name_id}
            task.backend.exports.withdraw("volume", volume.id)
            first = dataclasses.replace(volume, object_id=volume.id)
            update = task.driver.update_migrated_volume(task.context, first, volume, self.a.volume_status)
            return dict(update or {"_name_id": volume.name_id})

        return (Step("rename", rename),)

    def commit(self, task: Task, tx: Closing) -> Any:
        volume, object_id = task.volume(self.a.volume_id), task.data["object"]
        columns: dict[str, Any] = {}
        if task.results["rename"].get("_name_id") is None:
            tx.conn.execute(sa.update(_O).where(_O.c.id == object_id).values(id=volume.id))
            columns = {"object_id": volume.id}
            object_id = volume.id
        tx.release("volume", volume.id, **columns)
        return {"volume_id": volume.id, "name": names.object_name("volume", object_id)}

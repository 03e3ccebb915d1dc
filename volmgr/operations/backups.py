# SPDX-License-Identifier: Apache-2.0
"""Backups: create, restore into a volume, delete.

What is read is a snapshot, made for that time only, so a backup is of one instant and the volume may be used
meanwhile. What a broken-off backup has put into the store stays until it is finished or undone, so a restart goes on
behind the last whole chunk.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volmgr import exception, types, validate
from volmgr.backups import copying
from volmgr.backups.copying import BackupService
from volmgr.backups.format import Manifest
from volmgr.backups.stores import DEFAULT
from volmgr.db import attachments, backups, claims, exports, records
from volmgr.db.admission import Admitting, Blocked
from volmgr.db.closing import Closing
from volmgr.operations import restoring
from volmgr.operations.base import Args, Claim, Lane, Operation, Rerun, Step, arg
from volmgr.operations.registry import register
from volmgr.operations.trash import discard_step, wipe_row
from volmgr.tasks import Backend, Task

if TYPE_CHECKING:
    from volmgr.context import RequestContext

_text = validate.optional(validate.name)


@dataclass(frozen=True)
class CreateArgs(Args):
    """Arguments of create_backup.

    ``incremental``: against the newest whole backup of the volume in the store, or against ``parent_id``. ``store`` is
    the name of one.
    """

    backup_id: str = arg(validate.uuid)
    volume_id: str = arg(validate.uuid)
    snapshot_id: str | None = arg(validate.optional(validate.uuid), default=None)
    incremental: bool = arg(validate.boolean, default=False)
    parent_id: str | None = arg(validate.optional(validate.uuid), default=None)
    name: str | None = arg(_text, default=None)
    description: str | None = arg(validate.optional(validate.description), default=None)
    store: str | None = arg(validate.optional(validate.text(64, 1)), default=None)


@register
class CreateBackup(Operation[CreateArgs]):
    """Copy a volume, or a snapshot of it, into a store."""

    verb = "create_backup"
    args = CreateArgs
    resource = "backup"
    lane = Lane.BULK

    @property
    def resource_id(self) -> str:
        return self.a.backup_id

    @property
    def _store(self) -> str:
        return self.a.store or DEFAULT

    def required(self) -> tuple[str, ...]:
        return ("backup_volume",) if self.a.snapshot_id else ("backup_volume", "create_snapshot")

    def prepare(self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]) -> None:
        backend.stores.check(self._store)

    def claims(self) -> Sequence[Claim]:
        if self.a.snapshot_id:
            return (Claim("snapshot", self.a.snapshot_id, "clone", exclusive=False),)
        return (Claim("volume", self.a.volume_id, "backup"),)

    def admit(self, tx: Admitting) -> None:
        a = self.a
        volume = tx.peek_volume(a.volume_id)
        size = tx.peek_snapshot(a.snapshot_id).size if a.snapshot_id else volume.size
        tx.insert_held(
            "backup",
            a.backup_id,
            host=None,
            project_id=volume.project_id,
            volume_id=volume.id,
            snapshot_id=a.snapshot_id,
            size=size,
            store=self._store,
            display_name=a.name,
            display_description=a.description,
        )
        backups.check_quota(tx.conn, volume.project_id, tx.settings.quota)

    def claimed(self, tx: Admitting) -> None:
        a = self.a
        if a.snapshot_id:
            snapshot = tx.snapshot(a.snapshot_id)
            if snapshot.volume_id != a.volume_id:
                raise exception.Invalid(
                    f"snapshot_id {snapshot.id} is not a snapshot of the volume {a.volume_id}", field="snapshot_id"
                )
            volume, size = tx.peek_volume(a.volume_id), snapshot.size
            tx.data["source"] = tx.serial_of(snapshot.name_id)
        else:
            volume = tx.volume(a.volume_id)
            size = volume.size
            temporary = str(uuid.uuid4())
            tx.insert_object("snapshot", a.backup_id, temporary, size, role="building", host=volume.host)
            tx.data |= {"temporary": temporary, "attached": _used(tx, volume.id)}
        parent_id = self._parent(tx, volume)
        tx.data["base"] = self._base(tx, parent_id) if parent_id is not None else None
        backups.complete(tx.conn, a.backup_id, size=size, parent_id=parent_id)
        tx.data |= {"size": size, "parent_id": parent_id, "serial": tx.serial_of(volume.name_id)}

    def _parent(self, tx: Admitting, volume: types.Volume) -> str | None:
        """Hold and return the backup that this one is made against, None for a full one.

        :raises Invalid: there is none that it could be.
        """
        parent_id = self.a.parent_id
        if parent_id is None and self.a.incremental:
            parent_id = backups.latest(tx.conn, volume.id, self._store, volume.project_id)
            if parent_id is None:
                raise exception.Invalid(
                    f"The store {self._store} has no whole backup of the volume {volume.id} to add to",
                    hint="Make a full one first: leave incremental out",
                    field="incremental",
                )
        if parent_id is None:
            return None
        parent = restoring.peek(tx, parent_id)
        if (parent.volume_id, parent.store, parent.project_id) != (volume.id, self._store, volume.project_id):
            raise exception.Invalid(
                f"parent_id {parent_id} is no backup of the volume {volume.id} in the store {self._store}",
                field="parent_id",
            )
        if (blocked := tx.take([Claim("backup", parent_id, "chain", exclusive=False)])) is not None:
            raise Blocked(blocked)
        return parent_id

    def _base(self, tx: Admitting, parent_id: str) -> str | None:
        """Hold and return the snapshot that the parent was made of, if what is there under its id is that one still.

        A driver may then know what has changed since without reading; without it everything is read.
        """
        parent = tx.backup(parent_id)
        told = (parent.service_data or {}).get("source")
        if told is None or parent.snapshot_id in (None, self.a.snapshot_id):
            return None
        row = claims.row(tx.conn, "snapshot", str(parent.snapshot_id))
        if row is None or row.volume_id != self.a.volume_id or tx.serial_of(row.object_id) != told:
            return None
        held = tx.take([Claim("snapshot", row.id, "clone", exclusive=False)])
        return None if held is not None else str(row.id)

    # --- steps ----------------------------------------------------------------------------------------------------

    def steps(self, task: Task) -> Sequence[Step]:
        temporary = self._temporary(task)

        def copy() -> dict[str, Any]:
            return self._copy(task)

        def remove() -> None:
            copying.remove(task.backend.stores.get(self._store), self.a.backup_id)

        def switch(tx: Closing) -> None:
            if temporary is not None:
                tx.trash(temporary.name_id, None)

        # What the snapshot was needed for is done then, so only its going may still fail, and that goes on.
        step = Step("copy", copy, remove, lane=Lane.BULK, pivot=switch)
        if temporary is None:
            return (step,)

        def snapshot() -> types.ModelUpdate:
            update = task.driver.create_snapshot(temporary)
            return dict(update) if update else None

        taken = Step("snapshot", snapshot, lambda: task.driver.delete_snapshot(temporary), Rerun.REBUILD)
        return (taken, step, discard_step(task, temporary))

    def _temporary(self, task: Task) -> types.Snapshot | None:
        """Return the snapshot that is there for as long as the backup is made."""
        if "temporary" not in task.data:
            return None
        volume = task.volume(self.a.volume_id)
        if task.data["attached"]:
            # The volume's own status says only that it is being backed up.
            volume = dataclasses.replace(volume, attach_status="attached")
        made = temporary_of(self.a.backup_id, task.data, volume)
        assert made is not None
        told = task.results.get("snapshot") or {}
        known = {name: told[name] for name in ("provider_location", "provider_id") if name in told}
        return dataclasses.replace(made, **known)

    def _copy(self, task: Task) -> dict[str, Any]:
        store = task.backend.stores.get(self._store)
        identity = store.identity()
        parent_id = task.data["parent_id"]
        parent = None
        if parent_id is not None:
            restoring.store_of(task.backend, task.backup(parent_id))
            parent = copying.manifest_of(store, parent_id)
        temporary = self._temporary(task)
        source = temporary if temporary is not None else task.snapshot(str(self.a.snapshot_id))
        draft = self._draft(task, source, self._moment(task, source))
        service = BackupService(store, draft, parent, task.backend.stores.level)
        base_id = task.data.get("base")
        base = task.snapshot(base_id) if base_id is not None else None
        backup = dataclasses.replace(task.backup(self.a.backup_id), source=source, base=base)
        task.driver.backup_volume(task.context, backup, service)
        made = service.manifest
        if made is None:
            raise exception.Inconsistent(f"The driver has not given the bytes of the volume {self.a.volume_id}")
        return {
            "object_count": made.object_count,
            "stored_bytes": made.stored_bytes,
            "data_at": made.data_at,
            "service_data": {
                "store_id": identity, "chain": len(made.holders),
                **({"source": task.data["source"]} if "source" in task.data else {}),
            },
            "moved_bytes": service.moved_bytes,
            "read_bytes": service.read_bytes,
        }

    @staticmethod
    def _moment(task: Task, source: types.Snapshot) -> str | None:
        """Return when the bytes were as they are copied."""
        begun = (task.data.get("times") or {}).get("snapshot")
        return begun if "temporary" in task.data else records.moment(source.created_at)

    def _draft(self, task: Task, source: types.Snapshot, moment: str | None) -> Manifest:
        volume = task.volume(self.a.volume_id)
        backup_id = self.a.backup_id
        return Manifest(
            id=backup_id,
            volume={
                "id": volume.id,
                "name": volume.display_name,
                "description": volume.display_description,
                "size": source.size,
                "serial": task.data["serial"],
                "bootable": volume.bootable,
                "multiattach": volume.multiattach,
                "volume_type": volume.volume_type.name if volume.volume_type else None,
                "availability_zone": volume.availability_zone,
                "metadata": dict(volume.metadata),
            },
            size_bytes=source.size_bytes,
            holders=(backup_id,),
            snapshot_id=self.a.snapshot_id,
            data_at=moment,
            about={"name": self.a.name, "description": self.a.description, "project_id": task.operation.project_id},
        )

    # --- ends -----------------------------------------------------------------------------------------------------

    def commit(self, task: Task, tx: Closing) -> Any:
        done = self._complete(task, tx)
        if (temporary := task.data.get("temporary")) is not None:
            if task.driver.supports("trash_snapshot"):
                tx.enqueue(wipe_row(task, "snapshot", temporary, tx.now, 0))
            else:
                tx.forget_object(temporary)
        return {
            "backup_id": self.a.backup_id,
            "volume_id": self.a.volume_id,
            "parent_id": task.data["parent_id"],
            "moved_bytes": done["moved_bytes"],
            "read_bytes": done["read_bytes"],
        }

    def _complete(self, task: Task, tx: Closing) -> dict[str, Any]:
        """Write what is so from the pivot on: the store has the whole backup."""
        done: dict[str, Any] = task.results["copy"]
        columns = {name: done[name] for name in ("object_count", "stored_bytes", "service_data")}
        at = datetime.datetime.fromisoformat(done["data_at"]).replace(tzinfo=None) if done["data_at"] else None
        tx.release("backup", self.a.backup_id, "available", container=self.a.backup_id, data_at=at, **columns)
        return done

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if task.pivoted:
            # Given up by an operator: what is left of the snapshot is in the trash, where an audit finds it.
            self._complete(task, tx)
            return
        if (temporary := task.data.get("temporary")) is not None and not task.abandoned:
            tx.forget_object(temporary)
        if isinstance(error, exception.Cancelled):
            tx.delete("backup", self.a.backup_id)
        else:
            tx.release("backup", self.a.backup_id, "error")


def temporary_of(backup_id: str, data: dict[str, Any], volume: types.Volume) -> types.Snapshot | None:
    """Return the snapshot that an operation with that data makes a backup of, None for one of a user's snapshot."""
    if (object_id := data.get("temporary")) is None:
        return None
    return types.Snapshot(
        id=object_id,
        volume_id=volume.id,
        volume_size=data["size"],
        project_id=volume.project_id,
        display_description=f"of the backup {backup_id}",
        host=volume.host,
        object_id=object_id,
        volume=volume,
    )


def _used(tx: Admitting, volume_id: str) -> bool:
    present = attachments.of_volume(tx.conn, volume_id)
    return any(item.status != "reserved" for item in present) or exports.granted(tx.conn, volume_id)


@dataclass(frozen=True)
class RestoreArgs(Args):
    """Arguments of restore_backup; ``name`` is that of a volume that is not there yet."""

    backup_id: str = arg(validate.uuid)
    volume_id: str = arg(validate.uuid)
    name: str | None = arg(_text, default=None)


@register
class RestoreBackup(Operation[RestoreArgs]):
    """Give a volume that is there the bytes of a backup, and zeros behind them.

    From its first byte on there is no way back to what the volume had: a failure leaves it in error.
    """

    verb = "restore_backup"
    args = RestoreArgs
    needs = ("restore_backup",)
    lane = Lane.BULK

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def claims(self) -> Sequence[Claim]:
        return (Claim("volume", self.a.volume_id, "restore"), restoring.claim(self.a.backup_id))

    def claimed(self, tx: Admitting) -> None:
        volume, backup = tx.volume(self.a.volume_id), tx.backup(self.a.backup_id)
        if volume.size < backup.size:
            raise exception.Invalid(
                f"The volume {volume.id} has {volume.size} GiB, the backup needs {backup.size}",
                hint=f"Extend it: volmgr volume extend --size {backup.size} {volume.id}",
                field="volume_id",
            )
        if _used(tx, volume.id):
            raise exception.VolumeAttached(id=volume.id)

    def steps(self, task: Task) -> Sequence[Step]:
        return (restoring.fill_step(task, self.a.backup_id, task.volume(self.a.volume_id), blank=False),)

    def commit(self, task: Task, tx: Closing) -> Any:
        tx.release("volume", self.a.volume_id)
        return {"volume_id": self.a.volume_id, "backup_id": self.a.backup_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if restoring.FILL in (task.data.get("times") or {}):
            tx.release("volume", self.a.volume_id, "error")
            part = "The volume may have a part of the backup's bytes"
            error.hint = f"{part}: restore one again, or volmgr volume delete {self.a.volume_id}. {error.hint}".rstrip()


@dataclass(frozen=True)
class DeleteArgs(Args):
    """Arguments of delete_backup."""

    backup_id: str = arg(validate.uuid)


@register
class DeleteBackup(Operation[DeleteArgs]):
    """Remove a backup from its store."""

    verb = "delete_backup"
    args = DeleteArgs
    resource = "backup"
    lane = Lane.BULK

    @property
    def resource_id(self) -> str:
        return self.a.backup_id

    def claims(self) -> Sequence[Claim]:
        return (Claim("backup", self.a.backup_id, "delete"),)

    def claimed(self, tx: Admitting) -> None:
        if found := backups.dependants(tx.conn, self.a.backup_id):
            raise exception.BackupHasDependants(id=self.a.backup_id, dependants=", ".join(found))

    def absent(self, claim: Claim) -> Any:
        return {"backup_id": self.a.backup_id, "unchanged": True}

    def steps(self, task: Task) -> Sequence[Step]:
        def remove() -> None:
            copying.remove(restoring.store_of(task.backend, task.backup(self.a.backup_id)), self.a.backup_id)

        return (Step("remove", remove, lane=Lane.BULK),)

    def commit(self, task: Task, tx: Closing) -> Any:
        tx.delete("backup", self.a.backup_id)
        return {"backup_id": self.a.backup_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if task.operation.claims:
            begun = "remove" in (task.data.get("times") or {})
            tx.release("backup", self.a.backup_id, "error" if begun else "available")

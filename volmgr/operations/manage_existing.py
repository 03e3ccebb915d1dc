# SPDX-License-Identifier: Apache-2.0
"""Storage that was there before becomes a volume or a snapshot. Letting go is ``delete`` with ``unmanage_only``.

The backend is asked for the size before anything is written, so a reference that names nothing changes nothing. A
failure lets the storage go again and leaves no row: a row in error could be deleted, and the storage with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volmgr import exception, names, types, validate
from volmgr.context import RequestContext
from volmgr.db import exports
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations.base import Args, Claim, Operation, Step, arg
from volmgr.operations.catalogue import usable
from volmgr.operations.registry import register
from volmgr.tasks import Backend, Task

_text = validate.optional(validate.name)
_LONGEST_REFERENCE = 8


def reference(field: str, value: Any) -> dict[str, str]:
    """What names existing storage in the backend's own words: ``{"source-name": NAME}`` for most."""
    if not isinstance(value, Mapping) or not 0 < len(value) <= _LONGEST_REFERENCE:
        raise validate.invalid(field, "must be a mapping such as {'source-name': NAME}", value)
    return validate.metadata(field, value)


@dataclass(frozen=True)
class ManageArgs(Args):
    """Arguments of manage_existing."""

    volume_id: str = arg(validate.uuid)
    ref: dict[str, str] = arg(reference)
    host: str | None = arg(validate.optional(validate.host), default=None)
    volume_type: str | None = arg(_text, default=None)
    name: str | None = arg(_text, default=None)
    description: str | None = arg(validate.optional(validate.description), default=None)
    availability_zone: str | None = arg(_text, default=None)
    metadata: dict[str, str] | None = arg(validate.optional(validate.metadata), default=None)
    bootable: bool = arg(validate.boolean, default=False)


@register
class ManageExisting(Operation[ManageArgs]):
    """Make an object that the backend has already the storage of a new volume."""

    verb = "manage_existing"
    args = ManageArgs
    needs = ("manage_existing", "manage_existing_get_size")
    asks = True

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def belongs(self, backend: Backend, volume: Callable[[str], types.Volume]) -> None:
        if self.a.host and names.service_of(self.a.host) != backend.settings.host:
            raise exception.Moved(host=self.a.host)

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> tuple[int, types.VolumeType | None]:
        probe = types.Volume(id=self.a.volume_id, size=1, status="managing", host=backend.settings.place)
        kind = usable(context, backend.find_type(self.a.volume_type)) if self.a.volume_type is not None else None
        return _positive(backend.driver.manage_existing_get_size(probe, self.a.ref)), kind

    def admit(self, tx: Admitting) -> None:
        a = self.a
        size, kind = tx.prepared
        if size > tx.settings.max_volume_size:
            raise exception.TooBig(size=size, limit=tx.settings.max_volume_size)
        if kind is not None:
            tx.hold_type(kind)
        tx.insert_volume(
            a.volume_id,
            size,
            kind,
            status="managing",
            display_name=a.name,
            display_description=a.description,
            metadata=a.metadata,
            bootable=a.bootable,
            availability_zone=a.availability_zone or tx.settings.zone,
        )
        tx.charge(tx.project_id, kind.id if kind else None, volumes=1, gigabytes=size)

    def steps(self, task: Task) -> Sequence[Step]:
        volume = task.volume(self.a.volume_id)

        def take() -> types.ModelUpdate:
            update = task.driver.manage_existing(volume, self.a.ref)
            return dict(update) if update else None

        return (Step("take", take, lambda: task.driver.unmanage(volume)),)

    def commit(self, task: Task, tx: Closing) -> Any:
        columns = tx.model_update("volume", self.a.volume_id, task.results.get("take"))
        tx.release("volume", self.a.volume_id, "available", launched_at=tx.now, **columns)
        return {"volume_id": self.a.volume_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        volume = task.volume(self.a.volume_id)
        exports.delete(tx.conn, volume.id)  # where it has an address from the beginning
        tx.delete("volume", volume.id)
        tx.forget_object(volume.name_id)
        tx.uncharge(volume.project_id, volume.volume_type_id, volumes=1, gigabytes=volume.size)


@dataclass(frozen=True)
class ManageSnapshotArgs(Args):
    """Arguments of manage_existing_snapshot."""

    snapshot_id: str = arg(validate.uuid)
    ref: dict[str, str] = arg(reference)
    volume_id: str = arg(validate.uuid)
    name: str | None = arg(_text, default=None)
    description: str | None = arg(validate.optional(validate.description), default=None)
    metadata: dict[str, str] | None = arg(validate.optional(validate.metadata), default=None)


@register
class ManageExistingSnapshot(Operation[ManageSnapshotArgs]):
    """Make an object that the backend has already the storage of a new snapshot of a volume."""

    verb = "manage_existing_snapshot"
    args = ManageSnapshotArgs
    resource = "snapshot"
    needs = ("manage_existing_snapshot", "manage_existing_snapshot_get_size")
    asks = True

    @property
    def resource_id(self) -> str:
        return self.a.snapshot_id

    def belongs(self, backend: Backend, volume: Callable[[str], types.Volume]) -> None:
        of = volume(self.a.volume_id)
        if of.host and names.service_of(of.host) != backend.settings.host:
            raise exception.Moved(host=of.host)

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> int:
        of = volume(self.a.volume_id)
        probe = types.Snapshot(
            id=self.a.snapshot_id, volume_id=of.id, volume_size=of.size, status="managing", volume=of
        )
        return _positive(backend.driver.manage_existing_snapshot_get_size(probe, self.a.ref))

    def claims(self) -> Sequence[Claim]:
        return (Claim("volume", self.a.volume_id, "snapshot", exclusive=False),)

    def admit(self, tx: Admitting) -> None:
        volume, size = tx.peek_volume(self.a.volume_id), tx.prepared
        if size > volume.size:
            raise exception.Invalid(
                f"ref has {size} GiB and its volume {volume.size}: it is no snapshot of it", field="ref"
            )
        tx.insert_snapshot(
            self.a.snapshot_id,
            volume,
            size=size,
            status="managing",
            display_name=self.a.name,
            display_description=self.a.description,
            metadata=self.a.metadata,
        )
        tx.charge(volume.project_id, volume.volume_type_id, snapshots=1, gigabytes=size)

    def steps(self, task: Task) -> Sequence[Step]:
        snapshot = task.snapshot(self.a.snapshot_id)

        def take() -> types.ModelUpdate:
            update = task.driver.manage_existing_snapshot(snapshot, self.a.ref)
            return dict(update) if update else None

        return (Step("take", take, lambda: task.driver.unmanage_snapshot(snapshot)),)

    def commit(self, task: Task, tx: Closing) -> Any:
        columns = tx.model_update("snapshot", self.a.snapshot_id, task.results.get("take"))
        tx.release("snapshot", self.a.snapshot_id, "available", progress="100%", **columns)
        return {"snapshot_id": self.a.snapshot_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        snapshot = task.snapshot(self.a.snapshot_id)
        tx.delete("snapshot", snapshot.id)
        tx.forget_object(snapshot.name_id)
        tx.uncharge(snapshot.project_id, snapshot.volume_type_id, snapshots=1, gigabytes=snapshot.size)


def _positive(size: int) -> int:
    """Return what a driver said, if it is a size in GiB.

    :raises Inconsistent: it is none.
    """
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise exception.Inconsistent(f"The driver gave {size!r} as the size of existing storage, in GiB")
    return size

# SPDX-License-Identifier: Apache-2.0
"""Volumes: create, delete, extend."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volmgr import exception, types, validate
from volmgr.db import attachments, exports, transfers
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations import image_source, members, placing, replication, restoring
from volmgr.operations.base import Args, Claim, Lane, Operation, Rerun, Step, arg
from volmgr.operations.locking import locked_volume_operation
from volmgr.operations.registry import register
from volmgr.operations.trash import bury, discard_step, is_discarded, unexport_step
from volmgr.placement import Place
from volmgr.tasks import Backend, Task

if TYPE_CHECKING:
    from volmgr.context import RequestContext

LOG = logging.getLogger(__name__)

_text = validate.optional(validate.name)


#: what a volume may begin with; one of them at most.
_SOURCES = ("snapshot_id", "source_volid", "source_replica", "backup_id", "image_id")


#: how often a driver that failed is asked how far it came; that it cannot tell once is no answer.
LOOKS = 3


@dataclass(frozen=True)
class CreateArgs(Args):
    """Arguments of create_volume; ``size`` is in GiB."""

    volume_id: str = arg(validate.uuid)
    size: int | None = arg(validate.optional(validate.size), default=None)
    snapshot_id: str | None = arg(validate.optional(validate.uuid), default=None)
    source_volid: str | None = arg(validate.optional(validate.uuid), default=None)
    source_replica: str | None = arg(validate.optional(validate.uuid), default=None)
    backup_id: str | None = arg(validate.optional(validate.uuid), default=None)
    image_id: str | None = arg(validate.optional(validate.text(255, 1)), default=None)
    volume_type: str | None = arg(_text, default=None)
    name: str | None = arg(_text, default=None)
    description: str | None = arg(validate.optional(validate.description), default=None)
    availability_zone: str | None = arg(_text, default=None)
    metadata: dict[str, str] | None = arg(validate.optional(validate.metadata), default=None)
    multiattach: bool = arg(validate.boolean, default=False)
    group_id: str | None = arg(validate.optional(validate.uuid), default=None)
    host: str | None = arg(validate.optional(validate.host), default=None)
    scheduler_hints: dict[str, list[str]] | None = arg(validate.optional(placing.scheduler_hints), default=None)
    reservations: list[str] | None = arg(validate.optional(validate.uuids), default=None)


@register
class CreateVolume(Operation[CreateArgs]):
    """Make a volume: empty, from a snapshot, from another volume, or from an image."""

    verb = "create_volume"
    args = CreateArgs
    needs = ("create_volume",)

    def __init__(self, arguments: CreateArgs) -> None:
        super().__init__(arguments)
        self._lane = Lane.BULK

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    @property
    def _source(self) -> str | None:
        return self.a.snapshot_id or self._volume

    @property
    def _volume(self) -> str | None:
        """The volume that is cloned, or whose replica is."""
        return self.a.source_volid or self.a.source_replica

    def required(self) -> tuple[str, ...]:
        if self.a.snapshot_id:
            return ("create_volume_from_snapshot",)
        if self.a.backup_id:
            return ("create_volume", "restore_backup")
        if self.a.image_id:
            return (*self.needs, "copy_image_to_volume")
        if self.a.source_replica:
            return ("create_replica_test_volume",)
        return ("create_cloned_volume",) if self.a.source_volid else self.needs

    def lane_on(self, driver: Any) -> Lane:
        if self.a.image_id:
            return self._lane
        return Lane.BULK if self.a.backup_id or (self._source and not driver.instant_clone) else Lane.CONTROL

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> placing.Placing:
        image = image_source.look_up(backend, self.a.image_id) if self.a.image_id else None
        kind, request = placing.request_of(backend, context, self.a.to_json())
        size = request.size or (image.size if image is not None else restoring.size_of(backend, self.a.backup_id))
        request = dataclasses.replace(request, size=size or 0)
        made = placing.Placing(backend.placement, kind, request, image=image)
        if self.a.group_id is not None:
            members.place_in_group(backend, context, made, self.a.to_json())
            request = made.request
        if backend.placement is not None and not self._source and 0 < request.size <= backend.settings.max_volume_size:
            made.place = backend.placement.choose(request)
        if image is not None:
            place = made.place.host if made.place is not None else backend.settings.place
            self._lane = image_source.lane_of(backend, image, place)
        return made

    def claims(self) -> Sequence[Claim]:
        group = (Claim("group", self.a.group_id, "join", exclusive=False),) if self.a.group_id else ()
        if self.a.snapshot_id:
            return (*group, Claim("snapshot", self.a.snapshot_id, "clone", exclusive=False))
        if self._volume:
            return (*group, Claim("volume", self._volume, "clone", exclusive=False))
        return (*group, restoring.claim(self.a.backup_id)) if self.a.backup_id else group

    def admit(self, tx: Admitting) -> None:
        a = self.a
        given = [name for name in _SOURCES if getattr(a, name)]
        if len(given) > 1:
            raise exception.Invalid(f"{' and '.join(given)} exclude each other", field=given[-1])
        size, where = a.size, tx.prepared
        source: types.Volume | types.Snapshot | None = None
        if a.snapshot_id:
            source = tx.peek_snapshot(a.snapshot_id)
        elif self._volume:
            source = tx.peek_volume(self._volume)
        if source is not None:
            size = self._fits(size, source.size)
        elif a.backup_id:
            size = self._fits(size, restoring.peek(tx, a.backup_id).size)
        image = where.image.checked(size) if where.image is not None else None
        if image is not None:
            size = size or where.image.size
        if size is None:
            raise exception.Invalid("size is missing", field="size")
        if size > tx.settings.max_volume_size:
            raise exception.TooBig(size=size, limit=tx.settings.max_volume_size)
        if where.kind is not None:
            tx.hold_type(where.kind)
        if source is not None:
            where.beside(tx, source, size)
        kind, place = where.kind, where.place or Place(tx.settings.place, tx.settings.zone)
        tx.insert_volume(
            a.volume_id,
            size,
            kind,
            host=place.host,
            availability_zone=place.zone,
            snapshot_id=a.snapshot_id,
            source_volid=a.source_volid,
            group_id=a.group_id,
            image_id=image.full_id if image is not None else None,
            display_name=a.name,
            display_description=a.description,
            metadata=a.metadata,
            multiattach=a.multiattach or where.multiattach,
        )
        tx.use_reservations(a.reservations, tx.project_id)
        tx.charge(tx.project_id, kind.id if kind else None, volumes=1, gigabytes=size)
        if image is not None and self._lane is Lane.CONTROL and tx.service == tx.settings.host:
            image_source.take(tx, a.volume_id)

    def admitted(self, backend: Backend, tx: Admitting) -> None:
        volume = tx.volume(self.a.volume_id)
        if backend.placement is not None and volume.host is not None:
            backend.placement.promise(volume.host, volume.size)

    def arrive(self, tx: Admitting) -> None:
        tx.reserve_address(self.a.volume_id)
        if self.a.image_id:
            image_source.take(tx, self.a.volume_id)

    def again(self, task: Task, error: exception.VolmgrError) -> Place | None:
        if restoring.FILL in task.results or restoring.FILL in (task.data.get("times") or {}):
            return None  # it is the backup that fails, or its store
        if isinstance(error, exception.NoSpace):
            image_source.relieve(task, str(task.volume(self.a.volume_id).host))
        return placing.again(task, self.a.to_json(), error)

    def move(self, task: Task, tx: Closing, place: Place) -> None:
        if self.a.image_id:
            image_source.let_go(task, tx, self.a.volume_id)
        placing.move(task, tx, self.a.volume_id, place)

    def claimed(self, tx: Admitting) -> None:
        if self.a.group_id:
            members.check_member(tx.group(self.a.group_id), tx.peek_volume(self.a.volume_id), "group_id")
        if not self._source:
            return
        if self.a.snapshot_id:
            source = tx.snapshot(self.a.snapshot_id).volume_size
        else:
            volume = tx.volume(str(self._volume))
            if self.a.source_replica:
                replication.check_replica(volume)
            source = volume.size
        tx.grow("volume", self.a.volume_id, self._fits(self.a.size, source))

    @staticmethod
    def _fits(size: int | None, source: int) -> int:
        if size is not None and size < source:
            raise exception.Invalid(f"size must be at least the source's, {source} GiB, got {size}", field="size")
        return size or source

    def steps(self, task: Task) -> Sequence[Step]:
        volume = task.volume(self.a.volume_id)
        if self.a.image_id:
            return image_source.ImageSource(task, volume, self.a.image_id).steps()

        def create() -> types.ModelUpdate:
            if self.a.snapshot_id:
                update = task.driver.create_volume_from_snapshot(volume, task.snapshot(self.a.snapshot_id))
            elif self.a.source_replica:
                update = task.driver.create_replica_test_volume(volume, task.volume(self.a.source_replica))
            elif self.a.source_volid:
                update = task.driver.create_cloned_volume(volume, task.volume(self.a.source_volid))
            else:
                update = task.driver.create_volume(volume)
            return dict(update) if update else None

        def undo() -> None:
            task.driver.delete_volume(volume)

        rerun = Rerun.REBUILD if self._source else Rerun.REPEAT
        created = Step("create", create, undo, rerun)
        if self.a.backup_id:
            return (created, restoring.fill_step(task, self.a.backup_id, volume, blank=True))
        return (created,)

    def commit(self, task: Task, tx: Closing) -> Any:
        done = task.results.get("create", task.results.get("clone"))
        columns = tx.model_update("volume", self.a.volume_id, done)
        if self.a.image_id:
            volume = task.volume(self.a.volume_id)
            columns = {**image_source.columns(task, volume), **columns}
            image_source.settle(task, tx, volume)
        tx.release("volume", self.a.volume_id, "available", launched_at=tx.now, **columns)
        return {"volume_id": self.a.volume_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if self.a.image_id:
            image_source.forsake(task, tx, self.a.volume_id)
        volume = task.volume(self.a.volume_id)
        if not isinstance(error, exception.Cancelled):
            if not task.abandoned or task.data.get("strange"):
                # Nothing of it is there, so whatever may come to bear its name is not its own.
                tx.exchange_object("volume", volume.id, volume.name_id)
            tx.release("volume", self.a.volume_id, "error")
            return
        exports.delete(tx.conn, volume.id)
        tx.delete("volume", volume.id)
        tx.forget_object(volume.name_id)
        tx.uncharge(volume.project_id, volume.volume_type_id, volumes=1, gigabytes=volume.size)


@dataclass(frozen=True)
class DeleteArgs(Args):
    """Arguments of delete_volume."""

    volume_id: str = arg(validate.uuid)
    unmanage_only: bool = arg(validate.boolean, default=False)
    cascade: bool = arg(validate.boolean, default=False)
    force: bool = arg(validate.boolean, default=False)


@register
@locked_volume_operation(
    lambda a: "unmanage" if a.unmanage_only else "force-delete" if a.force else "delete",
    childless=lambda a: not a.cascade,
)
class DeleteVolume(Operation[DeleteArgs]):
    """Take a volume away: no connection, no export, storage to the trash, row gone."""

    verb = "delete_volume"
    args = DeleteArgs

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def required(self) -> tuple[str, ...]:
        return ("unmanage",) if self.a.unmanage_only else ("delete_volume",)

    def admit(self, tx: Admitting) -> None:
        if self.a.unmanage_only and self.a.cascade:
            raise exception.Invalid("cascade and unmanage_only exclude each other", field="cascade")

    def claimed(self, tx: Admitting) -> None:
        ids = [self.a.volume_id]
        if self.a.cascade:
            members.keep_snapshots(tx, self.a.volume_id)
            children = tx.take_children(self.a.volume_id, lambda child: Claim("snapshot", child, "delete"))
            ids += [child.id for child in children]
            tx.data["snapshots"] = [child.id for child in children]
        tx.data["exported"], attached = exports.exported_and_attached(tx.conn, ids)
        if attached and not self.a.force:
            # A deletion by force that failed left them: the volume's status, error_deleting, does not tell.
            raise exception.VolumeAttached(id=self.a.volume_id)
        if self.a.force:
            # However it ends: one that fails leaves error_deleting, a cancelled one available.
            transfers.end_of_volume(tx.conn, self.a.volume_id)

    def absent(self, claim: Claim) -> Any:
        return {"volume_id": self.a.volume_id, "unchanged": True}

    def steps(self, task: Task) -> Sequence[Step]:
        exported = set(task.data.get("exported") or ())
        steps = []
        for snapshot_id in task.data.get("snapshots") or ():
            if snapshot_id in exported:
                steps.append(unexport_step(task, "snapshot", snapshot_id))
            steps.append(discard_step(task, task.snapshot(snapshot_id)))
        volume = task.volume(self.a.volume_id)
        if volume.id in exported:
            steps.append(unexport_step(task, "volume", volume.id))
        if self.a.unmanage_only:
            steps.append(Step("unmanage", lambda: task.driver.unmanage(volume)))
        else:
            steps.append(discard_step(task, volume))
        return steps

    def commit(self, task: Task, tx: Closing) -> Any:
        volume = task.volume(self.a.volume_id)
        for snapshot_id in task.data.get("snapshots") or ():
            bury(task, tx, task.snapshot(snapshot_id))
        if self.a.force:
            attachments.delete_of_volume(tx.conn, volume.id)
        if self.a.unmanage_only:
            tx.delete("volume", volume.id)
            tx.forget_object(volume.name_id)
            tx.uncharge(volume.project_id, volume.volume_type_id, volumes=1, gigabytes=volume.size)
        else:
            bury(task, tx, volume)
        return {"volume_id": volume.id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        # What is busy was left as it was; only a letting go may have come so far all the same, and has no way back.
        kinds = exception.Cancelled if self.a.unmanage_only else exception.Busy | exception.Cancelled
        spared = isinstance(error, kinds)
        if task.operation.claims:
            failed = "error" if self.a.unmanage_only else "error_deleting"
            tx.release("volume", self.a.volume_id, None if spared else failed)
            for snapshot_id in task.data.get("snapshots") or ():
                if is_discarded(task, "snapshot", snapshot_id):
                    # Without a trash there is no way back: it is gone, and counts no more.
                    bury(task, tx, task.snapshot(snapshot_id))
                else:
                    tx.release("snapshot", snapshot_id, "available")


@dataclass(frozen=True)
class ExtendArgs(Args):
    """Arguments of extend_volume; ``new_size`` is in GiB."""

    volume_id: str = arg(validate.uuid)
    new_size: int = arg(validate.size)
    reservations: list[str] | None = arg(validate.optional(validate.uuids), default=None)


@register
@locked_volume_operation("extend")
class ExtendVolume(Operation[ExtendArgs]):
    """Make a volume larger, attached or not."""

    verb = "extend_volume"
    args = ExtendArgs
    needs = ("extend_volume",)

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def claimed(self, tx: Admitting) -> None:
        volume = tx.volume(self.a.volume_id)
        if self.a.new_size < volume.size:
            raise exception.Invalid(
                f"new_size must be at least the present size, {volume.size} GiB, got {self.a.new_size}",
                hint="A volume cannot be made smaller",
                field="new_size",
            )
        if self.a.new_size > tx.settings.max_volume_size:
            raise exception.TooBig(size=self.a.new_size, limit=tx.settings.max_volume_size)
        exported = exports.exported(tx.conn, [volume.id])
        if exported and not tx.settings.grows_in_use and exports.granted(tx.conn, volume.id):
            raise exception.Unsupported(
                "This target cannot show a new size to who is connected",
                hint="Detach the volume, extend it, attach it again",
                verb=self.verb,
            )
        tx.data |= {"from": volume.size, "exported": exported}
        tx.use_reservations(self.a.reservations, volume.project_id)
        tx.charge(volume.project_id, volume.volume_type_id, gigabytes=self.a.new_size - volume.size)

    def steps(self, task: Task) -> Sequence[Step]:
        volume = task.volume(self.a.volume_id)

        def extend() -> None:
            try:
                task.driver.extend_volume(volume, self.a.new_size)
            except exception.VolmgrError as error:
                # A volume cannot be made smaller again, so one that has grown all the same has grown.
                if not self._has_grown(task, volume):
                    raise
                LOG.warning("The volume %s was extended, although the driver said: %s", volume.id, error)
            if task.data.get("exported"):
                # Before anybody is told of the end: who is connected looks for the new size then.
                self._show(task)

        return (Step("extend", extend),)

    def _show(self, task: Task) -> None:
        """Let the target follow the storage, as far as it can now: a volume that has grown has grown all the same."""
        try:
            task.backend.exports.sync("volume", self.a.volume_id, size=self.a.new_size)
            task.data["shown"] = True
        except exception.LeaseLost:
            raise
        except exception.VolmgrError as error:
            LOG.warning("The export of %s does not show its new size yet: %s", self.a.volume_id, error)

    def _has_grown(self, task: Task, volume: types.Volume) -> bool:
        if not task.driver.supports("recognise"):
            return False
        for _ in range(LOOKS):
            try:
                task.driver.recognise("extend_volume", dataclasses.replace(volume, size=self.a.new_size))
            except exception.NotFound:
                return False
            except exception.VolmgrError as error:
                LOG.warning("The volume %s could not be asked whether it has grown: %s", volume.id, error)
            else:
                return True
        return False

    def commit(self, task: Task, tx: Closing) -> Any:
        volume = task.volume(self.a.volume_id)
        tx.release("volume", volume.id, size=self.a.new_size)
        tx.resize_object(volume.name_id, self.a.new_size)
        # Who was connected while it grew may have been shown the size of before.
        task.data["exported"] = not task.data.get("shown") and exports.exported(tx.conn, [volume.id])
        return {"volume_id": volume.id, "size": self.a.new_size}

    def committed(self, task: Task) -> None:
        if task.data.get("exported"):
            task.backend.exports.sync("volume", self.a.volume_id)

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if "from" in task.data:
            volume = task.volume(self.a.volume_id)
            tx.uncharge(volume.project_id, volume.volume_type_id, gigabytes=self.a.new_size - task.data["from"])
        else:
            tx.give_reservations_back(self.a.reservations, task.operation.project_id)

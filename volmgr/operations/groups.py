# SPDX-License-Identifier: Apache-2.0
"""Consistency groups: create, change the members of, and delete.

A member is a volume whose row has the group's id. All members of a group are in one pool, because only there can they
be snapshotted at one instant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volmgr import exception, names, types, validate
from volmgr.db import exports
from volmgr.db import groups as rows
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations import members
from volmgr.operations.base import Args, Claim, Operation, Step, arg
from volmgr.operations.catalogue import usable
from volmgr.operations.registry import register
from volmgr.operations.trash import bury, unexport_step
from volmgr.placement import Place
from volmgr.scheduler import Request
from volmgr.tasks import Backend, Task

if TYPE_CHECKING:
    from volmgr.context import RequestContext

_text = validate.optional(validate.name)
_description = validate.optional(validate.description)
#: what a pool must report to be given a group.
SUPPORT = {"consistencygroup_support": "<is> True"}
MAX_TYPES = 64


def type_names(field: str, value: Any) -> list[str]:
    """Names or ids of volume types: a list, or text with commas, as the first managers were asked."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or len(items) > MAX_TYPES:
        raise validate.invalid(field, f"must be a list of at most {MAX_TYPES} volume types", value)
    return [validate.name(field, item.strip() if isinstance(item, str) else item) for item in items]


def volume_ids(field: str, value: Any) -> list[str]:
    """Ids of volumes, each once: a list, or text with commas, as the first managers were asked."""
    items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
    found = validate.uuids(field, items)
    if len(set(found)) != len(found):
        raise validate.invalid(field, "names a volume twice", value)
    return found


@dataclass(frozen=True)
class CreateArgs(Args):
    """Arguments of create_consistencygroup; without ``volume_types`` its members may be of any."""

    group_id: str = arg(validate.uuid)
    name: str | None = arg(_text, default=None)
    description: str | None = arg(_description, default=None)
    volume_types: list[str] | None = arg(validate.optional(type_names), default=None)
    host: str | None = arg(validate.optional(validate.host), default=None)
    availability_zone: str | None = arg(_text, default=None)


@register
class CreateGroup(Operation[CreateArgs]):
    """Make an empty group, in a pool that can snapshot several volumes at one instant."""

    verb = "create_consistencygroup"
    args = CreateArgs
    resource = "group"
    needs = ("create_consistencygroup",)

    @property
    def resource_id(self) -> str:
        return self.a.group_id

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> tuple[list[types.VolumeType], Place | None]:
        kinds = [usable(context, backend.find_type(name)) for name in self.a.volume_types or ()]
        if backend.placement is None:
            return kinds, None
        wanted = dict(SUPPORT)
        for kind in kinds:
            for key, value in kind.extra_specs.items():
                if wanted.setdefault(key, value) != value:
                    raise exception.Invalid(f"The volume types want different {key}", field="volume_types")
        host = self.a.host
        request = Request(
            size=0, extra_specs=wanted, zone=self.a.availability_zone, host=host,
            patient=names.service_of(host) if host is not None else None,
        )
        try:
            return kinds, backend.placement.choose(request)
        except exception.NoValidBackend as refusal:
            refusal.message = refusal.message.replace("a volume of 0 GiB", "the group")
            raise

    def admit(self, tx: Admitting) -> None:
        kinds, place = tx.prepared
        for kind in kinds:
            tx.hold_type(kind)
        place = place or Place(tx.settings.place, tx.settings.zone)
        tx.insert_held(
            "group",
            self.a.group_id,
            host=place.host,
            availability_zone=place.zone,
            display_name=self.a.name,
            display_description=self.a.description,
            volume_types=sorted({kind.id for kind in kinds}),
        )
        tx.service = place.service

    def steps(self, task: Task) -> Sequence[Step]:
        group = task.group(self.a.group_id)

        def create() -> None:
            members.judge(task, (), task.driver.create_consistencygroup(task.context, group))

        return (Step("create", create, lambda: task.driver.delete_consistencygroup(task.context, group, [])),)

    def commit(self, task: Task, tx: Closing) -> Any:
        tx.release("group", self.a.group_id, "available")
        return {"group_id": self.a.group_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if isinstance(error, exception.Cancelled):
            tx.delete("group", self.a.group_id)
        else:
            tx.release("group", self.a.group_id, "error")


@dataclass(frozen=True)
class UpdateArgs(Args):
    """Arguments of update_consistencygroup; what is None stays."""

    group_id: str = arg(validate.uuid)
    add_volumes: list[str] | None = arg(validate.optional(volume_ids), default=None)
    remove_volumes: list[str] | None = arg(validate.optional(volume_ids), default=None)
    name: str | None = arg(_text, default=None)
    description: str | None = arg(_description, default=None)


@register
class UpdateGroup(Operation[UpdateArgs]):
    """Add volumes to a group, take volumes out of it, rename it. It keeps its members' bytes and exports as they are.

    Who is added belongs to the group from admission on, so that no two groups get one volume.
    """

    verb = "update_consistencygroup"
    args = UpdateArgs
    resource = "group"

    @property
    def resource_id(self) -> str:
        return self.a.group_id

    @property
    def _added(self) -> list[str]:
        return sorted(self.a.add_volumes or ())

    @property
    def _removed(self) -> list[str]:
        return sorted(self.a.remove_volumes or ())

    def required(self) -> tuple[str, ...]:
        return ("update_consistencygroup",) if self._added or self._removed else ()

    def claims(self) -> Sequence[Claim]:
        return (
            Claim("group", self.a.group_id, "update"),
            *(Claim("volume", item, "join-group", exclusive=False) for item in self._added),
            *(Claim("volume", item, "leave-group", exclusive=False) for item in self._removed),
        )

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> bool:
        return bool(backend.driver.exports_members_apart)

    def admit(self, tx: Admitting) -> None:
        tx.data["apart"] = tx.prepared
        if both := set(self._added) & set(self._removed):
            raise exception.Invalid(f"{min(both)} is to be added and to be removed", field="remove_volumes")

    def claimed(self, tx: Admitting) -> None:
        group = tx.group(self.a.group_id)
        for volume_id in self._added:
            volume = tx.volume(volume_id)
            members.check_member(group, volume, "add_volumes")
            if not rows.join(tx.conn, group.id, volume_id):
                raise exception.Invalid(
                    f"The volume {volume_id} is in the group {volume.group_id} already", field="add_volumes"
                )
            if tx.data.get("apart") and exports.granted(tx.conn, volume_id):
                raise exception.Conflict(
                    f"The volume {volume_id} is connected, and this backend exports members of groups in another way",
                    hint=f"Disconnect it while it joins: volmgr attachment list --volume {volume_id}",
                    resource="volume", id=volume_id,
                )
        if tx.data.get("apart") and self._added:
            tx.data["exported"] = exports.exported(tx.conn, self._added)
        for volume_id in self._removed:
            if tx.volume(volume_id).group_id != group.id:
                raise exception.Invalid(f"The volume {volume_id} is not in the group", field="remove_volumes")
        tx.data["joined"] = True

    def steps(self, task: Task) -> Sequence[Step]:
        if not self.required():
            return ()
        group = task.group(self.a.group_id)
        added, removed = ([task.volume(item) for item in ids] for ids in (self._added, self._removed))

        def update() -> dict[str, Any]:
            whole, *told = task.driver.update_consistencygroup(task.context, group, added, removed)
            return members.judge(task, [*self._added, *self._removed], whole, *told)

        # It is exported again, as a member, when somebody connects.
        steps = [unexport_step(task, "volume", item) for item in task.data.get("exported") or ()]
        return (*steps, Step("update", update))

    def commit(self, task: Task, tx: Closing) -> Any:
        told = task.results.get("update") or {}
        for volume_id in self._removed:
            rows.leave(tx.conn, self.a.group_id, volume_id)
        for volume_id in (*self._added, *self._removed):
            members.write(tx, volume_id, told.get(volume_id))
        given = {"display_name": self.a.name, "display_description": self.a.description}
        columns = {key: value for key, value in given.items() if value is not None}
        tx.release("group", self.a.group_id, "available", **columns)
        return {"group_id": self.a.group_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if not task.data.get("joined"):
            return
        asked = members.was_asked(task, "update")
        told = task.data.get("told")
        for volume_id in self._added:
            if told is None or told.get(volume_id) in members.BAD:
                rows.leave(tx.conn, self.a.group_id, volume_id)
        for volume_id in self._removed:
            if told is not None and told.get(volume_id) not in members.BAD:
                rows.leave(tx.conn, self.a.group_id, volume_id)
        if not asked:
            return  # it was cancelled before the driver knew of it
        for volume_id in (*self._added, *self._removed):
            status = "error" if told is None else told.get(volume_id)
            members.write(tx, volume_id, {"status": status})
        tx.release("group", self.a.group_id, "error")


@dataclass(frozen=True)
class DeleteArgs(Args):
    """Arguments of delete_consistencygroup."""

    group_id: str = arg(validate.uuid)
    delete_volumes: bool = arg(validate.boolean, default=False)


@register
class DeleteGroup(Operation[DeleteArgs]):
    """Take a group away; with ``delete_volumes`` its volumes, too, else it must be empty."""

    verb = "delete_consistencygroup"
    args = DeleteArgs
    resource = "group"
    needs = ("delete_consistencygroup",)

    @property
    def resource_id(self) -> str:
        return self.a.group_id

    def claims(self) -> Sequence[Claim]:
        return (Claim("group", self.a.group_id, "delete"),)

    def absent(self, claim: Claim) -> Any:
        return {"group_id": self.a.group_id, "unchanged": True}

    def prepare(
        self, backend: Backend, context: RequestContext, volume: Callable[[str], types.Volume]
    ) -> str | None:
        return members.status_before(backend, "group", self.a.group_id)

    def admit(self, tx: Admitting) -> None:
        tx.data["before"] = tx.prepared

    def claimed(self, tx: Admitting) -> None:
        group_id = self.a.group_id
        if copies := rows.cgsnapshot_ids(tx.conn, group_id):
            raise exception.Conflict(
                f"The group {group_id} has {len(copies)} cgsnapshots",
                hint=f"Delete them first: volmgr cgsnapshot delete {' '.join(copies[:3])}",
                resource="group", id=group_id, cgsnapshots=copies[:20],
            )
        ids = rows.volume_ids(tx.conn, group_id)
        if ids and not self.a.delete_volumes:
            raise exception.Conflict(
                f"The group {group_id} has {len(ids)} volumes",
                hint=f"Take them out: volmgr group update --remove VOLUME {group_id}; "
                f"or delete them with it: volmgr group delete --volumes {group_id}",
                resource="group", id=group_id, volumes=ids[:20],
            )
        tx.data["was"] = rows.statuses(tx.conn, "volume", ids)
        members.take(tx, (Claim("volume", item, "delete", childless=True) for item in ids))
        exported, attached = exports.exported_and_attached(tx.conn, ids)
        if attached:
            users = (item for item in ids if exports.exported_and_attached(tx.conn, [item])[1])
            raise exception.VolumeAttached(id=next(users))
        tx.data |= {"exported": exported, "members": ids}

    def steps(self, task: Task) -> Sequence[Step]:
        group = task.group(self.a.group_id)
        volumes = [task.volume(item) for item in task.data.get("members") or ()]

        def delete() -> None:
            whole, told = task.driver.delete_consistencygroup(task.context, group, volumes)
            members.judge(task, [item.id for item in volumes], whole, told)

        steps = [unexport_step(task, "volume", item) for item in task.data.get("exported") or ()]
        return (*steps, Step("delete", delete, members.bring_back(task, "volume", volumes)))

    def commit(self, task: Task, tx: Closing) -> Any:
        for volume_id in task.data.get("members") or ():
            bury(task, tx, task.volume(volume_id))
        tx.delete("group", self.a.group_id)
        return {"group_id": self.a.group_id}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if "members" not in task.data:
            return
        asked = members.was_asked(task, "delete")
        for volume_id in task.data["members"]:
            status = members.told_status(task, volume_id) if asked else task.data["was"][volume_id]
            if status == "deleted":
                bury(task, tx, task.volume(volume_id))
            else:
                members.settle(tx, "volume", volume_id, status)
        tx.release("group", self.a.group_id, "error" if asked else task.data.get("before"))

# SPDX-License-Identifier: Apache-2.0
"""A group made from a cgsnapshot, or from another group as it is at one instant."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from volmgr import exception, types, validate
from volmgr.db import exports
from volmgr.db import groups as rows
from volmgr.db.admission import Admitting
from volmgr.db.closing import Closing
from volmgr.operations import members
from volmgr.operations.base import Args, Claim, Lane, Operation, Rerun, Step, arg
from volmgr.operations.registry import register
from volmgr.tasks import Backend, Task


@dataclass(frozen=True)
class FromSourceArgs(Args):
    """Arguments of create_consistencygroup_from_src: exactly one of the two sources."""

    group_id: str = arg(validate.uuid)
    cgsnapshot_id: str | None = arg(validate.optional(validate.uuid), default=None)
    source_group_id: str | None = arg(validate.optional(validate.uuid), default=None)
    name: str | None = arg(validate.optional(validate.name), default=None)
    description: str | None = arg(validate.optional(validate.description), default=None)


@register
class CreateGroupFromSource(Operation[FromSourceArgs]):
    """Make a group with a new volume for each member of its source; the result says which came from which."""

    verb = "create_consistencygroup_from_src"
    args = FromSourceArgs
    resource = "group"
    needs = ("create_consistencygroup_from_src",)

    @property
    def resource_id(self) -> str:
        return self.a.group_id

    @property
    def _kind(self) -> str:
        return "snapshot" if self.a.cgsnapshot_id else "volume"

    def lane_on(self, driver: Any) -> Lane:
        return Lane.CONTROL if driver.instant_clone else Lane.BULK

    def claims(self) -> Sequence[Claim]:
        if self.a.cgsnapshot_id:
            return (Claim("cgsnapshot", self.a.cgsnapshot_id, "clone", exclusive=False),)
        if self.a.source_group_id:
            return (Claim("group", self.a.source_group_id, "clone", exclusive=False),)
        return ()

    def admit(self, tx: Admitting) -> None:
        a = self.a
        if bool(a.cgsnapshot_id) == bool(a.source_group_id):
            raise exception.Invalid("Exactly one of cgsnapshot_id and source_group_id is needed", field="cgsnapshot_id")
        source_id = a.source_group_id
        if a.cgsnapshot_id:
            cgsnapshot = tx.peek("cgsnapshot", a.cgsnapshot_id)
            assert isinstance(cgsnapshot, types.CgSnapshot)
            source_id = cgsnapshot.group_id
        source = tx.peek("group", str(source_id))
        assert isinstance(source, types.Group)
        tx.insert_held(
            "group",
            a.group_id,
            host=source.host,
            availability_zone=source.availability_zone,
            volume_types=list(source.volume_types),
            display_name=a.name,
            display_description=a.description,
            cgsnapshot_id=a.cgsnapshot_id,
            source_group_id=a.source_group_id,
        )

    def claimed(self, tx: Admitting) -> None:
        ids = (
            rows.snapshot_ids(tx.conn, self.a.cgsnapshot_id)
            if self.a.cgsnapshot_id
            else rows.volume_ids(tx.conn, str(self.a.source_group_id))
        )
        members.take(tx, (Claim(self._kind, item, "clone", exclusive=False) for item in ids))
        tx.data["members"] = {item: self._insert(tx, item) for item in ids}

    def _insert(self, tx: Admitting, source_id: str) -> str:
        """Make the row of the volume that comes from a member of the source; returns its id."""
        group = tx.peek("group", self.a.group_id)
        assert isinstance(group, types.Group)
        source = tx.snapshot(source_id) if self._kind == "snapshot" else tx.volume(source_id)
        origin: dict[str, Any] = {"snapshot_id" if self._kind == "snapshot" else "source_volid": source_id}
        volume_id = str(uuid.uuid4())
        tx.insert_volume(
            volume_id,
            source.size,
            tx.type_of(source.volume_type_id) if source.volume_type_id else None,
            host=group.host,
            availability_zone=group.availability_zone,
            group_id=group.id,
            display_name=source.display_name,
            metadata=dict(source.metadata),
            multiattach=isinstance(source, types.Volume) and source.multiattach,
            **origin,
        )
        tx.charge(tx.project_id, source.volume_type_id, volumes=1, gigabytes=source.size)
        return volume_id

    def admitted(self, backend: Backend, tx: Admitting) -> None:
        for volume_id in tx.data["members"].values():
            volume = tx.volume(volume_id)
            if backend.placement is not None and volume.host is not None:
                backend.placement.promise(volume.host, volume.size)

    def _volumes(self, task: Task) -> list[types.Volume]:
        return [task.volume(item) for item in (task.data.get("members") or {}).values()]

    def steps(self, task: Task) -> Sequence[Step]:
        group, volumes = task.group(self.a.group_id), self._volumes(task)
        sources = list(task.data.get("members") or ())
        kept: dict[str, Any] = {}
        if self.a.cgsnapshot_id:
            kept["cgsnapshot"] = task.cgsnapshot(self.a.cgsnapshot_id)
            kept["snapshots"] = [task.snapshot(item) for item in sources]
        elif self.a.source_group_id:
            kept["source_cg"] = task.group(self.a.source_group_id)
            kept["source_vols"] = [task.volume(item) for item in sources]

        def create() -> dict[str, Any]:
            whole, told = task.driver.create_consistencygroup_from_src(task.context, group, volumes, **kept)
            return members.judge(task, [item.id for item in volumes], whole, told)

        def undo() -> None:
            told = task.data.get("told")
            gone = [item for item in volumes if told is None or told.get(item.id, "error") != "available"]
            members.unmake(
                task, "volume", gone, lambda: task.driver.delete_consistencygroup(task.context, group, gone)
            )

        return (Step("create", create, undo, Rerun.REBUILD),)

    def commit(self, task: Task, tx: Closing) -> Any:
        told = task.results.get("create") or {}
        for volume in self._volumes(task):
            columns = members.columns_of(tx, "volume", volume.id, told.get(volume.id))
            tx.release("volume", volume.id, "available", launched_at=tx.now, **columns)
        tx.release("group", self.a.group_id, "available")
        return {"group_id": self.a.group_id, "volumes": task.data["members"]}

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        cancelled = isinstance(error, exception.Cancelled)
        for volume in self._volumes(task):
            if cancelled:
                exports.delete(tx.conn, volume.id)
                tx.delete("volume", volume.id)
                tx.forget_object(volume.name_id)
                tx.uncharge(volume.project_id, volume.volume_type_id, volumes=1, gigabytes=volume.size)
            else:
                members.disown(task, tx, volume)
                members.settle(tx, "volume", volume.id, members.told_status(task, volume.id))
        if cancelled:
            tx.delete("group", self.a.group_id)
        else:
            tx.release("group", self.a.group_id, "error")

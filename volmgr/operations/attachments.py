# SPDX-License-Identifier: Apache-2.0
"""Attachments and connections: level-triggered verbs, each one transaction and a sync of the target.

They never wait: what must not go on beside the operation that holds the volume is refused at once, naming it, and
taking access away is always possible.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sqlalchemy.engine import Connection

from volmgr import context as ctx
from volmgr import exception, names, types
from volmgr.db import answered, attachments, failovers, records
from volmgr.db import exports as export_rows
from volmgr.db.engine import Database
from volmgr.exports import Exports
from volmgr.operations import advice, meeting
from volmgr.operations.locking import locked_detach_operation
from volmgr.runtime import Clock
from volmgr.states import ATTACHMENT


class Attachments:
    """The verbs over attachments and connections of one backend."""

    def __init__(self, database: Database, exports: Exports, clock: Clock) -> None:
        self.database = database
        self.exports = exports
        self.clock = clock

    # --- guards ---------------------------------------------------------------------------------------------------

    def _allow(self, conn: Connection, resource: types.Volume | types.Snapshot, comer: str) -> None:
        """Return if the table lets ``comer`` go on beside whoever holds the resource, in its present status.

        :raises Conflict: naming the status, and the operation in the way if there is one.
        """
        kind = "volume" if isinstance(resource, types.Volume) else "snapshot"
        if resource.operation_id is not None:
            meeting.check_beside(conn, kind, resource.id, comer)
            return
        allowed = ("available", "in-use", "reserved", "attaching", "detaching") if kind == "volume" else ("available",)
        if resource.status not in allowed:
            loss = failovers.loss(conn, resource) if isinstance(resource, types.Volume) else None
            raise exception.Conflict(
                f"The {kind} {resource.id} is {resource.status}; {comer} needs it {' or '.join(allowed)}",
                hint=advice.refused(kind, resource.id, resource.status, loss),
                resource=kind,
                id=resource.id,
                status=resource.status,
                allowed=list(allowed),
            )

    def _volume(self, conn: Connection, volume_id: str) -> types.Volume:
        volume = attachments.lock_volume(conn, volume_id)
        if volume is None:
            raise exception.VolumeNotFound(id=volume_id)
        if volume.host and names.service_of(volume.host) != self.exports.settings.host:
            raise exception.Moved(host=volume.host)
        return volume

    @staticmethod
    def _room(volume: types.Volume, others: list[types.Attachment], mode: str) -> None:
        if volume.readonly and mode != "ro":
            raise exception.Invalid(
                f"mode must be ro, the volume {volume.id} is read-only",
                hint=f"Attach it with mode ro, or: volmgr volume set --read-write {volume.id}",
                field="mode",
            )
        if others and not volume.multiattach:
            raise exception.VolumeAttached(
                f"The volume {volume.id} has an attachment already, {others[0].id}, and is not multiattach",
                hint=f"Detach it first: volmgr attachment delete {others[0].id}",
                id=volume.id,
                attachment_id=others[0].id,
            )

    @staticmethod
    def _insert(conn: Connection, record: types.Attachment) -> None:
        if attachments.get(conn, record.id) is not None:
            raise exception.AlreadyExists(resource="attachment", id=record.id)
        attachments.insert(conn, record)

    # --- attachments ----------------------------------------------------------------------------------------------

    def reserve(self, attachment_id: str, volume_id: str, instance_uuid: str | None, mode: str) -> dict[str, Any]:
        """Keep a volume for an instance; a repeat with the same id is the same attachment."""

        def write() -> types.Attachment:
            with self.database.writer(urgent=True) as conn:
                volume = self._volume(conn, volume_id)
                present = attachments.of_volume(conn, volume_id)
                if (same := _same(present, attachment_id)) is not None:
                    answered.first(conn, volume_id, self.clock.now())
                    return same
                answered.check_first(conn, "volume", volume_id, self.clock.now())
                self._allow(conn, volume, "attach")
                self._room(volume, present, mode)
                record = types.Attachment(
                    attachment_id, volume_id, "reserved", mode, instance_uuid, created_at=self.clock.now()
                )
                self._insert(conn, record)
                attachments.settle(conn, volume_id, self.clock.now())
                return record

        return records.attachment_view(self.database.repeating(write))

    def connect(self, attachment_id: str, volume_id: str, connector: dict[str, Any]) -> dict[str, Any]:
        """Grant an attachment's connector access; returns connection_info."""
        with self.database.reader() as conn:
            record = attachments.get(conn, attachment_id)
        if record is None or record.volume_id != volume_id:
            raise exception.AttachmentNotFound(id=attachment_id)

        def change(conn: Connection, _found: export_rows.Wanted) -> None:
            status = ATTACHMENT.target("connect") if record.status == "reserved" else record.status
            values = {"connector": connector, "status": status, "host_name": connector.get("host") or record.host_name}
            attachments.update(conn, attachment_id, **values)
            attachments.settle(conn, volume_id, self.clock.now())

        same = record.connector is not None and dict(record.connector) == connector
        return self.exports.connect(
            "volume",
            volume_id,
            connector,
            check=lambda volume: self._check(volume, "connect"),
            mode=record.mode,
            attachment_id=attachment_id,
            change=None if same else change,
        )

    def complete(self, attachment_id: str) -> dict[str, Any]:
        """Record that an attachment's instance uses the volume."""

        before: dict[str, types.Attachment] = {}

        def write() -> types.Attachment:
            with self.database.writer(urgent=True) as conn:
                record = attachments.get(conn, attachment_id)
                if record is None:
                    raise exception.AttachmentNotFound(id=attachment_id)
                before.setdefault(record.id, record)
                if record.status not in ATTACHMENT.sources("complete"):
                    raise exception.Conflict(
                        f"The attachment {attachment_id} is {record.status}; to be completed it needs a connection",
                        hint="Call attachment_update with the host's connector first",
                        resource="attachment",
                        id=attachment_id,
                        status=record.status,
                    )
                self._volume(conn, record.volume_id)
                attachments.update(conn, attachment_id, status="attached", attached_at=self.clock.now())
                attachments.settle(conn, record.volume_id, self.clock.now())
                return dataclasses.replace(record, status="attached", attached_at=self.clock.now())

        made = self.database.repeating(write)
        self._tell_attached(made, before.get(made.id))
        return records.attachment_view(made)

    @locked_detach_operation
    def delete(self, volume_id: str, attachment_id: str) -> dict[str, Any]:
        """Take an attachment and its access away; one that is gone already is success."""

        def change(conn: Connection, _found: export_rows.Wanted) -> None:
            record = attachments.get(conn, attachment_id)
            if record is not None and record.volume_id != volume_id:
                raise exception.AttachmentNotFound(id=attachment_id)
            attachments.delete(conn, attachment_id)
            attachments.settle(conn, volume_id, self.clock.now())
            gone.append(record)

        gone: list[types.Attachment | None] = []
        changed = self.exports.disconnect(
            "volume", volume_id, connector=None, attachment_id=attachment_id, change=change
        )
        self._tell_detached(volume_id, gone[-1] if gone else None)
        return {"attachment_id": attachment_id, "disconnected": changed}

    # --- the database side of attach and detach -------------------------------------------------------------------

    def attach(
        self,
        volume_id: str,
        instance_uuid: str | None,
        host_name: str | None,
        mountpoint: str | None,
        mode: str,
        attachment_id: str,
    ) -> dict[str, Any]:
        """Record that an instance or a host uses a volume; a repeat by the same one is the same attachment."""
        if instance_uuid is None and host_name is None:
            raise exception.Invalid("instance_uuid or host_name is missing", field="instance_uuid")
        before: dict[str, types.Attachment] = {}

        def write() -> types.Attachment:
            with self.database.writer(urgent=True) as conn:
                volume = self._volume(conn, volume_id)
                present = attachments.of_volume(conn, volume_id)
                now = self.clock.now()
                same = _same(present, attachment_id) or _user(present, instance_uuid, host_name)
                if same is not None:
                    before.setdefault(same.id, same)
                if same is not None and same.status == "attached":
                    if same.mode != mode:
                        raise exception.Conflict(
                            f"The volume {volume_id} is attached in mode {same.mode} already",
                            hint="Detach it first",
                            resource="volume",
                            id=volume_id,
                        )
                    answered.first(conn, volume_id, now)
                    return same
                answered.check_first(conn, "volume", volume_id, now)
                self._allow(conn, volume, "attach")
                self._room(volume, [item for item in present if item is not same], mode)
                values: dict[str, Any] = {
                    "status": "attached",
                    "mode": mode,
                    "instance_uuid": instance_uuid,
                    "host_name": host_name,
                    "mountpoint": mountpoint,
                    "attached_at": now,
                }
                if same is not None:
                    attachments.update(conn, same.id, **values)
                    record = dataclasses.replace(same, **values)
                else:
                    record = types.Attachment(attachment_id, volume_id, created_at=now, **values)
                    self._insert(conn, record)
                attachments.settle(conn, volume_id, now)
                return record

        made = self.database.repeating(write)
        self._tell_attached(made, before.get(made.id))
        return records.attachment_view(made)

    @locked_detach_operation
    def detach(self, volume_id: str, attachment_id: str | None, force: bool) -> dict[str, Any]:
        """Record that a volume is not used any more; with ``force`` all its attachments and grants go."""
        if force and attachment_id is None:
            return self._detach_all(volume_id)

        went: list[str] = []
        gone: list[types.Attachment] = []

        def write() -> None:
            with self.database.writer(urgent=True) as conn:
                self._volume(conn, volume_id)
                if not answered.first(conn, volume_id, self.clock.now()):
                    return  # who is attached was attached since
                present = attachments.of_volume(conn, volume_id)
                # Run again after a commit of unknown outcome, it is about the same one as before.
                wanted = attachment_id or (went[0] if went else None)
                chosen = _same(present, wanted) if wanted else (present[0] if present else None)
                if wanted is None and len(present) > 1:
                    raise exception.Invalid(
                        f"attachment_id is missing, the volume has {len(present)} attachments",
                        hint=f"volmgr attachment list --volume {volume_id}",
                        field="attachment_id",
                    )
                if chosen is not None:
                    export_rows.delete_grants(conn, volume_id, attachment_id=chosen.id)
                    attachments.delete(conn, chosen.id)
                    went.append(chosen.id)
                    gone.append(chosen)
                attachments.settle(conn, volume_id, self.clock.now())

        with self.exports.locks.hold(volume_id):
            self.database.repeating(write)
        if went:
            self.exports.sync("volume", volume_id)
        self._tell_detached(volume_id, gone[0] if gone else None)
        return {"volume_id": volume_id, "attachment_id": went[0] if went else None}

    def _detach_all(self, volume_id: str) -> dict[str, Any]:
        def change(conn: Connection, _found: export_rows.Wanted) -> None:
            attachments.delete_of_volume(conn, volume_id)
            attachments.settle(conn, volume_id, self.clock.now())

        self.exports.disconnect("volume", volume_id, connector=None, change=change)
        self._tell_detached(volume_id, None)
        return {"volume_id": volume_id, "attachment_id": None}

    # --- drivers that want to know ----------------------------------------------------------------------------------

    def _tell_attached(self, record: types.Attachment, before: types.Attachment | None) -> None:
        """Tell a driver that wants to know that a volume is attached; what it refuses is as it was before.

        It is told again by a repeat, so also after a death in between.
        """
        driver = self.exports.driver
        if not driver.supports("attach_volume"):
            return
        volume = self.exports.resource("volume", record.volume_id)
        try:
            driver.attach_volume(
                ctx.admin(), volume, record.instance_uuid, record.host_name, record.mountpoint
            )
        except Exception:
            self.database.repeating(lambda: self._as_before(record, before))
            raise

    def _as_before(self, record: types.Attachment, before: types.Attachment | None) -> None:
        with self.database.writer(urgent=True) as conn:
            if before is None:
                attachments.delete(conn, record.id)
            else:
                attachments.update(conn, record.id, status=before.status, attached_at=before.attached_at)
            attachments.settle(conn, record.volume_id, self.clock.now())

    def _tell_detached(self, volume_id: str, record: types.Attachment | None) -> None:
        """Tell a driver that wants to know that a volume is not attached any more; a repeat tells it again.

        :param record: the attachment that is gone, None for all, or for one that was gone before.
        """
        driver = self.exports.driver
        if not driver.supports("detach_volume"):
            return
        try:
            volume = self.exports.resource("volume", volume_id)
        except exception.VolumeNotFound:
            return  # what is gone is attached to nobody
        driver.detach_volume(ctx.admin(), volume, record)

    # --- connections ----------------------------------------------------------------------------------------------

    def initialize(self, kind: str, resource_id: str, connector: dict[str, Any]) -> dict[str, Any]:
        """Grant a connector access to a volume or, read-only, to a snapshot; returns connection_info."""
        mode = "ro" if kind == "snapshot" else str(connector.get("mode") or "rw")
        return self.exports.connect(
            kind, resource_id, connector, check=lambda resource: self._check(resource, "connect"), mode=mode
        )

    def terminate(self, kind: str, resource_id: str, connector: dict[str, Any] | None, force: bool) -> dict[str, Any]:
        """Take a connector's access away; with ``force`` and no connector everybody's."""
        if connector is None and not force:
            raise exception.Invalid("connector is missing; None is only allowed with force", field="connector")
        changed = self.exports.disconnect(kind, resource_id, connector=connector)
        return {f"{kind}_id": resource_id, "disconnected": changed}

    def check_for_export(self, instance_id: str) -> dict[str, Any]:
        """Make every volume of an instance truly exported; returns which are, and who has those of other workers."""
        with self.database.reader() as conn:
            found = attachments.of_instance(conn, instance_id)
        ids = sorted({record.volume_id for record in found})
        here: dict[str, bool] = {}
        elsewhere: dict[str, str] = {}
        for volume_id in ids:
            try:
                here[volume_id] = self.exports.sync("volume", volume_id)
            except exception.Moved as moved:
                elsewhere[volume_id] = str(moved.details["host"])
        return {"instance_id": instance_id, "volumes": here, "elsewhere": elsewhere}

    def _check(self, resource: types.Volume | types.Snapshot, comer: str) -> None:
        free = resource.operation_id is None and isinstance(resource, types.Volume)
        if free and resource.status in ("available", "in-use", "reserved", "attaching", "detaching"):
            return
        with self.database.reader() as conn:
            self._allow(conn, resource, comer)


def _same(present: list[types.Attachment], attachment_id: str | None) -> types.Attachment | None:
    return next((item for item in present if item.id == attachment_id), None)


def _user(
    present: list[types.Attachment], instance_uuid: str | None, host_name: str | None
) -> types.Attachment | None:
    for item in present:
        if instance_uuid is not None:
            if item.instance_uuid == instance_uuid:
                return item
        elif item.instance_uuid is None and item.host_name == host_name:
            return item
    return None


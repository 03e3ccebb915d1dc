# SPDX-License-Identifier: Apache-2.0
"""Turns rows into the frozen records that leave the database room, and records into what clients read."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable
from typing import Any

from volmgr import types
from volmgr.db import models

VOLUME_COLUMNS = tuple(column for column in models.volumes.c if column.name != "provider_auth")
SNAPSHOT_COLUMNS = tuple(column for column in models.snapshots.c if column.name != "provider_auth")
GROUP_COLUMNS = tuple(models.groups.c)
CGSNAPSHOT_COLUMNS = tuple(models.cgsnapshots.c)
BACKUP_COLUMNS = tuple(models.backups.c)


def _attach_status(status: str) -> str:
    return "attached" if status in ("in-use", "detaching") else "detached"


def _values(row: Any) -> dict[str, Any]:
    """Return the columns of a row of something that has metadata, which is empty where none was ever set."""
    values = dict(row._mapping)
    values["metadata"] = values["metadata"] or {}
    return values


def volume(row: Any, volume_type: types.VolumeType | None = None) -> types.Volume:
    """Return the record of a row with the columns of ``volumes`` and, where it was joined, ``serial``."""
    return types.Volume(**_values(row), volume_type=volume_type, attach_status=_attach_status(row.status))


def snapshot(row: Any, of: types.Volume | None = None) -> types.Snapshot:
    """Return the record of a row with the columns of ``snapshots``."""
    return types.Snapshot(**_values(row), volume=of)


def group(row: Any) -> types.Group:
    """Return the record of a row of ``groups``."""
    values = _values(row)
    values["volume_types"] = tuple(values["volume_types"] or ())
    return types.Group(**values)


def cgsnapshot(row: Any) -> types.CgSnapshot:
    """Return the record of a row of ``cgsnapshots``."""
    return types.CgSnapshot(**_values(row))


def backup(row: Any) -> types.Backup:
    """Return the record of a row of ``backups``."""
    return types.Backup(**_values(row))


#: by noun, what makes the record of a row of something that an operation can hold.
OF: dict[str, Callable[[Any], types.Resource]] = {
    "volume": volume,
    "snapshot": snapshot,
    "group": group,
    "cgsnapshot": cgsnapshot,
    "backup": backup,
}


def attachment(row: Any) -> types.Attachment:
    """Return the record of a row of ``attachments``."""
    return types.Attachment(**row._mapping)


def stored_object(row: Any) -> types.StoredObject:
    """Return the record of a row of ``objects``."""
    values = dict(row._mapping)
    values.pop("created_at")
    return types.StoredObject(**values)


def operation(row: Any) -> types.OperationRecord:
    """Return the record of a row of ``operations``."""
    return types.OperationRecord(**row._mapping)


def moment(value: datetime.datetime | None) -> str | None:
    """Return a time as clients read it: ISO 8601, UTC."""
    return None if value is None else value.replace(tzinfo=datetime.UTC).isoformat()


def volume_view(record: types.Volume, attachments: list[types.Attachment] | None = None) -> dict[str, Any]:
    """Return what a client reads of a volume."""
    return {
        "id": record.id,
        "name": record.display_name,
        "description": record.display_description,
        "size": record.size,
        "status": record.status,
        "attach_status": record.attach_status,
        "migration_status": record.migration_status,
        "host": record.host,
        "availability_zone": record.availability_zone,
        "project_id": record.project_id,
        "user_id": record.user_id,
        "metadata": dict(record.metadata),
        "bootable": record.bootable,
        "readonly": record.readonly,
        "multiattach": record.multiattach,
        "volume_type": record.volume_type_id,
        "snapshot_id": record.snapshot_id,
        "source_volid": record.source_volid,
        "image_id": record.image_id,
        "group_id": record.group_id,
        "serial": record.serial,
        "replication_status": record.replication_status,
        "operation_id": record.operation_id,
        "attachments": [attachment_view(item) for item in attachments or []],
        "created_at": moment(record.created_at),
        "updated_at": moment(record.updated_at),
        "launched_at": moment(record.launched_at),
    }


def snapshot_view(record: types.Snapshot) -> dict[str, Any]:
    """Return what a client reads of a snapshot."""
    return {
        "id": record.id,
        "volume_id": record.volume_id,
        "cgsnapshot_id": record.cgsnapshot_id,
        "name": record.display_name,
        "description": record.display_description,
        "size": record.volume_size,
        "status": record.status,
        "progress": record.progress,
        "host": record.host,
        "project_id": record.project_id,
        "user_id": record.user_id,
        "metadata": dict(record.metadata),
        "operation_id": record.operation_id,
        "created_at": moment(record.created_at),
        "updated_at": moment(record.updated_at),
    }


def backup_view(record: types.Backup) -> dict[str, Any]:
    """Return what a client reads of a backup."""
    return {
        "id": record.id,
        "volume_id": record.volume_id,
        "snapshot_id": record.snapshot_id,
        "parent_id": record.parent_id,
        "name": record.display_name,
        "description": record.display_description,
        "size": record.size,
        "status": record.status,
        "store": record.store,
        "object_count": record.object_count,
        "stored_bytes": record.stored_bytes,
        "data_at": moment(record.data_at),
        "project_id": record.project_id,
        "user_id": record.user_id,
        "metadata": dict(record.metadata),
        "operation_id": record.operation_id,
        "created_at": moment(record.created_at),
        "updated_at": moment(record.updated_at),
    }


def attachment_view(record: types.Attachment) -> dict[str, Any]:
    """Return what a client reads of an attachment."""
    return {
        "id": record.id,
        "volume_id": record.volume_id,
        "status": record.status,
        "mode": record.mode,
        "instance_uuid": record.instance_uuid,
        "host_name": record.host_name,
        "mountpoint": record.mountpoint,
        "connector": dict(record.connector) if record.connector else None,
        "created_at": moment(record.created_at),
        "attached_at": moment(record.attached_at),
    }


def grant_view(row: Any) -> dict[str, Any]:
    """Return what an administrator reads of a grant, joined with its export and its object; nothing of the account."""
    return {
        "id": row.id,
        "kind": row.kind,
        "resource_id": row.resource_id,
        "attachment_id": row.attachment_id or None,
        "mode": row.mode,
        "initiator": row.initiator,
        "host_name": row.host_name,
        "target_name": row.target_name,
        "lun": row.export_lun,
        "serial": row.serial,
        "created_at": moment(row.created_at),
    }


def operation_view(record: types.OperationRecord) -> dict[str, Any]:
    """Return what a client reads of an operation."""
    return {
        "id": record.id,
        "operation_id": record.id,
        "verb": record.verb,
        "resource": record.resource,
        "resource_id": record.resource_id,
        "host": record.host,
        "state": record.state,
        "step": record.step,
        "steps": dict((record.data or {}).get("times") or {}),
        "progress": record.progress,
        "parked_for": record.parked_for,
        "cancel": record.cancel,
        "deaths": record.deaths,
        "result": record.result,
        "error": record.error,
        "history": (record.data or {}).get("history") or [],
        "claims": record.claims,
        "created_at": moment(record.created_at),
        "started_at": moment(record.started_at),
        "updated_at": moment(record.updated_at),
        "finished_at": moment(record.finished_at),
    }


#: what a new operation's record says where nothing else is known.
NEW_OPERATION: dict[str, Any] = {item.name: None for item in dataclasses.fields(types.OperationRecord)} | {
    "deaths": 0,
    "pivoted": False,
    "cancel": False,
}

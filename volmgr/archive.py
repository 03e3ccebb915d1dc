# SPDX-License-Identifier: Apache-2.0
"""What can be asked about backups, as a table of contents.

A part of :class:`volmgr.manager.VolumeManager`; the operations are in :mod:`volmgr.operations.backups`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from volmgr import exception, names, types
from volmgr.context import RequestContext
from volmgr.db import backups as backup_rows
from volmgr.db import claims, listing, operations, records
from volmgr.operations import backups, volumes
from volmgr.operations.base import request_key
from volmgr.readers import listed
from volmgr.rpc.endpoint import answered, connects, journalled
from volmgr.validate import uuid

if TYPE_CHECKING:
    from volmgr.readers import Readers
    from volmgr.service import Worker


class Archive:
    """The verbs over backups."""

    worker: Worker
    readers: Readers

    @journalled
    def create_backup(
        self, context: RequestContext, backup_id: str, volume_id: str, snapshot_id: str | None = None,
        incremental: bool = False, **properties: Any,
    ) -> dict[str, Any]:
        """Copy a volume, or a snapshot of it, into a store; ``incremental`` only what has changed since the last."""
        arguments = {"backup_id": backup_id, "volume_id": volume_id, "snapshot_id": snapshot_id,
                     "incremental": incremental, **properties}
        return self.worker.submit(context, backups.CreateBackup, arguments)

    @journalled
    def restore_backup(
        self, context: RequestContext, backup_id: str, volume_id: str, name: str | None = None
    ) -> dict[str, Any]:
        """Give a volume the bytes of a backup; one that is not there is made."""
        arguments = {"backup_id": backup_id, "volume_id": volume_id, "name": name}
        key = request_key(context, "restore_backup", backups.RestoreBackup.args.parse(arguments))
        keyed = RequestContext.from_dict({**context.to_dict(), "request_key": key})
        cls = self._restoring(key, volume_id)
        try:
            return self.worker.submit(keyed, cls, arguments)
        except exception.Conflict:
            # A copy of this message may have found the volume otherwise, and been answered first: that is the answer.
            if (settled := self._restoring(key, volume_id)) is cls:
                raise
            return self.worker.submit(keyed, settled, arguments)

    def _restoring(self, key: str, volume_id: str) -> type[volumes.CreateVolume | backups.RestoreBackup]:
        """Return what a request to restore is, by whether its volume is there.

        A repeat is what the request was when it came first, whatever has become of the volume.
        """
        with self.worker.database.reader() as conn:
            before = operations.by_key(conn, key)
            verb = before.verb if before is not None else ""
            made = verb == "create_volume" or (not verb and claims.row(conn, "volume", volume_id) is None)
        return volumes.CreateVolume if made else backups.RestoreBackup

    @journalled
    def delete_backup(self, context: RequestContext, backup_id: str) -> dict[str, Any]:
        """Remove a backup from its store; one that is gone already is success."""
        return self.worker.submit(context, backups.DeleteBackup, {"backup_id": backup_id})

    @answered(backup_id=uuid)
    def get_backup_device(self, context: RequestContext, backup_id: str) -> dict[str, Any]:
        """Return what is read for a backup that is being made, and whether that is a snapshot."""
        with self.worker.database.reader() as conn:
            view = listing.backup(conn, backup_id, context.scope)
            data = backup_rows.maker(conn, backup_id)
            noun = "snapshot" if view["snapshot_id"] else "volume"
            row = claims.row(conn, noun, view["snapshot_id"] or view["volume_id"])
        if row is None:
            raise exception.NotFound(resource=noun, id=view["snapshot_id"] or view["volume_id"])
        if row.host and names.service_of(row.host) != self.worker.host:
            raise exception.Moved(host=row.host)
        if noun == "snapshot":
            source: types.Volume | types.Snapshot = records.snapshot(row)
        else:
            volume = records.volume(row)
            source = backups.temporary_of(backup_id, data, volume) or volume
        backup = types.Backup(backup_id, view["volume_id"], view["size"], view["store"])
        driver = self.worker.driver
        device, is_snapshot = driver.get_backup_device(context, dataclasses.replace(backup, source=source))
        return {
            "backup_device": {"id": device.id, "name": device.name, "size": device.size, "host": device.host},
            "is_snapshot": is_snapshot,
            "secure_enabled": bool(driver.secure_file_operations_enabled()),
        }

    @connects(volume_id=uuid)
    def secure_file_operations_enabled(self, context: RequestContext, volume_id: str) -> bool:
        """Return whether a volume's driver works on files without root's rights."""
        with self.worker.database.reader() as conn:
            row = claims.row(conn, "volume", volume_id)
        if row is None:
            raise exception.VolumeNotFound(id=volume_id)
        if row.host and names.service_of(row.host) != self.worker.host:
            raise exception.Moved(host=row.host)
        return bool(self.worker.driver.secure_file_operations_enabled())

    @answered(backup_id=uuid)
    def get_backup(self, context: RequestContext, backup_id: str) -> dict[str, Any]:
        """Return a backup."""
        with self.worker.database.reader() as conn:
            return listing.backup(conn, backup_id, context.scope)

    @answered(**listed("backup"))
    def list_backups(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of backups."""
        return self.readers.page("backup", context, filters, marker, limit, sort_keys, sort_dirs)

    @answered()
    def list_backup_stores(self, context: RequestContext) -> list[str]:
        """Return the names of the stores that backups can go to."""
        return self.worker.dispatcher.backend.stores.names()

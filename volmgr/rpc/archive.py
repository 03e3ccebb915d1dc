# SPDX-License-Identifier: Apache-2.0
"""The client's side of :mod:`volmgr.archive`: backups.

A part of :class:`volmgr.rpc.client.VolumeAPI`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volmgr.context import RequestContext

Answer = dict[str, Any]


class ArchiveAPI:
    """The verbs over backups. Arguments that are None are left out."""

    def call(self, context: RequestContext, method: str, **args: Any) -> Any:
        """Send a request and return its answer."""
        raise NotImplementedError

    def change(self, context: RequestContext, method: str, **args: Any) -> Answer:
        """Send a changing request under a key of its own."""
        raise NotImplementedError

    def create_backup(self, context: RequestContext, backup_id: str, volume_id: str, **properties: Any) -> Answer:
        """Copy a volume into a store. ``properties``: snapshot_id, incremental, parent_id, name, description, store."""
        return self.change(context, "create_backup", backup_id=backup_id, volume_id=volume_id, **properties)

    def restore_backup(
        self, context: RequestContext, backup_id: str, volume_id: str, name: str | None = None
    ) -> Answer:
        """Give a volume the bytes of a backup; one that is not there is made, with that name."""
        return self.change(context, "restore_backup", backup_id=backup_id, volume_id=volume_id, name=name)

    def delete_backup(self, context: RequestContext, backup_id: str) -> Answer:
        """Remove a backup from its store."""
        return self.change(context, "delete_backup", backup_id=backup_id)

    def get_backup_device(self, context: RequestContext, backup_id: str) -> Answer:
        """Return what is read for a backup that is being made."""
        answer: Answer = self.call(context, "get_backup_device", backup_id=backup_id)
        return answer

    def secure_file_operations_enabled(self, context: RequestContext, volume_id: str) -> bool:
        """Return whether a volume's driver works on files without root's rights."""
        return bool(self.call(context, "secure_file_operations_enabled", volume_id=volume_id))

    def get_backup(self, context: RequestContext, backup_id: str) -> Answer:
        """Return a backup."""
        answer: Answer = self.call(context, "get_backup", backup_id=backup_id)
        return answer

    def list_backups(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of backups. ``page``: filters, marker, limit, sort_keys, sort_dirs."""
        answer: list[Answer] = self.call(context, "list_backups", **page)
        return answer

    def list_backup_stores(self, context: RequestContext) -> list[str]:
        """Return the names of the stores that backups can go to."""
        return list(self.call(context, "list_backup_stores"))

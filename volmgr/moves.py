# SPDX-License-Identifier: Apache-2.0
"""What is asked of volmgr about a volume's place, type and owner, as a table of contents.

A part of :class:`volmgr.manager.VolumeManager`; the verbs themselves are in :mod:`volmgr.operations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volmgr.operations import migration, retype
from volmgr.rpc.endpoint import journalled

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.service import Worker


class Moves:
    """The verbs that change whose a volume is: which backend's, which type's, which project's."""

    worker: Worker

    @staticmethod
    def administrator(context: RequestContext) -> None:
        """Return if the caller may speak for the whole deployment."""
        raise NotImplementedError

    @journalled
    def retype(
        self, context: RequestContext, volume_id: str, new_type_id: str, host: str | None = None,
        migration_policy: str = "never", reservations: Any = None, old_reservations: Any = None,
    ) -> dict[str, Any]:
        """Give a volume another type; with ``migration_policy`` on-demand it may move for that."""
        arguments = {
            "volume_id": volume_id, "new_type_id": new_type_id, "host": host, "migration_policy": migration_policy,
            "reservations": reservations, "old_reservations": old_reservations,
        }
        return self.worker.submit(context, retype.Retype, arguments)

    @journalled
    def migrate_volume(
        self, context: RequestContext, volume_id: str, host: str, force_host_copy: bool = False,
        new_type_id: str | None = None,
    ) -> dict[str, Any]:
        """Move a volume to another backend, by its driver if that can and may, else by a copy."""
        self.administrator(context)
        arguments = {
            "volume_id": volume_id, "host": host, "force_host_copy": force_host_copy, "new_type_id": new_type_id
        }
        return self.worker.submit(context, migration.MigrateVolume, arguments)

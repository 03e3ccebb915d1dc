# SPDX-License-Identifier: Apache-2.0
"""What is asked of volmgr about a volume's place, type and owner, as a table of contents.

A part of :class:`volmgr.manager.VolumeManager`; the verbs themselves are in :mod:`volmgr.operations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volmgr import exception, validate
from volmgr.operations import completion, migration, replication, retype, transfers
from volmgr.readers import FILTERS
from volmgr.rpc.endpoint import answered, journalled
from volmgr.validate import optional, uuid

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.readers import Readers
    from volmgr.service import Worker

_transfers: dict[str, validate.Check] = {
    "filters": optional(validate.filters(FILTERS["transfer"][0])),
    "marker": optional(uuid),
    "limit": optional(validate.integer(1, validate.MAX_LIMIT)),
    "sort_keys": optional(validate.sort_list(*FILTERS["transfer"][1])),
    "sort_dirs": optional(validate.sort_list("asc", "desc")),
}


class Moves:
    """The verbs that change whose a volume is: which backend's, which type's, which project's."""

    worker: Worker
    readers: Readers

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
        arguments = {
            "volume_id": volume_id, "host": host, "force_host_copy": force_host_copy, "new_type_id": new_type_id
        }
        return self.worker.submit(context, migration.MigrateVolume, arguments)

    @journalled
    def migrate_volume_completion(
        self, context: RequestContext, volume_id: str, new_volume_id: str, error: bool = False
    ) -> dict[str, Any]:
        """Let a volume be the new one that it was copied to while it was in use; with ``error`` that one goes."""
        arguments = {"volume_id": volume_id, "new_volume_id": new_volume_id, "error": error}
        return self.worker.submit(context, completion.MigrateVolumeCompletion, arguments)

    @journalled
    def update_migrated_volume(
        self, context: RequestContext, volume_id: str, new_volume_id: str, volume_status: str = "available"
    ) -> dict[str, Any]:
        """Give a moved volume's storage the name that a volume's first storage has, where the driver can."""
        arguments = {"volume_id": volume_id, "new_volume_id": new_volume_id, "volume_status": volume_status}
        return self.worker.submit(context, completion.UpdateMigratedVolume, arguments)

    # --- another project ------------------------------------------------------------------------------------------

    @answered(transfer_id=uuid, volume_id=uuid, name=optional(validate.name), expires_in=validate.seconds)
    def transfer_create(
        self, context: RequestContext, transfer_id: str, volume_id: str, name: str | None = None, expires_in: float = 0
    ) -> dict[str, Any]:
        """Offer a volume with its snapshots to another project; answers ``auth_key``, which is told this once.

        ``expires_in`` is in seconds, 0 means never.
        """
        return self.worker.transfers.create(context, transfer_id, volume_id, name, expires_in)

    @answered(transfer_id=uuid, auth_key=validate.text(255, 1))
    def transfer_accept(self, context: RequestContext, transfer_id: str, auth_key: str) -> dict[str, Any]:
        """Take an offered volume over for the caller's project, by the key; answers as a changing verb does."""
        return self.worker.transfers.accept(context, transfer_id, auth_key)

    @answered(transfer_id=uuid)
    def transfer_delete(self, context: RequestContext, transfer_id: str) -> dict[str, Any]:
        """Withdraw an offer; one that is gone already is success."""
        return self.worker.transfers.delete(context, transfer_id)

    @answered(transfer_id=uuid)
    def get_transfer(self, context: RequestContext, transfer_id: str) -> dict[str, Any]:
        """Return an offer; its key is not told again."""
        return self.readers.transfer(context, transfer_id)

    @answered(**_transfers)
    def list_transfers(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[dict[str, Any]]:
        """Return a page of offers."""
        return self.readers.page("transfer", context, filters, marker, limit, sort_keys, sort_dirs)

    @journalled
    def accept_transfer(
        self, context: RequestContext, volume_id: str, new_user: str, new_project: str
    ) -> dict[str, Any]:
        """Give a volume with its snapshots to another project without an offer; for administrators."""
        arguments = {"volume_id": volume_id, "new_user": new_user, "new_project": new_project}
        return self.worker.submit(context, transfers.AcceptTransfer, arguments)

    # --- replicas -------------------------------------------------------------------------------------------------

    @journalled
    def promote_replica(self, context: RequestContext, volume_id: str) -> dict[str, Any]:
        """Let a volume's replica take its place."""
        return self.worker.submit(context, replication.PromoteReplica, {"volume_id": volume_id})

    @journalled
    def reenable_replication(self, context: RequestContext, volume_id: str) -> dict[str, Any]:
        """Let a volume's replica follow it again."""
        return self.worker.submit(context, replication.ReenableReplication, {"volume_id": volume_id})

    @journalled
    def failover_host(self, context: RequestContext, secondary_backend_id: str | None = None) -> dict[str, Any]:
        """Let this worker's backend work on its replication target; ``default`` goes back to where it began."""
        if self.worker.membership is not None:
            raise exception.Unsupported(
                verb="failover_host", hint="The other members would stay where they are: serve it by one worker"
            )
        arguments = {"secondary_backend_id": secondary_backend_id}
        return self.worker.submit(context, replication.FailoverHost, arguments)

    @answered()
    def freeze_host(self, context: RequestContext) -> bool:
        """Let this worker's backend take no creation and no change; attaching and detaching go on."""
        frozen = self.worker.replicas.freeze()
        self.worker.placement.refresh()
        return frozen

    @answered()
    def thaw_host(self, context: RequestContext) -> bool:
        """Let this worker's backend take changes again; answers whether it does."""
        thawed = self.worker.replicas.thaw()
        self.worker.placement.refresh()
        return thawed

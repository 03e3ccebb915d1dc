# SPDX-License-Identifier: Apache-2.0
"""The client's side of :mod:`volmgr.moves`: place, type and owner of a volume.

A part of :class:`volmgr.rpc.client.VolumeAPI`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volmgr.context import RequestContext

Answer = dict[str, Any]


class MovesAPI:
    """Verbs about whose a volume is."""

    def call(self, context: RequestContext, method: str, **args: Any) -> Any:
        """Send a request and return its answer."""
        raise NotImplementedError

    def change(self, context: RequestContext, method: str, **args: Any) -> Answer:
        """Send a changing request under a key of its own."""
        raise NotImplementedError

    def retype(
        self, context: RequestContext, volume_id: str, new_type_id: str, *, host: str | None = None,
        migration_policy: str | None = None, reservations: list[str] | None = None,
        old_reservations: list[str] | None = None,
    ) -> Answer:
        """Give a volume another type. ``migration_policy``: never, or on-demand: it moves if it has to."""
        return self.change(
            context, "retype", volume_id=volume_id, new_type_id=new_type_id, host=host,
            migration_policy=migration_policy, reservations=reservations, old_reservations=old_reservations,
        )

    def migrate_volume(
        self, context: RequestContext, volume_id: str, host: str, *, force_host_copy: bool = False,
        new_type_id: str | None = None,
    ) -> Answer:
        """Move a volume to another backend, ``host@backend`` or ``host@backend#pool``."""
        return self.change(
            context, "migrate_volume", volume_id=volume_id, host=host, force_host_copy=force_host_copy,
            new_type_id=new_type_id,
        )

    def migrate_volume_completion(
        self, context: RequestContext, volume_id: str, new_volume_id: str, error: bool = False
    ) -> Answer:
        """Let a volume be the new one that the compute service has copied it to; ``error``: take that one away."""
        return self.change(
            context, "migrate_volume_completion", volume_id=volume_id, new_volume_id=new_volume_id, error=error
        )

    def update_migrated_volume(
        self, context: RequestContext, volume_id: str, new_volume_id: str, volume_status: str = "available"
    ) -> Answer:
        """Give a moved volume's storage its usual name, where the driver can."""
        return self.change(
            context, "update_migrated_volume", volume_id=volume_id, new_volume_id=new_volume_id,
            volume_status=volume_status,
        )

    # --- another project ------------------------------------------------------------------------------------------

    def transfer_create(
        self, context: RequestContext, transfer_id: str, volume_id: str, name: str | None = None,
        expires_in: float | None = None,
    ) -> Answer:
        """Offer a volume; ``auth_key`` in the answer is told this once. ``expires_in`` is in seconds."""
        return self._told(
            context, "transfer_create", transfer_id=transfer_id, volume_id=volume_id, name=name, expires_in=expires_in
        )

    def transfer_accept(self, context: RequestContext, transfer_id: str, auth_key: str) -> Answer:
        """Take an offered volume over for the context's project."""
        return self.change(context, "transfer_accept", transfer_id=transfer_id, auth_key=auth_key)

    def transfer_delete(self, context: RequestContext, transfer_id: str) -> Answer:
        """Withdraw an offer."""
        return self._told(context, "transfer_delete", transfer_id=transfer_id)

    def get_transfer(self, context: RequestContext, transfer_id: str) -> Answer:
        """Return an offer, without its key."""
        return self._told(context, "get_transfer", transfer_id=transfer_id)

    def list_transfers(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of offers. ``page``: filters, marker, limit, sort_keys, sort_dirs."""
        answer: list[Answer] = self.call(context, "list_transfers", **page)
        return answer

    def accept_transfer(self, context: RequestContext, volume_id: str, new_user: str, new_project: str) -> Answer:
        """Give a volume to another project without an offer."""
        return self.change(
            context, "accept_transfer", volume_id=volume_id, new_user=new_user, new_project=new_project
        )

    # --- replicas -------------------------------------------------------------------------------------------------

    def promote_replica(self, context: RequestContext, volume_id: str) -> Answer:
        """Let a volume's replica take its place."""
        return self.change(context, "promote_replica", volume_id=volume_id)

    def reenable_replication(self, context: RequestContext, volume_id: str) -> Answer:
        """Let a volume's replica follow it again."""
        return self.change(context, "reenable_replication", volume_id=volume_id)

    def failover_host(
        self, context: RequestContext, host: str | None = None, secondary_backend_id: str | None = None
    ) -> Answer:
        """Let a worker's backend, ``host@backend``, work on its replication target; ``default``: on its own again."""
        return self.change(context, "failover_host", host=host, secondary_backend_id=secondary_backend_id)

    def freeze_host(self, context: RequestContext, host: str | None = None) -> bool:
        """Let a worker's backend take no changes; returns whether that is so."""
        return bool(self.call(context, "freeze_host", host=host))

    def thaw_host(self, context: RequestContext, host: str | None = None) -> bool:
        """Let a worker's backend take changes again; returns whether it does."""
        return bool(self.call(context, "thaw_host", host=host))

    def _told(self, context: RequestContext, method: str, **args: Any) -> Answer:
        answer: Answer = self.call(context, method, **{key: item for key, item in args.items() if item is not None})
        return answer

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

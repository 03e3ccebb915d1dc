# SPDX-License-Identifier: Apache-2.0
"""The client's side of :mod:`volmgr.group_verbs`: consistency groups and their snapshots.

A part of :class:`volmgr.rpc.client.VolumeAPI`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volmgr.context import RequestContext

Answer = dict[str, Any]


class GroupsAPI:
    """Groups of volumes that are snapshotted at one instant."""

    def call(self, context: RequestContext, method: str, **args: Any) -> Any:
        """Send a request and return its answer."""
        raise NotImplementedError

    def change(self, context: RequestContext, method: str, **args: Any) -> Answer:
        """Send a changing request under a key of its own."""
        raise NotImplementedError

    def create_consistencygroup(self, context: RequestContext, group_id: str, **properties: Any) -> Answer:
        """Make an empty group. ``properties``: name, description, volume_types, host, availability_zone."""
        return self.change(context, "create_consistencygroup", group_id=group_id, **properties)

    def create_consistencygroup_from_src(
        self,
        context: RequestContext,
        group_id: str,
        cgsnapshot_id: str | None = None,
        source_group_id: str | None = None,
        **properties: Any,
    ) -> Answer:
        """Make a group from a cgsnapshot or another group. ``properties``: name, description."""
        return self.change(
            context,
            "create_consistencygroup_from_src",
            group_id=group_id,
            cgsnapshot_id=cgsnapshot_id,
            source_group_id=source_group_id,
            **properties,
        )

    def update_consistencygroup(self, context: RequestContext, group_id: str, **changes: Any) -> Answer:
        """Change a group. ``changes``: add_volumes and remove_volumes, lists of ids; name, description."""
        return self.change(context, "update_consistencygroup", group_id=group_id, **changes)

    def delete_consistencygroup(
        self, context: RequestContext, group_id: str, delete_volumes: bool = False
    ) -> Answer:
        """Take a group away; ``delete_volumes`` takes its volumes."""
        return self.change(context, "delete_consistencygroup", group_id=group_id, delete_volumes=delete_volumes)

    def create_cgsnapshot(
        self, context: RequestContext, cgsnapshot_id: str, *, group_id: str, **properties: Any
    ) -> Answer:
        """Snapshot all volumes of a group at one instant. ``properties``: name, description."""
        return self.change(
            context, "create_cgsnapshot", cgsnapshot_id=cgsnapshot_id, group_id=group_id, **properties
        )

    def delete_cgsnapshot(self, context: RequestContext, cgsnapshot_id: str) -> Answer:
        """Take a cgsnapshot away with its snapshots."""
        return self.change(context, "delete_cgsnapshot", cgsnapshot_id=cgsnapshot_id)

    def get_group(self, context: RequestContext, group_id: str) -> Answer:
        """Return a group with the ids of its volumes and cgsnapshots."""
        answer: Answer = self.call(context, "get_group", group_id=group_id)
        return answer

    def list_groups(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of groups. ``page``: filters, marker, limit, sort_keys, sort_dirs."""
        answer: list[Answer] = self.call(context, "list_groups", **page)
        return answer

    def get_cgsnapshot(self, context: RequestContext, cgsnapshot_id: str) -> Answer:
        """Return a cgsnapshot with the ids of its snapshots."""
        answer: Answer = self.call(context, "get_cgsnapshot", cgsnapshot_id=cgsnapshot_id)
        return answer

    def list_cgsnapshots(self, context: RequestContext, **page: Any) -> list[Answer]:
        """Return a page of cgsnapshots."""
        answer: list[Answer] = self.call(context, "list_cgsnapshots", **page)
        return answer

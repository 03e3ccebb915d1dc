# SPDX-License-Identifier: Apache-2.0
"""The verbs over consistency groups and their snapshots, as a table of contents.

A part of :class:`volmgr.manager.VolumeManager`; the verbs themselves are in :mod:`volmgr.operations.groups`,
:mod:`volmgr.operations.groups_from` and :mod:`volmgr.operations.cgsnapshots`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volmgr import validate
from volmgr.db import groups as rows
from volmgr.operations import cgsnapshots, groups, groups_from
from volmgr.readers import FILTERS
from volmgr.rpc.endpoint import answered, journalled
from volmgr.validate import optional, uuid

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.readers import Readers
    from volmgr.service import Worker

Answer = dict[str, Any]


def _listed(noun: str) -> dict[str, validate.Check]:
    allowed, keys = FILTERS[noun]
    return {
        "filters": optional(validate.filters(allowed)),
        "marker": optional(uuid),
        "limit": optional(validate.integer(1, validate.MAX_LIMIT)),
        "sort_keys": optional(validate.sort_list(*keys)),
        "sort_dirs": optional(validate.sort_list("asc", "desc")),
    }


class GroupVerbs:
    """Groups of volumes that are snapshotted at one instant."""

    worker: Worker
    readers: Readers

    @journalled
    def create_consistencygroup(self, context: RequestContext, group_id: str, **properties: Any) -> Answer:
        """Make an empty group. ``properties``: name, description, volume_types, host, availability_zone."""
        return self.worker.submit(context, groups.CreateGroup, {"group_id": group_id, **properties})

    @journalled
    def create_consistencygroup_from_src(
        self, context: RequestContext, group_id: str, cgsnapshot_id: str | None = None,
        source_group_id: str | None = None, **properties: Any,
    ) -> Answer:
        """Make a group with a volume for each member of a cgsnapshot, or of a group as it is at one instant."""
        arguments = {
            "group_id": group_id, "cgsnapshot_id": cgsnapshot_id, "source_group_id": source_group_id, **properties
        }
        return self.worker.submit(context, groups_from.CreateGroupFromSource, arguments)

    @journalled
    def update_consistencygroup(
        self, context: RequestContext, group_id: str, add_volumes: Any = None, remove_volumes: Any = None,
        name: str | None = None, description: str | None = None,
    ) -> Answer:
        """Add volumes to a group, take volumes out of it, rename it; what is None stays."""
        arguments = {"group_id": group_id, "add_volumes": add_volumes, "remove_volumes": remove_volumes,
                     "name": name, "description": description}
        return self.worker.submit(context, groups.UpdateGroup, arguments)

    @journalled
    def delete_consistencygroup(
        self, context: RequestContext, group_id: str, delete_volumes: bool = False
    ) -> Answer:
        """Take a group away, with ``delete_volumes`` its volumes, too; one that is gone already is success."""
        return self.worker.submit(
            context, groups.DeleteGroup, {"group_id": group_id, "delete_volumes": delete_volumes}
        )

    @journalled
    def create_cgsnapshot(
        self, context: RequestContext, cgsnapshot_id: str, *, group_id: str, name: str | None = None,
        description: str | None = None,
    ) -> Answer:
        """Keep the bytes of all members of a group as they are at one instant."""
        arguments = {"cgsnapshot_id": cgsnapshot_id, "group_id": group_id, "name": name, "description": description}
        return self.worker.submit(context, cgsnapshots.CreateCgSnapshot, arguments)

    @journalled
    def delete_cgsnapshot(self, context: RequestContext, cgsnapshot_id: str) -> Answer:
        """Take a cgsnapshot away with its snapshots; one that is gone already is success."""
        return self.worker.submit(context, cgsnapshots.DeleteCgSnapshot, {"cgsnapshot_id": cgsnapshot_id})

    @answered(group_id=uuid)
    def get_group(self, context: RequestContext, group_id: str) -> Answer:
        """Return a group with the ids of its volumes and cgsnapshots."""
        with self.worker.database.reader() as conn:
            return rows.group(conn, group_id, context.scope)

    @answered(**_listed("group"))
    def list_groups(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[Answer]:
        """Return a page of groups."""
        return self.readers.page("group", context, filters, marker, limit, sort_keys, sort_dirs)

    @answered(cgsnapshot_id=uuid)
    def get_cgsnapshot(self, context: RequestContext, cgsnapshot_id: str) -> Answer:
        """Return a cgsnapshot with the ids of its snapshots."""
        with self.worker.database.reader() as conn:
            return rows.cgsnapshot(conn, cgsnapshot_id, context.scope)

    @answered(**_listed("cgsnapshot"))
    def list_cgsnapshots(
        self, context: RequestContext, filters: Any = None, marker: Any = None, limit: Any = None,
        sort_keys: Any = None, sort_dirs: Any = None,
    ) -> list[Answer]:
        """Return a page of cgsnapshots."""
        return self.readers.page("cgsnapshot", context, filters, marker, limit, sort_keys, sort_dirs)

# SPDX-License-Identifier: Apache-2.0
"""The simulator's groups: several volumes changed or copied by one verb, copies all of one instant.

What makes objects makes all of them or none. All are whole under their building names before the first gets its own,
so a repeat after a crash either goes on with the renames or makes the whole set anew. What ends objects goes as far as
it can and tells for each member how far it came. Who belongs to a group is the caller's knowledge, not kept here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from volmgr import exception, names
from volmgr.drivers import making, members
from volmgr.drivers.interfaces import ConsistencyGroupVD
from volmgr.drivers.interfaces.groups import Updates
from volmgr.drivers.naming import missing
from volmgr.drivers.sim.base import SimBase
from volmgr.drivers.sim.faults import AFTER, BEFORE, BUILDING
from volmgr.types import ModelUpdate, Snapshot, Volume

LOG = logging.getLogger(__name__)
Resource = Volume | Snapshot


class SimGroups(ConsistencyGroupVD, SimBase, abstract=True):
    """Groups."""

    def create_consistencygroup(self, context: Any, group: Any) -> ModelUpdate:
        self._at("create_consistencygroup", BEFORE, identity(group))
        self._at("create_consistencygroup", AFTER, identity(group))
        return {"status": "available"}

    def update_consistencygroup(
        self,
        context: Any,
        group: Any,
        add_volumes: Sequence[Volume] | None = None,
        remove_volumes: Sequence[Volume] | None = None,
    ) -> tuple[ModelUpdate, Updates, Updates]:
        """Check that what is added is there; volumes whose status stays are not in the updates."""
        verb = "update_consistencygroup"
        self._at(verb, BEFORE, identity(group))
        added = self._failed(verb, add_volumes or (), self._check_present)
        removed = self._failed(verb, remove_volumes or (), lambda volume: None)
        self._at(verb, AFTER, identity(group))
        return _verdict(not added and not removed, "available", "error"), _told(added), _told(removed)

    def delete_consistencygroup(
        self, context: Any, group: Any, volumes: Sequence[Volume]
    ) -> tuple[ModelUpdate, Updates]:
        return self._end("delete_consistencygroup", identity(group), volumes)

    def delete_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        return self._end("delete_cgsnapshot", identity(cgsnapshot), snapshots)

    def create_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        pairs = [(snapshot, snapshot.volume_name) for snapshot in snapshots]
        for snapshot in snapshots:
            if self.store.size(snapshot.volume_name) is None:
                raise exception.VolumeNotFound(id=snapshot.volume_id)
        return self._copy_group("create_cgsnapshot", identity(cgsnapshot), pairs)

    def create_consistencygroup_from_src(
        self,
        context: Any,
        group: Any,
        volumes: Sequence[Volume],
        cgsnapshot: Any = None,
        snapshots: Sequence[Snapshot] | None = None,
        source_cg: Any = None,
        source_vols: Sequence[Volume] | None = None,
    ) -> tuple[ModelUpdate, Updates]:
        """Make ``volumes`` from the sources, the first from the first, and so on."""
        pairs = members.paired(volumes, snapshots, source_vols)
        for _volume, source in pairs:
            if self.store.size(source.name) is None:
                raise missing(source)
        named = [(volume, source.name) for volume, source in pairs]
        return self._copy_group("create_consistencygroup_from_src", identity(group), named)

    # --- all or none --------------------------------------------------------------------------------------------

    def _copy_group(
        self, verb: str, group_id: str, pairs: Sequence[tuple[Resource, str]]
    ) -> tuple[ModelUpdate, Updates]:
        self._at(verb, BEFORE, group_id)
        resources = [resource for resource, _source in pairs]
        for resource, source in pairs:
            if (self.store.size(source) or 0) > resource.size_bytes:
                raise exception.Invalid(f"{resource.id} is smaller than its source", field="size")
        if not self._begun(resources) and not self._copy_all(verb, group_id, pairs):
            return {"status": "error"}, [{"id": resource.id, "status": "error"} for resource in resources]
        for resource in resources:
            self.store.rename(names.building_name(resource.name_id), resource.name)
        updates = [{"id": resource.id, "status": "available", **self._more(resource)} for resource in resources]
        self._at(verb, AFTER, group_id)
        return {"status": "available"}, updates

    def _begun(self, resources: Sequence[Resource]) -> bool:
        """Return whether an earlier try made the whole set and came at least as far as its first rename.

        :raises AlreadyExists: some members are there, but not of such a set.
        """
        sizes = {item.name: self.store.size(item.name) for item in resources}
        for item in resources:
            if sizes[item.name] is None:
                sizes[item.name] = self.store.size(names.building_name(item.name_id))
        present = [item for item in resources if self.store.size(item.name) is not None]
        for item in present:
            making.expect(item.name, self.store.mark_of(item.name), making.mark())
        for item in present and resources:
            if sizes[item.name] != item.size_bytes:
                raise exception.AlreadyExists(resource="object", id=present[0].name)
        return bool(present)

    def _copy_all(self, verb: str, group_id: str, pairs: Sequence[tuple[Resource, str]]) -> bool:
        """Make the set; returns False, and leaves nothing, if a member failed."""
        resources = [resource for resource, _source in pairs]
        if self._failed(verb, resources, lambda item: None):
            return False
        self._check_room(sum(item.size_bytes for item in resources))
        self.store.copy_all([(source, names.building_name(item.name_id), item.size_bytes) for item, source in pairs])
        work = making.mark()
        for item in resources:
            self.store.mark(names.building_name(item.name_id), work)
        self._at(verb, BUILDING, group_id)
        if self._failed(verb, resources, lambda item: None, when=BUILDING):
            for item in resources:
                self.store.remove(names.building_name(item.name_id))
            return False
        return True

    def _more(self, resource: Resource) -> dict[str, Any]:
        if isinstance(resource, Snapshot) or resource.volume_type is None:
            return {}
        return self._made(resource) or {}

    # --- as far as it goes --------------------------------------------------------------------------------------

    def _end(self, verb: str, group_id: str, members: Sequence[Resource]) -> tuple[ModelUpdate, Updates]:
        self._at(verb, BEFORE, group_id)
        failed = {item["id"] for item in self._failed(verb, members, self._to_trash, bad="error_deleting")}
        self._at(verb, AFTER, group_id)
        updates = [{"id": item.id, "status": "error_deleting" if item.id in failed else "deleted"} for item in members]
        return _verdict(not failed, "deleted", "error_deleting"), updates

    def _to_trash(self, member: Resource) -> None:
        self._end_replica(member)
        self.store.remove(names.building_name(member.name_id))
        self.store.rename(member.name, names.trash_name(member.name_id))

    def _check_present(self, volume: Resource) -> None:
        if self.store.size(volume.name) is None:
            raise missing(volume)

    def _failed(
        self,
        verb: str,
        members: Iterable[Any],
        act: Callable[[Any], None],
        when: str = BEFORE,
        bad: str = "error",
    ) -> list[dict[str, Any]]:
        """Let ``act`` have its way with each member; returns updates of those that it failed for."""
        failed = []
        for member in members:
            try:
                self._member(verb, when, member.id)
                act(member)
            except exception.VolmgrError as error:
                LOG.warning("%s failed for its member %s: %s", verb, member.id, error)
                failed.append({"id": member.id, "status": bad})
        return failed


def identity(group: Any) -> str:
    """Return the id of a group or group snapshot, whatever record it is."""
    found = group["id"] if hasattr(group, "__getitem__") else getattr(group, "id", "")
    return str(found)


def _verdict(good: bool, status: str, bad: str) -> dict[str, Any]:
    return {"status": status if good else bad}


def _told(updates: list[dict[str, Any]]) -> Updates:
    return updates or None

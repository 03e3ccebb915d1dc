# SPDX-License-Identifier: Apache-2.0
"""The simulator's objects that are nobody's yet, and those that are let go: managing, unmanaging, listing.

A foreign object has any name that is not one of ours; ``SOURCE@NAME`` is a snapshot of the foreign volume SOURCE. What
is let go gets a name that is not ours, so an id used again cannot take old bytes for its own. This module knows no
database: which objects are managed is told by the caller, or by the form of their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from volmgr import exception, names
from volmgr.drivers import making
from volmgr.drivers.interfaces import ManageableSnapshotsVD, ManageableVD
from volmgr.drivers.naming import describe
from volmgr.drivers.paging import page
from volmgr.drivers.sim.base import SimBase
from volmgr.drivers.sim.faults import AFTER, BEFORE, BUILDING
from volmgr.drivers.sim.store import is_usable
from volmgr.types import GiB, ModelUpdate, Snapshot, Volume

SNAPSHOT_MARK = "@"
SOURCE_NAME = "source-name"
MANAGED = "It is managed already"
OURS = "It bears a name of ours; the audit knows of it"


class SimManage(ManageableVD, ManageableSnapshotsVD, SimBase, abstract=True):
    """Storage that exists already becomes a volume or snapshot, and back."""

    def put_foreign(self, name: str, size_bytes: int, data: bytes = b"") -> None:
        """Put an object that is not ours into the store, as an operator would, with ``data`` at its beginning.

        :raises Invalid: the name is one of ours.
        """
        if _is_ours(name) or not is_usable(name):
            raise exception.Invalid(f"{name!r} is a name of ours, or can be nobody's", field="name")
        self.store.create(name, size_bytes)
        if data:
            self.store.write(name, 0, data)

    # --- volumes ------------------------------------------------------------------------------------------------

    def manage_existing(self, volume: Volume, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        self._at("manage_existing", BEFORE, volume.id)
        wanted = (volume.volume_type.extra_specs if volume.volume_type else {}).get("volume_backend_name")
        if wanted is not None and "<" not in wanted and wanted != self.backend_name:
            raise exception.ManageExistingVolumeTypeMismatch(reason=f"it wants the backend {wanted}")
        self._adopt("manage_existing", volume, existing_ref)
        return self._made(volume)

    def manage_existing_get_size(self, volume: Volume, existing_ref: Mapping[str, Any]) -> int:
        self._at("manage_existing_get_size", BEFORE, volume.id)
        return _rounded(self._reference(existing_ref, "volume")[1])

    def unmanage(self, volume: Volume) -> None:
        self._let_go("unmanage", volume)

    def get_manageable_volumes(
        self,
        cinder_volumes: Sequence[Volume],
        marker: str | None,
        limit: int | None,
        offset: int | None,
        sort_keys: Sequence[str] | None,
        sort_dirs: Sequence[str] | None,
    ) -> list[dict[str, Any]]:
        self._at("get_manageable_volumes", BEFORE, "")
        known = {volume.name: volume.id for volume in cinder_volumes}
        found = [_entry(name, size, known) for name, size in self.store.entries() if _kind(name) == "volume"]
        return page(found, marker, limit, offset, sort_keys, sort_dirs)

    # --- snapshots ----------------------------------------------------------------------------------------------

    def manage_existing_snapshot(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        self._at("manage_existing_snapshot", BEFORE, snapshot.id)
        self._adopt("manage_existing_snapshot", snapshot, existing_ref)
        return None

    def manage_existing_snapshot_get_size(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> int:
        self._at("manage_existing_snapshot_get_size", BEFORE, snapshot.id)
        return _rounded(self._reference(existing_ref, "snapshot")[1])

    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        self._let_go("unmanage_snapshot", snapshot)

    def get_manageable_snapshots(
        self,
        cinder_snapshots: Sequence[Snapshot],
        marker: str | None,
        limit: int | None,
        offset: int | None,
        sort_keys: Sequence[str] | None,
        sort_dirs: Sequence[str] | None,
    ) -> list[dict[str, Any]]:
        self._at("get_manageable_snapshots", BEFORE, "")
        known = {snapshot.name: snapshot.id for snapshot in cinder_snapshots}
        sources = {snapshot.name: snapshot.volume_name for snapshot in cinder_snapshots}
        found = []
        for name, size in self.store.entries():
            if _kind(name) == "snapshot":
                source = sources.get(name, name.rpartition(SNAPSHOT_MARK)[0])
                found.append({**_entry(name, size, known), "source_reference": {SOURCE_NAME: source} if source else {}})
        return page(found, marker, limit, offset, sort_keys, sort_dirs)

    # --- both ---------------------------------------------------------------------------------------------------

    def _reference(self, existing_ref: Mapping[str, Any], kind: str) -> tuple[str, int]:
        """Return (name, size in bytes) of the object that a reference names."""
        name = _name_in(existing_ref)
        size = self.store.size(name)
        if size is None:
            raise exception.ManageExistingInvalidReference(existing_ref=name)
        if _is_ours(name):
            raise exception.ManageExistingAlreadyManaged(existing_ref=name)
        if _kind(name) != kind:
            raise exception.ManageExistingInvalidReference(f"{name} is not a {kind}", existing_ref=name)
        return name, size

    def _adopt(self, verb: str, resource: Volume | Snapshot, existing_ref: Mapping[str, Any]) -> None:
        kind = "snapshot" if isinstance(resource, Snapshot) else "volume"
        name, present = _name_in(existing_ref), self.store.size(resource.name)
        past = present == resource.size_bytes and name != resource.name and self.store.size(name) is None
        if past and not making.first():
            return  # an earlier try came as far as the rename, which was its last act
        name, size = self._reference(existing_ref, kind)
        if present is not None:
            raise exception.ObjectExists(id=resource.name)
        if size > resource.size_bytes:
            raise exception.Invalid(f"{name} has more than {resource.size} GiB", field="size")
        if size < resource.size_bytes:
            self._check_room(resource.size_bytes - size)
            self.store.resize(name, resource.size_bytes)
        self._at(verb, BUILDING, resource.id)
        self.store.mark(name, making.mark())
        self.store.adopt(name, resource.name)
        self._at(verb, AFTER, resource.id)

    def _let_go(self, verb: str, resource: Volume | Snapshot) -> None:
        self._at(verb, BEFORE, resource.id)
        kind = "snapshot" if isinstance(resource, Snapshot) else "volume"
        if not making.spared(self.store.mark_of(resource.name)):
            self.store.adopt(resource.name, names.unmanaged_name(kind, resource.name_id))
        self._end_replica(resource)
        self.store.remove(names.building_name(resource.name_id))
        self._at(verb, AFTER, resource.id)


def _name_in(existing_ref: Mapping[str, Any]) -> str:
    name = existing_ref.get(SOURCE_NAME) if isinstance(existing_ref, Mapping) else None
    if not isinstance(name, str) or not is_usable(name):
        raise exception.ManageExistingInvalidReference(
            "The reference has no usable source-name", hint='Give {"source-name": NAME}', existing_ref=str(name or "")
        )
    return name


def _is_ours(name: str) -> bool:
    return describe(name, 0) is not None or names.parse_replica_mark(name) is not None


def _kind(name: str) -> str | None:
    """Return the kind of a whole object, None for what is on its way to or from one."""
    ours = names.parse_object_name(name) or names.parse_unmanaged_name(name)
    if ours is not None:
        return ours.kind
    if _is_ours(name):
        return None
    return "snapshot" if SNAPSHOT_MARK in name else "volume"


def _rounded(size_bytes: int) -> int:
    return max(1, -(-size_bytes // GiB))


def _entry(name: str, size_bytes: int, known: Mapping[str, str]) -> dict[str, Any]:
    reason = MANAGED if name in known else OURS if _is_ours(name) else None
    return {
        "reference": {SOURCE_NAME: name},
        "size": _rounded(size_bytes),
        "safe_to_manage": reason is None,
        "reason_not_safe": reason,
        "cinder_id": known.get(name),
        "extra_info": None,
    }

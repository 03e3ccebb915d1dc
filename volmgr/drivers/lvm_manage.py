# SPDX-License-Identifier: Apache-2.0
"""Logical volumes that were there before: listed, taken over by renaming, let go. It knows no target and no database.

An object that is managed has the tag ``volmgr.object=…``; one that was let go has lost it and can be taken over again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from volmgr import exception, names
from volmgr.drivers.lvm_setup import LVMSetup, busy
from volmgr.tools import lvm_errors as lvm
from volmgr.tools.lvm_report import LogicalVolume, LvKind, Report
from volmgr.types import GiB, ModelUpdate, Snapshot, Volume

_OBJECT_TAG = f"{names.LV_TAG_PREFIX}object="
_VOLUME_KINDS = (LvKind.PLAIN, LvKind.ORIGIN, LvKind.THIN)
_SORT_KEYS = ("size", "reference")


class LVMManaging(LVMSetup, abstract=True):
    """Taking over and letting go."""

    def manage_existing(self, volume: Volume, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        self._take(volume, existing_ref, "volume")
        return None

    def manage_existing_snapshot(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        self._take(snapshot, existing_ref, "snapshot")
        return None

    def _take(self, resource: Volume | Snapshot, existing_ref: Mapping[str, Any], kind: str) -> None:
        source = _source_name(existing_ref)
        found = self._look()
        tags = names.lv_tags(resource.name_id, kind, resource.id)
        if source not in found.volumes and tags[0] in _tags(found, resource.name):
            return
        if source not in found.volumes and resource.name in found.volumes:
            # An earlier try was broken off between the renaming and the tags.
            self.vg.retag(resource.name, add=tags)
            return
        present = self._manageable(found, existing_ref, kind)
        if isinstance(resource, Snapshot) and present.origin != resource.volume_name:
            raise exception.ManageExistingInvalidReference(
                f"{source} is not a snapshot of {resource.volume_name}", existing_ref=existing_ref
            )
        if present.attributes.is_open:
            raise busy(resource)
        if source != resource.name:
            self.vg.rename(source, resource.name)
        self.vg.retag(resource.name, add=tags)
        if not present.active:
            self.vg.activate(resource.name)

    def manage_existing_get_size(self, volume: Volume, existing_ref: Mapping[str, Any]) -> int:
        return self.manage_existing_object_get_size(volume, existing_ref, "volume")

    def manage_existing_snapshot_get_size(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> int:
        return self.manage_existing_object_get_size(snapshot, existing_ref, "snapshot")

    def manage_existing_object_get_size(
        self, existing_object: Volume | Snapshot, existing_ref: Mapping[str, Any], object_type: str
    ) -> int:
        """Return the size in GiB, rounded up, of the logical volume that ``existing_ref`` names.

        :param existing_ref: {'source-name': name of the logical volume}. :param object_type: volume or snapshot.
        :raises ManageExistingInvalidReference: it names none that can be managed.
        """
        return gibibytes(self._manageable(self._look(), existing_ref, object_type).size_bytes)

    def _manageable(self, found: Report, existing_ref: Mapping[str, Any], kind: str) -> LogicalVolume:
        present = found.volumes.get(_source_name(existing_ref))
        reason = "there is no such logical volume" if present is None else _unfit(present, kind, self.pool)
        if present is not None and any(tag.startswith(_OBJECT_TAG) for tag in present.tags):
            raise exception.ManageExistingAlreadyManaged(existing_ref=dict(existing_ref))
        if present is None or reason is not None:
            raise exception.ManageExistingInvalidReference(
                f"{_source_name(existing_ref)} of {self.vg.name} cannot be managed: {reason}",
                hint=f"See: lvs {self.vg.name}",
                existing_ref=dict(existing_ref),
            )
        return present

    def unmanage(self, volume: Volume) -> None:
        """Let go of a volume: it keeps its name and bytes, and loses our tags."""
        self._let_go(volume, "volume")

    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        """Let go of a snapshot: it keeps its name and bytes, and loses our tags."""
        self._let_go(snapshot, "snapshot")

    def _let_go(self, resource: Volume | Snapshot, kind: str) -> None:
        with contextlib.suppress(lvm.LvNotFound):  # what is not there need not be let go
            self.vg.retag(resource.name, remove=names.lv_tags(resource.name_id, kind, resource.id))

    # --- lists --------------------------------------------------------------------------------------------------

    def get_manageable_volumes(
        self,
        cinder_volumes: Sequence[Volume],
        marker: str | None,
        limit: int | None,
        offset: int | None,
        sort_keys: Sequence[str] | None,
        sort_dirs: Sequence[str] | None,
    ) -> list[dict[str, Any]]:
        """Return what could be managed; one process, however many there are."""
        managed = {volume.name: volume.id for volume in cinder_volumes}
        entries = self._entries("volume", managed)
        return page(entries, marker, limit, offset, sort_keys, sort_dirs)

    def get_manageable_snapshots(
        self,
        cinder_snapshots: Sequence[Snapshot],
        marker: str | None,
        limit: int | None,
        offset: int | None,
        sort_keys: Sequence[str] | None,
        sort_dirs: Sequence[str] | None,
    ) -> list[dict[str, Any]]:
        """Return what could be managed, each with ``source_reference``; one process, however many there are."""
        managed = {snapshot.name: snapshot.id for snapshot in cinder_snapshots}
        entries = self._entries("snapshot", managed)
        return page(entries, marker, limit, offset, sort_keys, sort_dirs)

    def _entries(self, kind: str, managed: Mapping[str, str]) -> list[dict[str, Any]]:
        entries = []
        for item in self._look().volumes.values():
            if _unfit(item, kind, self.pool) is not None or names.parse_trash_name(item.name):
                continue
            reason = None
            if item.name in managed:
                reason = "it is managed already"
            elif item.attributes.is_open:
                reason = "it is in use"
            elif names.parse_building_name(item.name):
                reason = "it is being made"
            entry = {
                "reference": {"source-name": item.name},
                "size": gibibytes(item.size_bytes),
                "safe_to_manage": reason is None,
                "reason_not_safe": reason,
                "cinder_id": managed.get(item.name),
                "extra_info": None,
            }
            if kind == "snapshot":
                entry["source_reference"] = {"source-name": item.origin}
            entries.append(entry)
        return entries


def gibibytes(size_bytes: int) -> int:
    """Return a size in GiB, rounded up."""
    return -(-size_bytes // GiB)


def page(
    entries: list[dict[str, Any]],
    marker: Any,
    limit: int | None,
    offset: int | None,
    sort_keys: Sequence[str] | None,
    sort_dirs: Sequence[str] | None,
) -> list[dict[str, Any]]:
    """Return a page of ``entries``.

    :param marker: the reference, or its name, of the last entry of the page before; None for the first page.
    :param sort_keys: of ``size`` and ``reference``; by reference without them. :param sort_dirs: asc or desc, by key.
    :raises Invalid: a key, a direction or the marker is none.
    """
    keys = list(sort_keys or ["reference"])
    directions = [*(sort_dirs or ()), *["asc"] * len(keys)]
    for key, direction in reversed(list(zip(keys, directions, strict=False))):
        if key not in _SORT_KEYS:
            raise exception.Invalid(f"Lists can be sorted by {' and '.join(_SORT_KEYS)}", field="sort_keys")
        if direction not in ("asc", "desc"):
            raise exception.Invalid("A direction is asc or desc", field="sort_dirs")
        entries = sorted(entries, key=lambda item, key=key: _sort_value(item, key), reverse=direction == "desc")  # type: ignore[misc]
    start = 0
    if marker is not None:
        name = marker.get("source-name") if isinstance(marker, Mapping) else marker
        places = [index for index, item in enumerate(entries) if item["reference"]["source-name"] == name]
        if not places:
            raise exception.Invalid("The marker is none of the entries", field="marker")
        start = places[0] + 1
    start += offset or 0
    return entries[start : None if limit is None else start + limit]


def _sort_value(entry: Mapping[str, Any], key: str) -> Any:
    return entry["reference"]["source-name"] if key == "reference" else entry[key]


def _source_name(existing_ref: Mapping[str, Any]) -> str:
    name = existing_ref.get("source-name") if isinstance(existing_ref, Mapping) else None
    if not isinstance(name, str) or not name:
        raise exception.ManageExistingInvalidReference(
            "The reference has no source-name", hint="Give {'source-name': NAME_OF_THE_LOGICAL_VOLUME}"
        )
    return name


def _tags(found: Report, name: str) -> frozenset[str]:
    present = found.volumes.get(name)
    return present.tags if present is not None else frozenset()


def _unfit(item: LogicalVolume, kind: str, pool: str) -> str | None:
    """Return why a logical volume cannot be a volume or snapshot, None if it can."""
    if kind == "snapshot":
        return None if item.origin and (item.thin or item.thick_snapshot) else "it is not a snapshot"
    if item.name == pool or item.attributes.kind not in _VOLUME_KINDS:
        return "it is a snapshot, a pool or a part of one"
    parsed = names.parse_object_name(item.name)
    return "it is a snapshot" if parsed is not None and parsed.kind == "snapshot" else None

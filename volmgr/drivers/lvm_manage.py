# SPDX-License-Identifier: Apache-2.0
"""Logical volumes that were there before: listed, taken over by renaming, let go. It knows no target and no database.

An object that is managed has the tag ``volmgr.object=…``; one that was let go has lost it, bears a name that is not
ours and can be taken over again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from volmgr import exception, names
from volmgr.drivers import making
from volmgr.drivers.lvm_grow import LVMGrowing
from volmgr.drivers.paging import page
from volmgr.tools import lvm_errors as lvm
from volmgr.tools.lvm_report import LogicalVolume, LvKind, Permission, Report
from volmgr.types import GiB, ModelUpdate, Snapshot, Volume

_OBJECT_TAG = f"{names.LV_TAG_PREFIX}object="
VOLUME_KINDS = (
    LvKind.PLAIN,
    LvKind.ORIGIN,
    LvKind.THIN,
    LvKind.RAID,
    LvKind.RAID_UNSYNCED,
    LvKind.MIRRORED,
    LvKind.MIRRORED_UNSYNCED,
)


class LVMManaging(LVMGrowing, abstract=True):
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
        taken = found.volumes.get(resource.name)
        if taken is not None and source not in found.volumes and not making.first():
            # An earlier try came past the renaming.
            if not taken.tags.issuperset(tags):
                self.vg.retag(resource.name, add=tags)
            return
        present = self._manageable(found, existing_ref, kind)
        if taken is not None and source != resource.name:
            raise exception.ObjectExists(id=resource.name)
        if isinstance(resource, Snapshot) and present.origin != resource.volume_name:
            raise exception.ManageExistingInvalidReference(
                f"{source} is not a snapshot of {resource.volume_name}", existing_ref=dict(existing_ref)
            )
        self._refuse_used(present)
        self._fit(found, present, resource)
        if source != resource.name:
            self.vg.rename(source, resource.name)
        self.vg.retag(resource.name, add=tags)
        if present.attributes.skips_activation:
            self.vg.keep_active(resource.name)
        if not present.active:
            self.vg.activate(resource.name)

    def _refuse_used(self, present: LogicalVolume) -> None:
        if self._is_open(present.name):
            raise exception.Busy(
                f"{self.vg.name}/{present.name} is in use, so it cannot be managed",
                hint=f"End its use, which is shown by: fuser -v {self.vg.path(present.name)}; dmsetup ls --tree",
                resource="device",
            )

    def _fit(self, found: Report, present: LogicalVolume, resource: Volume | Snapshot) -> None:
        """Bring what is managed to whole GiB; what is new of it reads as zeros."""
        wanted = found.rounded(resource.size_bytes)
        if present.thick_snapshot or present.size_bytes == wanted:
            return
        if present.size_bytes > wanted:
            raise exception.Invalid(f"{present.name} has more than {resource.size} GiB", field="size")
        if present.thin:
            self.vg.extend(present.name, wanted)
        else:
            self._grow_thick(found, present, resource.name_id, wanted)

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
        if present is not None and any(tag.startswith(_OBJECT_TAG) for tag in present.tags):
            raise exception.ManageExistingAlreadyManaged(existing_ref=dict(existing_ref))
        reason = "there is no such logical volume" if present is None else _unfit(present, kind, self.pool)
        if present is None or reason is not None:
            raise exception.ManageExistingInvalidReference(
                f"{_source_name(existing_ref)} of {self.vg.name} cannot be managed: {reason}",
                hint=f"See: lvs {self.vg.name}",
                existing_ref=dict(existing_ref),
            )
        return present

    def unmanage(self, volume: Volume) -> None:
        """Let go of a volume: it keeps its bytes, loses our tags, and is called ``unmanaged-volume-<id>``."""
        self._let_go(volume, "volume")

    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        """Let go of a snapshot: it keeps its bytes, loses our tags, and is called ``unmanaged-snapshot-<id>``."""
        self._let_go(snapshot, "snapshot")

    def _let_go(self, resource: Volume | Snapshot, kind: str) -> None:
        free = names.unmanaged_name(kind, resource.name_id)
        if making.undoing():
            there = self._look().volumes.get(resource.name)
            # What is taken over has no mark of a work that made it.
            if there is not None and names.lv_work(there.tags) is not None:
                return
        with contextlib.suppress(lvm.LvNotFound):  # an earlier try has renamed it
            self.vg.rename(resource.name, free)
        present = self._look().volumes.get(free)
        tags = present.tags if present is not None else ()  # what is not there need not be let go
        if ours := [tag for tag in tags if tag.startswith(names.LV_TAG_PREFIX)]:
            self.vg.retag(free, remove=ours)

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
        return [
            self._entry(item, kind, managed)
            for item in self._look().volumes.values()
            if _unfit(item, kind, self.pool) is None and not names.parse_trash_name(item.name)
            and not names.parse_point_name(item.name)
        ]

    @staticmethod
    def _entry(item: LogicalVolume, kind: str, managed: Mapping[str, str]) -> dict[str, Any]:
        reason = None
        if item.name in managed or any(tag.startswith(_OBJECT_TAG) for tag in item.tags):
            reason = "it is managed already"
        elif names.parse_building_name(item.name):
            reason = "it is being made"
        elif item.attributes.is_open:
            reason = "it is in use"
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
        return entry


def gibibytes(size_bytes: int) -> int:
    """Return a size in GiB, rounded up."""
    return -(-size_bytes // GiB)


def _source_name(existing_ref: Mapping[str, Any]) -> str:
    name = existing_ref.get("source-name") if isinstance(existing_ref, Mapping) else None
    if not isinstance(name, str) or not name:
        raise exception.ManageExistingInvalidReference(
            "The reference has no source-name", hint="Give {'source-name': NAME_OF_THE_LOGICAL_VOLUME}"
        )
    return name


def _unfit(item: LogicalVolume, kind: str, pool: str) -> str | None:
    """Return why a logical volume cannot be a volume or snapshot, None if it can."""
    ours = names.parse_object_name(item.name) or names.parse_unmanaged_name(item.name)
    if kind == "snapshot":
        if not item.origin or not (item.thin or item.thick_snapshot) or (ours is not None and ours.kind == "volume"):
            return "it is not a snapshot"
        return "it has overflowed: its bytes are lost" if item.overflowed else None
    if item.name == pool or item.attributes.kind not in VOLUME_KINDS:
        return "it is a snapshot, a pool or a part of one"
    if item.attributes.permission is not Permission.WRITEABLE:
        return f"it is read-only; to change that: lvchange -prw {item.name}"
    return "it is a snapshot" if ours is not None and ours.kind == "snapshot" else None

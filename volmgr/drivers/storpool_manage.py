# SPDX-License-Identifier: Apache-2.0
"""StorPool volumes and snapshots that were there before: listed, taken over, let go. It knows no connection.

Taking over is one call: the object gets our name, our tags and, a volume, whole GiB. What is let go keeps its bytes,
loses our tags and gets a name that is not ours, so an id used again cannot take old bytes for its own. Objects are
named by their global id meanwhile, so a request that arrives late hits nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from volmgr import exception, names
from volmgr.drivers import making
from volmgr.drivers.paging import page
from volmgr.drivers.storpool_copy import OWN_TAGS, WORK_TAG, global_name, is_ours, marked, work_of
from volmgr.drivers.storpool_setup import TEMPLATE_SPEC
from volmgr.drivers.storpool_volumes import StorPoolVolumes
from volmgr.types import GiB, ModelUpdate, Snapshot, Volume

SOURCE_NAME = "source-name"
#: What the API takes as a name that somebody gave (``VolumeName`` of package storpool, sptypes).
_GIVEN = re.compile(r"\A#?[A-Za-z0-9_.:-]{1,199}\Z")


class StorPoolManaging(StorPoolVolumes, abstract=True):
    """Storage that exists already becomes a volume or snapshot, and back."""

    def manage_existing(self, volume: Volume, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        """Take over the volume of the cluster that ``{'source-name': NAME}`` names; it grows to whole GiB.

        :raises Busy: somebody has it attached.
        """
        self._take("volume", volume, existing_ref)
        return None

    def manage_existing_snapshot(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        """Take over the snapshot of the cluster that ``{'source-name': NAME}`` names.

        :raises Busy: somebody has it attached.
        """
        self._take("snapshot", snapshot, existing_ref)
        return None

    def manage_existing_get_size(self, volume: Volume, existing_ref: Mapping[str, Any]) -> int:
        return _gibibytes(self._manageable("volume", existing_ref)["size"])

    def manage_existing_snapshot_get_size(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> int:
        return _gibibytes(self._manageable("snapshot", existing_ref)["size"])

    def unmanage(self, volume: Volume) -> None:
        """Let go of a volume: it is called ``unmanaged-volume-<id>`` from then on."""
        self._let_go("volume", volume)

    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        """Let go of a snapshot: it is called ``unmanaged-snapshot-<id>`` from then on."""
        self._let_go("snapshot", snapshot)

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
        """Return what could be managed; two calls, however many there are."""
        known = {volume.name: volume.id for volume in cinder_volumes}
        used = {item["globalId"] for item in self.api.attachments() if "globalId" in item}
        entries = [self._entry(item, known, used) for item in self.api.volumes()]
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
        """Return what could be managed, each with ``source_reference``; two calls, however many there are."""
        known = {snapshot.name: snapshot.id for snapshot in cinder_snapshots}
        used = {item["globalId"] for item in self.api.attachments() if "globalId" in item}
        entries = []
        for item in self.api.snapshots():
            if _is_given(item):
                source = {SOURCE_NAME: self._shown(str(item["onVolume"]))}
                entries.append({**self._entry(item, known, used), "source_reference": source})
        return page(entries, marker, limit, offset, sort_keys, sort_dirs)

    def _entry(self, item: Mapping[str, Any], known: Mapping[str, str], used: set[str]) -> dict[str, Any]:
        name, reason = self._shown(str(item["name"])), None
        if name in known or is_ours(item):
            reason = "it is managed already"
        elif item["globalId"] in used:
            reason = "it is attached"
        elif item.get("onVolume") is not None and item["size"] % GiB:
            reason = "its size is not whole GiB, and a snapshot cannot grow"
        return {
            "reference": {SOURCE_NAME: name},
            "size": _gibibytes(item["size"]),
            "safe_to_manage": reason is None,
            "reason_not_safe": reason,
            "cinder_id": known.get(name),
            "extra_info": None,
        }

    def _shown(self, name: str) -> str:
        """Return the name under which callers know an object: ours have the one that all drivers give them."""
        parsed = names.parse_storpool_name(self.config.prefix, name)
        return names.object_name(parsed.kind, parsed.object_id) if parsed and parsed.kind in names.KINDS else name

    # --- taking over --------------------------------------------------------------------------------------------

    def _look(self, kind: str, name: str) -> dict[str, Any] | None:
        return self.api.snapshot(name) if kind == "snapshot" else self.api.volume(name)

    def _manageable(self, kind: str, existing_ref: Mapping[str, Any]) -> dict[str, Any]:
        """Return what StorPool says of the object that a reference names.

        :raises ManageExistingInvalidReference: it names none. :raises ManageExistingAlreadyManaged: it is ours.
        """
        source = _source_name(existing_ref)
        ours = names.parse_object_name(source)
        present = self._look(kind, self._name(ours.kind, ours.object_id)) if ours and ours.kind == kind else None
        present = present or self._look(kind, source)
        if present is not None and is_ours(present):
            raise exception.ManageExistingAlreadyManaged(existing_ref=source)
        if present is None or (kind == "snapshot" and not _is_given(present)):
            raise exception.ManageExistingInvalidReference(
                f"StorPool has no {kind} {source} that can be managed",
                hint=f"See: storpool {kind} list",
                existing_ref=source,
            )
        return present

    def _take(self, kind: str, resource: Volume | Snapshot, existing_ref: Mapping[str, Any]) -> None:
        name, work = self.storpool_name(resource), making.mark()
        source, own = _source_name(existing_ref), self._look(kind, name)
        past = own is not None and work_of(own) == work and not making.first()
        if past and (source == name or self._look(kind, source) is None):
            return  # an earlier try came as far as the one call
        present = self._manageable(kind, existing_ref)
        itself = global_name(present)
        if own is not None and global_name(own) != itself:
            raise exception.ObjectExists(id=resource.name)
        self._check_fit(present, resource, source)
        if any(item.get("globalId") == present["globalId"] for item in self.api.attachments()):
            raise exception.Busy(
                f"The {kind} {source} is attached, so it cannot be managed",
                hint=f"See who has it: storpool attach list | grep {source}",
                resource=kind,
            )
        data: dict[str, Any] = {"tags": marked(work)}
        if present["name"] != name:
            data["rename"] = name
        if present["size"] != resource.size_bytes:
            data["size"] = resource.size_bytes
        self._change_itself(kind, itself, data)

    def _check_fit(self, present: Mapping[str, Any], resource: Volume | Snapshot, source: str) -> None:
        """Return if an object can be that of ``resource``.

        :raises Invalid: it cannot.
        """
        size, wanted = int(present["size"]), resource.size_bytes
        if size > wanted or (size < wanted and isinstance(resource, Snapshot)):
            raise exception.Invalid(f"{source} has {size} bytes, not {resource.size} GiB", field="size")
        if isinstance(resource, Snapshot):
            origin = self._name("volume", resource.volume.name_id if resource.volume else resource.volume_id)
            if present["onVolume"] != origin:
                raise exception.ManageExistingInvalidReference(
                    f"{source} is not a snapshot of {origin}", existing_ref=source
                )
            return
        specs = resource.volume_type.get("extra_specs") if resource.volume_type is not None else None
        template = (specs or {}).get(TEMPLATE_SPEC)
        if template and template != present["templateName"]:
            raise exception.ManageExistingVolumeTypeMismatch(
                reason=f"it has the template {present['templateName'] or 'none'}, the type {template}",
                hint=f"Manage it without a type, then: volmgr volume retype {resource.id} TYPE",
            )

    def _let_go(self, kind: str, resource: Volume | Snapshot) -> None:
        present = self._look(kind, self.storpool_name(resource))
        if present is None or making.spared(work_of(present)):
            return
        free = names.unmanaged_name(kind, resource.name_id)
        data = {"rename": free, "tags": dict.fromkeys((*OWN_TAGS, WORK_TAG), "")}
        try:
            self._change_itself(kind, global_name(present), data)
        except (exception.Conflict, exception.BackendDown, exception.Invalid) as error:
            # The name of that refusal is not public: what counts is what is there.
            if self._look(kind, free) is None:
                raise
            raise exception.ObjectExists(id=free) from error

    def _change_itself(self, kind: str, itself: str, data: Mapping[str, Any]) -> None:
        """Change a volume or snapshot that is known by its global id.

        :param data: what is to be so: ``rename``, ``size``, ``tags``.
        """

        def settled() -> bool:
            found = self._look(kind, itself)
            if found is None:
                return False
            tags = {key: value for key, value in (found.get("tags") or {}).items() if value}
            wanted = {**tags, **data["tags"]}
            return (
                found["name"] == data.get("rename", found["name"])
                and found["size"] == data.get("size", found["size"])
                and tags == {key: value for key, value in wanted.items() if value}
            )

        if kind == "snapshot":
            self.api.change(
                f"SnapshotUpdate {itself}", lambda client: client.snapshot_update(itself, dict(data)), settled
            )
        else:
            self.api.change(f"VolumeUpdate {itself}", lambda client: client.volume_update(itself, dict(data)), settled)


def _gibibytes(size_bytes: int) -> int:
    return -(-int(size_bytes) // GiB)


def _is_given(item: Mapping[str, Any]) -> bool:
    """Return whether a snapshot has a name that somebody gave it, and is not on its way out."""
    return not (item.get("deleted") or item.get("autoName") or item.get("transient"))


def _source_name(existing_ref: Mapping[str, Any]) -> str:
    name = existing_ref.get(SOURCE_NAME) if isinstance(existing_ref, Mapping) else None
    if not isinstance(name, str) or not _GIVEN.match(name):
        raise exception.ManageExistingInvalidReference(
            "The reference has no usable source-name",
            hint="Give {'source-name': NAME_IN_STORPOOL}",
            existing_ref=str(name or ""),
        )
    return name

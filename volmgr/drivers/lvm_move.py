# SPDX-License-Identifier: Apache-2.0
"""Logical volumes that change their place: to another group of this host, to their old name, or made from an image.

Two groups of one host need no target between them: the bytes go from device to device. It knows no target and no
database.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from volmgr import exception, names
from volmgr.drivers.lvm_build import LVMBuilding, tags_of
from volmgr.drivers.lvm_setup import silent
from volmgr.drivers.lvm_trash import LVMTrash
from volmgr.drivers.naming import missing
from volmgr.tools import lvm_errors as lvm
from volmgr.types import GiB, ModelUpdate, Volume

LOG = logging.getLogger(__name__)

DRIVER_NAME = "LVMVolumeDriver"
#: An image that is kept in a volume, as image stores write it: cinder://VOLUME or cinder://STORE/VOLUME.
_IMAGE = re.compile(r"\Acinder://(?:[^/]+/)?([^/]+)\Z")


@dataclass(frozen=True)
class Place:
    """Where a backend of this driver keeps its volumes, and how."""

    host: str
    group: str
    thin: bool
    mirrors: int

    def __str__(self) -> str:
        kind = "thin" if self.thin else "default"
        return f"{DRIVER_NAME}:{self.host}:{self.group}:{kind}:{self.mirrors}"

    @classmethod
    def parse(cls, text: object) -> Place | None:
        """Return what a backend's ``location_info`` says, None for another driver's."""
        words = text.split(":") if isinstance(text, str) else []
        if len(words) != 5 or words[0] != DRIVER_NAME or words[3] not in ("thin", "default") or not words[4].isdigit():
            return None
        return cls(words[1], words[2], words[3] == "thin", int(words[4]))


class LVMMoving(LVMBuilding, LVMTrash, abstract=True):
    """Moving."""

    @property
    def place(self) -> Place:
        """Where this backend's volumes are."""
        host = names.parse_host(self.host).host if self.host else "localhost"
        return Place(host, self.vg.name, self.thin, self.mirrors)

    def _elsewhere(self, place: Place) -> Self:
        """Return a driver on another group, for work on storage only."""
        group = self.vg.sibling(place.group)
        there = type(self)(group, configuration=self.configuration, host=self.host, replicates=False)
        there.mirrors = place.mirrors
        there._choose(place.thin)
        return there

    def migrate_volume(
        self, ctxt: Any, volume: Volume, host: Mapping[str, Any], thin: bool = False, mirror_count: int = 0
    ) -> tuple[bool, ModelUpdate]:
        """Move ``volume`` to another group of this host, from device to device.

        From the moment in which the source is gone it has been moved; a repeat says so.

        :param host: with ``capabilities`` that have the destination's ``location_info``.
        :param thin: make it thin there, whatever the destination's kind. :param mirror_count: the least copies there.
        :returns: (False, None) where the destination is no group of this host, or the volume is in use or has
            snapshots: then it is for the caller to copy.
        """
        place = _destination(host)
        if place is None or place.host != self.place.host or volume.attach_status != "detached":
            return False, None
        if place.group == self.vg.name:
            # Both see the same logical volume, under the same name.
            return place == self.place and self._present(volume), None
        there = self._elsewhere(Place(place.host, place.group, thin or place.thin, max(mirror_count, place.mirrors)))
        try:
            arrived = volume.name in there._look().volumes
        except lvm.GroupMissing:
            return False, None
        found = self._look()
        if volume.name not in found.volumes:
            if not arrived:
                raise missing(volume)
        else:
            if found.thick_snapshots_of(volume.name) or self._is_open(volume.name):
                return False, None
            self._need_node(volume.name)
            there.receive(volume, self.vg.path(volume.name))
            self.trash_volume(volume)
        self._wipe_moved(volume)
        return True, None

    def _present(self, volume: Volume) -> bool:
        if volume.name not in self._look().volumes:
            raise missing(volume)
        return True

    def receive(self, volume: Volume, path: str) -> None:
        """Make ``volume`` here, with the bytes of the block device at ``path``, which has its size."""
        tags = tags_of(volume)
        self._build(volume, tags, lambda building: self._fill_from(building, volume, path, volume.size_bytes, tags))

    def _wipe_moved(self, volume: Volume) -> None:
        # The volume is at its new place, whatever becomes of the old one: an audit finds what is left.
        try:
            self.wipe("volume", volume.name_id, silent)
        except exception.VolmgrError as error:
            LOG.error("%s was moved, its old space is still to be wiped: %s", volume.name, error)

    def update_migrated_volume(
        self, ctxt: Any, volume: Volume, new_volume: Volume, original_volume_status: str
    ) -> ModelUpdate:
        """Give the storage of ``new_volume`` the name that ``volume`` had first, if nobody uses it.

        :returns: ``_name_id`` (None: the volume's own id) and ``provider_location``.
        """
        kept = {"_name_id": new_volume.name_id, "provider_location": new_volume.provider_location}
        if original_volume_status != "available":
            return kept
        name = names.object_name("volume", volume.id)
        found = self._look()
        present = found.volumes.get(new_volume.name)
        tags = names.lv_tags(volume.id, "volume", volume.id)
        if present is None:
            if name not in found.volumes or tags[0] not in found.volumes[name].tags:
                raise missing(new_volume)
        elif name in found.volumes or self._is_open(new_volume.name):
            return kept
        else:
            # The tags first: once it has the name it is not looked for under the old one.
            old = names.lv_tags(new_volume.name_id, "volume", new_volume.id)
            self.vg.retag(new_volume.name, add=tags, remove=[tag for tag in old if tag not in tags])
            self.vg.rename(new_volume.name, name)
        return {"_name_id": None, "provider_location": None}

    def clone_image(
        self, context: Any, volume: Volume, image_location: Any, image_meta: Mapping[str, Any], image_service: Any
    ) -> tuple[ModelUpdate, bool]:
        """Clone an image that is kept in a volume of this group.

        :param image_location: ``cinder://VOLUME``, or the pair (text, list of locations) that image stores give.
        """
        first = image_location[0] if isinstance(image_location, list | tuple) and image_location else image_location
        match = _IMAGE.match(first) if isinstance(first, str) else None
        if match is None or not names.is_uuid(match[1]) or (image_meta or {}).get("disk_format", "raw") != "raw":
            return None, False
        found = self._look()
        present = found.volumes.get(names.object_name("volume", match[1]))
        if present is None:
            return None, False
        image = Volume(id=match[1], size=max(1, present.size_bytes // GiB))
        if present.size_bytes != found.rounded(image.size_bytes):
            return None, False
        return self.create_cloned_volume(volume, image) or {}, True


def _destination(host: Mapping[str, Any]) -> Place | None:
    capabilities = host.get("capabilities") or {}
    wanted = str(host.get("host") or "").partition("#")[2]
    for item in (capabilities, *(capabilities.get("pools") or ())):
        place = Place.parse(item.get("location_info"))
        if place is not None and (not wanted or item.get("pool_name", wanted) == wanted):
            return place
    return None

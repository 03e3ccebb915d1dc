# SPDX-License-Identifier: Apache-2.0
"""The simulator's ways to make or move a volume without copying through a host: images inside, and a shared store.

It knows no image store and no other backend; a destination is recognised by what it publishes of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from volmgr import exception, names
from volmgr.drivers.interfaces import CloneableImageVD, MigrateVD
from volmgr.drivers.sim.base import SimBase
from volmgr.drivers.sim.faults import AFTER, BEFORE
from volmgr.drivers.sim.store import Store, is_usable
from volmgr.types import ModelUpdate, Volume

SCHEME = "sim://"
LOCATION = "sim:"


class _Cursor:
    """An object in memory as a file; what it has no bytes of is not read."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._position = 0
        self._pieces = store.pieces(name)

    def write(self, data: bytes) -> int:
        self._store.write(self._name, self._position, data)
        self._position += len(data)
        return len(data)

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        return next((data for _offset, data in self._pieces), b"")


class SimImages(CloneableImageVD, MigrateVD, SimBase, abstract=True):
    """Clones of images, and moves to a backend over the same store."""

    @property
    def location_info(self) -> str:
        """What two backends over one store have in common; the capability that a move goes by."""
        return LOCATION + self.store.identity()

    def clone_image(
        self, context: Any, volume: Volume, image_location: Any, image_meta: Mapping[str, Any], image_service: Any
    ) -> tuple[ModelUpdate, bool]:
        """Clone the object that ``sim://NAME`` names; raw images only.

        :param image_location: that text, or the pair (text, list of locations) that image stores give.
        """
        self._at("clone_image", BEFORE, volume.id)
        source = self._source(image_location)
        if source is None or (image_meta or {}).get("disk_format", "raw") != "raw":
            return None, False
        present = self.store.size(volume.name)
        if present is None:
            size = self.store.size(source)
            if size is None:
                return None, False
            if size > volume.size_bytes:
                raise exception.Invalid("The volume is smaller than the image", field="size")
        built = self._build("clone_image", volume, source, volume.size_bytes)
        update = self._made(volume)
        if built:
            self._at("clone_image", AFTER, volume.id)
        return update or {}, True

    def copy_image_to_volume(self, context: Any, volume: Volume, image_service: Any, image_id: str) -> None:
        self._at("copy_image_to_volume", BEFORE, volume.id)
        if self.store.path(volume.name) is not None:
            super().copy_image_to_volume(context, volume, image_service, image_id)
        else:
            image_service.download(context, image_id, _Cursor(self.store, volume.name))
        self._at("copy_image_to_volume", AFTER, volume.id)

    def copy_volume_to_image(
        self, context: Any, volume: Volume, image_service: Any, image_meta: Mapping[str, Any]
    ) -> None:
        self._at("copy_volume_to_image", BEFORE, volume.id)
        if self.store.path(volume.name) is not None:
            super().copy_volume_to_image(context, volume, image_service, image_meta)
        else:
            image_service.update(context, image_meta["id"], image_meta, _Cursor(self.store, volume.name))
        self._at("copy_volume_to_image", AFTER, volume.id)

    def _source(self, image_location: Any) -> str | None:
        found = image_location[0] if isinstance(image_location, list | tuple) and image_location else image_location
        if not isinstance(found, str) or not found.startswith(SCHEME):
            return None
        name = found.removeprefix(SCHEME)
        # What was deleted, and what is not whole, is nobody's image.
        if not is_usable(name) or names.parse_trash_name(name) or names.parse_building_name(name):
            return None
        return name

    def migrate_volume(self, context: Any, volume: Volume, host: Mapping[str, Any]) -> tuple[bool, ModelUpdate]:
        self._at("migrate_volume", BEFORE, volume.id)
        if self.store.size(volume.name) is None:
            raise exception.VolumeNotFound(id=volume.id)
        if volume.attach_status != "detached" or self._replicated(volume):
            return False, None
        capabilities = host.get("capabilities") or {}
        told = [capabilities, *(capabilities.get("pools") or [])]
        if not any(item.get("location_info") == self.location_info for item in told):
            return False, None
        self._at("migrate_volume", AFTER, volume.id)
        return True, None

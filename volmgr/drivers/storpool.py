# SPDX-License-Identifier: Apache-2.0
"""Volumes in a StorPool cluster, by its API; hosts attach them with StorPool's own client, so there is no target.

Every create is one call, so nothing is ever half made under its own name; deleted space is StorPool's to free, and what
it hands out reads as zeros. Whether a call whose answer was lost has done its work is looked up. It knows no database.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from volmgr import exception, names
from volmgr.drivers.interfaces import ObserveVD
from volmgr.drivers.interfaces.upkeep import Progress
from volmgr.drivers.naming import CREATING, DELETING, own_name
from volmgr.drivers.storpool_copy import is_ours
from volmgr.drivers.storpool_groups import StorPoolGroups
from volmgr.drivers.storpool_manage import StorPoolManaging
from volmgr.drivers.storpool_volumes import volume_busy
from volmgr.types import ModelUpdate, ObservedObject, Snapshot, Volume

LOG = logging.getLogger(__name__)

Connector = Mapping[str, Any]
#: Kinds of snapshots that exist while something is copied; what is left of them is observed as building.
BETWEEN = ("clone", "image", "backup")


class StorPoolDriver(StorPoolGroups, StorPoolManaging, ObserveVD):
    """Volumes ``<prefix>--volume-<id>`` and snapshots ``<prefix>--snap--none--snapshot-<id>``."""

    VERSION = "1.3.0"
    CI_WIKI_NAME = "StorPool_CI"
    vendor_name: ClassVar[str] = "StorPool"
    storage_protocol: ClassVar[str | None] = "storpool"
    instant_clone = True

    # --- connections --------------------------------------------------------------------------------------------

    def ensure_export(self, context: Any, volume: Volume) -> ModelUpdate:
        """Do nothing: StorPool's client can reach every volume."""
        return None

    def create_export(self, context: Any, volume: Volume, connector: Connector | None) -> ModelUpdate:
        """Do nothing: StorPool's client can reach every volume."""
        return None

    def remove_export(self, context: Any, volume: Volume) -> None:
        """Do nothing: there is no export."""

    def validate_connector(self, connector: Connector) -> None:
        """Check that the connector's host has a StorPool client.

        :raises InvalidConnector: it names no host. :raises Invalid: ``storpool.conf`` has no client id for it.
        """
        self._client_id(connector)

    def _client_id(self, connector: Connector) -> int:
        self.validate_connector_has_setting(connector, "host")
        # Read again each time: hosts come without anybody restarting us.
        return self._read_config().client_id(self._node_of(str(connector["host"])))

    def _node_of(self, host: str) -> str:
        """Return the name by which ``storpool.conf`` knows a host: our own has that of the machine."""
        own = self.host or ""
        return self.config.node if host in (own, own.partition("@")[0]) else host

    def initialize_connection(  # type: ignore[override]
        self, volume: Volume, connector: Connector, **kwargs: Any
    ) -> dict[str, Any]:
        """Return what os-brick's StorPool connector needs; it attaches the volume to its host by itself."""
        readonly = volume.readonly or connector.get("mode") == "ro"
        return {
            "driver_volume_type": "storpool",
            "data": {
                "client_id": self._client_id(connector),
                "volume": volume.name_id,
                "access_mode": "ro" if readonly else "rw",
            },
        }

    def terminate_connection(self, volume: Volume, connector: Connector | None, **kwargs: Any) -> None:
        """Detach the volume from a host that has not done so itself; by force, from every host.

        os-brick detaches before it asks for this; a host that died at it, or its compute service, has not. Who is not
        known as a client, or not any more, has nothing attached.

        :param connector: of the host; None for none, and with ``force`` for all.
        :raises VolumeIsBusy: by force only: a host has it open. One host that has it open keeps it, and that is logged.
        """
        if connector is None and not kwargs.get("force"):
            return
        name = self.storpool_name(volume)
        try:
            if connector is None:
                self._detach_all("volume", name)
            else:
                self._detach_host(name, connector)
        except exception.Busy as error:
            raise volume_busy(name, error) from error
        except exception.NotFound:
            return

    def _detach_host(self, name: str, connector: Connector) -> None:
        try:
            wish = [{"volume": name, "detach": [self._client_id(connector)]}]
            self.api.change(f"VolumesReassign {name}", lambda client: client.volumes_reassign(wish))
        except exception.Invalid as error:
            LOG.info("%s is not detached from a host that is no client: %s", name, error)
        except exception.Busy as error:
            LOG.warning("%s stays attached, see: storpool attach list | grep %s. %s", name, name, error)

    # --- observe ------------------------------------------------------------------------------------------------

    def observe(self) -> Sequence[ObservedObject]:
        """Return every object of ours, in two calls; under the names that all drivers have for them."""
        found = [self._described(item) for item in self.api.volumes()]
        found += [self._described(item) for item in self.api.snapshots() if not item.get("deleted")]
        return [item for item in found if item is not None]

    def _described(self, item: Mapping[str, Any]) -> ObservedObject | None:
        parsed = names.parse_storpool_name(self.config.prefix, str(item["name"]))
        if parsed is None:
            return None
        # Other software, Cinder's driver for one, gives its volumes the same names.
        marked = is_ours(item)
        size, object_id = int(item["size"]), parsed.object_id
        if parsed.kind in BETWEEN:
            return ObservedObject(names.building_name(object_id), object_id, "", "building", size, marked=marked)
        if parsed.kind not in names.KINDS:
            return None
        name = names.object_name(parsed.kind, object_id)
        return ObservedObject(name, object_id, parsed.kind, "current", size, marked=marked)

    def discard(self, name: str, progress: Progress) -> None:
        found = own_name(name)
        if found.state == "building":
            for kind in BETWEEN:
                self._delete_snapshot(self._name(kind, found.object_id))
        elif found.kind == "volume":
            self.delete_volume(Volume(id=found.object_id, size=0))
        elif found.kind == "snapshot":
            self.delete_snapshot(Snapshot(id=found.object_id, volume_id=found.object_id, volume_size=0))
        progress(1.0)

    def recognise(self, verb: str, resource: Volume | Snapshot) -> dict[str, Any] | None:
        name = self.storpool_name(resource)
        present = self.api.snapshot(name) if isinstance(resource, Snapshot) else self.api.volume(name)
        size = present["size"] if present is not None else None
        if verb in DELETING:
            done = present is None and self.api.snapshot(self._name("clone", resource.name_id)) is None
        elif verb == "extend_volume":
            done = size is not None and size >= resource.size_bytes
        elif verb in CREATING:
            done = size == resource.size_bytes and self._has_template(resource, present or {})
        else:
            done = False
        if not done:
            raise exception.NotFound(resource="object", id=resource.name)
        return None

    def _has_template(self, resource: Volume | Snapshot, present: Mapping[str, Any]) -> bool:
        wanted = self._template_of(resource.volume_type) if isinstance(resource, Volume) else None
        return wanted in (None, present.get("templateName"))

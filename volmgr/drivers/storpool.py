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
from volmgr.drivers import making
from volmgr.drivers.interfaces import ObserveVD
from volmgr.drivers.interfaces.upkeep import Progress
from volmgr.drivers.naming import CREATING, DELETING, missing, own_name
from volmgr.drivers.storpool_copy import OWN_TAGS, StorPoolCopying, global_name, marked, work_of
from volmgr.drivers.storpool_move import StorPoolMoving
from volmgr.types import GiB, ModelUpdate, ObservedObject, Snapshot, Volume

LOG = logging.getLogger(__name__)
Connector = Mapping[str, Any]


class StorPoolDriver(StorPoolMoving, StorPoolCopying, ObserveVD):
    """Volumes ``<prefix>--volume-<id>`` and snapshots ``<prefix>--snap--none--snapshot-<id>``."""

    VERSION = "1.3.0"
    CI_WIKI_NAME = "StorPool_CI"
    vendor_name: ClassVar[str] = "StorPool"
    storage_protocol: ClassVar[str | None] = "storpool"
    instant_clone = True

    # --- volumes ------------------------------------------------------------------------------------------------

    def create_volume(self, volume: Volume) -> ModelUpdate:
        template = self._template_of(volume.volume_type)
        try:
            self._create(volume, self._policy(template))
        except exception.NotFound as error:
            raise _no_template(template) from error
        return None

    def _create(self, volume: Volume, source: Mapping[str, Any]) -> None:
        """Make a volume by one call, unless this work has made it already.

        :param source: where its settings and its bytes come from. :raises ObjectExists, AlreadyExists: as _is_made.
        """
        name, work = self.storpool_name(volume), making.mark()
        data = {"name": name, "size": volume.size_bytes, "tags": marked(work), **source}
        self.api.change(
            f"VolumeCreate {name}", lambda client: client.volume_create(data), lambda: self._is_made(volume, work)
        )

    def _is_made(self, volume: Volume, work: str) -> bool:
        """Return whether a volume is there.

        :raises ObjectExists: one that ``work`` has not made. :raises AlreadyExists: it has another size.
        """
        present = self.api.volume(self.storpool_name(volume))
        if present is None:
            return False
        making.expect(volume.name, work_of(present), work)
        if present["size"] != volume.size_bytes:
            raise exception.AlreadyExists(resource="object", id=volume.name)
        return True

    def delete_volume(self, volume: Volume) -> None:
        name = self.storpool_name(volume)
        present = self.api.volume(name)
        if present is not None and not making.spared(work_of(present)):
            itself = global_name(present)
            try:
                self._detach_all("volume", itself)
                self.api.change(f"VolumeDelete {name}", lambda client: client.volume_delete(itself))
            except exception.Busy as error:
                raise _volume_busy(name, error) from error
            except exception.NotFound:
                LOG.info("The volume %s was gone before it was deleted", name)
        self._delete_snapshot(self._name("clone", volume.name_id))

    def extend_volume(self, volume: Volume, new_size: int) -> None:
        name, wanted = self.storpool_name(volume), new_size * GiB

        def settled() -> bool:
            present = self.api.volume(name)
            if present is None:
                raise exception.VolumeNotFound(id=volume.id)
            if present["size"] > wanted:
                raise exception.Invalid("A volume cannot shrink", field="new_size")
            return bool(present["size"] == wanted)

        self.api.change(f"VolumeUpdate {name}", lambda client: client.volume_update(name, {"size": wanted}), settled)

    # --- snapshots and copies -----------------------------------------------------------------------------------

    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        volume_id = snapshot.volume.name_id if snapshot.volume is not None else snapshot.volume_id
        try:
            self._snap(self._name("volume", volume_id), self.storpool_name(snapshot))
        except exception.NotFound as error:
            raise exception.VolumeNotFound(id=snapshot.volume_id) from error
        return None

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        name = self.storpool_name(snapshot)
        try:
            self._delete_snapshot(name)
        except exception.Busy as error:
            raise exception.SnapshotIsBusy(
                f"The snapshot {name} is attached: {error.message}",
                hint=f"See who has it: storpool attach list | grep {name}",
                snapshot_name=name,
            ) from error

    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        _refuse_smaller(volume, snapshot.size_bytes)
        try:
            self._create(volume, {"parent": self.storpool_name(snapshot)})
        except exception.NotFound as error:
            raise missing(snapshot) from error
        self._retemplate(volume)
        return None

    def _retemplate(self, volume: Volume) -> None:
        """Give a volume that has its settings from its parent the template of its own type."""
        template = self._template_of(volume.volume_type)
        present = self.api.volume(self.storpool_name(volume))
        if present is None:
            raise exception.VolumeNotFound(id=volume.id)
        if template is not None and present["templateName"] != template:
            self._update_policy(volume, {"template": template})

    def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        _refuse_smaller(volume, src_vref.size_bytes)
        source = self.storpool_name(src_vref)
        present = self.api.volume(source)
        if present is None and not self._is_made(volume, making.mark()):
            raise exception.VolumeNotFound(id=src_vref.id)
        template = self._template_of(volume.volume_type)
        if present is None or template in (None, present["templateName"]):
            self._create(volume, {"baseOn": source})
        else:
            self._clone_across(volume, source, str(template))
        return None

    def _clone_across(self, volume: Volume, source: str, template: str) -> None:
        """Clone into another template: by way of a snapshot, which takes the new template before it has a child."""
        between = self._name("clone", volume.name_id)
        # One that an earlier try has left is of another moment.
        self._delete_snapshot(between)
        if self._is_made(volume, making.mark()):
            return
        try:
            self._snap(source, between)
            self._update_snapshot(between, {"template": template})
            self._create(volume, {"parent": between})
        finally:
            self._delete_snapshot(between)

    def _update_snapshot(self, name: str, data: Mapping[str, Any]) -> None:
        try:
            self.api.change(f"SnapshotUpdate {name}", lambda client: client.snapshot_update(name, data))
        except exception.NotFound as error:
            raise _no_template(data.get("template")) from error

    def revert_to_snapshot(self, context: Any, volume: Volume, snapshot: Snapshot) -> None:
        name, source = self.storpool_name(volume), self.storpool_name(snapshot)
        try:
            self._detach_all("volume", name)
            self.api.change(f"VolumeRevert {name}", lambda client: client.volume_revert(name, {"toSnapshot": source}))
        except exception.Busy as error:
            raise _volume_busy(name, error) from error
        except exception.NotFound as error:
            raise missing(volume if self.api.volume(name) is None else snapshot) from error
        present = self.api.volume(name)
        if present is not None and present["size"] < volume.size_bytes:
            # Clusters differ in whether a revert takes the size back as well.
            self.extend_volume(volume, volume.size)

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
        """Do nothing for one connector, whose os-brick has detached the volume; by force, detach it from everybody.

        :param kwargs: ``force`` with the connector None: from every host that does not have it open.
        :raises VolumeIsBusy: a host has it open.
        """
        if connector is not None or not kwargs.get("force"):
            return
        name = self.storpool_name(volume)
        try:
            self._detach_all("volume", name)
        except exception.Busy as error:
            raise _volume_busy(name, error) from error
        except exception.NotFound:
            return

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
        marked = OWN_TAGS.items() <= dict(item.get("tags") or {}).items()
        size, object_id = int(item["size"]), parsed.object_id
        if parsed.kind == "clone":
            return ObservedObject(names.building_name(object_id), object_id, "", "building", size, marked=marked)
        if parsed.kind not in names.KINDS:
            return None
        name = names.object_name(parsed.kind, object_id)
        return ObservedObject(name, object_id, parsed.kind, "current", size, marked=marked)

    def discard(self, name: str, progress: Progress) -> None:
        found = own_name(name)
        if found.state == "building":
            self._delete_snapshot(self._name("clone", found.object_id))
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


def _refuse_smaller(volume: Volume, source_bytes: int) -> None:
    if volume.size_bytes < source_bytes:
        raise exception.Invalid("It is smaller than its source", field="size")


def _no_template(template: Any) -> exception.VolmgrError:
    return exception.Invalid(
        f"StorPool has no template {template}", hint="See: storpool template list", field="volume_type"
    )


def _volume_busy(name: str, error: exception.Busy) -> exception.VolumeIsBusy:
    return exception.VolumeIsBusy(
        f"The volume {name} is attached: {error.message}",
        hint=f"See who has it: storpool attach list | grep {name}",
        volume_name=name,
    )

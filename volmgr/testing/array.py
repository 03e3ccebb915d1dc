# SPDX-License-Identifier: Apache-2.0
"""Arrays of somebody else, as drivers of this tree see them: each is a target by itself and answers connections itself.

They are what a vendor's driver is: heirs of the older base classes that implement the hooks which volmgr's own drivers
do not need. Behind each is a folder of files; the iSCSI array serves it by a tgtd of its own, so what a client is told
leads to real bytes. For tests of what the daemon asks such drivers.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from oslo_config import cfg

from volmgr.drivers.fibre_channel import FibreChannelDriver
from volmgr.drivers.file import FileDriver
from volmgr.drivers.interfaces import ProxyVD, marked_default
from volmgr.drivers.iscsi import ISCSIDriver
from volmgr.drivers.iser import ISERDriver
from volmgr.drivers.sim import SimDriver
from volmgr.targets.base import TargetConfig
from volmgr.targets.fake import FakeTarget
from volmgr.targets.tgt import TgtTarget
from volmgr.types import ModelUpdate, Portal, Secret, Snapshot, Volume

ARRAY_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("array_folder", help="Folder of the array's files"),
    cfg.PortOpt("array_port", help="TCP port at which the array serves iSCSI; without one nobody is served"),
]
VENDOR = "acme"
PREFIX = "iqn.2004-04.example.acme:"
#: the array's Fibre Channel port, and that of whoever connects.
WWPN = "50060b0000c26204"


class _Array:
    """The array: everything but the transport."""

    vendor_name: ClassVar[str] = VENDOR
    _inner: FileDriver

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: where each volume is mounted, as the hooks told.
        self.mounted: dict[str, str | None] = {}
        self.throttled = False

    @classmethod
    def get_driver_options(cls) -> list[cfg.Opt]:
        return [*ARRAY_OPTS, *FileDriver.get_driver_options()]

    # --- life -----------------------------------------------------------------------------------------------------

    def do_setup(self, context: Any) -> None:
        options: Any = self.configuration  # type: ignore[attr-defined]
        port = options.safe_get("array_port")
        config = TargetConfig(PREFIX, (Portal("127.0.0.1", port or 3260),), f"{options.array_folder}/target")
        target = TgtTarget(config) if port else FakeTarget(config)
        target.start()
        self._inner = FileDriver(configuration=options, host=self.host, target=target)  # type: ignore[attr-defined]
        self._inner.path = f"{options.array_folder}/files"
        self._inner._made_by_us = True
        self._inner.do_setup(context)

    def check_for_setup_error(self) -> None:
        self._inner.check_for_setup_error()

    def set_throttle(self) -> None:
        self.throttled = True

    def _init_vendor_properties(self) -> tuple[dict[str, Any], str | None]:
        name = f"{VENDOR}:shelf"
        return {name: {"title": "Shelf", "description": "Where the disks are", "type": "string"}}, VENDOR

    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        stats: dict[str, Any] = super().get_volume_stats(refresh)  # type: ignore[misc]
        (pool,) = self._inner.get_volume_stats(refresh)["pools"]
        pool |= {"pool_name": "shelf", "consistencygroup_support": False}
        if (name := self.get_prefixed_property("shelf")) is not None:  # type: ignore[attr-defined]
            pool[name] = "upper"
        return {**stats, "pools": [pool]}

    def get_pool(self, volume: Volume) -> str | None:
        return "shelf"

    def update_provider_info(
        self, volumes: Sequence[Volume], snapshots: Sequence[Snapshot]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        told = [[{"id": item.id, "provider_id": item.name_id} for item in each] for each in (volumes, snapshots)]
        return told[0], told[1]

    # --- storage --------------------------------------------------------------------------------------------------

    def create_volume(self, volume: Volume) -> ModelUpdate:
        return self._inner.create_volume(volume)

    def delete_volume(self, volume: Volume) -> None:
        self._inner.delete_volume(volume)

    def extend_volume(self, volume: Volume, new_size: int) -> None:
        self._inner.extend_volume(volume, new_size)

    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        return self._inner.create_snapshot(snapshot)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self._inner.delete_snapshot(snapshot)

    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        return self._inner.create_volume_from_snapshot(volume, snapshot)

    def local_path(self, volume: Volume | Snapshot) -> str:
        return self._inner.local_path(volume)

    def clear_download(self, context: Any, volume: Volume) -> None:
        self._inner.delete_volume(volume)

    def before_volume_copy(self, context: Any, src_vol: Volume, dest_vol: Volume, remote: str | None = None) -> None:
        self.mounted.pop(src_vol.id, None)

    def after_volume_copy(self, context: Any, src_vol: Volume, dest_vol: Volume, remote: str | None = None) -> None:
        self.mounted.pop(dest_vol.id, None)

    # --- connections ----------------------------------------------------------------------------------------------

    def create_export(self, context: Any, volume: Volume, connector: Mapping[str, Any] | None) -> ModelUpdate:
        return self._export(volume)

    def create_export_snapshot(
        self, context: Any, snapshot: Snapshot, connector: Mapping[str, Any] | None
    ) -> ModelUpdate:
        return self._export(snapshot)

    def _export(self, resource: Volume | Snapshot) -> ModelUpdate:
        auth = resource.provider_auth or Secret(f"CHAP {VENDOR} {secrets.token_hex(8)}")
        served = dataclasses.replace(resource, provider_auth=auth)
        made = self._inner._export(served)
        return {**(made or {}), "provider_auth": auth.reveal()}

    def ensure_export(self, context: Any, volume: Volume) -> ModelUpdate:
        """The array keeps its exports over a restart of whoever asks it."""
        return None

    def remove_export(self, context: Any, volume: Volume) -> None:
        self._inner.remove_export(context, volume)

    def remove_export_snapshot(self, context: Any, snapshot: Snapshot) -> None:
        self._inner.remove_export_snapshot(context, snapshot)

    def attach_volume(
        self, context: Any, volume: Volume, instance_uuid: str | None, host_name: str | None, mountpoint: str | None
    ) -> None:
        self.mounted[volume.id] = mountpoint

    def detach_volume(self, context: Any, volume: Volume, attachment: Any = None) -> None:
        self.mounted.pop(volume.id, None)


class ArrayDriver(_Array, ISCSIDriver):
    """An array that is an iSCSI target by itself."""

    VERSION = "2.0.0"

    def initialize_connection(  # type: ignore[override]
        self, volume: Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        self._inner.initialize_connection(volume, connector)
        return super().initialize_connection(volume, connector)

    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None, **kwargs: Any) -> None:
        self._inner.terminate_connection(volume, connector or None)
        super().terminate_connection(volume, connector, **kwargs)


class IserArray(_Array, ISERDriver):
    """The same over RDMA, as far as what is told goes; nobody is served."""

    VERSION = "2.0.0"


class ProxiedArray(ProxyVD):
    """A driver that only passes on to another one."""

    needs_target: ClassVar[bool] = False
    behind: ClassVar[type[IserArray]] = IserArray

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._driver = self.behind(*args, **kwargs)

    def _get_driver(self) -> IserArray:
        return self._driver

    def __getattr__(self, name: str) -> Any:
        if name == "_driver":
            raise AttributeError(name)
        return getattr(self._driver, name)


class FibreChannelArray(_Array, FibreChannelDriver):
    """An array behind Fibre Channel, as far as what is told goes; nobody is served."""

    VERSION = "2.0.0"

    def initialize_connection(  # type: ignore[override]
        self, volume: Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        data = {"target_discovered": True, "target_lun": 1, "target_wwn": [WWPN], "discard": False}
        return {"driver_volume_type": "fibre_channel", "data": data}

    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None, **kwargs: Any) -> None:
        self._inner.terminate_connection(volume, connector or None)


class PolledReplicaDriver(SimDriver):
    """A backend that tells the state of one replica when it is asked for that one, and never of many at once."""

    @marked_default
    def get_replication_updates(self, context: Any) -> list[dict[str, Any]]:
        return []

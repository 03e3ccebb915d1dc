# SPDX-License-Identifier: Apache-2.0
"""A driver that does everything except touch a disk, for tests, simulations and whoever develops a client.

It obeys the same contract as the others, and its objects hold real bytes, so that snapshots, clones and reverts can be
proven. It knows no target: the ``fake`` one is enough, in a folder any that serves files will do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from volmgr import exception, names
from volmgr.drivers.interfaces import ObserveVD
from volmgr.drivers.interfaces.upkeep import Progress
from volmgr.drivers.naming import CREATING, DELETING, describe, own_name
from volmgr.drivers.sim.backups import SimBackups
from volmgr.drivers.sim.faults import AFTER, BEFORE
from volmgr.drivers.sim.groups import SimGroups
from volmgr.drivers.sim.images import SimImages
from volmgr.drivers.sim.manage import SimManage
from volmgr.drivers.sim.replica import SimReplica
from volmgr.drivers.sim.store import MemoryStore
from volmgr.types import GiB, ObservedObject, Snapshot, Volume


class SimDriver(SimGroups, SimManage, SimImages, SimBackups, SimReplica, ObserveVD):
    """The simulator.

    Further arguments of the constructor:

    :param clock: what latency, delays and deadlines are measured by; the machine's by default.
    :param store: where the objects lie, instead of what the options say.
    :param replica_store: with ``store``: where the replicas lie; a private store in memory by default.
    """

    VERSION = "1.0.0"
    vendor_name = "volmgr"
    storage_protocol: ClassVar[str | None] = "sim"
    instant_clone = True
    fencing: ClassVar[str] = "host"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: names of objects that pretend to let nobody read or write, for tests of audits.
        self.suspended: set[str] = set()

    def check_for_setup_error(self) -> None:
        self._at("check_for_setup_error", BEFORE, self.active_backend_id or "default")
        self.store.size("volume")

    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        self._at("get_volume_stats", BEFORE, "")
        provisioned = self.store.provisioned() / GiB
        capacity = self.configuration.sim_capacity_gb
        pool = {
            "pool_name": self.backend_name,
            "total_capacity_gb": capacity,
            "free_capacity_gb": max(0.0, capacity - provisioned),
            "provisioned_capacity_gb": provisioned,
            "allocated_capacity_gb": provisioned,
            "reserved_percentage": self.configuration.reserved_percentage,
            "max_over_subscription_ratio": self.configuration.max_over_subscription_ratio,
            "thin_provisioning_support": True,
            "thick_provisioning_support": False,
            "multiattach": True,
            "consistencygroup_support": True,
            "replication": True,
            "replication_enabled": True,
            "location_info": self.location_info,
            "filter_function": self.get_filter_function(),
            "goodness_function": self.get_goodness_function(),
            **self.configuration.extra_capabilities,
        }
        protocol = self.target_driver.protocol if self.target_driver is not None else self.storage_protocol
        return {
            "volume_backend_name": self.backend_name,
            "vendor_name": self.vendor_name,
            "driver_version": self.VERSION,
            "storage_protocol": protocol,
            "location_info": self.location_info,
            "replication_targets": [self.replica_backend],
            "frozen": self.frozen,
            "pools": [pool],
        }

    def get_pool(self, volume: Volume) -> str | None:
        return self.backend_name

    # --- observe ------------------------------------------------------------------------------------------------

    def observe(self) -> Sequence[ObservedObject]:
        self._at("observe", BEFORE, "")
        found = [item for name, size in self.store.entries() if (item := describe(name, size)) is not None]
        if not self.suspended:
            return found
        return [dataclasses.replace(item, suspended=item.name in self.suspended) for item in found]

    def discard(self, name: str, progress: Progress) -> None:
        object_id = own_name(name).object_id
        self._at("discard", BEFORE, object_id)
        self.store.remove(name)
        progress(1.0)
        self._at("discard", AFTER, object_id)

    def resume(self, name: str) -> None:
        self._at("resume", BEFORE, own_name(name).object_id)
        self.suspended.discard(name)

    def recognise(self, verb: str, resource: Volume | Snapshot) -> dict[str, Any] | None:
        self._at("recognise", BEFORE, resource.id)
        size = self.store.size(resource.name)
        if verb in DELETING:
            done = size is None and self.store.size(names.building_name(resource.name_id)) is None
        elif verb == "extend_volume":
            done = size is not None and size >= resource.size_bytes
        elif verb in CREATING:
            done = size == resource.size_bytes
            if done and isinstance(resource, Volume) and resource.volume_type is not None:
                return self._recognise_replica(resource)
        else:
            done = False
        if not done:
            raise exception.NotFound(resource="object", id=resource.name)
        return None

    # --- paths and bytes ----------------------------------------------------------------------------------------

    def local_path(self, volume: Volume | Snapshot) -> str:
        path = self.store.path(volume.name)
        if path is None:
            raise exception.Unsupported(
                "The simulator keeps its objects in memory", hint="Set sim_store_path", verb="local_path"
            )
        return path

    def export_path(self, resource: Volume | Snapshot) -> str:
        path = self.store.path(resource.name)
        if path is not None:
            return path
        return f"sim:{self.store.name if isinstance(self.store, MemoryStore) else ''}/{resource.name}"

    def read_bytes(self, resource: Volume | Snapshot, offset: int, length: int) -> bytes:
        """Return what a client of ``resource`` would read."""
        return self.store.read(resource.name, offset, length)

    def write_bytes(self, resource: Volume | Snapshot, offset: int, data: bytes) -> None:
        """Write as a client of ``resource`` would."""
        self.store.write(resource.name, offset, data)

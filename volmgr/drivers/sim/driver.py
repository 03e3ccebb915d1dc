# SPDX-License-Identifier: Apache-2.0
"""A driver that does everything except touch a disk, for tests, simulations and whoever develops a client.

It obeys the same contract as the others, and its objects hold real bytes, so that snapshots, clones and reverts can be
proven. It knows no target: the ``fake`` one is enough, in a folder any that serves files will do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from oslo_config import cfg

from volmgr import exception, names
from volmgr.drivers.exporting import TargetVD
from volmgr.drivers.interfaces import ExtendVD, ObserveVD, RetypeVD, SnapshotVD, TransferVD, TrashVD
from volmgr.drivers.interfaces.upkeep import Progress
from volmgr.drivers.naming import CREATING, DELETING, describe, missing
from volmgr.drivers.sim.faults import AFTER, BEFORE, BUILDING, Faults
from volmgr.drivers.sim.store import FolderStore, MemoryStore, Store, memory_store
from volmgr.runtime import Clock
from volmgr.types import GiB, ModelUpdate, ObservedObject, Snapshot, Volume, VolumeType

SIM_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("sim_store", help="Name of the store in memory; drivers of one process with the same name share it"),
    cfg.StrOpt("sim_store_path", help="Folder for the objects; without it they live in memory"),
    cfg.StrOpt("sim_faults_file", help="JSON file with faults; read again whenever it changes"),
    cfg.FloatOpt("sim_capacity_gb", default=100_000.0, min=0, help="Size of the simulated pool in GiB"),
    cfg.FloatOpt("sim_latency", default=0.0, min=0, help="Seconds that every verb takes"),
]
WIPE_STEPS = 8


class SimDriver(SnapshotVD, ExtendVD, RetypeVD, TransferVD, TrashVD, ObserveVD, TargetVD):
    """The simulator.

    Further arguments of the constructor:

    :param clock: what latency, delays and deadlines are measured by; the machine's by default.
    :param store: where the objects lie, instead of what the options say.
    """

    VERSION = "1.0.0"
    vendor_name = "volmgr"
    storage_protocol: ClassVar[str | None] = "sim"
    instant_clone = True

    def __init__(self, *args: Any, clock: Clock | None = None, store: Store | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        options = self.configuration
        self.faults = Faults(clock, options.sim_faults_file)
        self.faults.latency = options.sim_latency
        if store is None:
            store = (
                FolderStore(options.sim_store_path)
                if options.sim_store_path
                else memory_store(options.sim_store or self.host or "sim")
            )
        self.store: Store = store
        self._limit = int(options.sim_capacity_gb * GiB * options.max_over_subscription_ratio)

    @classmethod
    def get_driver_options(cls) -> list[cfg.Opt]:
        return SIM_OPTS

    def _at(self, verb: str, when: str, resource_id: str) -> None:
        if when == BEFORE:
            self.faults.calls[verb] += 1
        if self.faults.armed:
            self.faults.reach(verb, when, resource_id)

    def check_for_setup_error(self) -> None:
        self._at("check_for_setup_error", BEFORE, "")
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
            "pools": [pool],
        }

    def get_pool(self, volume: Volume) -> str | None:
        return self.backend_name

    # --- create and delete --------------------------------------------------------------------------------------

    def create_volume(self, volume: Volume) -> ModelUpdate:
        return self._make("create_volume", volume, None)

    def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        return self._make("create_cloned_volume", volume, src_vref)

    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        return self._make("create_volume_from_snapshot", volume, snapshot)

    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        self._at("create_snapshot", BEFORE, snapshot.id)
        if self.store.size(snapshot.name) is None:
            size = self.store.size(snapshot.volume_name)
            if size is None:
                raise exception.VolumeNotFound(id=snapshot.volume_id)
            if size > snapshot.size_bytes:
                raise exception.Invalid("The snapshot is smaller than its volume", field="volume_size")
        return self._build("create_snapshot", snapshot, snapshot.volume_name, snapshot.size_bytes)

    def _make(self, verb: str, volume: Volume, source: Volume | Snapshot | None) -> ModelUpdate:
        self._at(verb, BEFORE, volume.id)
        source_name = source.name if source is not None else None
        if source is not None and source_name is not None and self.store.size(volume.name) is None:
            source_size = self.store.size(source_name)
            if source_size is None:
                raise missing(source)
            if source_size > volume.size_bytes:
                raise exception.Invalid("The volume is smaller than its source", field="size")
        return self._build(verb, volume, source_name, volume.size_bytes)

    def _build(self, verb: str, resource: Volume | Snapshot, source: str | None, size_bytes: int) -> ModelUpdate:
        store, name = self.store, resource.name
        present = store.size(name)
        if present is not None:
            if present != size_bytes:
                raise exception.AlreadyExists(resource="object", id=name)
            return None
        building = names.building_name(resource.name_id)
        if store.provisioned() + size_bytes > self._limit:
            raise exception.NoSpace(f"The pool has no room for {size_bytes // GiB} GiB more")
        if source is None:
            store.create(building, size_bytes)
        else:
            store.copy(source, building, size_bytes)
        self._at(verb, BUILDING, resource.id)
        store.rename(building, name)
        self._at(verb, AFTER, resource.id)
        return None

    def delete_volume(self, volume: Volume) -> None:
        self._delete("delete_volume", volume)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self._delete("delete_snapshot", snapshot)

    def _delete(self, verb: str, resource: Volume | Snapshot) -> None:
        self._at(verb, BEFORE, resource.id)
        self.store.remove(resource.name)
        self.store.remove(names.building_name(resource.name_id))
        self._at(verb, AFTER, resource.id)

    # --- change -------------------------------------------------------------------------------------------------

    def extend_volume(self, volume: Volume, new_size: int) -> None:
        self._at("extend_volume", BEFORE, volume.id)
        present = self.store.size(volume.name)
        if present is None:
            raise exception.VolumeNotFound(id=volume.id)
        if present > new_size * GiB:
            raise exception.Invalid("A volume cannot shrink", field="new_size")
        if self.store.provisioned() + new_size * GiB - present > self._limit:
            raise exception.NoSpace(f"The pool has no room to extend the volume to {new_size} GiB")
        if present < new_size * GiB:
            self.store.resize(volume.name, new_size * GiB)
        self._at("extend_volume", AFTER, volume.id)

    def revert_to_snapshot(self, context: Any, volume: Volume, snapshot: Snapshot) -> None:
        self._at("revert_to_snapshot", BEFORE, volume.id)
        present = self.store.size(volume.name)
        if present is None:
            raise exception.VolumeNotFound(id=volume.id)
        if self.store.size(snapshot.name) is None:
            raise exception.SnapshotNotFound(id=snapshot.id)
        building = names.building_name(volume.name_id)
        self.store.copy(snapshot.name, building, present)
        self._at("revert_to_snapshot", BUILDING, volume.id)
        self.store.rename(building, volume.name)
        self._at("revert_to_snapshot", AFTER, volume.id)

    def retype(
        self,
        context: Any,
        volume: Volume,
        new_type: VolumeType | Mapping[str, Any],
        diff: Mapping[str, Any],
        host: Mapping[str, Any],
    ) -> bool | tuple[bool, ModelUpdate]:
        self._at("retype", BEFORE, volume.id)
        wanted, own = str(host.get("host") or self.host or ""), self.host or ""
        return names.service_of(wanted) == names.service_of(own)

    def accept_transfer(self, context: Any, volume: Volume, new_user: str, new_project: str) -> ModelUpdate:
        self._at("accept_transfer", BEFORE, volume.id)
        return None

    # --- trash --------------------------------------------------------------------------------------------------

    def trash_volume(self, volume: Volume) -> None:
        self._trash("trash_volume", volume)

    def trash_snapshot(self, snapshot: Snapshot) -> None:
        self._trash("trash_snapshot", snapshot)

    def _trash(self, verb: str, resource: Volume | Snapshot) -> None:
        self._at(verb, BEFORE, resource.id)
        self.store.remove(names.building_name(resource.name_id))
        self.store.rename(resource.name, names.trash_name(resource.name_id))
        self._at(verb, AFTER, resource.id)

    def restore_volume(self, volume: Volume) -> None:
        self._restore("restore_volume", volume)

    def restore_snapshot(self, snapshot: Snapshot) -> None:
        self._restore("restore_snapshot", snapshot)

    def _restore(self, verb: str, resource: Volume | Snapshot) -> None:
        self._at(verb, BEFORE, resource.id)
        if self.store.size(resource.name) is not None:
            return
        trash = names.trash_name(resource.name_id)
        # A wipe shrinks the object first of all, so one that has its full size has all its bytes.
        if self.store.size(trash) != resource.size_bytes:
            raise missing(resource)
        self.store.rename(trash, resource.name)
        self._at(verb, AFTER, resource.id)

    def wipe(self, kind: str, object_id: str, progress: Progress) -> None:
        self._at("wipe", BEFORE, object_id)
        trash = names.trash_name(object_id)
        size = self.store.size(trash)
        if size is None:
            return
        for left in range(WIPE_STEPS - 1, -1, -1):
            self.store.resize(trash, size * left // WIPE_STEPS)
            self._at("wipe", BUILDING, object_id)
            progress(1 - left / WIPE_STEPS)
        self.store.remove(trash)
        self._at("wipe", AFTER, object_id)

    # --- observe ------------------------------------------------------------------------------------------------

    def observe(self) -> Sequence[ObservedObject]:
        self._at("observe", BEFORE, "")
        return [found for name, size in self.store.entries() if (found := describe(name, size)) is not None]

    def recognise(self, verb: str, resource: Volume | Snapshot) -> dict[str, Any] | None:
        self._at("recognise", BEFORE, resource.id)
        size = self.store.size(resource.name)
        if verb in DELETING:
            done = size is None and self.store.size(names.building_name(resource.name_id)) is None
        elif verb == "extend_volume":
            done = size is not None and size >= resource.size_bytes
        elif verb in CREATING:
            done = size == resource.size_bytes
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

# SPDX-License-Identifier: Apache-2.0
"""What every part of the simulator stands on: its stores, its faults, and the plain verbs on volumes and snapshots.

The parts beside it (groups, managing, images, replicas) build on the few inner methods here. It knows no target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from oslo_config import cfg

from volmgr import exception, names
from volmgr.drivers import making
from volmgr.drivers.exporting import TargetVD
from volmgr.drivers.interfaces import ExtendVD, RetypeVD, SnapshotVD, TransferVD, TrashVD
from volmgr.drivers.interfaces.upkeep import Progress
from volmgr.drivers.naming import missing
from volmgr.drivers.sim.faults import AFTER, BEFORE, BUILDING, Faults
from volmgr.drivers.sim.store import REPLICA_SUFFIX, MemoryStore, Store, folder_store, memory_store
from volmgr.runtime import Clock
from volmgr.types import GiB, ModelUpdate, Snapshot, Volume, VolumeType

SIM_OPTS: list[cfg.Opt] = [
    cfg.StrOpt("sim_store", help="Name of the store in memory; drivers of one process with the same name share it"),
    cfg.StrOpt("sim_store_path", help="Folder for the objects; without it they live in memory"),
    cfg.StrOpt("sim_replica_store", help="Name of the store in memory for replicas; sim_store with .replica"),
    cfg.StrOpt("sim_replica_store_path", help="Folder for replicas; sim_store_path with .replica by default"),
    cfg.StrOpt("sim_faults_file", help="JSON file with faults; read again whenever it changes"),
    cfg.FloatOpt("sim_capacity_gb", default=100_000.0, min=0, help="Size of the simulated pool in GiB"),
    cfg.FloatOpt("sim_latency", default=0.0, min=0, help="Seconds that every verb takes"),
]
WIPE_STEPS = 8


class SimBase(SnapshotVD, ExtendVD, RetypeVD, TransferVD, TrashVD, TargetVD, abstract=True):
    """The base of :class:`volmgr.drivers.sim.driver.SimDriver`, which describes the arguments."""

    def __init__(
        self,
        *args: Any,
        clock: Clock | None = None,
        store: Store | None = None,
        replica_store: Store | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        options = self.configuration
        self.faults = Faults(clock, options.sim_faults_file)
        self.faults.latency = options.sim_latency
        if store is not None:
            self.store: Store = store
            self._replica_store: Store | str = replica_store or MemoryStore()
        elif options.sim_store_path:
            self.store = folder_store(options.sim_store_path)
            self._replica_store = options.sim_replica_store_path or options.sim_store_path.rstrip("/") + REPLICA_SUFFIX
        else:
            name = options.sim_store or self.host or "sim"
            self.store = memory_store(name)
            self._replica_store = memory_store(options.sim_replica_store or name + REPLICA_SUFFIX)
        self._limit = int(options.sim_capacity_gb * GiB * options.max_over_subscription_ratio)

    @classmethod
    def get_driver_options(cls) -> list[cfg.Opt]:
        return SIM_OPTS

    def _at(self, verb: str, when: str, resource_id: str) -> None:
        if when == BEFORE:
            self.faults.calls[verb] += 1
        if self.faults.armed:
            self.faults.reach(verb, when, resource_id)

    def _member(self, verb: str, when: str, resource_id: str) -> None:
        """Meet the faults of one of several resources of a verb; only the verb as a whole is counted."""
        if self.faults.armed:
            self.faults.reach(verb, when, resource_id)

    # --- what the replicas add ----------------------------------------------------------------------------------

    def _made(self, volume: Volume) -> ModelUpdate:
        """Called when ``volume`` is there; returns changes to its row."""
        return None

    def _end_replica(self, resource: Volume | Snapshot) -> None:
        """Called before ``resource`` goes."""

    def _replicated(self, volume: Volume) -> bool:
        """Return whether ``volume`` has a replica."""
        return False

    def _retyped(self, volume: Volume, diff: Mapping[str, Any]) -> ModelUpdate:
        """Called when the type of ``volume`` changes; returns changes to its row."""
        return None

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
        if self._build("create_snapshot", snapshot, snapshot.volume_name, snapshot.size_bytes):
            self._at("create_snapshot", AFTER, snapshot.id)
        return None

    def _make(self, verb: str, volume: Volume, source: Volume | Snapshot | None) -> ModelUpdate:
        self._at(verb, BEFORE, volume.id)
        source_name = source.name if source is not None else None
        if source is not None and source_name is not None and self.store.size(volume.name) is None:
            source_size = self.store.size(source_name)
            if source_size is None:
                raise missing(source)
            if source_size > volume.size_bytes:
                raise exception.Invalid("The volume is smaller than its source", field="size")
        built = self._build(verb, volume, source_name, volume.size_bytes)
        update = None if volume.volume_type is None else self._made(volume)
        if built:
            self._at(verb, AFTER, volume.id)
        return update

    def _build(self, verb: str, resource: Volume | Snapshot, source: str | None, size_bytes: int) -> bool:
        """Make the object of ``resource``; returns False if it was there already."""
        store, name, work = self.store, resource.name, making.mark()
        present = store.size(name)
        if present is not None:
            making.expect(name, store.mark_of(name), work)
            if present != size_bytes:
                raise exception.AlreadyExists(resource="object", id=name)
            return False
        building = names.building_name(resource.name_id)
        self._check_room(size_bytes)
        if source is None:
            store.create(building, size_bytes)
        else:
            store.copy(source, building, size_bytes)
        store.mark(building, work)
        self._at(verb, BUILDING, resource.id)
        store.rename(building, name)
        return True

    def _check_room(self, size_bytes: int) -> None:
        if self.store.provisioned() + size_bytes > self._limit:
            raise exception.NoSpace(f"The pool has no room for {size_bytes / GiB:g} GiB more")

    def delete_volume(self, volume: Volume) -> None:
        self._delete("delete_volume", volume)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self._delete("delete_snapshot", snapshot)

    def _delete(self, verb: str, resource: Volume | Snapshot) -> None:
        self._at(verb, BEFORE, resource.id)
        self._remove(resource)
        self._at(verb, AFTER, resource.id)

    def _remove(self, resource: Volume | Snapshot) -> None:
        if not (making.undoing() and making.spared(self.store.mark_of(resource.name))):
            self._end_replica(resource)
            self.store.remove(resource.name)
        self.store.remove(names.building_name(resource.name_id))

    # --- change -------------------------------------------------------------------------------------------------

    def extend_volume(self, volume: Volume, new_size: int) -> None:
        self._at("extend_volume", BEFORE, volume.id)
        present = self.store.size(volume.name)
        if present is None:
            raise exception.VolumeNotFound(id=volume.id)
        if present > new_size * GiB:
            raise exception.Invalid("A volume cannot shrink", field="new_size")
        self._check_room(new_size * GiB - present)
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
        if names.service_of(wanted) != names.service_of(own):
            return False
        update = self._retyped(volume, diff)
        return True if update is None else (True, update)

    def before_volume_copy(self, context: Any, src_vol: Volume, dest_vol: Volume, remote: str | None = None) -> None:
        self._at("before_volume_copy", BEFORE, src_vol.id)

    def after_volume_copy(self, context: Any, src_vol: Volume, dest_vol: Volume, remote: str | None = None) -> None:
        self._at("after_volume_copy", BEFORE, src_vol.id)

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
        self._end_replica(resource)
        self.store.remove(names.building_name(resource.name_id))
        self.store.rename(resource.name, names.trash_name(resource.name_id))
        self._at(verb, AFTER, resource.id)

    def restore_volume(self, volume: Volume) -> None:
        self._restore("restore_volume", volume)
        if volume.volume_type is not None:
            self._made(volume)

    def restore_snapshot(self, snapshot: Snapshot) -> None:
        self._restore("restore_snapshot", snapshot)

    def _restore(self, verb: str, resource: Volume | Snapshot) -> None:
        self._at(verb, BEFORE, resource.id)
        if self.store.size(resource.name) is not None:
            if making.first():
                raise exception.ObjectExists(id=resource.name)
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

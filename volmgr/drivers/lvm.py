# SPDX-License-Identifier: Apache-2.0
"""Volumes as logical volumes of one LVM volume group, thin in a pool or thick.

Thick space is zeroed before a volume gets its name, unless the group has the tag ``volmgr.clean``, which promises that
its free space reads as zeros; deleted space is then wiped without exception. It knows no target and no database.
"""

from __future__ import annotations

import dataclasses
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from volmgr import exception, names
from volmgr.drivers import lvm_copy
from volmgr.drivers import progress as reports
from volmgr.drivers.interfaces.upkeep import Progress
from volmgr.drivers.lvm_manage import LVMManaging
from volmgr.drivers.lvm_setup import WIPING_TAG, silent
from volmgr.drivers.lvm_trash import LVMTrash
from volmgr.drivers.naming import CREATING, DELETING, describe, missing, own_name
from volmgr.tools import lvm_dm
from volmgr.tools import lvm_errors as lvm
from volmgr.tools.lvm_report import LogicalVolume, LvState, Report
from volmgr.types import GiB, MiB, ModelUpdate, ObservedObject, Snapshot, Volume, VolumeType

LOG = logging.getLogger(__name__)

#: How often growth looks for other space when what it had zeroed is gone.
EXTEND_TRIES = 3
_SUSPENDED = {LvState.SUSPENDED, LvState.INVALID_SUSPENDED_SNAPSHOT, LvState.MERGE_FAILED_SUSPENDED}
_BETWEEN = uuid.UUID("2c0a9f5e-53b1-4b9c-8f0e-0d0f5f7a6b11")


class LVMVolumeDriver(LVMTrash, LVMManaging):
    """Logical volumes ``volume-<id>`` and ``_snapshot-<id>``.

    :param vg_obj: a :class:`volmgr.tools.lvm.VolumeGroup` to use in place of the one that the options name.
    """

    VERSION = "1.0.0"
    CI_WIKI_NAME = "volmgr_lab"
    vendor_name: ClassVar[str] = "volmgr"
    storage_protocol: ClassVar[str | None] = "LVM"

    # --- statistics ---------------------------------------------------------------------------------------------

    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        if refresh or not self._stats:
            self._stats = self._measure()
        return self._stats

    def _measure(self) -> dict[str, Any]:
        found = self._look()
        ours = [item for item in found.volumes.values() if describe(item.name, 0) is not None]
        pool = found.volumes.get(self.pool)
        total, free = found.size_bytes, found.free_bytes
        allocated = sum(item.space_bytes for item in ours)
        if self.thin and pool is not None:
            total = pool.space_bytes
            allocated = round(total * (pool.data_percent or 0.0) / 100)
            free = total - allocated
        configuration = self.configuration
        return {
            "volume_backend_name": self.backend_name,
            "vendor_name": self.vendor_name,
            "driver_version": self.VERSION,
            "storage_protocol": self.target_driver.protocol if self.target_driver else self.storage_protocol,
            "pools": [
                {
                    "pool_name": self.backend_name,
                    "total_capacity_gb": total / GiB,
                    "free_capacity_gb": free / GiB,
                    "provisioned_capacity_gb": sum(item.size_bytes for item in ours) / GiB,
                    "allocated_capacity_gb": allocated / GiB,
                    "metadata_percent": pool.metadata_percent if pool is not None else None,
                    "reserved_percentage": configuration.reserved_percentage,
                    "max_over_subscription_ratio": configuration.max_over_subscription_ratio,
                    "thin_provisioning_support": self.thin,
                    "thick_provisioning_support": not self.thin,
                    "location_info": f"LVMVolumeDriver:{self.host}:{self.vg.name}:{'thin' if self.thin else 'default'}",
                    "multiattach": True,
                    "filter_function": self.get_filter_function(),
                    "goodness_function": self.get_goodness_function(),
                    **configuration.extra_capabilities,
                }
            ],
        }

    def get_pool(self, volume: Volume) -> str | None:
        return self.backend_name

    # --- create -------------------------------------------------------------------------------------------------

    def create_volume(self, volume: Volume) -> ModelUpdate:
        tags = names.lv_tags(volume.name_id, "volume", volume.id)
        if self.thin:
            self._admit()

            def create() -> None:
                self.vg.create_thin(volume.name, volume.size_bytes, self.pool, tags)

            return self._at_once(volume, create)
        if self._clean:
            return self._at_once(volume, lambda: self.vg.create_thick(volume.name, volume.size_bytes, tags))
        return self._build(volume, lambda building: self._make_thick(building, volume, tags))

    def _at_once(self, resource: Volume | Snapshot, create: Callable[[], None]) -> ModelUpdate:
        """Make an object by one command, under its final name."""
        self._drop_building(resource)
        try:
            create()
        except lvm.LvExists:
            self._expect(resource)
        return None

    def _build(self, resource: Volume, fill: Callable[[str], None]) -> ModelUpdate:
        """Make an object under its building name by ``fill``, then give it its own name as the last act."""
        if self._has_node(resource.name):
            self._expect(resource)
            self._drop_building(resource)
            return None
        building = names.building_name(resource.name_id)
        self._drop_building(resource)
        try:
            self._fill_and_name(building, resource.name, fill)
        except lvm.LvExists:
            # The building name was taken by something inactive, or the final one is.
            self._erase(building, silent)
            if resource.name in self._look().volumes:
                self._expect(resource)
            else:
                self._fill_and_name(building, resource.name, fill)
        return None

    def _fill_and_name(self, building: str, name: str, fill: Callable[[str], None]) -> None:
        try:
            fill(building)
            self.vg.rename(building, name)
        except lvm.LvExists:
            raise
        except BaseException:
            # Tried, not promised: whatever stays under the building name is removed by the next create or delete.
            self._try_erasing(building)
            raise

    def _make_thick(self, building: str, volume: Volume, tags: Sequence[str]) -> None:
        self.vg.create_thick(building, volume.size_bytes, tags)
        if not self._clean:
            lvm_copy.zero(self.vg.path(building), reports.report, pace=self._pace())

    def _expect(self, resource: Volume | Snapshot) -> None:
        """Check that what bears the resource's name has its size, and can be used.

        :raises AlreadyExists: it has another size.
        """
        found = self._look()
        present = found.volumes.get(resource.name)
        if present is None:
            raise exception.Inconsistent(f"{resource.name} was there a moment ago and is not any more")
        if present.size_bytes != found.rounded(resource.size_bytes):
            raise exception.AlreadyExists(resource="object", id=resource.name)
        if not present.active:
            self.vg.activate(present.name)

    # --- snapshots and copies -----------------------------------------------------------------------------------

    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        try:
            return self._snap(snapshot, snapshot.volume_name, names.lv_tags(snapshot.name_id, "snapshot", snapshot.id))
        except lvm.LvNotFound as error:
            raise exception.VolumeNotFound(id=snapshot.volume_id) from error

    def _snap(self, resource: Volume | Snapshot, origin: str, tags: Sequence[str]) -> ModelUpdate:
        """Make a snapshot of ``origin`` under the resource's name; one whose making failed is never kept."""
        if self._has_node(resource.name):
            self._drop_building(resource)
            self._expect(resource)
            return None
        space = None
        if self._is_thin(origin):
            self._admit()
        else:
            # Room for every block to change, with LVM's own tables: such a snapshot never overflows.
            space = resource.size_bytes + resource.size_bytes // 128 + 16 * MiB

        def create() -> None:
            try:
                self.vg.snapshot(resource.name, origin, tags, space)
            except (lvm.LvmFailed, lvm.PoolBroken, exception.Timeout):
                self._try_erasing(resource.name)
                raise

        return self._at_once(resource, create)

    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        return self._copy(volume, snapshot.name, snapshot, snapshot.size_bytes)

    def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        if self._has_node(volume.name) or self._is_thin(src_vref.name):
            return self._copy(volume, src_vref.name, src_vref, src_vref.size_bytes)
        _refuse_smaller(volume, src_vref.size_bytes)
        # The copy is of one moment: that of a snapshot, whose id follows from the volume's, so that whoever takes the
        # volume away after a crash finds it.
        between = Snapshot(
            id=between_id(volume.name_id), volume_id=src_vref.id, volume_size=src_vref.size, volume=src_vref
        )
        self.delete_snapshot(between)
        self.create_snapshot(between)
        try:
            return self.create_volume_from_snapshot(volume, between)
        finally:
            self.delete_snapshot(between)

    def _copy(self, volume: Volume, source: str, resource: Volume | Snapshot, size_bytes: int) -> ModelUpdate:
        """Make ``volume`` with the bytes of the logical volume ``source``, which is that of ``resource``."""
        _refuse_smaller(volume, size_bytes)
        tags = names.lv_tags(volume.name_id, "volume", volume.id)
        try:
            if not self._is_thin(source):
                return self._build(volume, lambda name: self._fill(name, volume, source, size_bytes))
            if volume.size_bytes == size_bytes:
                return self._snap(volume, source, tags)
            return self._build(volume, lambda name: self._grown_clone(name, volume, source))
        except lvm.LvNotFound as error:
            raise missing(resource) from error

    def _grown_clone(self, building: str, volume: Volume, source: str) -> None:
        self._admit()
        self.vg.snapshot(building, source, names.lv_tags(volume.name_id, "volume", volume.id))
        self.vg.extend(building, volume.size_bytes)

    def _fill(self, building: str, volume: Volume, source: str, size_bytes: int) -> None:
        """Make a thick volume with the bytes of ``source`` and zeros behind them."""
        self._need_node(source)
        self.vg.create_thick(building, volume.size_bytes, names.lv_tags(volume.name_id, "volume", volume.id))
        path = self.vg.path(building)
        sparse = self._clean or lvm_copy.unmap(path, silent)
        lvm_copy.copy(self.vg.path(source), path, size_bytes, reports.report, sparse=sparse, pace=self._pace())
        if not sparse:
            lvm_copy.zero(path, lambda _fraction: reports.report(1.0), start=size_bytes, end=volume.size_bytes)

    # --- extend -------------------------------------------------------------------------------------------------

    def extend_volume(self, volume: Volume, new_size: int) -> None:
        try:
            if self._is_thin(volume.name):
                self.vg.extend(volume.name, new_size * GiB)
            else:
                self._extend_thick(volume, new_size * GiB)
        except lvm.LvNotFound as error:
            raise exception.VolumeNotFound(id=volume.id) from error
        except lvm.LvWouldShrink as error:
            raise exception.Invalid("A volume cannot shrink", field="new_size") from error
        except lvm.LvInUse as error:
            raise exception.VolumeIsBusy(volume_name=volume.name, hint=error.hint) from error

    def _extend_thick(self, volume: Volume, size_bytes: int) -> None:
        found = self._look()
        present = found.volumes.get(volume.name)
        if present is None:
            raise exception.VolumeNotFound(id=volume.id)
        wanted = found.rounded(size_bytes)
        if present.size_bytes > wanted:
            raise exception.Invalid("A volume cannot shrink", field="new_size")
        if present.size_bytes == wanted:
            return
        if names.building_name(volume.name_id) in found.volumes:
            self._erase(names.building_name(volume.name_id), silent)
        for left in reversed(range(EXTEND_TRIES)):
            ranges = () if self._clean else self._zeroed_extents(volume, wanted - present.size_bytes)
            try:
                self._extend_origin(volume.name, size_bytes, ranges)
                return
            except lvm.GroupFull:
                # Somebody took the zeroed extents in the moment in which they were free.
                if not ranges or not left:
                    raise

    def _extend_origin(self, name: str, size_bytes: int, ranges: Sequence[str]) -> None:
        try:
            self.vg.extend(name, size_bytes, ranges)
        except lvm.LvActiveOrigin:
            self.vg.deactivate(name)
            try:
                self.vg.extend(name, size_bytes, ranges)
            finally:
                self.vg.activate(name)

    def _zeroed_extents(self, volume: Volume, size_bytes: int) -> tuple[str, ...]:
        """Zero free space and return where it is, so that the volume grows by it and never shows other bytes."""
        building = names.building_name(volume.name_id)
        self.vg.create_thick(building, size_bytes)
        try:
            lvm_copy.zero(self.vg.path(building), reports.report, pace=self._pace())
            return self._look().volumes[building].pe_ranges
        finally:
            self.vg.remove(building)

    def retype(
        self,
        context: Any,
        volume: Volume,
        new_type: VolumeType | Mapping[str, Any],
        diff: Mapping[str, Any],
        host: Mapping[str, Any],
    ) -> bool | tuple[bool, ModelUpdate]:
        """Return whether the volume stays in this backend: its logical volumes know no types."""
        wanted, own = str(host.get("host") or self.host or ""), self.host or ""
        return names.service_of(wanted) == names.service_of(own)

    # --- delete -------------------------------------------------------------------------------------------------

    def delete_volume(self, volume: Volume) -> None:
        self._delete(volume)
        between = names.object_name("snapshot", between_id(volume.name_id))
        if self._has_node(between):
            self._erase(between, reports.report)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self._delete(snapshot)

    # --- observe ------------------------------------------------------------------------------------------------

    def observe(self) -> Sequence[ObservedObject]:
        report = self._look()
        return [item for volume in report.volumes.values() if (item := self._observed(report, volume)) is not None]

    @staticmethod
    def _observed(report: Report, volume: LogicalVolume) -> ObservedObject | None:
        found = describe(volume.name, volume.size_bytes)
        if found is None:
            return None
        waits = WIPING_TAG in volume.tags and bool(report.thick_snapshots_of(volume.name))
        return dataclasses.replace(
            found,
            # Another program gives its volumes the same names, but not our tags; the names of what is being built or
            # lies in the trash are ours alone.
            marked=found.state != "current" or any(tag.startswith(names.LV_TAG_PREFIX) for tag in volume.tags),
            held=found.state == "trash" and waits,
            suspended=volume.attributes.state in _SUSPENDED,
            unit_bytes=report.extent_bytes,
        )

    def discard(self, name: str, progress: Progress) -> None:
        own_name(name)
        if self._has_node(name) and lvm_dm.open_count(self.vg.path(name)) and not lvm_dm.closes(self.vg.path(name)):
            raise exception.Busy(
                f"{self.vg.name}/{name} is in use", hint="See who has it open: dmsetup ls --tree", name=name
            )
        self._erase(name, progress)
        progress(1.0)

    def resume(self, name: str) -> None:
        own_name(name)
        lvm_dm.resume(self.vg.name, name)

    def helper_ids(self, object_id: str) -> tuple[str, ...]:
        return (between_id(object_id),)

    def recognise(self, verb: str, resource: Volume | Snapshot) -> dict[str, Any] | None:
        found = self._look()
        present = found.volumes.get(resource.name)
        wanted = found.rounded(resource.size_bytes)
        if verb in DELETING:
            done = present is None and names.building_name(resource.name_id) not in found.volumes
        elif verb == "extend_volume":
            done = present is not None and present.size_bytes >= wanted
        elif verb in CREATING:
            done = present is not None and present.size_bytes == wanted
        else:
            done = False
        if not done:
            raise exception.NotFound(resource="object", id=resource.name)
        return None

    # --- what the rest stands on --------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Refuse to put more into a thin pool that is nearly full, or that LVM and the kernel see differently.

        :raises NoSpace: its data or its metadata is above its threshold.
        """
        try:
            status = lvm_dm.pool_status(self.vg.name, self.pool)
        except ValueError as error:
            raise exception.BackendDown(
                f"The thin pool {self.vg.name}/{self.pool} has failed: {error}",
                hint=f"Run: lvconvert --repair {self.vg.name}/{self.pool}",
            ) from error
        if status is None:
            try:
                self.vg.activate(self.pool)
            except lvm.LvNotFound:
                self._check_pool(None)
            status = lvm_dm.pool_status(self.vg.name, self.pool)
            if status is None:
                raise exception.BackendDown(f"The thin pool {self.vg.name}/{self.pool} cannot be activated")
        limits = (
            ("data", status.data_percent, self.configuration.lvm_pool_data_threshold, "-L +SIZE"),
            (
                "metadata",
                status.metadata_percent,
                self.configuration.lvm_pool_metadata_threshold,
                "--poolmetadatasize +SIZE",
            ),
        )
        for what, percent, limit, option in limits:
            if percent >= limit:
                raise exception.NoSpace(
                    f"The {what} of the thin pool {self.vg.name}/{self.pool} is {percent:.1f} % full, "
                    f"lvm_pool_{what}_threshold is {limit} %",
                    hint=f"Run: lvextend {option} {self.vg.name}/{self.pool}, or delete volumes",
                )

    def _is_thin(self, name: str) -> bool:
        """Return whether a logical volume is thin: the kernel knows, and LVM where it is not active.

        :raises LvNotFound: it is not there.
        """
        table = lvm_dm.table(self.vg.name, name)
        if table is not None:
            return table[0] == "thin"
        self._need_node(name)
        table = lvm_dm.table(self.vg.name, name)
        return table is not None and table[0] == "thin"

    def _need_node(self, name: str) -> None:
        """Make sure that a logical volume can be opened.

        :raises LvNotFound: it is not there.
        """
        if self._has_node(name):
            return
        present = self._look().volumes.get(name)
        if present is None:
            raise lvm.LvNotFound(command="lvs", group=self.vg.name, reason=f"{name} is not there")
        self.vg.activate(name)

    def _pace(self) -> lvm_copy.Pace:
        return lvm_copy.Pace(int(self.configuration.volume_copy_bps_limit))


def between_id(object_id: str) -> str:
    """Return the id of the snapshot through which the object is made as a clone."""
    return str(uuid.uuid5(_BETWEEN, object_id))


def _refuse_smaller(volume: Volume, source_bytes: int) -> None:
    if volume.size_bytes < source_bytes:
        raise exception.Invalid("It is smaller than its source", field="size")

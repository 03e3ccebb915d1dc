# SPDX-License-Identifier: Apache-2.0
"""Volumes as logical volumes of one LVM volume group, thin in a pool or thick.

Thick space is zeroed before a volume gets its name, unless the group has the tag ``volmgr.clean``, which promises that
its free space reads as zeros; deleted space is then wiped without exception. It knows no target and no database.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from volmgr import exception, names
from volmgr.drivers.interfaces.upkeep import Progress
from volmgr.drivers.lvm_backup import LVMBackups
from volmgr.drivers.lvm_build import between_id
from volmgr.drivers.lvm_failover import LVMFailover
from volmgr.drivers.lvm_groups import LVMGroups
from volmgr.drivers.lvm_manage import LVMManaging
from volmgr.drivers.lvm_move import LVMMoving
from volmgr.drivers.lvm_revert import LVMReverting
from volmgr.drivers.naming import CREATING, DELETING, describe, own_name
from volmgr.tools import lvm_dm
from volmgr.tools.lvm_report import LogicalVolume, LvState, Report
from volmgr.types import GiB, ModelUpdate, ObservedObject, Snapshot, Volume, VolumeType

LOG = logging.getLogger(__name__)

_SUSPENDED = {LvState.SUSPENDED, LvState.INVALID_SUSPENDED_SNAPSHOT, LvState.MERGE_FAILED_SUSPENDED}



class LVMVolumeDriver(LVMFailover, LVMGroups, LVMMoving, LVMReverting, LVMManaging, LVMBackups):
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
            self._thin_pool.watch()
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
                    "location_info": str(self.place),
                    "multiattach": True,
                    "consistencygroup_support": self.thin,
                    "filter_function": self.get_filter_function(),
                    "goodness_function": self.get_goodness_function(),
                    **self._replication_stats(),
                    **configuration.extra_capabilities,
                }
            ],
            **self._target_stats(),
        }

    def get_pool(self, volume: Volume) -> str | None:
        return self.backend_name

    # --- type and exports ---------------------------------------------------------------------------------------

    def retype(
        self,
        context: Any,
        volume: Volume,
        new_type: VolumeType | Mapping[str, Any],
        diff: Mapping[str, Any],
        host: Mapping[str, Any],
    ) -> bool | tuple[bool, ModelUpdate]:
        """Return whether the volume stays in this backend; of types its logical volumes know only the replica."""
        wanted, own = str(host.get("host") or self.host or ""), self.host or ""
        if names.service_of(wanted) != names.service_of(own):
            return False
        update = self._retyped(volume, diff)
        return True if update is None else (True, update)

    def create_export(
        self, context: Any, volume: Volume, connector: Mapping[str, Any] | None, vg: str | None = None
    ) -> ModelUpdate:
        """Export ``volume``.

        :param vg: the group that it is in, the backend's own without it.
        """
        spec = dataclasses.replace(self.export_spec(volume), path=self.local_path(volume, vg))
        self._target().sync(spec)
        return {"provider_location": self._target().location(spec)}

    # --- observe ------------------------------------------------------------------------------------------------

    def observe(self) -> Sequence[ObservedObject]:
        report = self._look()
        found = [item for volume in report.volumes.values() if (item := self._observed(report, volume)) is not None]
        return [*found, *self._left_points(report)]

    @staticmethod
    def _observed(report: Report, volume: LogicalVolume) -> ObservedObject | None:
        found = describe(volume.name, volume.size_bytes)
        if found is None:
            return None
        needed = [item for item in report.thick_snapshots_of(volume.name) if not names.parse_trash_name(item.name)]
        return dataclasses.replace(
            found,
            # Another program gives its volumes the same names, but not our tags; the names of what is being built or
            # lies in the trash are ours alone.
            marked=found.state != "current" or any(tag.startswith(names.LV_TAG_PREFIX) for tag in volume.tags),
            held=found.state == "trash" and bool(needed),
            suspended=volume.attributes.state in _SUSPENDED,
            unit_bytes=report.extent_bytes,
        )

    def discard(self, name: str, progress: Progress) -> None:
        if (point := names.parse_point_name(name)) is not None:
            self._discard_points(point[0])
            progress(1.0)
            return
        self.gates.remove(own_name(name).object_id)
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
            done = done and not self._has_points(found, resource)
        elif verb == "extend_volume":
            done = present is not None and present.size_bytes >= wanted
        elif verb in CREATING:
            done = present is not None and present.size_bytes == wanted
        else:
            done = False
        if not done:
            raise exception.NotFound(resource="object", id=resource.name)
        return self._recognised(resource) if verb in CREATING else None

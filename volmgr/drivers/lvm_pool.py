# SPDX-License-Identifier: Apache-2.0
"""The thin pool of the LVM driver: made, checked, kept from filling up.

A full pool stops every volume in it, in its data as in its metadata. So there are three marks on each: from the first
on there is a warning, and growth where that is allowed; from the second on nothing is put into it any more; the third
is the end, and nobody should see it. It knows no volumes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time

from volmgr import exception
from volmgr.drivers.options import Configuration
from volmgr.tools import lvm_dm
from volmgr.tools import lvm_errors as lvm
from volmgr.tools.lvm import VolumeGroup
from volmgr.tools.lvm_report import Health, LogicalVolume, LvKind, LvState, Report
from volmgr.types import MiB

LOG = logging.getLogger(__name__)

#: Part of the group's free space that a thin pool takes when it is made; the rest is for its metadata and repairs.
POOL_PERCENT = 95
#: What a mirrored pool's metadata takes of its data's size, and at least and at most.
METADATA_SHARE, METADATA_LEAST, METADATA_MOST = 1000, 8 * MiB, 15 * 1024 * MiB
#: Seconds until growth is tried again after the group had nothing left to give.
GROW_PAUSE = 60.0


class ThinPool:
    """One thin pool.

    :param vg: the commands on its group. :param name: the pool's. :param configuration: the backend's options.
    """

    def __init__(self, vg: VolumeGroup, name: str, configuration: Configuration) -> None:
        self.vg = vg
        self.name = name
        self.where = f"{vg.name}/{name}"
        self._configuration = configuration
        self._growing = threading.Lock()
        self._not_before = 0.0
        self._warned: set[str] = set()

    # --- making and checking ------------------------------------------------------------------------------------

    def make(self, found: Report, mirrors: int) -> None:
        """Make the pool, of RAID 1 with ``mirrors`` copies beside the first."""
        with contextlib.suppress(lvm.LvExists):  # another worker on the same group was quicker
            if mirrors:
                self._make_mirrored(found, mirrors)
            else:
                self.vg.create_pool(self.name, POOL_PERCENT)
        LOG.info("Made the thin pool %s", self.where)

    def _make_mirrored(self, found: Report, mirrors: int) -> None:
        free = sorted((disk.free_bytes for disk in found.physical), reverse=True)[: mirrors + 1]
        data = free[-1] * POOL_PERCENT // 100 // found.extent_bytes * found.extent_bytes
        metadata = found.rounded(min(max(data // METADATA_SHARE, METADATA_LEAST), METADATA_MOST))
        self.vg.create_mirrored_pool(self.name, data - metadata, metadata, mirrors)

    def check(self, pool: LogicalVolume | None) -> None:
        """Check what the group's report says of the pool.

        :raises BackendDown: it is not there or cannot be used; the hint has the command that mends it.
        """
        if pool is None:
            raise exception.BackendDown(
                f"The thin pool {self.where} is not there",
                hint=f"Run: lvcreate -Zy -T -l {POOL_PERCENT}%FREE {self.where}",
            )
        bits = pool.attributes
        problems = (
            (bits.kind is not LvKind.THIN_POOL, "is not a thin pool", f"lvrename {self.where} OTHER-NAME"),
            (
                bits.state in (LvState.CHECK_NEEDED, LvState.CHECK_NEEDED_SUSPENDED) or bits.health is Health.FAILED,
                "needs a repair",
                f"lvconvert --repair {self.where}",
            ),
            (
                bits.health is Health.METADATA_READ_ONLY,
                "has full or broken metadata",
                f"lvextend --poolmetadatasize +SIZE {self.where}",
            ),
            (not bits.zeroes, "does not zero what it hands out", f"lvchange -Zy {self.where}"),
        )
        for wrong, what, command in problems:
            if wrong:
                raise exception.BackendDown(f"{self.where} {what}", hint=f"Run: {command}")

    # --- how full it is -----------------------------------------------------------------------------------------

    def admit(self) -> None:
        """Return if there is room for one more; the kernel is asked, no process is started.

        :raises NoSpace: its data or its metadata is above its threshold, and it cannot grow.
        """
        status = self._status()
        if self._near(status):
            self._grow()
            status = self._status()
        for what, percent, limit, option in self._marks(status):
            if percent >= limit:
                raise exception.NoSpace(
                    f"The {what} of the thin pool {self.where} is {percent:.1f} % full, "
                    f"lvm_pool_{what}_threshold is {limit} %",
                    hint=f"Run: lvextend {option} {self.where}, or delete volumes",
                )

    def watch(self) -> None:
        """Warn if it is nearly full, and let it grow if it may; for the regular look at the backend."""
        status = self._status()
        near = self._near(status)
        for what, percent, limit, option in self._marks(status):
            if what in near and what not in self._warned:
                LOG.warning(
                    "The %s of the thin pool %s is %.1f %% full; from %d %% on nothing is created. Run: lvextend %s %s",
                    *(what, self.where, percent, limit, option, self.where),
                )
        self._warned = near
        if near:
            self._grow()

    def _status(self) -> lvm_dm.PoolStatus:
        status = self._ask()
        if status is None:
            try:
                self.vg.activate(self.name)
            except lvm.LvNotFound:
                self.check(None)
            status = self._ask()
        if status is None:
            raise exception.BackendDown(f"The thin pool {self.where} cannot be activated", hint="See: dmesg")
        return status

    def _ask(self) -> lvm_dm.PoolStatus | None:
        try:
            return lvm_dm.pool_status(self.vg.name, self.name)
        except ValueError as error:
            raise exception.BackendDown(
                f"The thin pool {self.where} has failed: {error}", hint=f"Run: lvconvert --repair {self.where}"
            ) from error

    def _marks(self, status: lvm_dm.PoolStatus) -> tuple[tuple[str, float, int, str], ...]:
        options = self._configuration
        return (
            ("data", status.data_percent, options.lvm_pool_data_threshold, "-L +SIZE"),
            ("metadata", status.metadata_percent, options.lvm_pool_metadata_threshold, "--poolmetadatasize +SIZE"),
        )

    def _near(self, status: lvm_dm.PoolStatus) -> set[str]:
        """Return what of it is above its first mark."""
        margin = self._configuration.lvm_pool_warning_margin
        return {what for what, percent, limit, _option in self._marks(status) if percent >= max(1, limit - margin)}

    # --- growing ------------------------------------------------------------------------------------------------

    def _grow(self) -> None:
        """Make larger what is nearly full, if the options allow it and the group has something left."""
        percent = self._configuration.lvm_pool_autoextend_percent
        if not percent or time.monotonic() < self._not_before:
            return
        with self._growing:
            near = self._near(self._status())  # another thread may have been here
            if not near:
                return
            found = self.vg.report()
            pool = found.volumes.get(self.name)
            if pool is None:
                return
            data, metadata = _growth(found, pool, near, percent)
            if not data and not metadata:
                self._not_before = time.monotonic() + GROW_PAUSE
                LOG.warning("The thin pool %s cannot grow: the group has %d free bytes", self.where, found.free_bytes)
                return
            try:
                self.vg.grow_pool(self.name, data_bytes=data, metadata_bytes=metadata)
            except lvm.GroupFull as error:
                self._not_before = time.monotonic() + GROW_PAUSE
                LOG.warning("The thin pool %s cannot grow: %s", self.where, error)
            else:
                LOG.info("The thin pool %s has grown by %d bytes, its metadata by %d", self.where, data, metadata)


def _growth(found: Report, pool: LogicalVolume, near: set[str], percent: int) -> tuple[int, int]:
    """Return by how many bytes data and metadata may grow; metadata first, as less of it is needed."""
    extent, free = found.extent_bytes, found.free_bytes
    metadata = 0
    if "metadata" in near:
        # The spare that LVM keeps for repairs grows along.
        wanted = found.rounded(pool.metadata_bytes * percent // 100)
        metadata = max(0, min(wanted, METADATA_MOST - pool.metadata_bytes, free // 2)) // extent * extent
        free -= 2 * metadata
    data = 0
    if "data" in near:
        data = min(found.rounded(pool.space_bytes * percent // 100), free) // extent * extent
    return data, metadata

# SPDX-License-Identifier: Apache-2.0
"""The ground of the LVM driver: its options, its volume group, its checks, and how space is freed.

It knows no target, and of the verbs only what they share.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

from oslo_config import cfg

from volmgr import exception, names
from volmgr.conf import volume as options
from volmgr.drivers import lvm_copy
from volmgr.drivers.driver import VolumeDriver
from volmgr.drivers.exporting import TargetVD
from volmgr.tools import lvm_dm
from volmgr.tools import lvm_errors as lvm
from volmgr.tools.lvm import VolumeGroup
from volmgr.tools.lvm_report import Health, LogicalVolume, LvKind, LvState, Report
from volmgr.types import MiB, Snapshot, Volume

LOG = logging.getLogger(__name__)

#: Tag of a group whose free space reads as zeros; an operator sets it, and volmgr keeps it true.
CLEAN_TAG = f"{names.LV_TAG_PREFIX}clean"
#: Tag of a deleted volume whose bytes are not whole any more.
WIPING_TAG = f"{names.LV_TAG_PREFIX}wiping"
#: Part of the group's free space that a thin pool takes when it is made; the rest is for its metadata and repairs.
POOL_PERCENT = 95
_OWN = {"volume_clear", "volume_clear_size", "volume_copy_bps_limit"}


class LVMSetup(TargetVD, VolumeDriver, abstract=True):
    """What every part of the LVM driver stands on.

    :param vg_obj: the group's commands, made from the options without it.
    :param lock_fd: a descriptor that LVM's commands hold open while they run.
    """

    def __init__(
        self, vg_obj: VolumeGroup | None = None, *args: Any, lock_fd: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        configuration = self.configuration
        self.vg = vg_obj or VolumeGroup(
            configuration.volume_group,
            conf_file=configuration.lvm_conf_file,
            timeout=float(configuration.safe_get("command_timeout") or 60),
            tries=int(configuration.safe_get("num_shell_tries") or 3),
            lock_fd=lock_fd,
        )
        self.pool = f"{self.vg.name}-pool"
        self.thin = configuration.lvm_type == "thin"
        self.instant_clone = self.thin
        self._clean = False
        self._stats: dict[str, Any] = {}

    @classmethod
    def get_driver_options(cls) -> list[cfg.Opt]:
        return [*options.LVM_OPTIONS, *(opt for opt in options.OPTIONS if opt.dest in _OWN)]

    # --- setting up ---------------------------------------------------------------------------------------------

    def do_setup(self, context: Any) -> None:
        """Look at the group, decide between thin and thick, make the thin pool if there is to be one.

        ``lvm_type = auto`` is thin where the pool is there or the group is empty, and thick in a group with volumes.

        :raises BackendDown: the group is not there.
        """
        self._check_options()
        found = self._look()
        wanted = self.configuration.lvm_type
        self.thin = wanted == "thin" or (wanted == "auto" and (self.pool in found.volumes or not found.volumes))
        self.instant_clone = self.thin
        if self.thin and self.pool not in found.volumes:
            with contextlib.suppress(lvm.LvExists):  # another worker on the same group was quicker
                self.vg.create_pool(self.pool, POOL_PERCENT)
            LOG.info("Made the thin pool %s/%s", self.vg.name, self.pool)
        LOG.info("Volume group %s: %s volumes", self.vg.name, "thin" if self.thin else "thick")

    def _check_options(self) -> None:
        if self.configuration.lvm_mirrors:
            raise exception.InvalidConfiguration(
                reason="lvm_mirrors is set, and mirrored volumes are not supported",
                hint="Set lvm_mirrors = 0, and put the group on a RAID array",
            )
        path = self.configuration.lvm_conf_file
        if path is not None and (os.path.basename(path) != "lvm.conf" or not os.path.isfile(path)):
            raise exception.InvalidConfiguration(
                reason=f"lvm_conf_file {path} is not a file named lvm.conf", hint="LVM looks for that name in a folder"
            )

    def check_for_setup_error(self) -> None:
        """Check the group and its pool.

        :raises BackendDown: something is missing or broken; the hint has the command that mends it.
        """
        self._check_options()
        found = self._look()
        group, bits = self.vg.name, found.attributes
        problems = (
            (found.missing_pvs or bits.partial, "lacks physical volumes", f"pvs; vgreduce --removemissing {group}"),
            (bits.exported, "is exported", f"vgimport {group}"),
            (not bits.writeable, "is read-only", f"vgchange --setautoactivation y {group}; vgcfgrestore {group}"),
        )
        for wrong, what, command in problems:
            if wrong:
                raise exception.BackendDown(f"The volume group {group} {what}", hint=f"Run: {command}")
        if self.thin:
            self._check_pool(found.volumes.get(self.pool))

    def _check_pool(self, pool: LogicalVolume | None) -> None:
        where = f"{self.vg.name}/{self.pool}"
        if pool is None:
            raise exception.BackendDown(
                f"The thin pool {where} is not there", hint=f"Run: lvcreate -Zy -T -l {POOL_PERCENT}%FREE {where}"
            )
        bits = pool.attributes
        problems = (
            (bits.kind is not LvKind.THIN_POOL, "is not a thin pool", f"lvrename {where} OTHER-NAME"),
            (
                bits.state in (LvState.CHECK_NEEDED, LvState.CHECK_NEEDED_SUSPENDED) or bits.health is Health.FAILED,
                "needs a repair",
                f"lvconvert --repair {where}",
            ),
            (
                bits.health is Health.METADATA_READ_ONLY,
                "has full or broken metadata",
                f"lvextend --poolmetadatasize +SIZE {where}",
            ),
            (not bits.zeroes, "does not zero what it hands out", f"lvchange -Zy {where}"),
        )
        for wrong, what, command in problems:
            if wrong:
                raise exception.BackendDown(f"{where} {what}", hint=f"Run: {command}")

    # --- looking ------------------------------------------------------------------------------------------------

    def _look(self) -> Report:
        """Return the group as it is now; one process."""
        found = self.vg.report()
        self._clean = CLEAN_TAG in found.tags
        return found

    def local_path(self, volume: Volume | Snapshot) -> str:
        return self.vg.path(volume.name)

    def _has_node(self, name: str) -> bool:
        """Return whether a logical volume is there and active; without a process."""
        return os.path.lexists(self.vg.path(name))

    def _refuse_open(self, resource: Volume | Snapshot) -> None:
        """Refuse what is in use: a rename would succeed all the same.

        :raises VolumeIsBusy: or SnapshotIsBusy; something has the node open, a layer above it included.
        """
        path = self.vg.path(resource.name)
        if lvm_dm.open_count(path) and not lvm_dm.closes(path):
            raise busy(resource)

    # --- freeing ------------------------------------------------------------------------------------------------

    def _delete(self, resource: Volume | Snapshot) -> None:
        """Free an object and what a create has left of it; the bytes of one that has its own name are whole."""
        building = names.building_name(resource.name_id)
        found = self._look()
        try:
            if building in found.volumes:
                self._erase(building, silent)
            present = found.volumes.get(resource.name)
            if present is None:
                return
            self._refuse_dependents(found, present)
            if present.thin:
                self.vg.remove(present.name)
                return
            self._refuse_open(resource)
            self.vg.rename(present.name, building)
            self._erase(building, silent)
        except lvm.LvInUse as error:
            raise busy(resource, error.hint) from error

    def _refuse_dependents(self, found: Report, present: LogicalVolume) -> None:
        # LVM would take the snapshots away together with their origin.
        dependents = found.thick_snapshots_of(present.name)
        if dependents:
            raise lvm.LvInUse(
                command="lvremove",
                group=self.vg.name,
                reason=f"{present.name} has thick snapshots",
                hint=f"Delete the snapshots of it first: {', '.join(item.name for item in dependents)}",
            )

    def _drop_building(self, resource: Volume | Snapshot) -> None:
        """Remove what an unfinished create has left; it costs nothing where there is nothing."""
        building = names.building_name(resource.name_id)
        if self._has_node(building):
            self._erase(building, silent)

    def _erase(self, name: str, progress: lvm_copy.Progress) -> None:
        """Free a logical volume so that none of its bytes can be read again; absent is success.

        :raises LvInUse: something uses it. :raises Busy: something has mounted it.
        """
        found = self._look()
        present = found.volumes.get(name)
        if present is None:
            return
        self._refuse_dependents(found, present)
        if not present.thin:
            if not present.active:
                self.vg.activate(name)
            if present.thick_snapshot:
                # The space of the changes is reached only apart from the origin.
                self.vg.split_snapshot(name)
            self._clear(name, progress)
        self.vg.remove(name)

    def _clear(self, name: str, progress: lvm_copy.Progress) -> None:
        """Zero a logical volume as far as the options say; all of it where free space is promised to be zeros."""
        configuration = self.configuration
        if configuration.volume_clear == "none" and not self._clean:
            return
        limit = configuration.volume_clear_size * MiB
        pace = lvm_copy.Pace(int(configuration.volume_copy_bps_limit))
        lvm_copy.zero(self.vg.path(name), progress, end=None if self._clean or not limit else limit, pace=pace)

    def _try_erasing(self, name: str) -> None:
        """Free what a failed verb has left, without hiding its error."""
        try:
            self._erase(name, silent)
        except exception.VolmgrError as error:
            LOG.warning("%s/%s stays for now: %s", self.vg.name, name, error)


def silent(_fraction: float) -> None:
    """Receive progress that nobody waits for."""


def busy(resource: Volume | Snapshot, hint: str = "") -> exception.Busy:
    """Return the error that says that the storage of ``resource`` is in use."""
    hint = hint or "See who has it open: dmsetup ls --tree"
    if isinstance(resource, Snapshot):
        return exception.SnapshotIsBusy(snapshot_name=resource.name, hint=hint)
    return exception.VolumeIsBusy(volume_name=resource.name, hint=hint)

# SPDX-License-Identifier: Apache-2.0
"""The ground of the LVM driver: its options, its volume group, its checks, and how space is freed.

It knows no target, and of the verbs only what they share.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from oslo_config import cfg

from volmgr import exception, names
from volmgr.conf import volume as options
from volmgr.drivers import lvm_copy, making
from volmgr.drivers import progress as reports
from volmgr.drivers.driver import VolumeDriver
from volmgr.drivers.exporting import TargetVD
from volmgr.drivers.lvm_pool import ThinPool
from volmgr.tools import ioprio, lvm_dm
from volmgr.tools import lvm_errors as lvm
from volmgr.tools.lvm import VolumeGroup
from volmgr.tools.lvm_gate import Gates
from volmgr.tools.lvm_report import LogicalVolume, Report
from volmgr.types import MiB, Snapshot, Volume

LOG = logging.getLogger(__name__)

#: Tag of a group whose free space reads as zeros; an operator sets it, and volmgr keeps it true.
CLEAN_TAG = f"{names.LV_TAG_PREFIX}clean"
#: Tag of a deleted volume whose bytes are not whole any more.
WIPING_TAG = f"{names.LV_TAG_PREFIX}wiping"
#: Under what name it is kept how far a wipe is.
_WIPED = "wiped"
_OWN = {
    *("volume_clear", "volume_clear_size", "volume_clear_ionice"),
    *("volume_copy_bps_limit", "volume_dd_blocksize"),
}


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
        self.gates = Gates(self.vg.name, float(configuration.safe_get("command_timeout") or 60))
        self._thin_pool = ThinPool(self.vg, self.pool, configuration)
        self.mirrors = int(configuration.lvm_mirrors)
        self._choose(configuration.lvm_type == "thin")
        self._clean = False
        #: The I/O priority of wiping.
        self._wiping: int | None = None
        self._stats: dict[str, Any] = {}

    def _choose(self, thin: bool) -> None:
        self.thin = thin
        # A thin volume is reverted by a clone that takes its place; a thick one would have to be copied for that.
        self.instant_clone, self.reverts_in_place = thin, not thin

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
        # First of all, and without LVM, which would wait for them: gates that a death has left suspended.
        if left := self.gates.resume_left():
            LOG.warning("%d gates were left suspended and go on: %s", len(left), ", ".join(left))
        self.vg.avoid_gates()
        found = self._look()
        self._check_group(found)
        wanted = self.configuration.lvm_type
        self._choose(wanted == "thin" or (wanted == "auto" and (self.pool in found.volumes or not found.volumes)))
        if self.thin and self.pool not in found.volumes:
            self._thin_pool.make(found, self.mirrors)
        LOG.info("Volume group %s: %s volumes", self.vg.name, "thin" if self.thin else "thick")

    def _check_options(self) -> None:
        try:
            self._wiping = ioprio.parse(self.configuration.volume_clear_ionice)
        except ValueError as error:
            raise exception.InvalidConfiguration(
                reason=f"volume_clear_ionice: {error}", hint="It has the arguments of ionice, such as -c3 or -c2 -n7"
            ) from error
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
        self._check_group(found)
        if self.thin:
            self._thin_pool.check(found.volumes.get(self.pool))

    def _check_group(self, found: Report) -> None:
        group, bits = self.vg.name, found.attributes
        problems = (
            (found.missing_pvs or bits.partial, "lacks physical volumes", f"pvs; vgreduce --removemissing {group}"),
            (bits.exported, "is exported", f"vgimport {group}"),
            (not bits.writeable, "is read-only", f"vgcfgrestore --list {group}; vgcfgrestore -f ARCHIVE {group}"),
            (
                len(found.physical) <= self.mirrors,
                f"has {len(found.physical)} disks, and lvm_mirrors = {self.mirrors} needs {self.mirrors + 1}",
                f"vgextend {group} /dev/DISK",
            ),
        )
        for wrong, what, command in problems:
            if wrong:
                raise exception.BackendDown(f"The volume group {group} {what}", hint=f"Run: {command}")

    # --- looking ------------------------------------------------------------------------------------------------

    def _look(self) -> Report:
        """Return the group as it is now; one process."""
        found = self.vg.report()
        self._clean = CLEAN_TAG in found.tags
        return found

    def local_path(self, volume: Volume | Snapshot, vg: str | None = None) -> str:
        """Return the node of the volume's logical volume.

        :param vg: the group that it is in, the backend's own without it.
        """
        return self.vg.path(volume.name) if vg is None else self.vg.sibling(vg).path(volume.name)

    def _has_node(self, name: str) -> bool:
        """Return whether a logical volume is there and active; without a process."""
        return os.path.lexists(self.vg.path(name))

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

    def _is_open(self, name: str) -> bool:
        """Return whether something has a logical volume open, a layer above it included, and keeps it open."""
        path = self.vg.path(name)
        return bool(lvm_dm.open_count(path)) and not lvm_dm.closes(path)

    def _refuse_open(self, resource: Volume | Snapshot) -> None:
        """Refuse what is in use: a rename would succeed all the same. A gate that nobody uses goes.

        :raises VolumeIsBusy: or SnapshotIsBusy; something has the node open, a layer above it included.
        """
        if not self.gates.remove(resource.name_id) or self._is_open(resource.name):
            raise busy(resource)

    # --- freeing ------------------------------------------------------------------------------------------------

    def _delete(self, resource: Volume | Snapshot) -> None:
        """Free an object and what a create has left of it; the bytes of one that has its own name are whole."""
        building = names.building_name(resource.name_id)
        if not self.gates.remove(resource.name_id):
            raise busy(resource)
        found = self._look()
        try:
            if building in found.volumes:
                self._erase(building, silent)
            present = found.volumes.get(resource.name)
            if present is None or making.spared(names.lv_work(present.tags)):
                return
            self._refuse_dependents(found, present)
            if present.thin:
                self._remove_thin(present.name, silent)
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
        if not present.active:
            self.vg.activate(name)
        if present.thin:
            self._remove_thin(name, progress)
            return
        if present.thick_snapshot:
            # The space of the changes is reached only apart from the origin.
            self.vg.split_snapshot(name)
        self._clear(present, progress)
        self.vg.remove(name)

    def _remove_thin(self, name: str, progress: lvm_copy.Progress) -> None:
        """Remove a thin volume; what only it has is discarded first, so that a pool with passdown tells its disks.

        Nobody could read it anyway, for the pool zeroes what it hands out.
        """
        if self.configuration.volume_clear != "none":
            try:
                lvm_copy.discard(self.vg.path(name), progress, self._wiping)
            except (exception.NotFound, exception.NoSpace, exception.BackendDown) as error:
                # A pool without room for its metadata refuses, and so does one that has failed.
                LOG.warning("%s/%s is removed without being discarded: %s", self.vg.name, name, error)
            except exception.Busy as error:
                raise lvm.LvInUse(command="lvremove", group=self.vg.name, reason=error.message) from error
        self.vg.remove(name)

    def _clear(self, present: LogicalVolume, progress: lvm_copy.Progress) -> None:
        """Zero a logical volume as far as the options say; all of it where free space is promised to be zeros.

        It goes on where an earlier run of the same work was broken off, if the caller has kept that.
        """
        configuration = self.configuration
        if configuration.volume_clear == "none" and not self._clean:
            return
        limit = configuration.volume_clear_size * MiB
        # A logical volume's UUID is never used again, its name may be.
        done = reports.kept(_WIPED) or {}
        start = int(done["to"]) if done.get("of") == present.uuid else 0
        lvm_copy.zero(
            self.vg.path(present.name),
            progress,
            start=start,
            end=None if self._clean or not limit else limit,
            pace=self._pace(),
            keep=lambda position: reports.keep(_WIPED, {"of": present.uuid, "to": position}),
            priority=self._wiping,
        )

    def _try_erasing(self, name: str, tags: Sequence[str] = ()) -> None:
        """Free what a failed verb has left, without hiding its error.

        :param tags: what the verb has made has all of these.
        """
        try:
            present = self._look().volumes.get(name) if tags else None
            if not tags or (present is not None and present.tags.issuperset(tags)):
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

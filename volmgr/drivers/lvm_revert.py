# SPDX-License-Identifier: Apache-2.0
"""Taking a logical volume back to a snapshot by LVM's own merge: in place, without a second copy of the bytes.

A merge eats its snapshot, so that is made again, of the volume that equals it by then. From the merge's begin on there
is only the way forward: a tag on the volume says that it was begun, and a repeat goes on from whatever is there. It
knows no target.
"""

from __future__ import annotations

import time
from typing import Any

from volmgr import exception, names
from volmgr.drivers import lvm_copy
from volmgr.drivers import progress as reports
from volmgr.drivers.lvm_grow import LVMGrowing, snapshot_space
from volmgr.drivers.lvm_setup import silent
from volmgr.drivers.naming import missing
from volmgr.tools import lvm_dm
from volmgr.tools import lvm_errors as lvm
from volmgr.tools.lvm_report import LogicalVolume, LvKind, Report, Target
from volmgr.types import Snapshot, Volume

#: Tag of a volume that is being taken back; the id of the snapshot's object follows.
REVERTING_TAG = f"{names.LV_TAG_PREFIX}reverting="
#: Seconds without any progress of the kernel's merge after which it is taken for stuck.
STUCK = 600.0


class LVMReverting(LVMGrowing, abstract=True):
    """Reverting."""

    def check_revert(self, volume: Volume, snapshot: Snapshot) -> None:
        self._mergeable(self._look(), volume, snapshot)

    def revert_to_snapshot(self, context: Any, volume: Volume, snapshot: Snapshot) -> None:
        """Give ``volume`` the bytes of ``snapshot`` again, by merging; broken off, it is to be run again to its end.

        :raises VolumeIsBusy: or SnapshotIsBusy; something has them open. :raises SnapshotOverflowed: it has no bytes.
        """
        mark = REVERTING_TAG + snapshot.name_id
        present = self._mergeable(self._look(), volume, snapshot)
        if present is not None:
            if mark not in present.tags:
                self.vg.retag(volume.name, add=[mark])
            self.vg.merge(snapshot.name, _Watch(self.vg.name, volume.name))
        self._finish_merge(volume)
        self._clear_growth(volume, snapshot)
        self._snap_again(volume, snapshot)
        self.vg.retag(volume.name, remove=[mark])

    def _mergeable(self, found: Report, volume: Volume, snapshot: Snapshot) -> LogicalVolume | None:
        """Return the volume if a merge can begin, None if one has."""
        present, taken = found.volumes.get(volume.name), found.volumes.get(snapshot.name)
        if present is None:
            raise missing(volume)
        begun = REVERTING_TAG + snapshot.name_id in present.tags
        if begun and (taken is None or _merging(present)):
            return None
        if taken is None:
            raise missing(snapshot)
        if taken.overflowed:
            raise lvm.SnapshotOverflowed(
                command="lvconvert", group=self.vg.name, reason=f"{snapshot.name} has overflowed, its bytes are lost"
            )
        if taken.origin != volume.name:
            raise exception.Unsupported(
                f"{snapshot.name} is a snapshot of {taken.origin or 'nothing'}, not of {volume.name}",
                hint="Make a volume from the snapshot instead",
                verb="revert_to_snapshot",
            )
        if taken.thin and taken.size_bytes > found.rounded(volume.size_bytes):
            raise exception.Invalid("The snapshot is larger than the volume", field="snapshot_id")
        self._refuse_open(volume)
        self._refuse_open(snapshot)
        return present

    def _finish_merge(self, volume: Volume) -> None:
        """Wait until a merge that has begun is done, and LVM knows it."""
        present = self._look().volumes.get(volume.name)
        if present is None:
            raise missing(volume)
        if not _merging(present):
            return
        table = lvm_dm.table(self.vg.name, volume.name)
        if table is None or table[0] != "snapshot-merge":
            # It begins with the activation: the volume was open in the moment in which it was to begin.
            if table is not None:
                self._refuse_open(volume)
                self.vg.deactivate(volume.name)
            self.vg.activate(volume.name)
        thin = present.attributes.target is Target.THIN
        self.vg.finish_merge(volume.name, _Watch(self.vg.name, volume.name), thin=thin)

    def _clear_growth(self, volume: Volume, snapshot: Snapshot) -> None:
        """Make what the volume has beyond the snapshot's size read as zeros: it was not there then."""
        if volume.size_bytes == snapshot.size_bytes:
            return
        if self._is_thin(volume.name):
            # It has the snapshot's size now.
            self.vg.extend(volume.name, volume.size_bytes)
        else:
            path = self.vg.path(volume.name)
            lvm_copy.zero(path, silent, start=snapshot.size_bytes, end=volume.size_bytes, pace=self._pace())

    def _snap_again(self, volume: Volume, snapshot: Snapshot) -> None:
        found = self._look()
        present = found.volumes[volume.name]
        if snapshot.name in found.volumes:
            return
        tags = names.lv_tags(snapshot.name_id, "snapshot", snapshot.id)
        space = None if present.thin else snapshot_space(present.size_bytes)
        try:
            self.vg.snapshot(snapshot.name, volume.name, tags, space)
        except (lvm.LvmFailed, lvm.PoolBroken, exception.Timeout):
            self._try_erasing(snapshot.name)
            raise


def _merging(present: LogicalVolume) -> bool:
    return present.attributes.kind is LvKind.ORIGIN_MERGING


class _Watch:
    """Tells how far the kernel's merge is, and when it is stuck.

    Its status is that of a snapshot: sectors that are still to be merged with its tables, all of them, its tables
    (admin-guide/device-mapper/snapshot).
    """

    def __init__(self, group: str, volume: str) -> None:
        self._group, self._volume = group, volume
        self._first: int | None = None
        self._left: int | None = None
        self._changed = time.monotonic()

    def __call__(self) -> None:
        left = self._ask()
        if left != self._left:
            self._left, self._changed = left, time.monotonic()
        elif time.monotonic() - self._changed > STUCK:
            raise exception.Timeout(
                f"The merge into {self._group}/{self._volume} does not move since {STUCK:g} s",
                hint=f"See: dmsetup status {lvm_dm.device_name(self._group, self._volume)}; dmesg",
            )
        if left is not None:
            self._first = max(self._first or 0, left)
            reports.report(1 - left / self._first if self._first else 1.0)

    def _ask(self) -> int | None:
        table = lvm_dm.table(self._group, self._volume)
        if table is None or table[0] != "snapshot-merge":
            return None
        words = table[1].split()
        if len(words) < 2 or "/" not in words[0]:
            return None
        return max(0, int(words[0].split("/")[0]) - int(words[1]))

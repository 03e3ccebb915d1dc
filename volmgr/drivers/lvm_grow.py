# SPDX-License-Identifier: Apache-2.0
"""How thick logical volumes grow: by space that is zeroed before it is theirs. Their snapshots keep their own size.

It knows no target and no verb but extending.
"""

from __future__ import annotations

from collections.abc import Sequence

from volmgr import exception, killpoints, names
from volmgr.drivers import lvm_copy
from volmgr.drivers import progress as reports
from volmgr.drivers.lvm_setup import LVMSetup, silent
from volmgr.drivers.naming import missing
from volmgr.tools import lvm_errors as lvm
from volmgr.tools.lvm_report import LogicalVolume, Report, Target
from volmgr.types import GiB, MiB, Volume

#: How often growth looks for other space when what it had zeroed is gone.
EXTEND_TRIES = 3


class LVMGrowing(LVMSetup, abstract=True):
    """Growing."""

    def extend_volume(self, volume: Volume, new_size: int) -> None:
        try:
            if self._is_thin(volume.name):
                self.vg.extend(volume.name, new_size * GiB)
            else:
                self._extend_thick(volume, new_size * GiB)
        except lvm.LvNotFound as error:
            raise missing(volume) from error
        except lvm.LvWouldShrink as error:
            raise exception.Invalid("A volume cannot shrink", field="new_size") from error
        except lvm.LvInUse as error:
            raise exception.VolumeIsBusy(volume_name=volume.name, hint=error.hint) from error

    def _extend_thick(self, volume: Volume, size_bytes: int) -> None:
        found = self._look()
        present = found.volumes.get(volume.name)
        if present is None:
            raise missing(volume)
        wanted = found.rounded(size_bytes)
        if present.size_bytes > wanted:
            raise exception.Invalid("A volume cannot shrink", field="new_size")
        if present.size_bytes < wanted:
            self._grow_thick(found, present, volume.name_id, wanted)

    def _grow_thick(self, found: Report, present: LogicalVolume, object_id: str, wanted: int) -> None:
        """Make a thick logical volume ``wanted`` bytes large; it never shows what its new space held before.

        :param object_id: gives the space that is being zeroed its name.
        """
        building = names.building_name(object_id)
        if building in found.volumes:
            self._erase(building, silent)
        family = [present.name, *(item.name for item in found.thick_snapshots_of(present.name))]
        if len(family) > 1 and present.attributes.target is Target.RAID:
            # lvextend asks a question then that no option answers.
            raise exception.Unsupported(
                f"{present.name} is mirrored and has thick snapshots, so it cannot grow",
                hint=f"Delete its snapshots first: {', '.join(family[1:])}",
                verb="extend_volume",
            )
        self._refuse_open_family(family)
        for left in reversed(range(EXTEND_TRIES)):
            ranges = () if self._clean else self._zeroed_extents(building, wanted - present.size_bytes)
            try:
                killpoints.reach("lvm/extend/zeroed")
                self._extend_family(family, wanted, ranges)
                return
            except lvm.GroupFull:
                # Somebody took the zeroed extents in the moment in which they were free.
                if not ranges or not left:
                    raise

    def _refuse_open_family(self, family: Sequence[str]) -> None:
        """Refuse to let an origin with thick snapshots grow while it or one of them is in use; others may."""
        used = [name for name in family if len(family) > 1 and self._is_open(name)]
        if used:
            raise lvm.LvActiveOrigin(
                command="lvextend",
                group=self.vg.name,
                reason=f"{family[0]} has thick snapshots, and in use are {', '.join(used)}",
                hint="Detach it first, or delete its snapshots: with them it grows only while it is not in use",
            )

    def _extend_family(self, family: Sequence[str], size_bytes: int, ranges: Sequence[str]) -> None:
        if len(family) == 1:
            self.vg.extend(family[0], size_bytes, ranges)
            return
        try:
            for left in reversed(range(EXTEND_TRIES)):
                self.vg.deactivate(family[0])
                try:
                    self.vg.extend(family[0], size_bytes, ranges)
                    return
                except lvm.LvActiveOrigin:
                    # LVM leaves a snapshot active, without a word, that udev has open in that moment.
                    if not left:
                        raise
                    self._refuse_open_family(family)
        finally:
            self.vg.activate(family[0])

    def _zeroed_extents(self, building: str, size_bytes: int) -> tuple[str, ...]:
        """Zero free space and return where it is, so that the volume grows by it and never shows other bytes."""
        self.vg.create_thick(building, size_bytes, mirrors=self.mirrors)
        killpoints.reach("lvm/extend/allocated")
        try:
            lvm_copy.zero(self.vg.path(building), reports.report, pace=self._pace())
            return self.vg.extents(building)
        finally:
            self.vg.remove(building)


def snapshot_space(size_bytes: int) -> int:
    """Return the room that a thick snapshot needs for every block to change, with LVM's own tables."""
    return size_bytes + size_bytes // 128 + 16 * MiB

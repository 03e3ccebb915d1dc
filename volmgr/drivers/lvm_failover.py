# SPDX-License-Identifier: Apache-2.0
"""A whole LVM backend goes over to its replicas in the second group, or back.

Nothing is moved and nothing of the side that is left is needed: on the side that is entered each volume becomes a thin
snapshot of its last whole point. It can be run again at any point of it, as long as SQL says where the backend works.
It knows no target and no database.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from volmgr import exception, killpoints, names
from volmgr.drivers.lvm_points import (
    FOLLOWS,
    STALE,
    STOPPED,
    Point,
    Side,
    from_tag,
    newest_whole,
    origin_of,
    stance,
    stance_tag,
    stance_tags,
)
from volmgr.drivers.lvm_replica import LVMReplica
from volmgr.drivers.lvm_ship import Shipping
from volmgr.drivers.replicating import PRIMARY, wants_replica
from volmgr.tools.lvm_report import LogicalVolume, Report
from volmgr.types import Volume

LOG = logging.getLogger(__name__)


class LVMFailover(LVMReplica, abstract=True):
    """Going over and back."""

    def failover_host(
        self, context: Any, volumes: Sequence[Volume], secondary_id: str | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """Go over to the replicas, or back with ``default``; to be where it is to go is success.

        Volumes that cannot be used there get the status ``error``. What was written since the last point is taken
        along if the side that is left can still be read.

        :raises Invalid: there is no such target. :raises BackendDown: it is not there.
        """
        shipping = self._need_shipping("failover_host")
        own = shipping.sides[1].backend_id
        target = secondary_id or own
        if target not in (PRIMARY, own):
            raise exception.Invalid(
                f"There is no replication target {target}",
                hint=f"Use {own}, or {PRIMARY} to go back", field="secondary_id",
            )
        over = target != PRIMARY
        if over != shipping.over:
            self._go(shipping, over, volumes)
            self.active_backend_id = target if over else None
        found = self._look()
        answers = [(volume.id, self._answer(found, volume, target)) for volume in volumes]
        return target, [{"volume_id": volume_id, "updates": update} for volume_id, update in answers if update]

    def _answer(self, found: Report, volume: Volume, target: str) -> dict[str, Any]:
        """Return what a failover has to say of a volume, from what is there now."""
        present = found.volumes.get(volume.name)
        said = stance(present)
        if present is None or said == STALE:
            lost = STALE if said == STALE else "absent"
            update = self._update(lost) if said == STALE or wants_replica(volume) else {}
            return {**update, "status": "error"}
        if said is None:
            return {}
        update = self._update("copying" if said == FOLLOWS else said)
        return {**update, "provider_id": f"{target}:{self.vg.name}/{volume.name}"}

    def _go(self, shipping: Shipping, over: bool, volumes: Sequence[Volume]) -> None:
        quiet = float(self.configuration.safe_get("command_timeout") or 60)
        entered = shipping.there
        entered.vg.report()  # what is not there cannot be entered
        if not shipping.finish(quiet):
            LOG.warning("The last changes of %s cannot be had: it does not answer", shipping.here)
        with shipping.stopped(quiet):
            there, left = entered.vg.report(), self._left(shipping.here)
            for volume in volumes:
                self._enter(entered, there, left, volume, over)
                killpoints.reach("lvm/failover/entered")
            self._switch(shipping, over)
        self._told.clear()
        self._stats = {}

    @staticmethod
    def _left(side: Side) -> Report | None:
        """Return what there is on the side that is left, None if it cannot be looked at."""
        try:
            return side.vg.report()
        except exception.VolmgrError as error:
            LOG.warning("%s cannot be looked at: %s", side, error)
            return None

    def _enter(self, side: Side, there: Report, left: Report | None, volume: Volume, over: bool) -> None:
        """Let a volume be on the side that is entered what it was on the other."""
        present, point = there.volumes.get(volume.name), newest_whole(there, volume.name_id)
        if self._never_left(left, present, volume, over):
            return
        if left is not None:
            current = stance(left.volumes.get(volume.name)) == FOLLOWS
        else:
            # Who does not know, as a driver that is used alone, has no reason to doubt what is whole.
            current = volume.replication_status not in ("inactive", "deleted")
        if current and point is not None:
            self._become(side, there, volume, present, point, STOPPED)
        elif present is not None:
            # Both versions stay: which one goes on is for an operator to say.
            add, remove = stance_tags(STALE)
            side.vg.retag(volume.name, add=add, remove=remove)
        elif point is not None:
            self._become(side, there, volume, None, point, STALE)

    @staticmethod
    def _never_left(left: Report | None, present: LogicalVolume | None, volume: Volume, over: bool) -> bool:
        """Return whether what is on the side that is entered is all that there is of a volume."""
        if present is None or (stance(present) is not None and over):
            return False
        if stance(present) is None:
            return True
        there_before = left is not None and volume.name not in left.volumes
        return there_before or (volume.status == "error" and _unused(left, volume))

    def _become(
        self, side: Side, there: Report, volume: Volume, present: LogicalVolume | None, point: Point, said: str
    ) -> None:
        if present is not None:
            if origin_of(present) == point.number:
                return  # made by an earlier try, or of this point and changed since: the later version
            side.gates.remove(volume.name_id)
            side.vg.remove(present.name)
        killpoints.reach("lvm/failover/removed")
        tags = (*names.lv_tags(volume.name_id, "volume", volume.id), stance_tag(said), from_tag(point.number))
        side.vg.snapshot(volume.name, point.name, tags)
        wanted = there.rounded(volume.size_bytes)
        if point.size_bytes < wanted:
            side.vg.extend(volume.name, wanted)


def _unused(left: Report | None, volume: Volume) -> bool:
    """Return whether a volume was of no use on the side that is left: older than it was, or unknown."""
    return left is None or stance(left.volumes.get(volume.name)) in (STALE, None)

# SPDX-License-Identifier: Apache-2.0
"""Replication of the LVM driver's thin volumes to a second group of the same host, verb by verb.

A volume has a replica if its logical volume has the tag for it, which comes with its creation; how the copying goes,
:mod:`volmgr.drivers.lvm_ship` knows, and how a whole backend goes over, :mod:`volmgr.drivers.lvm_failover`. It knows
no target and no database.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from volmgr import exception, killpoints, names
from volmgr.drivers import lvm_copy, making
from volmgr.drivers import progress as reports
from volmgr.drivers.lvm_build import LVMBuilding, tags_of
from volmgr.drivers.lvm_points import (
    FOLLOWS,
    STALE,
    STOPPED,
    Point,
    Side,
    from_tag,
    newest_whole,
    origin_of,
    points_of,
    replicated,
    stance,
    stance_tag,
    stance_tags,
)
from volmgr.drivers.lvm_pool import ThinPool
from volmgr.drivers.lvm_ship import Shipping
from volmgr.drivers.lvm_trash import LVMTrash
from volmgr.drivers.naming import missing
from volmgr.drivers.replicating import changed, wants_replica
from volmgr.tools.lvm import VolumeGroup
from volmgr.tools.lvm_gate import Gates
from volmgr.tools.lvm_report import LogicalVolume, Report
from volmgr.types import ModelUpdate, ObservedObject, Snapshot, Volume

LOG = logging.getLogger(__name__)

SECONDARY = "secondary"
_KEYS = {"backend_id", "volume_group", "thin_pool"}
NEEDS_DEVICE = "It needs lvm_type = thin and replication_device = backend_id:NAME,volume_group:SECOND-GROUP"
_VERBS = ("reenable_replication", "promote_replica", "create_replica_test_volume", "failover_host")
#: how a replica stands -> its replication status, and what that means.
STATUSES = {
    "copying": ("copying", "the first copy is under way"),
    STOPPED: ("inactive", "the replica is out of date and does not follow"),
    "absent": ("error", "it had no replica that was whole when the backend went over"),
    STALE: ("error", "the volume is older than it was: it had not been copied when the backend went over"),
}


class LVMReplica(LVMBuilding, LVMTrash, abstract=True):
    """Replicas.

    :param replicates: whether the options say where replicas go; not for a driver on another backend's group.
    """

    def __init__(
        self, vg_obj: VolumeGroup | None = None, *args: Any, replicates: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(vg_obj, *args, **kwargs)
        self.frozen = False
        self.shipping = self._make_shipping() if replicates else None
        self._replicas: dict[str, str] = {}
        self._told: dict[str, dict[str, Any]] = {}
        if self.shipping is not None and self.configuration.lvm_type == "auto":
            # Replicas need it, and a group that is lost cannot be asked; do_setup refuses one that is thick.
            self._choose(True)
        if self.shipping is not None and self.active_backend_id == self.shipping.sides[1].backend_id:
            self._switch(self.shipping, True)

    def _make_shipping(self) -> Shipping | None:
        """Return what ships to the device that the options name, None if they name none.

        :raises InvalidConfiguration: they name more than one, or it lacks something.
        """
        devices = self.configuration.safe_get("replication_device") or []
        if not devices:
            return None
        device = dict(devices[0])
        group = str(device.get("volume_group") or "")
        unknown = sorted(set(device) - _KEYS)
        if len(devices) > 1 or unknown or not group or group == self.vg.name:
            wrong = f"has {', '.join(unknown)}" if unknown else "needs a volume_group other than the backend's own"
            raise exception.InvalidConfiguration(
                reason="replication_device " + ("is given more than once" if len(devices) > 1 else wrong),
                hint=f"One, with {', '.join(sorted(_KEYS))}: backend_id:cellar,volume_group:cellar",
            )
        other = self.vg.sibling(group)
        pool = str(device.get("thin_pool") or f"{group}-pool")
        gates = Gates(group, float(self.configuration.safe_get("command_timeout") or 60))
        first = Side("", self.vg, self.pool, self._thin_pool, self.gates)
        backend_id = str(device.get("backend_id") or SECONDARY)
        second = Side(backend_id, other, pool, ThinPool(other, pool, self.configuration), gates)
        return Shipping((first, second), self.configuration)

    def _switch(self, shipping: Shipping, over: bool) -> None:
        """Let all verbs work on one of the two sides."""
        shipping.over = over
        side = shipping.here
        self.vg, self.pool, self.gates, self._thin_pool = side.vg, side.pool, side.gates, side.thin_pool

    @property
    def lacks(self) -> Mapping[str, str]:
        if self.shipping is not None and self.thin:
            return super().lacks
        return {**super().lacks, **dict.fromkeys(_VERBS, NEEDS_DEVICE)}

    def do_setup(self, context: Any) -> None:
        if self.shipping is not None:
            for side in self.shipping.sides:
                # First of all, and without LVM, which would wait for them.
                side.gates.resume_left()
                side.vg.avoid_gates()  # also on the other side, which is entered when this one is lost
        super().do_setup(context)
        if self.shipping is None:
            return
        if not self.thin:
            raise exception.InvalidConfiguration(
                reason="replication_device needs thin volumes", hint="Set lvm_type = thin"
            )
        self._replicas = replicated(self._look())
        other = self.shipping.there
        try:
            self._prepare(other)
        except exception.VolmgrError as error:
            # What is used goes on; the replicas say what is wrong.
            LOG.error("The replication target %s cannot be used: %s", other, error)

    def _prepare(self, other: Side) -> None:
        found = other.vg.report()
        if other.pool not in found.volumes and not found.volumes:
            other.thin_pool.make(found, self.mirrors)
            found = other.vg.report()
        other.thin_pool.check(found.volumes.get(other.pool))

    # --- what comes with other verbs ----------------------------------------------------------------------------

    def create_volume(self, volume: Volume) -> ModelUpdate:
        return self._made(volume, super().create_volume(volume))

    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        return self._made(volume, super().create_volume_from_snapshot(volume, snapshot))

    def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        return self._made(volume, super().create_cloned_volume(volume, src_vref))

    def manage_existing(self, volume: Volume, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        update = super().manage_existing(volume, existing_ref)
        if self.shipping is not None and wants_replica(volume):
            self.vg.retag(volume.name, add=[stance_tag(FOLLOWS)])
        return self._made(volume, update)

    def delete_volume(self, volume: Volume) -> None:
        with self._ending(volume):
            super().delete_volume(volume)

    def trash_volume(self, volume: Volume) -> None:
        with self._ending(volume):
            super().trash_volume(volume)

    def unmanage(self, volume: Volume) -> None:
        with self._ending(volume):
            super().unmanage(volume)

    def update_migrated_volume(
        self, ctxt: Any, volume: Volume, new_volume: Volume, original_volume_status: str
    ) -> ModelUpdate:
        # What it is named after changes, so its replica is made anew.
        with self._ending(new_volume):
            return super().update_migrated_volume(ctxt, volume, new_volume, original_volume_status)

    def _made(self, volume: Volume, update: ModelUpdate) -> ModelUpdate:
        if self.shipping is None or not wants_replica(volume):
            return update
        self._replicas[volume.name_id] = volume.id
        self._told.pop(volume.name_id, None)
        return {**(update or {}), **self._update("copying")}

    @contextlib.contextmanager
    def _ending(self, volume: Volume) -> Iterator[None]:
        """End the replica of a volume whose logical volume loses its name inside the block."""
        object_id = volume.name_id
        if self.shipping is None or not (wants_replica(volume) or object_id in self._replicas):
            yield
            return
        with self.shipping.turns.held(object_id):
            yield
            if not self._has_node(volume.name):
                self.shipping.drop(object_id)
                self._replicas.pop(object_id, None)
                self._told.pop(object_id, None)

    def _recognised(self, resource: Volume | Snapshot) -> dict[str, Any] | None:
        """Return what a creating verb has returned, as far as a replica goes."""
        made = isinstance(resource, Volume) and self.shipping is not None and wants_replica(resource)
        return self._update("copying") if made else None

    def _retyped(self, volume: Volume, diff: Mapping[str, Any]) -> ModelUpdate:
        wanted = changed(diff)
        if self.shipping is None or wanted is None:
            return None
        present = self._look().volumes.get(volume.name)
        if present is None:
            raise missing(volume)
        if wanted == (stance(present) is not None):
            return None
        if wanted:
            self.vg.retag(volume.name, add=[stance_tag(FOLLOWS)])
            self._replicas[volume.name_id] = volume.id
            return self._update("copying")
        with self.shipping.turns.held(volume.name_id):
            self.vg.retag(volume.name, remove=[stance_tag(item) for item in (FOLLOWS, STOPPED, STALE)])
            self.shipping.drop(volume.name_id)
            self._replicas.pop(volume.name_id, None)
        nothing = {"replication_extended_status": None, "replication_driver_data": None}
        return {"replication_status": "deleted", **nothing}

    # --- how replicas stand -------------------------------------------------------------------------------------

    def _update(self, state: str, text: str = "") -> dict[str, Any]:
        status, meaning = STATUSES.get(state, (state, ""))
        device = self.shipping.sides[1].backend_id if self.shipping is not None else None
        return {
            "replication_status": status,
            "replication_extended_status": (text or meaning)[:255],
            "replication_driver_data": device,
        }

    def _stands(self, here: Report, there: Report | str, object_id: str, shipping: Shipping) -> dict[str, Any] | None:
        """Return how the replica of a volume stands, None if it has none.

        :param there: what there is on the other side, or why it cannot be looked at.
        """
        said = stance(here.volumes.get(names.object_name("volume", object_id)))
        if said is None:
            return None
        if said != FOLLOWS:
            return self._update(said)
        if isinstance(there, str):
            return self._update("error", f"the replication target cannot be looked at: {there}")
        trouble, point = shipping.troubles.get(object_id), newest_whole(there, object_id)
        moment = f"of {point.moment:%Y-%m-%dT%H:%M:%SZ}" if point is not None else "not whole yet"
        if trouble is not None:
            return self._update("error", f"the replica is {moment}, and does not follow: {trouble}")
        if point is None:
            return self._update("copying")
        shipping.reached.setdefault(object_id, point.moment)
        return self._update("active", f"the replica follows, it is {moment}")

    @staticmethod
    def _look_over(shipping: Shipping) -> Report | str:
        try:
            return shipping.there.vg.report()
        except exception.VolmgrError as error:
            return str(error)

    def get_replication_status(self, context: Any, volume: Volume) -> ModelUpdate:
        """Say how the replica stands, and let the copying go on in the background."""
        if self.shipping is None:
            return None
        update = self._stands(self._look(), self._look_over(self.shipping), volume.name_id, self.shipping)
        if update is None:
            return self._update("error", "it was never set up") if wants_replica(volume) else None
        self._told[volume.name_id] = update
        self.shipping.begin()
        return update

    def get_replication_updates(self, context: Any) -> list[dict[str, Any]]:
        """Return [{'volume_id', 'updates'}] of the volumes whose replication stands otherwise than last told.

        It has the copying go on in the background, and waits for none of it; two processes, however many there are.
        """
        shipping = self.shipping
        if shipping is None:
            return []
        here = self._look()
        self._replicas = replicated(here)
        if not self._replicas:
            return []
        there, told = self._look_over(shipping), []
        for object_id, volume_id in self._replicas.items():
            update = self._stands(here, there, object_id, shipping)
            if update is not None and self._told.get(object_id) != update:
                self._told[object_id] = update
                told.append({"volume_id": volume_id, "updates": update})
        shipping.begin()
        return told

    def lag_seconds(self) -> float | None:
        """Return how old the oldest replica that follows is: for how long something may have been written since."""
        if self.shipping is None or not self.shipping.reached:
            return None
        oldest = min(self.shipping.reached.copy().values())
        return round(max(0.0, (datetime.datetime.now(datetime.UTC) - oldest).total_seconds()), 1)

    def _replication_stats(self) -> dict[str, Any]:
        """Return what a pool's statistics say of replication."""
        if self.shipping is None:
            return {}
        return {"replication": True, "replication_enabled": True, "replication_lag_seconds": self.lag_seconds()}

    def _target_stats(self) -> dict[str, Any]:
        """Return what a backend's statistics say of replication."""
        if self.shipping is None:
            return {}
        return {"replication_targets": [self.shipping.sides[1].backend_id], "frozen": self.frozen}

    # --- single volumes -----------------------------------------------------------------------------------------

    def _need_shipping(self, verb: str) -> Shipping:
        if self.shipping is None:
            raise exception.Unsupported(verb=verb, hint=NEEDS_DEVICE)
        return self.shipping

    def reenable_replication(self, context: Any, volume: Volume) -> ModelUpdate:
        """Let the replica follow again; what it has now stays as the ground of the first copy, and counts no more."""
        shipping = self._need_shipping("reenable_replication")
        present = self._look().volumes.get(volume.name)
        if present is None:
            raise missing(volume)
        said = stance(present)
        if said is None and not wants_replica(volume):
            raise _no_replica(volume, None)
        if said != FOLLOWS:
            with shipping.turns.held(volume.name_id):
                shipping.outdate(volume.name_id)
                add, remove = stance_tags(FOLLOWS)
                self.vg.retag(volume.name, add=add, remove=remove)
        shipping.forget(volume.name_id)
        self._replicas[volume.name_id] = volume.id
        shipping.begin()
        update = self._stands(self._look(), self._look_over(shipping), volume.name_id, shipping)
        return update or self._update("copying")

    def promote_replica(self, context: Any, volume: Volume) -> ModelUpdate:
        """Give the volume the bytes of its replica, read from the replica; the copying between the two ends.

        Nothing is shipped before: the volume may be what is broken.
        """
        shipping = self._need_shipping("promote_replica")
        with shipping.turns.held(volume.name_id):
            found = self._look()
            present, building = found.volumes.get(volume.name), names.building_name(volume.name_id)
            if stance(present) == STOPPED:
                return self._update(STOPPED)
            point = self._promotable(shipping, volume, present)
            half = found.volumes.get(building)
            if half is None or origin_of(half) != point.number:
                self._copy_back(shipping, volume, point, building)
            if present is not None:
                self._refuse_open(volume)
                self.vg.remove(volume.name)
            killpoints.reach("lvm/promote/removed")
            self.vg.rename(building, volume.name)
            shipping.forget(volume.name_id)
            return self._update(STOPPED)

    def _promotable(self, shipping: Shipping, volume: Volume, present: LogicalVolume | None) -> Point:
        point = shipping.whole(volume.name_id) if present is None or stance(present) == FOLLOWS else None
        if point is None:
            raise _no_replica(volume, stance(present))
        return point

    def _copy_back(self, shipping: Shipping, volume: Volume, point: Point, building: str) -> None:
        """Make an object with the bytes of a point of the other side; it says from which as the last act."""
        self.vg.remove(building)
        self._thin_pool.admit()
        tags = (*names.lv_tags(volume.name_id, "volume", volume.id), stance_tag(STOPPED))
        size = max(point.size_bytes, volume.size_bytes)
        self.vg.create_thin(building, size, self.pool, (*tags, names.lv_work_tag(making.mark())))
        killpoints.reach("lvm/promote/begun")
        try:
            lvm_copy.copy(
                shipping.there.vg.path(point.name), self.vg.path(building), point.size_bytes, reports.report,
                sparse=True, pace=self._pace(), chunk=lvm_copy.block(self.configuration.volume_dd_blocksize),
            )
            self.vg.retag(building, add=[from_tag(point.number)])
        except BaseException:
            # Nobody takes a promotion back.
            self._try_erasing(building)
            raise
        killpoints.reach("lvm/promote/copied")

    def create_replica_test_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        """Make ``volume`` with the bytes of the last whole state of the replica of ``src_vref``."""
        shipping = self._need_shipping("create_replica_test_volume")
        with shipping.turns.held(src_vref.name_id):
            found = self._look().volumes.get(src_vref.name)
            point = self._promotable(shipping, src_vref, found)
            if point.size_bytes > volume.size_bytes:
                raise exception.Invalid("The volume is smaller than the replica", field="size")
            tags, path = tags_of(volume), shipping.there.vg.path(point.name)
            self._build(volume, tags, lambda name: self._fill_from(name, volume, path, point.size_bytes, tags))
        return self._made(volume, None)

    # --- the backend as a whole ---------------------------------------------------------------------------------

    def freeze_backend(self, context: Any) -> bool:
        """Remember that no changes come; replicas go on to follow."""
        self.frozen = True
        return True

    def thaw_backend(self, context: Any) -> bool:
        """Remember that changes come again."""
        self.frozen = False
        return True

    # --- audits -------------------------------------------------------------------------------------------------

    def _left_points(self, here: Report) -> list[ObservedObject]:
        """Return the points of objects that have no replica, as what is left of something."""
        shipping = self.shipping
        if shipping is None:
            return []
        there = self._look_over(shipping)
        if isinstance(there, str):
            LOG.warning("%s is not looked at: %s", shipping.there, there)
        kept = replicated(here)
        left = {}
        for found in (here, there):
            for item in found.volumes.values() if isinstance(found, Report) else ():
                parsed = names.parse_point_name(item.name)
                if parsed is not None and parsed[0] not in kept:
                    left[parsed[0]] = ObservedObject(item.name, parsed[0], "", "building", item.size_bytes)
        return list(left.values())

    def _discard_points(self, object_id: str) -> None:
        """Remove all points of an object that has no replica."""
        shipping = self._need_shipping("discard")
        with shipping.turns.held(object_id):
            if object_id in replicated(self._look()):
                raise exception.Busy(
                    f"The object {object_id} has a replica", hint="Audit again: volmgr-manage audit", name=object_id
                )
            shipping.drop(object_id)

    def _has_points(self, here: Report, resource: Volume | Snapshot) -> bool:
        """Return whether anything is left of the replica of what has been deleted."""
        shipping, object_id = self.shipping, resource.name_id
        if shipping is None or isinstance(resource, Snapshot):
            return False
        if not (wants_replica(resource) or object_id in self._replicas):
            return False
        there = self._look_over(shipping)
        looked: Sequence[Report] = [here, *([there] if isinstance(there, Report) else [])]
        return any(points_of(found, object_id) for found in looked)


def _no_replica(volume: Volume, said: str | None) -> exception.Conflict:
    state = {None: "not there", FOLLOWS: "not whole yet"}.get(said, "out of date")
    return exception.Conflict(
        f"The replica of {volume.id} is {state}",
        hint=f"See: volmgr volume show {volume.id}; volmgr volume reenable-replication {volume.id}",
        resource="volume", id=volume.id, status=said,
    )

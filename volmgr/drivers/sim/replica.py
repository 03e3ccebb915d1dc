# SPDX-License-Identifier: Apache-2.0
"""The simulator's replication verbs, for single volumes and for the backend as a whole.

Volumes whose type says ``replication: <is> True`` have a replica; snapshots have none. A driver that is made with the
replication target as its ``active_backend_id`` works on the replicas. What a replica is, the store's side knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from volmgr import exception
from volmgr.drivers import making
from volmgr.drivers.interfaces import ReplicaVD
from volmgr.drivers.replicating import PRIMARY, changed, wants_replica
from volmgr.drivers.sim.base import SimBase
from volmgr.drivers.sim.faults import AFTER, BEFORE, BUILDING
from volmgr.drivers.sim.replication import STATUSES, Pair, Replication
from volmgr.types import ModelUpdate, Snapshot, Volume

SECONDARY = "secondary"
EXTENDED = {
    "active": "the replica follows",
    "copying": "the first copy is under way",
    "active-stopped": "the replica is good and does not follow",
    "inactive": "the replica is out of date and does not follow",
    "error": "the copy failed",
    "failed-over": "the replica has become the volume",
    "failed-back": "the first storage is the volume again",
}


class SimReplica(ReplicaVD, SimBase, abstract=True):
    """Replication to a second store.

    ``replication`` is for tests: it holds and releases the copying, so that a replica lags behind.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.frozen = False
        devices = self.configuration.safe_get("replication_device") or [{}]
        self.replica_backend = str(devices[0].get("backend_id") or SECONDARY)
        self.replication = Replication(
            self.store, self._replica_store, lambda volume_id: self._member("replicate", BUILDING, volume_id)
        )
        self._told: dict[Pair, str] = {}
        if self.active_backend_id == self.replica_backend:
            self._switch(True)

    def _switch(self, over: bool) -> None:
        self.replication.over = over
        self.store = self.replication.active

    # --- what comes with other verbs ----------------------------------------------------------------------------

    def _made(self, volume: Volume) -> ModelUpdate:
        if not wants_replica(volume):
            return None
        pair = _pair(volume)
        if self.replication.state(pair) is None:
            self.replication.start(pair)
        return self._recognise_replica(volume)

    def _recognise_replica(self, volume: Volume) -> dict[str, Any] | None:
        """Return what the creating verb returned.

        :raises NotFound: the volume is to have a replica and has none.
        """
        if not wants_replica(volume):
            return None
        state = self.replication.state(_pair(volume))
        if state is None:
            raise exception.NotFound(resource="replica", id=volume.id)
        return {**self._update(_pair(volume), state), "driver_data": self.replica_backend}

    def _replicated(self, volume: Volume) -> bool:
        return self.replication.state(_pair(volume)) is not None

    def _end_replica(self, resource: Volume | Snapshot) -> None:
        if isinstance(resource, Volume):
            self.replication.drop(_pair(resource))
            self._told.pop(_pair(resource), None)

    def _retyped(self, volume: Volume, diff: Mapping[str, Any]) -> ModelUpdate:
        wanted, pair = changed(diff), _pair(volume)
        if wanted is None or wanted == self._replicated(volume):
            return None
        if wanted:
            self.replication.start(pair)
            return self._update(pair, "copying")
        self._end_replica(volume)
        return {
            "replication_status": "deleted",
            "replication_extended_status": None,
            "replication_driver_data": None,
        }

    def _update(self, pair: Pair, state: str) -> dict[str, Any]:
        self._told[pair] = state
        return {
            "replication_status": STATUSES[state],
            "replication_extended_status": EXTENDED[state],
            "replication_driver_data": self.replica_backend,
        }

    # --- single volumes -----------------------------------------------------------------------------------------

    def reenable_replication(self, context: Any, volume: Volume) -> ModelUpdate:
        self._at("reenable_replication", BEFORE, volume.id)
        pair = _pair(volume)
        if not self._replicated(volume) and not wants_replica(volume):
            raise exception.Conflict(f"The volume {volume.id} has no replica", status=None)
        if self.store.size(volume.name) is None:
            raise exception.VolumeNotFound(id=volume.id)
        if self.replication.state(pair) != "active":
            self.replication.start(pair)
        self._at("reenable_replication", AFTER, volume.id)
        return self._update(pair, self.replication.state(pair) or "error")

    def get_replication_status(self, context: Any, volume: Volume) -> ModelUpdate:
        self._at("get_replication_status", BEFORE, volume.id)
        state = self.replication.catch_up(_pair(volume))
        if state is None and not wants_replica(volume):
            return None
        return self._update(_pair(volume), state or "error")

    def promote_replica(self, context: Any, volume: Volume) -> ModelUpdate:
        self._at("promote_replica", BEFORE, volume.id)
        self.replication.promote(_pair(volume), lambda: self._member("promote_replica", BUILDING, volume.id))
        self._at("promote_replica", AFTER, volume.id)
        return self._update(_pair(volume), self.replication.state(_pair(volume)) or "error")

    def create_replica_test_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        verb = "create_replica_test_volume"
        self._at(verb, BEFORE, volume.id)
        present, work = self.store.size(volume.name), making.mark()
        if present is None:
            self._check_room(volume.size_bytes)
            building = _pair(volume).building
            self.replication.clone_replica(_pair(src_vref), building, volume.size_bytes)
            self.store.mark(building, work)
            self._at(verb, BUILDING, volume.id)
            self.store.rename(building, volume.name)
        else:
            making.expect(volume.name, self.store.mark_of(volume.name), work)
            if present != volume.size_bytes:
                raise exception.AlreadyExists(resource="object", id=volume.name)
        self._at(verb, AFTER, volume.id)
        return None

    # --- the backend as a whole ---------------------------------------------------------------------------------

    def freeze_backend(self, context: Any) -> bool:
        """Note it, for the statistics; that nothing is changed meanwhile is the caller's work."""
        self._at("freeze_backend", BEFORE, "")
        self.frozen = True
        return True

    def thaw_backend(self, context: Any) -> bool:
        self._at("thaw_backend", BEFORE, "")
        self.frozen = False
        return True

    def failover_host(
        self, context: Any, volumes: Sequence[Volume], secondary_id: str | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """Go over to the replicas, or back with ``default``; to be where it is to go is success.

        Volumes that cannot be used there get the status ``error``; those without a replica that are there after all
        are not in the list.
        """
        self._at("failover_host", BEFORE, "")
        target = secondary_id or self.replica_backend
        if target not in (PRIMARY, self.replica_backend):
            raise exception.Invalid(
                f"There is no replication target {target}",
                hint=f"Use {self.replica_backend}, or {PRIMARY} to go back",
                field="secondary_id",
            )
        over = target != PRIMARY
        updates = [self._fail_over(volume, over) for volume in volumes]
        self._switch(over)
        self.active_backend_id = target if over else None
        self._at("failover_host", AFTER, "")
        return target, [{"volume_id": volume_id, "updates": item} for volume_id, item in updates if item]

    def _fail_over(self, volume: Volume, over: bool) -> tuple[str, dict[str, Any]]:
        self._member("failover_host", BUILDING, volume.id)
        pair, replication = _pair(volume), self.replication
        there = replication.active if replication.over == over else replication.other
        if replication.over != over:
            replication.leave(pair, over)
        state = replication.state(pair)
        update: dict[str, Any] = {} if state is None else self._update(pair, state)
        if there.size(volume.name) is None or state == "error":
            return volume.id, {**update, "status": "error"}
        if state is not None:
            update["provider_id"] = f"{self.replica_backend if over else PRIMARY}:{volume.name}"
        return volume.id, update

    def get_replication_updates(self, context: Any) -> list[dict[str, Any]]:
        """Return [{'volume_id', 'updates'}] of the volumes whose replication stands otherwise than last told."""
        self._at("get_replication_updates", BEFORE, "")
        changed = []
        for pair, _state in list(self.replication.pairs()):
            state = self.replication.catch_up(pair)
            if state is not None and self._told.get(pair) != state:
                changed.append({"volume_id": pair.volume_id, "updates": self._update(pair, state)})
        return changed


def _pair(volume: Volume) -> Pair:
    return Pair(volume.id, volume.name_id)

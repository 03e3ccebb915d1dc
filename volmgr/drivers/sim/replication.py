# SPDX-License-Identifier: Apache-2.0
"""Replicas in a second store: real copies, and a mark for each volume that says how its replication stands.

The marks are empty objects in the secondary store; a change of status is one rename, so it outlives the process. The
copy goes when somebody looks, unless a test holds it: what is written meanwhile is the lag. This module knows two
stores and no driver.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from volmgr import exception, names
from volmgr.drivers.sim.store import Store, copy_across, folder_store

LOG = logging.getLogger(__name__)

#: what a mark says -> the replication status that it means.
STATUSES = {
    "active": "active",
    "copying": "copying",
    "active-stopped": "active-stopped",
    "inactive": "inactive",
    "error": "error",
    # After a failover it must be known which way it went, or a repeat would take its own work for an old replica.
    "failed-over": "inactive",
    "failed-back": "inactive",
}
CONSISTENT = frozenset({"active", "active-stopped"})


class Pair(NamedTuple):
    """A volume and the object that embodies it."""

    volume_id: str
    object_id: str

    @property
    def name(self) -> str:
        return names.object_name("volume", self.object_id)

    @property
    def building(self) -> str:
        return names.building_name(self.object_id)


class Replication:
    """The replicas of one backend.

    :param primary: the store of the volumes.
    :param secondary: the store of the replicas, or its folder, which is made when the first replica is.
    :param step: called with a volume's id when its copy is there under the building name; its errors break the
        replication of that volume.
    """

    def __init__(self, primary: Store, secondary: Store | str, step: Callable[[str], None]) -> None:
        self.primary = primary
        self.over = False
        self._secondary = secondary
        self._step = step
        self._held: set[str | None] = set()
        self._lock = threading.RLock()

    # --- for tests ----------------------------------------------------------------------------------------------

    def hold(self, volume_id: str | None = None) -> None:
        """Let the copies of a volume, or of all, lag behind until :meth:`release`."""
        self._held.add(volume_id)

    def release(self, volume_id: str | None = None) -> None:
        """End what :meth:`hold` with the same argument began."""
        self._held.discard(volume_id)

    def stop(self, pair: Pair) -> None:
        """Put the replication of a volume on hold, as an operator of the backend would."""
        with self._lock:
            state = self.state(pair)
            if state is not None:
                self._mark(pair, "active-stopped" if state in CONSISTENT else "inactive")

    # --- the two sides ------------------------------------------------------------------------------------------

    @property
    def secondary(self) -> Store:
        """The store of the replicas."""
        if isinstance(self._secondary, str):
            self._secondary = folder_store(self._secondary)
        return self._secondary

    @property
    def in_use(self) -> bool:
        """Whether there may be replicas; cheap, and makes nothing."""
        if isinstance(self._secondary, str):
            return os.path.isdir(self._secondary)
        return not self._secondary.empty()

    @property
    def active(self) -> Store:
        """The store that clients use now."""
        return self.secondary if self.over else self.primary

    @property
    def other(self) -> Store:
        """The store that is copied to."""
        return self.primary if self.over else self.secondary

    def state(self, pair: Pair) -> str | None:
        """Return what the mark of a volume says, None if it has no replica."""
        if not self.in_use:
            return None
        with self._lock:
            return next((state for state in STATUSES if self.secondary.size(_mark_name(state, pair)) is not None), None)

    def pairs(self) -> Iterator[tuple[Pair, str]]:
        """Yield every volume that has a mark, and what that says."""
        for name, _size in self.secondary.entries() if self.in_use else ():
            found = names.parse_replica_mark(name)
            if found is not None:
                yield Pair(found[1], found[2]), found[0]

    # --- changes ------------------------------------------------------------------------------------------------

    def start(self, pair: Pair) -> None:
        """Begin to copy, or begin again."""
        with self._lock:
            self._mark(pair, "copying")

    def drop(self, pair: Pair) -> None:
        """End a replica and all that is left of one."""
        with self._lock:
            state = self.state(pair)
            if state is None:
                return
            self.other.remove(pair.name)
            self.other.remove(pair.building)
            self.secondary.remove(_mark_name(state, pair))

    def catch_up(self, pair: Pair) -> str | None:
        """Bring the replica up to date if it is copied to and not held; returns what the mark says then."""
        with self._lock:
            state = self.state(pair)
            if state not in ("active", "copying") or self._held & {None, pair.volume_id}:
                return state
            size = self.active.size(pair.name)
            if size is None:
                return state
            try:
                copy_across(self.active, pair.name, self.other, pair.building, size)
                self._step(pair.volume_id)
            except exception.VolmgrError as error:
                LOG.warning("The replication of volume %s is broken: %s", pair.volume_id, error)
                return self._mark(pair, "error")
            self.other.rename(pair.building, pair.name)
            return self._mark(pair, "active")

    def promote(self, pair: Pair, step: Callable[[], None]) -> None:
        """Give the volume the bytes of its replica; the copying ends.

        :param step: called when the bytes are there, before they become the volume's.
        :raises Conflict: the replica is not consistent, or there is none.
        """
        with self._lock:
            state = self.catch_up(pair)
            if state is not None and STATUSES[state] == "inactive":
                return
            if state not in CONSISTENT:
                raise exception.Conflict(f"The replica of {pair.volume_id} is {state or 'not there'}", status=state)
            self._mark(pair, "active-stopped")
            size = max(self.other.size(pair.name) or 0, self.active.size(pair.name) or 0)
            try:
                copy_across(self.other, pair.name, self.active, pair.building, size)
                step()
            except exception.VolmgrError:
                self.active.remove(pair.building)  # nobody takes a promotion back
                raise
            self.active.rename(pair.building, pair.name)
            self._mark(pair, "inactive")

    def clone_replica(self, pair: Pair, name: str, size_bytes: int) -> None:
        """Make the object ``name`` beside the volumes, with the bytes of a replica.

        :raises Conflict: the replica is not consistent, or there is none. :raises Invalid: it is larger.
        """
        with self._lock:
            state = self.catch_up(pair)
            if state not in CONSISTENT:
                raise exception.Conflict(f"The replica of {pair.volume_id} is {state or 'not there'}", status=state)
            if (self.other.size(pair.name) or 0) > size_bytes:
                raise exception.Invalid("The volume is smaller than the replica", field="size")
            copy_across(self.other, pair.name, self.active, name, size_bytes)

    def leave(self, pair: Pair, over: bool) -> str | None:
        """Prepare one volume for a failover; returns its status after it, None if it has no replica.

        :param over: to the secondary, else back.
        """
        with self._lock:
            state, done = self.catch_up(pair), "failed-over" if over else "failed-back"
            if state is None:
                return None
            return STATUSES[self._mark(pair, done if state in CONSISTENT or state == done else "error")]

    def _mark(self, pair: Pair, state: str) -> str:
        before = self.state(pair)
        if before is None:
            self.secondary.create(_mark_name(state, pair), 0)
        elif before != state:
            self.secondary.rename(_mark_name(before, pair), _mark_name(state, pair))
        return state


def _mark_name(state: str, pair: Pair) -> str:
    return names.replica_mark(state, pair.volume_id, pair.object_id)

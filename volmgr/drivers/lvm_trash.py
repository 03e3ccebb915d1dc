# SPDX-License-Identifier: Apache-2.0
"""Deleted logical volumes: renamed at once, wiped later, brought back in between. It knows no target.

A thick snapshot lives in its origin's shadow: LVM removes it with the origin. So an origin stays in the trash, and its
wipe says Busy, until the last snapshot that somebody needs is gone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Any

from volmgr import exception, names
from volmgr.drivers import lvm_copy, making
from volmgr.drivers.interfaces import ObserveVD, TrashVD
from volmgr.drivers.interfaces.upkeep import Progress
from volmgr.drivers.lvm_setup import WIPING_TAG, LVMSetup, silent
from volmgr.drivers.naming import missing
from volmgr.tools import lvm_errors as lvm
from volmgr.tools.lvm import VolumeGroup
from volmgr.types import Snapshot, Volume

LOG = logging.getLogger(__name__)

#: Seconds between two signs of life of a wipe that waits for another one.
WAIT = 1.0


class LVMTrash(TrashVD, ObserveVD, LVMSetup, abstract=True):
    """Trash and wipes."""

    def __init__(self, vg_obj: VolumeGroup | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(vg_obj, *args, **kwargs)
        # A lock for each origin, and how many wipes hold or wait for it.
        self._wipes: dict[str, tuple[threading.Lock, int]] = {}
        self._wipes_lock = threading.Lock()

    def trash_volume(self, volume: Volume) -> None:
        self._trash(volume)

    def trash_snapshot(self, snapshot: Snapshot) -> None:
        self._trash(snapshot)

    def _trash(self, resource: Volume | Snapshot) -> None:
        self._refuse_open(resource)
        trash, building = names.trash_name(resource.name_id), names.building_name(resource.name_id)
        try:
            self.vg.rename(resource.name, trash)
        except lvm.LvNotFound:
            self._trash_building(building, trash)
        except lvm.LvExists as error:
            raise exception.Busy(
                f"What bore the name {resource.name} before is still being wiped",
                hint="Try again when its wipe has ended: volmgr operation list",
            ) from error
        else:
            if self._has_node(building):
                self._erase(building, silent)

    def _trash_building(self, building: str, trash: str) -> None:
        """Put what a create has left into the trash, marked: its bytes are not whole, so it never comes back."""
        try:
            self.vg.retag(building, add=[WIPING_TAG])
            self.vg.rename(building, trash)
        except lvm.LvNotFound:
            return  # nothing at all is left: that is success
        except lvm.LvExists:
            self._erase(building, silent)

    def restore_volume(self, volume: Volume) -> None:
        self._restore(volume)

    def restore_snapshot(self, snapshot: Snapshot) -> None:
        self._restore(snapshot)

    def _restore(self, resource: Volume | Snapshot) -> None:
        found = self._look()
        if resource.name in found.volumes:
            if making.first():
                raise exception.ObjectExists(id=resource.name)
            return
        present = found.volumes.get(names.trash_name(resource.name_id))
        if present is None or WIPING_TAG in present.tags or present.size_bytes != found.rounded(resource.size_bytes):
            raise missing(resource)
        try:
            self.vg.rename(present.name, resource.name)
        except lvm.LvNotFound as error:
            raise missing(resource) from error
        if not present.active:
            self.vg.activate(resource.name)

    def wipe(self, kind: str, object_id: str, progress: Progress) -> None:
        """Free a trashed object; from its start on nothing of it can be restored.

        Where the caller keeps checkpoints, a wipe that was broken off goes on from the last one.
        """
        trash = names.trash_name(object_id)
        present = self._look().volumes.get(trash)
        if present is None:
            return
        if present.thin:
            if WIPING_TAG not in present.tags:
                self.vg.retag(trash, add=[WIPING_TAG])
            self._erase(trash, _rising(progress))
        else:
            # Snapshots and their origin depend on each other: one at a time.
            with self._alone(present.origin or trash, progress):
                self._wipe(trash, _rising(progress))
        progress(1.0)

    def _wipe(self, trash: str, progress: Progress) -> None:
        found = self._look()
        present = found.volumes.get(trash)
        if present is None:
            return
        snapshots = found.thick_snapshots_of(trash)
        if needed := [item.name for item in snapshots if names.parse_trash_name(item.name) is None]:
            raise exception.Busy(
                f"{trash} has snapshots that are needed: {', '.join(needed)}",
                hint="It is wiped by itself once they are deleted",
                resource="object",
            )
        if WIPING_TAG not in present.tags:
            self.vg.retag(trash, add=[WIPING_TAG])
        for snapshot in snapshots:
            self._erase(snapshot.name, progress)
        self._erase(trash, progress)

    @contextlib.contextmanager
    def _alone(self, key: str, progress: Progress) -> Iterator[None]:
        with self._wipes_lock:
            lock, users = self._wipes.get(key, (threading.Lock(), 0))
            self._wipes[key] = (lock, users + 1)
        try:
            while not lock.acquire(timeout=WAIT):
                progress(0.0)
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._wipes_lock:
                users = self._wipes[key][1] - 1
                if users:
                    self._wipes[key] = (lock, users)
                else:
                    del self._wipes[key]


def _rising(progress: Progress) -> lvm_copy.Progress:
    """Return a receiver that passes on what never goes back, for work of several parts."""
    highest = 0.0

    def receive(fraction: float) -> None:
        nonlocal highest
        highest = max(highest, fraction)
        progress(highest)

    return receive

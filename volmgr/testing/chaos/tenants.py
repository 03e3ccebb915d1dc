# SPDX-License-Identifier: Apache-2.0
"""Clients that work while the daemon is killed: tenants who know every byte of theirs, and vandals who share volumes.

A tenant sends a request again, under its key, until it is answered, and notes what its volumes must hold then; whatever
is otherwise later is a violation. Vandals do anything to anything: only what always holds is asked of their volumes.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from volmgr import exception
from volmgr.testing.chaos.bytes import SLOTS, block_of, offset_of
from volmgr.testing.chaos.stage import Stage, do
from volmgr.testing.daemon import Client
from volmgr.testing.waiting import wait_until

PATIENCE_SECONDS = 90.0
PAUSE = 0.05
MAX_VOLUMES, MAX_SNAPSHOTS, MAX_SIZE = 4, 2, 3
#: what a vandal may be told, as others were faster.
EXPECTED = (exception.Conflict, exception.NotFound, exception.Invalid, exception.Unsupported)
#: nobody answered: the daemon is dead, or died over it.
DEAD = (exception.BackendDown, exception.Timeout)
Bytes = dict[int, str]


@dataclass
class Kept:
    """What a tenant knows of a volume or snapshot: its size in GiB, and the text in each slot that was written."""

    id: str
    size: int
    bytes: Bytes = field(default_factory=dict)
    info: dict[str, Any] | None = None
    snapshots: dict[str, Kept] = field(default_factory=dict)


class Actor:
    """What both kinds share.

    :param seed: what it does is the same for the same seed, as far as the answers are.
    :param by_target: whether what is connected is written by way of the target.
    """

    def __init__(self, stage: Stage, seed: str, project: str, *, by_target: bool) -> None:
        self.stage = stage
        self.random = random.Random(seed)
        self.project = project
        self.by_target = by_target
        self.client: Client = stage.daemon.client()
        self.wrong: list[str] = []
        self.done = 0
        self.doing = ""

    def new_id(self) -> str:
        """Return a UUID that the seed decides."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def run(self, stop: threading.Event) -> None:
        """Ask one thing after the other until told to stop; what was begun is ended."""
        while not stop.is_set():
            try:
                self.act()
            except Exception as error:
                self.wrong.append(f"{self.project}, {self.doing}: {error!r}")
                return
            self.done += 1
        self.doing = ""

    def act(self) -> None:
        """Ask one thing."""
        raise NotImplementedError

    def request(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Send a request until it is answered, always under the same key; returns what it came to.

        :raises VolmgrError: it was refused, or nobody answered for long, or it has not ended for long.
        """
        key, deadline = self.new_id(), time.monotonic() + max(PATIENCE_SECONDS, self.stage.patience)
        self.doing = f"{method} {arguments}"
        while True:
            try:
                return do(self.client, method, arguments, project=self.project, key=key)
            except DEAD:
                if time.monotonic() > deadline:
                    raise
                time.sleep(PAUSE)

    def must(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Send a request that can only succeed.

        :raises VolmgrError: it did not.
        """
        outcome = self.request(method, **arguments)
        if outcome.get("state") == "failed":
            raise exception.from_primitive(outcome["error"])
        return outcome

    def close(self) -> None:
        """Hang up."""
        self.client.api.close()


class Tenant(Actor):
    """Owns its volumes alone, so everything it asks must succeed and it knows what they hold.

    :ivar patient: whether the target may die too, so that a write is tried again until it is taken.
    """

    def __init__(self, stage: Stage, seed: str, project: str, *, by_target: bool) -> None:
        super().__init__(stage, seed, project, by_target=by_target)
        self.volumes: dict[str, Kept] = {}
        self.acknowledged = 0
        self.patient = False

    def act(self) -> None:
        if not self.volumes:
            self.create()
            return
        volume = self.random.choice(list(self.volumes.values()))
        actions: list[tuple[int, Callable[[Kept], None]]] = [
            (6, self.write),
            (2, self.snapshot),
            (2, self.revert),
            (2, self.extend),
            (2, self.copy),
            (2, self.connect),
            (2, self.disconnect),
            (1, self.rename),
            (1, self.delete_snapshot),
            (2, lambda _volume: self.create()),
            (1, self.delete),
        ]
        (action,) = self.random.choices([item for _weight, item in actions], [weight for weight, _item in actions])
        action(volume)

    def create(self) -> None:
        if len(self.volumes) < MAX_VOLUMES:
            kept = Kept(self.new_id(), self.random.randint(1, 2))
            self.must("create_volume", volume_id=kept.id, size=kept.size)
            self.volumes[kept.id] = kept

    def copy(self, volume: Kept) -> None:
        """Make a volume from another, or from a snapshot."""
        if len(self.volumes) >= MAX_VOLUMES:
            return
        source, new_id = volume, self.new_id()
        if volume.snapshots and self.random.random() < 0.5:
            source = self.random.choice(list(volume.snapshots.values()))
            self.must("create_volume", volume_id=new_id, snapshot_id=source.id)
        else:
            self.must("create_volume", volume_id=new_id, source_volid=source.id)
        self.volumes[new_id] = Kept(new_id, source.size, dict(source.bytes))

    def snapshot(self, volume: Kept) -> None:
        if len(volume.snapshots) < MAX_SNAPSHOTS:
            kept = Kept(self.new_id(), volume.size, dict(volume.bytes))
            self.must("create_snapshot", volume_id=volume.id, snapshot_id=kept.id)
            volume.snapshots[kept.id] = kept

    def revert(self, volume: Kept) -> None:
        if volume.snapshots:
            kept = self.random.choice(list(volume.snapshots.values()))
            self.must("revert_to_snapshot", volume_id=volume.id, snapshot_id=kept.id)
            volume.bytes = dict(kept.bytes)

    def extend(self, volume: Kept) -> None:
        if volume.size < MAX_SIZE:
            if self.by_target:
                self.disconnect(volume)  # tgt cannot show a new size to who is connected
            self.must("extend_volume", volume_id=volume.id, new_size=volume.size + 1)
            volume.size += 1

    def connect(self, volume: Kept) -> None:
        volume.info = self.must("initialize_connection", volume_id=volume.id, connector=self.stage.connector)

    def disconnect(self, volume: Kept) -> None:
        if volume.info is not None:
            self.must("terminate_connection", volume_id=volume.id, connector=self.stage.connector)
            volume.info = None

    def rename(self, volume: Kept) -> None:
        self.must("update_volume", volume_id=volume.id, name=f"name {self.random.randint(0, 9)}")

    def delete_snapshot(self, volume: Kept) -> None:
        if volume.snapshots:
            snapshot_id = self.random.choice(list(volume.snapshots))
            self.must("delete_snapshot", snapshot_id=snapshot_id)
            del volume.snapshots[snapshot_id]

    def delete(self, volume: Kept) -> None:
        self.must("delete_volume", volume_id=volume.id, cascade=True)
        del self.volumes[volume.id]

    def write(self, volume: Kept) -> None:
        """Write a text that is nowhere else into a slot, by the target where that is connected."""
        slot = self.random.randrange(SLOTS)
        offset = offset_of(slot)
        text = f"{self.project} {volume.id} {self.acknowledged} "
        self.doing = f"write {text}"
        block = block_of(text)
        if offset + len(block) > volume.size << 30:
            return
        if volume.info is not None and self.by_target:
            self._write_by_target(volume, offset, block)
        else:
            fd = os.open(self.stage.outside.path_of(self._object_of(volume.id)), os.O_WRONLY)
            os.pwrite(fd, block, offset)
            os.fsync(fd)  # to a device: what is only in our page cache is in no snapshot of it
            os.close(fd)
        volume.bytes[slot] = text
        self.acknowledged += 1

    def _write_by_target(self, volume: Kept, offset: int, block: bytes) -> None:
        """Write until it is acknowledged; without patience the first try must be."""
        assert volume.info is not None
        deadline = time.monotonic() + (PATIENCE_SECONDS if self.patient else 0)
        # The target outlives the daemon: it must take this whatever becomes of the daemon meanwhile.
        while not self.stage.write(volume.info, offset, block):
            if time.monotonic() >= deadline:
                raise exception.Inconsistent(f"a write by the target to {volume.id} was refused")
            time.sleep(PAUSE)

    def _object_of(self, volume_id: str) -> str:
        """Return what SQL has as the volume's object, once the database answers: its death may be what is tried."""
        found = wait_until(
            lambda: self.stage.outside.object_of("volume", volume_id),
            PATIENCE_SECONDS, "the database answers", retry_on=exception.BackendDown,
        )
        return str(found)


class Vandal(Actor):
    """Shares a few volumes with others of its kind, and asks for anything."""

    def __init__(self, stage: Stage, seed: str, project: str, ids: tuple[list[str], list[str]]) -> None:
        super().__init__(stage, seed, project, by_target=False)
        self.volume_ids, self.snapshot_ids = ids

    def act(self) -> None:
        pick = self.random
        volume_id, snapshot_id = pick.choice(self.volume_ids), pick.choice(self.snapshot_ids)
        of = {"volume_id": volume_id}
        verbs: list[tuple[str, dict[str, Any]]] = [
            ("create_volume", {**of, "size": 1}),
            ("create_volume", {**of, "size": 1}),
            ("delete_volume", {**of, "cascade": pick.random() < 0.5, "force": pick.random() < 0.5}),
            ("extend_volume", {**of, "new_size": pick.randint(1, 9)}),
            ("create_snapshot", {**of, "snapshot_id": snapshot_id}),
            ("delete_snapshot", {"snapshot_id": snapshot_id}),
            ("revert_to_snapshot", {**of, "snapshot_id": snapshot_id}),
            ("undelete_volume", of),
            ("attach_volume", {**of, "host_name": self.project, "attachment_id": self.new_id()}),
            ("detach_volume", {**of, "force": True}),
            ("initialize_connection", {**of, "connector": self.stage.connector}),
            ("terminate_connection", {**of, "connector": None, "force": True}),
            ("remove_export", of),
        ]
        method, arguments = pick.choice(verbs)
        try:
            outcome = self.request(method, **arguments)
        except EXPECTED:
            return
        if outcome.get("state") == "failed":
            error = exception.from_primitive(outcome["error"])
            if not isinstance(error, (*EXPECTED, exception.Busy)):
                raise error

# SPDX-License-Identifier: Apache-2.0
"""What each verb asks of the database: statements and transactions, from admission to the end of its operation.

Counted in one process on SQLite; these numbers do not depend on the machine. Each verb runs a first time uncounted.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Scale, main

GROUP = "what a verb asks of the database (statements/transactions)"


def _id() -> str:
    return str(uuid.uuid4())


def _connector() -> dict[str, Any]:
    return {"initiator": f"iqn.1993-08.org.debian:01:{uuid.uuid4().hex[:12]}", "ip": "127.0.0.1", "host": "compute"}


class _Verbs:
    """The verbs, each with what must be there before it."""

    def __init__(self, rig: Any) -> None:
        from volmgr.operations import snapshots, volumes

        self.rig = rig
        self.volumes = volumes
        self.snapshots = snapshots

    def do(self, cls: Any, **arguments: Any) -> None:
        """Admit a request and run it; the looks of the pump for more work are not the verb's, so it is left out."""
        self.rig.submit(cls, **arguments)
        self.rig.stepwise.run()

    def volume(self, **more: Any) -> str:
        volume_id = _id()
        self.do(self.volumes.CreateVolume, volume_id=volume_id, **{"size": 1, **more})
        return volume_id

    def snapshot(self, volume_id: str) -> str:
        snapshot_id = _id()
        self.do(self.snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
        return snapshot_id

    def create(self) -> Callable[[], object]:
        return self.volume

    def create_from_snapshot(self) -> Callable[[], object]:
        snapshot_id = self.snapshot(self.volume())
        return lambda: self.volume(snapshot_id=snapshot_id)

    def clone(self) -> Callable[[], object]:
        source = self.volume()
        return lambda: self.volume(source_volid=source)

    def extend(self) -> Callable[[], object]:
        volume_id = self.volume()
        return lambda: self.do(self.volumes.ExtendVolume, volume_id=volume_id, new_size=2)

    def delete(self) -> Callable[[], object]:
        volume_id = self.volume()
        return lambda: self.do(self.volumes.DeleteVolume, volume_id=volume_id)

    def wipe(self) -> Callable[[], object]:
        volume_id = self.volume()
        self.do(self.volumes.DeleteVolume, volume_id=volume_id)

        def pump() -> None:
            self.rig.dispatcher.pump()
            self.rig.stepwise.run()

        return pump

    def create_snapshot(self) -> Callable[[], object]:
        volume_id = self.volume()
        return lambda: self.snapshot(volume_id)

    def delete_snapshot(self) -> Callable[[], object]:
        snapshot_id = self.snapshot(self.volume())
        return lambda: self.do(self.snapshots.DeleteSnapshot, snapshot_id=snapshot_id)

    def revert(self) -> Callable[[], object]:
        volume_id = self.volume()
        snapshot_id = self.snapshot(volume_id)
        return lambda: self.do(self.snapshots.RevertToSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)

    def initialize(self) -> Callable[[], object]:
        volume_id = self.volume()
        return lambda: self.rig.attachments.initialize("volume", volume_id, _connector())

    def initialize_again(self) -> Callable[[], object]:
        volume_id, connector = self.volume(), _connector()
        self.rig.attachments.initialize("volume", volume_id, connector)
        return lambda: self.rig.attachments.initialize("volume", volume_id, connector)

    def terminate(self) -> Callable[[], object]:
        volume_id, connector = self.volume(), _connector()
        self.rig.attachments.initialize("volume", volume_id, connector)
        return lambda: self.rig.attachments.terminate("volume", volume_id, connector, False)

    def attach(self) -> Callable[[], object]:
        volume_id = self.volume()
        return lambda: self.rig.attachments.reserve(_id(), volume_id, _id(), "rw")

    def connect(self) -> Callable[[], object]:
        volume_id, attachment_id = self.volume(), _id()
        self.rig.attachments.reserve(attachment_id, volume_id, _id(), "rw")
        return lambda: self.rig.attachments.connect(attachment_id, volume_id, _connector())


VERBS: tuple[tuple[str, Callable[[_Verbs], Callable[[], object]]], ...] = (
    ("create_volume", _Verbs.create),
    ("create_volume from a snapshot", _Verbs.create_from_snapshot),
    ("create_volume from a volume", _Verbs.clone),
    ("extend_volume", _Verbs.extend),
    ("delete_volume", _Verbs.delete),
    ("the wiping that follows it, found by the pump", _Verbs.wipe),
    ("create_snapshot", _Verbs.create_snapshot),
    ("delete_snapshot", _Verbs.delete_snapshot),
    ("revert_to_snapshot", _Verbs.revert),
    ("initialize_connection", _Verbs.initialize),
    ("initialize_connection, repeated", _Verbs.initialize_again),
    ("terminate_connection", _Verbs.terminate),
    ("attachment_create", _Verbs.attach),
    ("attachment_update", _Verbs.connect),
)


def run(_scale: Scale) -> list[Figure]:
    """Count every verb once; a count is the same in every round."""
    from volmgr.db.answered import arrival
    from volmgr.testing.rig import Rig

    figures = []
    with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder:
        rig = Rig(Path(folder))
        verbs = _Verbs(rig)
        for name, prepare in VERBS:
            prepare(verbs)()
            work = prepare(verbs)
            if prepare is not _Verbs.wipe:
                rig.run()
            # As every request of a client comes: with a key, which is kept.
            with rig.database.counting() as count, arrival(_id(), name):
                work()
            figures.append(Figure(name, text=f"{count.statements}/{count.transactions}", group=GROUP))
        rig.close()
    return figures


if __name__ == "__main__":
    main(run)

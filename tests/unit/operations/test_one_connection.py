# SPDX-License-Identifier: Apache-2.0
"""Nobody waits for a second connection inside a transaction: those who wait for its locks have all the others."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr.db.engine import Database
from volmgr.operations.snapshots import CreateSnapshot, DeleteSnapshot
from volmgr.operations.volumes import CreateVolume, DeleteVolume, ExtendVolume
from volmgr.replicas import Replicas
from volmgr.testing.rig import HOST, Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A worker of a cluster with one connection; whoever wants another one gets an error at once."""
    url = f"sqlite:///{tmp_path}/volmgr.sqlite"
    made = Rig(tmp_path, database=Database(url, pool_size=1, busy_timeout=0.1, retry_timeout=0.1))
    made.dispatcher.backend.frozen = Replicas(made.database, made.driver, HOST, shared=True).is_frozen
    yield made
    made.database.close()


def test_a_volumes_life_on_one_connection(rig: Rig) -> None:
    volume, snapshot = str(uuid.uuid4()), str(uuid.uuid4())
    for operation, values in (
        (CreateVolume, {"volume_id": volume, "size": 1}),
        (CreateSnapshot, {"volume_id": volume, "snapshot_id": snapshot}),
        (ExtendVolume, {"volume_id": volume, "new_size": 2}),
        (DeleteSnapshot, {"snapshot_id": snapshot}),
        (DeleteVolume, {"volume_id": volume}),
    ):
        done = rig.do(operation, **values)
        assert done is not None
        assert done.state == "done"

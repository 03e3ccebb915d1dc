# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at every step boundary on StorPool, and while each call of a verb is under way; looked at from the cluster.

The stories are those of the simulator, without its faults. What a call does that arrives after its sender has died is
part of it: the contract server holds it back until then.
"""

from __future__ import annotations

import dataclasses
import functools
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.testing.chaos.outside import Outside
from volmgr.testing.chaos.scenarios import BY_NAME
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.chaos.strikes import record, strike
from volmgr.testing.daemon import Daemon
from volmgr.testing.storpool.process import StorPoolServer
from volmgr.testing.waiting import wait_until
from volmgr.types import ObservedObject

pytestmark = pytest.mark.extended

STORIES = ("create", "create-clone", "delete", "extend", "snapshot")
PREFIX = "os"


class Cluster(Outside):
    """What is in the cluster, seen by nobody's driver."""

    def __init__(self, daemon: Daemon, server: StorPoolServer, **arguments: Any) -> None:
        self.server = server
        super().__init__(daemon, storage=self._objects, **arguments)

    def _objects(self) -> list[ObservedObject]:
        found = []
        for name in self.server.names():
            parsed = names.parse_storpool_name(PREFIX, name)
            if parsed is not None and parsed.kind in names.KINDS:
                size = self.server.file(name).stat().st_size
                ours = names.object_name(parsed.kind, parsed.object_id)
                found.append(ObservedObject(ours, parsed.object_id, parsed.kind, "current", size))
        return found

    def path_of(self, object_id: str, kind: str = "volume") -> Path:
        return self.server.file(names.storpool_name(PREFIX, kind, object_id))

    def strangers(self) -> list[str]:
        """Return what was left between two calls of a copy."""
        parsed = {name: names.parse_storpool_name(PREFIX, name) for name in self.server.names()}
        return [
            f"{name} is nobody's"
            for name, found in parsed.items()
            if not name.startswith("*") and (found is None or found.kind not in names.KINDS)
        ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorPoolServer]:
    with StorPoolServer(tmp_path_factory.mktemp("storpool")) as made:
        yield made


@pytest.fixture(scope="module")
def stage(server: StorPoolServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    conf = server.write_conf(folder / "storpool.conf", prefix=PREFIX, hosts={"compute": 2})
    backend = {"volume_driver": "storpool", "storpool_config_file": str(conf), "storpool_template": "hybrid"}
    made = Stage(folder / "daemon", backend=backend, outside=functools.partial(Cluster, server=server))
    made.start()
    yield made
    made.close()
    assert server.refused() == []


@pytest.mark.parametrize("name", STORIES)
def test_a_kill_at_every_step(stage: Stage, name: str) -> None:
    recorded = record(stage, dataclasses.replace(BY_NAME[name], inside=(), faults=()))
    # The boundaries of the journal are the same on every driver and are struck on the simulator.
    kills = [kill for kill in recorded.strikes() if not kill.again and "/-/" not in kill.point]
    assert {"before", "after"} <= {kill.point.rpartition("/")[2] for kill in kills}
    assert {str(kill): found for kill in kills if (found := strike(stage, recorded, kill))} == {}


#: What is asked, over a volume @v with the template fast and its snapshot @s.
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("create_volume", {"volume_id": "@n", "size": 1}),
    "clone-across": ("create_volume", {"volume_id": "@n", "source_volid": "@v"}),
    "snapshot": ("create_snapshot", {"volume_id": "@v", "snapshot_id": "@n"}),
    "extend": ("extend_volume", {"volume_id": "@v", "new_size": 2}),
    "delete": ("delete_volume", {"volume_id": "@v", "cascade": True}),
}
#: Which of its calls is held back: before it does its work, so that it does so in the next life, or after.
POINTS = [
    ("create", "VolumeCreate", "before"),
    ("clone-across", "VolumeSnapshot", "after"),
    ("clone-across", "SnapshotDelete", "after"),
    ("snapshot", "VolumeSnapshot", "before"),
    ("extend", "VolumeUpdate", "before"),
    ("delete", "VolumeDelete", "before"),
]
#: Seconds for which it is held back: until the daemon is dead, and not so long that the next life has ended its work.
HELD = 1.0


@pytest.mark.parametrize(("name", "call", "when"), POINTS)
def test_a_kill_while_a_call_is_under_way(
    stage: Stage, server: StorPoolServer, name: str, call: str, when: str
) -> None:
    method, arguments = ASKED[name]
    ids = {role: str(uuid.uuid4()) for role in ("@v", "@s", "@n")}
    asked = {key: ids.get(str(value), value) for key, value in arguments.items()}
    project, key = "p", str(uuid.uuid4())
    # The source was made in another template than the backend has by default: a clone goes through a snapshot.
    stage.do("create_volume", {"volume_id": ids["@v"], "size": 1}, project=project)
    server.request_change("VolumeUpdate", names.storpool_name(PREFIX, "volume", ids["@v"]), {"template": "fast"})
    stage.do("create_snapshot", {"volume_id": ids["@v"], "snapshot_id": ids["@s"]}, project=project)
    server.forget_calls()
    server.faults({"call": call, "kind": "slow", "when": when, "seconds": HELD})
    stage.ask(method, asked, project=project, key=key)
    server.wait_for(call)
    stage.daemon.kill()
    stage.start()
    assert stage.outside.settle() == []
    outcome = stage.do(method, asked, project=project, key=key)
    assert outcome["state"] == "done", outcome
    wait_until(lambda: all(item["finished"] for item in server.calls()), 30, "the call that was held back has ended")
    assert stage.outside.settle() == []
    for volume in stage.client.api.list_volumes(stage.client.context, limit=1000):
        try:
            stage.do("delete_volume", {"volume_id": volume["id"], "cascade": True}, project=project)
        except exception.VolumeNotFound:
            continue
    assert stage.outside.settle() == []
    assert {item for item in server.names() if not item.startswith("*")} == set()

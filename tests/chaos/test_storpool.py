# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at every step boundary on StorPool, and while each call of a verb is under way; looked at from the cluster.

The stories are those of the simulator, without its faults. What a call does that arrives after its sender has died is
part of it: the contract server holds it back until then. Stories whose bytes go through this host run in a mount
namespace with block devices of their own, see :mod:`storpool_devices`.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.testing.chaos.scenarios import BY_NAME
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.chaos.storpool import PREFIX
from volmgr.testing.chaos.storpool import stage as make_stage
from volmgr.testing.chaos.story import MARKED, Call, Scenario
from volmgr.testing.chaos.strikes import record, strike
from volmgr.testing.storpool import namespace
from volmgr.testing.storpool.process import StorPoolServer

pytestmark = [pytest.mark.extended, pytest.mark.timeout(3000)]

STORIES = (
    "create", "create-from-snapshot", "create-clone", "delete", "unmanage", "extend", "extend-connected", "snapshot",
    "delete-snapshot", "unmanage-snapshot", "revert", "manage", "manage-snapshot", "connect", "disconnect",
    "remove-export", "update-migrated", "group-create", "group-update", "group-delete", "cgsnapshot",
    "delete-cgsnapshot", "group-from-cgsnapshot",
)
#: stories with two workers on one cluster.
PAIRS = ("migrate-by-the-driver", "complete-migration")
FAST = Call("type_create", {"type_id": "@c", "name": "@c", "extra_specs": {"storpool_template": "fast"}})
#: what StorPool has to do more for than the simulator.
OWN = {
    "retype": Scenario(
        "retype", "retype", (*MARKED, FAST), Call("retype", {"volume_id": "@v", "new_type_id": "@c"}), lean=True
    ),
    "clone-across": Scenario(
        "clone-across", "create_volume", (*MARKED, dataclasses.replace(FAST, arguments={
            **FAST.arguments, "type_id": "@h", "name": "@h",
        })), Call("create_volume", {"volume_id": "@c", "source_volid": "@v", "volume_type": "@h"}), lean=True,
    ),
    "group-from-group": Scenario(
        "group-from-group", "create_consistencygroup_from_src", BY_NAME["cgsnapshot"].before,
        Call("create_consistencygroup_from_src", {"group_id": "@h", "source_group_id": "@g"}), lean=True,
    ),
}
DEVICES = Path(__file__).with_name("storpool_devices.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorPoolServer]:
    with StorPoolServer(tmp_path_factory.mktemp("storpool")) as made:
        yield made
        assert made.refused() == []


@pytest.fixture(scope="module")
def stage(server: StorPoolServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = make_stage(server, tmp_path_factory.mktemp("stage"))
    made.start()
    yield made
    made.close()


def struck(stage: Stage, scenario: Scenario) -> None:
    """Tell a story, and then with a kill at each of its steps."""
    plain = dataclasses.replace(scenario, inside=(), faults=(), options=(), since="")
    recorded = record(stage, plain)
    # The boundaries of the journal are the same on every driver and are struck on the simulator.
    everywhere = recorded.strikes(whole=scenario.pair)
    kills = [kill for kill in everywhere if not kill.again and "/-/" not in kill.point]
    if any("/-/" not in point for point in recorded.points):
        assert {"before", "after"} <= {kill.point.rpartition("/")[2] for kill in kills}
    else:
        # Level-triggered: a row changes, and then what follows it.
        kills = [kill for kill in recorded.strikes() if not kill.again]
    assert kills
    assert {str(kill): found for kill in kills if (found := strike(stage, recorded, kill))} == {}


@pytest.mark.parametrize("name", [*STORIES, *OWN])
def test_a_kill_at_every_step(stage: Stage, name: str) -> None:
    struck(stage, OWN.get(name) or BY_NAME[name])


@pytest.mark.parametrize("name", PAIRS)
def test_a_kill_at_every_step_of_two_workers(server: StorPoolServer, tmp_path: Path, name: str) -> None:
    server.reset()
    made = make_stage(server, tmp_path / "pair", pair=True).start()
    try:
        struck(made, BY_NAME[name])
    finally:
        made.close()
        server.reset()


def test_kills_while_bytes_go_through_this_host(tmp_path: Path) -> None:
    if reason := namespace.missing():
        pytest.fail(f"cannot run here: {reason}")
    private = tmp_path / "private"
    private.mkdir()
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT), "-m", ""]
    argv += ["--basetemp", str(tmp_path / "inside"), str(DEVICES)]
    done = subprocess.run(
        namespace.command(private, argv), capture_output=True, text=True, cwd=ROOT, timeout=2700, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


#: What is asked, over a volume @v with the template fast and its snapshot @s; in a group @g where that is spoken of.
ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("create_volume", {"volume_id": "@n", "size": 1}),
    "clone-across": ("create_volume", {"volume_id": "@n", "source_volid": "@v"}),
    "snapshot": ("create_snapshot", {"volume_id": "@v", "snapshot_id": "@n"}),
    "extend": ("extend_volume", {"volume_id": "@v", "new_size": 2}),
    "retype": ("retype", {"volume_id": "@v", "new_type_id": "@t"}),
    "revert": ("revert_to_snapshot", {"volume_id": "@v", "snapshot_id": "@s"}),
    "unsnap": ("delete_snapshot", {"snapshot_id": "@s"}),
    "set": ("create_cgsnapshot", {"group_id": "@g", "cgsnapshot_id": "@n"}),
    "group": ("create_consistencygroup_from_src", {"source_group_id": "@g", "group_id": "@n"}),
    "delete": ("delete_volume", {"volume_id": "@v", "cascade": True}),
    "let-go": ("delete_snapshot", {"snapshot_id": "@s", "unmanage_only": True}),
}
#: Which of its calls is held back: before it does its work, so that it does so in the next life, or after.
BEFORE = [
    ("create", "VolumeCreate"),
    ("clone-across", "VolumeSnapshot"),
    ("snapshot", "VolumeSnapshot"),
    ("extend", "VolumeUpdate"),
    ("retype", "VolumeUpdate"),
    ("revert", "VolumeCreate"),
    ("revert", "VolumeDelete"),
    ("unsnap", "SnapshotDelete"),
    ("set", "VolumesGroupSnapshot"),
    ("group", "VolumesGroupSnapshot"),
    ("delete", "VolumeDelete"),
    ("let-go", "SnapshotUpdate"),
]
AFTER = [
    ("clone-across", "VolumeSnapshot"),
    ("clone-across", "SnapshotDelete"),
    ("set", "VolumesGroupSnapshot"),
    ("group", "VolumeCreate"),
]
#: What takes back what was asked, where the late call may make it a second time.
TAKEN_BACK: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("delete_volume", {"volume_id": "@n"}),
    "clone-across": ("delete_volume", {"volume_id": "@n"}),
    "snapshot": ("delete_snapshot", {"snapshot_id": "@n"}),
    "set": ("delete_cgsnapshot", {"cgsnapshot_id": "@n"}),
    "group": ("delete_consistencygroup", {"group_id": "@n", "delete_volumes": True}),
}
#: When the cluster comes to the call that was held back: ``first``: before the next life begins; ``last``: once that
#: has ended its work; ``gone``: once the outcome has been taken back, too.
CASES = [
    *((name, call, "after", "first") for name, call in AFTER),
    *((name, call, "before", order) for name, call in BEFORE for order in ("first", "last")),
    *((name, call, "before", "gone") for name, call in BEFORE if name in TAKEN_BACK),
]
#: What the cluster then has that nobody knows: only an audit can find it.
LEFT = {
    ("clone-across", "last"): {"building-left"},
    ("group", "last"): {"building-left"},
    ("create", "gone"): {"storage-orphan"},
    ("clone-across", "gone"): {"building-left"},
    ("snapshot", "gone"): {"storage-orphan"},
    ("set", "gone"): {"storage-orphan"},
    ("group", "gone"): {"building-left"},
}


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StorPoolServer, Stage]]:
    """A cluster and a daemon without what the stories leave."""
    with StorPoolServer(tmp_path_factory.mktemp("apart")) as server:
        made = make_stage(server, tmp_path_factory.mktemp("apart-stage"))
        made.start()
        yield server, made
        made.close()
        assert server.refused() == []


@pytest.mark.parametrize(("name", "call", "when", "order"), CASES)
def test_a_kill_while_a_call_is_under_way(
    apart: tuple[StorPoolServer, Stage], name: str, call: str, when: str, order: str
) -> None:
    server, stage = apart
    ids = {role: str(uuid.uuid4()) for role in ("@v", "@s", "@n", "@g", "@t")}
    method, asked = _told(ASKED[name], ids)
    project, key = "p", str(uuid.uuid4())
    _before(server, stage, ids, grouped="@g" in ASKED[name][1].values())
    server.forget_calls()
    server.faults({"call": call, "kind": "held", "when": when})
    stage.ask(method, asked, project=project, key=key)
    server.wait_held(call)
    stage.daemon.kill()
    if order == "first":
        server.release()
    stage.start()
    stage.outside.wait_idle()
    outcome = stage.do(method, asked, project=project, key=key)
    assert outcome["state"] == "done", outcome
    if order == "gone":
        taken_back, of = _told(TAKEN_BACK[name], ids)
        assert stage.do(taken_back, of, project=project)["state"] == "done"
    assert stage.outside.settle() == []
    server.release()
    assert _audited(stage) == LEFT.get((name, order), set())
    assert stage.outside.settle() == []
    _delete_all(stage, project)
    assert stage.outside.settle() == []
    left = {item for item in server.names() if not item.startswith("*") and not names.parse_unmanaged_name(item)}
    assert left == set()
    server.reset()


def _told(request: tuple[str, dict[str, Any]], ids: dict[str, str]) -> tuple[str, dict[str, Any]]:
    return request[0], {key: ids.get(str(value), value) for key, value in request[1].items()}


def _before(server: StorPoolServer, stage: Stage, ids: dict[str, str], *, grouped: bool) -> None:
    """Make what a request is about: the source has another template than the backend gives."""
    project, group = "p", {"group_id": ids["@g"]} if grouped else {}
    if grouped:
        stage.do("create_consistencygroup", group, project=project)
    stage.do("create_volume", {"volume_id": ids["@v"], "size": 1, **group}, project=project)
    server.request_change("VolumeUpdate", names.storpool_name(PREFIX, "volume", ids["@v"]), {"template": "fast"})
    stage.do("create_snapshot", {"volume_id": ids["@v"], "snapshot_id": ids["@s"]}, project=project)
    stage.do("type_create", {"type_id": ids["@t"], "name": ids["@t"], "extra_specs": {
        "storpool_template": "plain"}}, project=project)
    stage.outside.wait_idle()


def _audited(stage: Stage) -> set[str]:
    """Let an audit mend what it finds; returns the kinds of that."""
    api, context = stage.client.api, stage.client.context
    found = api.audit(context)["findings"]
    if found:
        api.audit(context, fix=True, findings=[item["id"] for item in found])
        stage.outside.wait_idle()
    assert api.audit(context)["findings"] == []
    return {item["kind"] for item in found}


def _delete_all(stage: Stage, project: str) -> None:
    api, context = stage.client.api, stage.client.context
    for item in api.list_cgsnapshots(context, limit=1000):
        stage.do("delete_cgsnapshot", {"cgsnapshot_id": item["id"]}, project=project)
    for volume in api.list_volumes(context, limit=1000):
        try:
            stage.do("delete_volume", {"volume_id": volume["id"], "cascade": True}, project=project)
        except exception.VolumeNotFound:
            continue
    for item in api.list_groups(context, limit=1000):
        stage.do("delete_consistencygroup", {"group_id": item["id"]}, project=project)

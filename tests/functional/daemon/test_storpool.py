# SPDX-License-Identifier: Apache-2.0
"""The daemon on StorPool: a volume's life, a cluster that is away for a while, hosts that nobody knows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.storpool.process import StorPoolServer
from volmgr.testing.waiting import wait_until

COMPUTE = {"host": "compute", "ip": "127.0.0.1"}


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorPoolServer]:
    with StorPoolServer(tmp_path_factory.mktemp("storpool")) as server:
        yield server


@pytest.fixture
def storpool(running: StorPoolServer) -> Iterator[StorPoolServer]:
    running.reset()
    yield running
    assert running.refused() == []


@pytest.fixture
def daemon(storpool: StorPoolServer, make_daemon: Callable[..., Daemon], tmp_path: Path) -> Daemon:
    """A daemon on StorPool; target_helper is left to its default, for this driver takes no target."""
    conf = storpool.write_conf(tmp_path / "storpool.conf", hosts={"compute": 2, "other": 1})
    options = {"volume_driver": "storpool", "storpool_config_file": str(conf), "storpool_template": "hybrid"}
    return make_daemon(backend=options)


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with daemon.start().client() as made:
        yield made


def bytes_of(storpool: StorPoolServer, volume_id: str) -> bytes:
    with storpool.file(f"os--volume-{volume_id}").open("rb") as file:
        return file.read(4)


def write(storpool: StorPoolServer, volume_id: str, data: bytes) -> None:
    with storpool.file(f"os--volume-{volume_id}").open("r+b") as file:
        file.write(data)


def test_the_life_of_a_volume(client: Client, storpool: StorPoolServer) -> None:
    api, context = client.api, client.context
    volume_id, snapshot_id, clone_id, copy_id = (new_id() for _ in range(4))
    client.do("create_volume", volume_id, size=1)
    write(storpool, volume_id, b"data")
    client.do("create_snapshot", volume_id, snapshot_id)
    write(storpool, volume_id, b"more")
    with pytest.raises(exception.Unsupported):
        api.initialize_connection_snapshot(context, snapshot_id, COMPUTE)
    client.do("create_volume", clone_id, snapshot_id=snapshot_id)
    client.do("create_volume", copy_id, source_volid=volume_id, size=2)
    assert (bytes_of(storpool, clone_id), bytes_of(storpool, copy_id)) == (b"data", b"more")
    client.do("extend_volume", volume_id, 3)
    client.do("revert_to_snapshot", volume_id, snapshot_id)
    info = api.initialize_connection(context, volume_id, COMPUTE)
    # The volume has another object now, and the connection names that.
    object_id = info["data"]["volume"]
    assert object_id != volume_id
    assert bytes_of(storpool, object_id) == b"data"
    assert (info["driver_volume_type"], info["data"]["client_id"], info["data"]["access_mode"]) == ("storpool", 2, "rw")
    with pytest.raises(exception.Invalid, match="stranger") as caught:
        api.initialize_connection(context, volume_id, {"host": "stranger"})
    assert "SP_OURID" in caught.value.hint
    # Taking access away needs no client id.
    api.terminate_connection(context, volume_id, {"host": "stranger"})
    # A host that did not detach is detached, and no other; by force all are.
    name = f"os--volume-{object_id}"
    storpool.request_change("VolumesReassign", "", [{"volume": name, "rw": [1, 2]}])
    api.initialize_connection(context, volume_id, {"host": "other"})
    # The second time there is no grant any more: what came too late is taken away all the same.
    for _ in range(2):
        storpool.request_change("VolumesReassign", "", [{"volume": name, "rw": [1, 2]}])
        api.terminate_connection(context, volume_id, COMPUTE)
        assert storpool.attached()[name] == {"1": "rw"}
    api.terminate_connection(context, volume_id, None, force=True)
    assert storpool.attached()[name] == {}
    # Without a type it is where the option says, though another pool has more room; and so is what it was made from.
    for made in (volume_id, clone_id, copy_id):
        assert api.get_volume(context, made)["host"] == "node@b#template_hybrid"
    # Whatever pool it is in: another template of the same backend is for the driver to change.
    for template in ("fast", "plain", "hybrid"):
        api.call(context, "type_create", type_id=new_id(), name=template, extra_specs={"storpool_template": template})
        client.do("retype", clone_id, template)
        assert api.get_volume(context, clone_id)["host"] == f"node@b#template_{template}"
    # A copy may be of another template than its source, from a volume and from a snapshot.
    for source in ({"source_volid": volume_id}, {"snapshot_id": snapshot_id}):
        typed_id = new_id()
        client.do("create_volume", typed_id, volume_type="fast", **source)
        assert api.get_volume(context, typed_id)["host"] == "node@b#template_fast"
        assert template_of(storpool, f"os--volume-{typed_id}") == "fast"
        client.do("delete_volume", typed_id)
    assert api.audit(context)["findings"] == []
    client.do("delete_volume", volume_id, cascade=True)
    client.do("delete_volume", clone_id)
    client.do("delete_volume", copy_id)
    assert storpool.names() == set()
    # A volume that nobody here made is reported, and stays.
    orphan = {"name": f"os--volume-{new_id()}", "size": 2**30, "replication": 3}
    storpool.request_change("VolumeCreate", "", orphan)
    (finding,) = api.audit(context, fix=True)["findings"]
    assert (finding["kind"], finding["resource_id"]) == ("storage-orphan", orphan["name"].removeprefix("os--volume-"))
    assert storpool.names() == {orphan["name"]}
    # What bears our mark, and the journal knows that it is nobody's, goes; what it does not know waits for a word.
    ours = {"volmgr": "1", "volmgr-work": "an-earlier-life"}
    name = orphan["name"]
    storpool.request_change("VolumeSnapshot", name, {"name": f"os--snap--none--snapshot-{new_id()}", "tags": ours})
    storpool.request_change("VolumeSnapshot", name, {"name": f"os--backup--none--snapshot-{new_id()}", "tags": ours})
    storpool.request_change("VolumeCreate", "", {**orphan, "name": f"os--volume-{volume_id}", "tags": ours})
    findings = {item["kind"]: item for item in api.audit(context, fix=True)["findings"]}
    told = api.audit(context)["findings"]
    assert {item["kind"] for item in told} == {"storage-orphan", "building-left"}
    assert len(told) == 4
    named = [item["id"] for item in told if item["resource_id"] != orphan["name"].removeprefix("os--volume-")]
    api.audit(context, fix=True, findings=named)
    wait_until(lambda: visible(storpool) == {name}, 60, "what was named is freed")
    assert set(findings) == {"storage-orphan", "building-left"}


def template_of(storpool: StorPoolServer, name: str) -> str:
    """Return the template that the cluster says a volume has."""
    _status, reply = storpool.request("GET", f"/ctrl/1.0/MultiCluster/Volume/{name}")
    return str(json.loads(reply)["data"][0]["templateName"])


def visible(storpool: StorPoolServer) -> set[str]:
    """Return the names that somebody has given."""
    return {name for name in storpool.names() if not name.startswith("*")}


def test_a_cluster_that_is_away_at_the_start_is_waited_for(
    daemon: Daemon, running: StorPoolServer, storpool: StorPoolServer
) -> None:
    running.stop()
    try:
        daemon.start(wait=False)
        with daemon.client() as client:

            def reported() -> Any:
                try:
                    return "StorPool" in str(client.api.list_services(client.context)[0]["reason"])
                except exception.BackendDown:
                    return False

            wait_until(reported, 60, "the backend is reported down with its reason")
            volume_id = new_id()
            answer = client.api.create_volume(client.context, volume_id, size=1)
            running.start()
            client.api.wait_operation(client.context, answer["operation_id"], 90)
            assert client.api.get_volume(client.context, volume_id)["status"] == "available"
    finally:
        if running.stopped:
            running.start()
    assert storpool.names() == {f"os--volume-{volume_id}"}

# SPDX-License-Identifier: Apache-2.0
"""What the first block store's tests were about, by their names: two nodes, files, vblade, and a host on the cable."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import unavailable
from tests.functional.aoe.nodes import CONNECTOR, MAC, OTHER, SHELF, SLOTS, Node, new_id, two_nodes
from volmgr import exception
from volmgr.testing.aoe import Initiator, cable
from volmgr.testing.waiting import wait_until
from volmgr.types import MiB


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, require: Callable[..., str]) -> Iterator[list[Node]]:
    require("vblade")
    require("ip", "iproute2")
    folder = tmp_path_factory.mktemp("aoe")
    with contextlib.ExitStack() as stack:
        try:
            ends = stack.enter_context(cable())
        except RuntimeError as error:
            unavailable(f"no pair of network interfaces: {error}")
        storage = {"volume_driver": "file"}
        yield stack.enter_context(two_nodes(folder, ends, {"one": storage, "two": storage}))


@pytest.fixture
def node(nodes: list[Node]) -> Node:
    return nodes[0]


@pytest.fixture(autouse=True)
def no_volume_left(nodes: list[Node]) -> Iterator[None]:
    """Each test begins and ends with nothing."""
    yield
    for volume in nodes[0].client.api.list_volumes(nodes[0].client.context):
        for one in nodes:
            with contextlib.suppress(exception.Moved):
                one.ask("detach_volume", volume_id=volume["id"], force=True)
                answer = one.ask("delete_volume", volume_id=volume["id"], force=True)
                one.client.api.wait_operation(one.client.context, answer["operation_id"])
    assert [process for one in nodes for process in one.processes()] == []


def test_run_create_volume(node: Node) -> None:
    volume_id = node.create()
    found = node.ask("get_volume", volume_id=volume_id)
    assert (found["status"], found["size"], found["host"].partition("@")[0]) == ("available", 1, "one")
    assert f"at e{SHELF}." in node.ask("why", resource_id=volume_id)["text"]
    assert node.processes() == [], "nobody was let in yet"
    assert "serves nothing, as nobody is let in" in node.ask("why", resource_id=volume_id)["text"]
    assert node.ask("audit")["findings"] == []
    answer = node.ask("delete_volume", volume_id=volume_id)
    node.client.api.wait_operation(node.client.context, answer["operation_id"])
    with pytest.raises(exception.VolumeNotFound):
        node.ask("get_volume", volume_id=volume_id)


def test_too_big_volume(node: Node) -> None:
    with pytest.raises(exception.TooBig):
        node.create(size=9)
    assert node.ask("list_volumes") == []


def test_too_many_volumes(node: Node) -> None:
    ids = [node.create() for _ in range(SLOTS)]
    with pytest.raises(exception.NoMoreVolumes) as caught:
        node.create()
    assert "aoe_slots_per_shelf" in caught.value.hint
    assert len(node.ask("list_volumes")) == SLOTS
    answer = node.ask("delete_volume", volume_id=ids[2])
    node.client.api.wait_operation(node.client.context, answer["operation_id"])
    node.create()


def test_run_attach_detach_volume(node: Node) -> None:
    volume_id, attachment_id = node.create(), new_id()

    def status() -> tuple[str, list[str]]:
        found = node.ask("get_volume", volume_id=volume_id)
        return found["status"], [item["status"] for item in found["attachments"]]

    node.ask("attachment_create", attachment_id=attachment_id, volume_id=volume_id, instance_uuid=new_id())
    assert status() == ("reserved", ["reserved"])
    info = node.ask("attachment_update", attachment_id=attachment_id, volume_id=volume_id, connector=CONNECTOR)
    assert status() == ("attaching", ["attaching"])
    node.ask("attachment_complete", attachment_id=attachment_id)
    assert status() == ("in-use", ["attached"])
    with Initiator(node.far, info["data"]["target_shelf"], info["data"]["target_lun"]) as host:
        data = os.urandom(8192)
        host.write(MAC, MiB, data)
        with node.storage_of(volume_id).open("rb") as file:
            file.seek(MiB)
            assert file.read(8192) == data
        assert not host.is_let_in(OTHER, fence=MAC)
        node.ask("attachment_delete", attachment_id=attachment_id, volume_id=volume_id)
        assert status() == ("available", [])
        assert node.processes() == []
        assert host.discover(MAC) == set()


def test_multi_node(nodes: list[Node]) -> None:
    """Nodes that share the shelves never meet, and each lists the volumes of all."""
    with ThreadPoolExecutor(SLOTS) as pool:
        ids = list(pool.map(lambda number: nodes[number % 2].create(), range(SLOTS)))
    for one in nodes:
        assert {item["id"] for item in one.ask("list_volumes")} == set(ids)
        host = f"{one.daemon.host}#"
        own = {item["id"] for item in one.ask("list_volumes") if item["host"].startswith(host)}
        assert len(own) == SLOTS // 2
    addresses = set()
    for number, volume_id in enumerate(ids):
        with nodes[number % 2].connect(volume_id) as wire:
            wire.write(MAC, 0, bytes([number + 1]) * 512)
            addresses.add((wire.shelf, wire.slot))
    assert addresses == {(SHELF, slot) for slot in range(SLOTS)}
    for number, volume_id in enumerate(ids):
        with nodes[number % 2].storage_of(volume_id).open("rb") as file:
            assert file.read(512) == bytes([number + 1]) * 512
    with pytest.raises(exception.Moved):
        nodes[0].ask("initialize_connection", volume_id=ids[1], connector=CONNECTOR)


def test_export_outlives_the_daemon(node: Node) -> None:
    """A host goes on reading while nobody manages its volume; the next life takes the same process over."""
    volume_id = node.create()
    with node.connect(volume_id) as wire:
        wire.write(MAC, 0, b"a" * 512)
        before = [process.pid for process in node.processes()]
        node.daemon.kill()
        assert wire.read(MAC, 0, 512) == b"a" * 512
        node.daemon.start(wait=False)
        wait_until(lambda: node.ask("get_capabilities"), 60, "it answers", retry_on=exception.BackendDown)
        node.ask("initialize_connection", volume_id=volume_id, connector=CONNECTOR)
        assert [process.pid for process in node.processes()] == before
        node.client.do("extend_volume", volume_id, 2)
        assert wire.identify(MAC) * 512 == 2 * 1024 * MiB
        assert wire.read(MAC, 0, 512) == b"a" * 512


def test_a_host_that_got_another_port_is_the_same_host(node: Node) -> None:
    """Its address list is never quite the same; it is known by any port that it keeps."""
    volume_id = node.create()
    with node.connect(volume_id) as wire:
        wire.identify(MAC)
        with node.connect(volume_id, aoe_macs=[MAC.upper(), OTHER]):
            assert wire.is_let_in(OTHER, fence=MAC)
        connector = CONNECTOR | {"aoe_macs": [OTHER]}
        node.ask("terminate_connection", volume_id=volume_id, connector=connector)
        assert node.processes() == []


def test_connector_without_macs_is_refused(node: Node) -> None:
    volume_id = node.create()
    with pytest.raises(exception.InvalidConnector) as caught:
        node.connect(volume_id, aoe_macs=[])
    assert "ip -brief link" in caught.value.hint
    assert node.processes() == []

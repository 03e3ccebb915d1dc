# SPDX-License-Identifier: Apache-2.0
"""The daemon as a process: a volume's life, SIGKILL in the middle of it, two at once, a clean stop."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from volmgr import exception
from volmgr.testing.daemon import Client, Daemon

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


def test_the_life_of_a_volume(client: Client) -> None:
    api, context = client.api, client.context
    volume_id, snapshot_id, clone_id = new_id(), new_id(), new_id()
    client.do("create_volume", volume_id, size=1, name="data", metadata={"a": "b"})
    client.do("create_snapshot", volume_id, snapshot_id, name="before")
    client.do("create_volume", clone_id, snapshot_id=snapshot_id)
    client.do("extend_volume", volume_id, 3)
    client.do("revert_to_snapshot", volume_id, snapshot_id)
    api.update_volume(context, volume_id, name="other")
    volume = api.get_volume(context, volume_id)
    assert (volume["name"], volume["size"], volume["status"]) == ("other", 3, "available")
    assert volume["metadata"] == {"a": "b"}
    assert api.get_volume(context, clone_id)["snapshot_id"] == snapshot_id
    assert {item["id"] for item in api.list_volumes(context)} == {volume_id, clone_id}
    attachment_id = new_id()
    api.attachment_create(context, attachment_id, volume_id, new_id())
    info = api.attachment_update(context, volume_id, CONNECTOR, attachment_id)
    assert info["data"]["volume_id"] == volume_id
    api.attachment_complete(context, attachment_id)
    assert api.get_volume(context, volume_id)["status"] == "in-use"
    assert [item["id"] for item in api.get_volume(context, volume_id)["attachments"]] == [attachment_id]
    api.attachment_delete(context, volume_id, attachment_id)
    client.do("delete_volume", volume_id, cascade=True)
    client.do("delete_volume", clone_id)
    assert api.list_volumes(context) == []
    assert api.list_snapshots(context) == []
    assert api.create_volume(context, new_id(), size=1)["operation_id"]


def test_errors_arrive_as_their_own_classes(client: Client) -> None:
    api, context = client.api, client.context
    with pytest.raises(exception.VolumeNotFound) as missing:
        api.get_volume(context, new_id())
    assert type(missing.value) is exception.VolumeNotFound
    with pytest.raises(exception.Invalid, match="size"):
        api.create_volume(context, new_id(), size=-1)
    with pytest.raises(exception.Invalid, match="colour"):
        api.create_volume(context, new_id(), size=1, colour="red")
    with pytest.raises(exception.TooBig):
        api.create_volume(context, new_id(), size=65537)
    assert api.list_volumes(context) == []


@pytest.mark.parametrize("point", ["received", "admitted", "create/before", "create/after", "close", "closed"])
def test_sigkill_loses_nothing_that_was_acknowledged(make_daemon: Callable[..., Daemon], point: str) -> None:
    name = f"create_volume/{point if '/' in point else f'-/{point}'}"
    daemon = make_daemon().start(VOLMGR_KILL_AT=name)
    volume_id, key = new_id(), new_id()
    with daemon.client() as client:
        client.context.request_key = key
        with pytest.raises(exception.VolmgrError):
            # The point may be passed before or after the request is answered.
            client.do("create_volume", volume_id, size=1)
    daemon.wait_killed()
    daemon.start()
    with daemon.client() as client:
        client.context.request_key = key
        client.do("create_volume", volume_id, size=1)
        (volume,) = client.api.list_volumes(client.context)
        assert (volume["id"], volume["status"], volume["operation_id"]) == (volume_id, "available", None)
        assert len(client.api.list_operations(client.context)) == 1
    assert daemon.stop() == 0


def test_a_second_daemon_for_the_same_backend_is_refused(daemon: Daemon) -> None:
    second = Daemon(daemon.folder)
    second.start(wait=False)
    assert second.process is not None
    assert second.process.wait(60) == 1
    assert f"pid {daemon.pid}" in daemon.tail(10)
    with daemon.client() as client:
        assert client.api.list_services(client.context)[0]["up"]


def test_no_daemon_is_an_error_at_once(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    with daemon.client() as client, pytest.raises(exception.BackendDown) as error:
        client.api.list_volumes(client.context)
    assert "volmgr-volume" in error.value.hint


def test_a_broken_backend_is_reported_and_mended(make_daemon: Callable[..., Daemon], tmp_path: Any) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text('[{"verb": "check_for_setup_error", "error": "BackendDown", "times": 1}]')
    backend = {"volume_driver": "sim", "target_helper": "fake", "sim_faults_file": str(faults)}
    daemon = make_daemon(backend=backend)
    daemon.start()  # it answers once the backend is up, by itself
    with daemon.client() as client:
        client.do("create_volume", new_id(), size=1)


def test_another_project_sees_nothing(client: Client) -> None:
    from volmgr.context import RequestContext

    volume_id = new_id()
    client.do("create_volume", volume_id, size=1)
    other = RequestContext(project_id="other", user_id="x", overwrite=False)
    with pytest.raises(exception.VolumeNotFound):
        client.api.get_volume(other, volume_id)
    with pytest.raises(exception.VolumeNotFound):
        client.api.delete_volume(other, volume_id)
    with pytest.raises(exception.VolumeNotFound):
        client.api.initialize_connection(other, volume_id, CONNECTOR)
    assert client.api.list_volumes(other) == []
    assert client.api.get_volume(client.context, volume_id)["status"] == "available"

# SPDX-License-Identifier: Apache-2.0
"""A backend that fails after a good start: it is reported with its reason, tried again, looked through, and used."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from volmgr import exception
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.waiting import wait_until

OPTIONS = {"report_interval": 0.3, "service_down_time": 60, "backend_stats_polling_interval": 0.3}
CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:aa", "ip": "127.0.0.1", "host": "compute"}
SECONDS = 90


def new_id() -> str:
    return str(uuid.uuid4())


def service(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.api.list_services(client.context)[0]
    return found


def up(client: Client) -> None:
    wait_until(lambda: service(client)["state"] == "up", SECONDS, "it is reported up")
    assert service(client)["reason"] is None


@pytest.mark.parametrize("verb", ["get_volume_stats", "check_for_setup_error"])
def test_the_simulator_fails_and_comes_back(make_daemon: Callable[..., Daemon], verb: str) -> None:
    daemon = make_daemon(options=OPTIONS)
    faults = daemon.folder / "faults.json"
    daemon.config_file.write_text(daemon.config_file.read_text() + f"sim_faults_file = {faults}\n")
    daemon.start()
    with daemon.client() as client:
        volume_id, lost = new_id(), new_id()
        client.do("create_volume", volume_id, size=1)
        client.do("create_volume", lost, size=1)
        client.api.initialize_connection(client.context, volume_id, CONNECTOR)
        faults.write_text(json.dumps([{
            "verb": verb, "times": None, "error": "volmgr.backend_down", "message": "the array burns",
        }]))
        wait_until(lambda: service(client)["state"] == "down", SECONDS, "it is reported down")
        assert "the array burns" in service(client)["reason"]
        assert service(client)["up"], "the worker itself lives"
        with pytest.raises(exception.BackendDown, match="the array burns"):
            client.api.get_capabilities(client.context)
        # What is asked of it meanwhile waits; nothing is placed on it that could be elsewhere.
        waiting = client.api.extend_volume(client.context, volume_id, 2)
        assert waiting["state"] == "queued"
        explained = client.api.explain_placement(client.context, {"size": 1})
        (only,) = explained["backends"]
        assert "the array burns" in json.dumps(only)
        # It has lost an object by the time that it comes back: somebody looks.
        (daemon.folder / "sim" / f"volume-{lost}").unlink()
        faults.unlink()
        client.api.wait_operation(client.context, waiting["operation_id"], SECONDS)
        up(client)
        assert client.api.get_volume(client.context, volume_id)["size"] == 2
        assert "lets in" in client.api.why(client.context, volume_id)["text"]
        findings = client.api.audit(client.context)["findings"]
        assert [item["resource_id"] for item in findings] == [lost]
        client.do("create_volume", new_id(), size=1)


def test_the_folder_of_the_files_goes_and_comes_back(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(
        options=OPTIONS,
        backend={
            "volume_driver": "file", "target_helper": "fake", "target_ip_address": "127.0.0.1",
            "file_store_path": "STORE",
        },
    )
    store = daemon.folder / "store"
    store.mkdir(mode=0o700)
    daemon.config_file.write_text(daemon.config_file.read_text().replace("STORE", str(store)))
    daemon.start()
    with daemon.client() as client:
        volume_id = new_id()
        client.do("create_volume", volume_id, size=1)
        with (store / "volumes" / f"volume-{volume_id}").open("r+b") as file:
            file.write(b"a tenant's bytes")
        store.rename(daemon.folder / "unplugged")
        wait_until(lambda: service(client)["state"] == "down", SECONDS, "it is reported down")
        assert str(store) in service(client)["reason"]
        queued = client.api.create_snapshot(client.context, volume_id, new_id())
        assert queued["state"] == "queued"
        (daemon.folder / "unplugged").rename(store)
        client.api.wait_operation(client.context, queued["operation_id"], SECONDS)
        up(client)
        assert (store / "volumes" / f"volume-{volume_id}").read_bytes()[:16] == b"a tenant's bytes"
        client.do("create_volume", new_id(), size=1)
        assert client.api.audit(client.context)["findings"] == []
        assert len(list((store / "volumes").glob("volume-*"))) == 2


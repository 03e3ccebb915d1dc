# SPDX-License-Identifier: Apache-2.0
"""A backend that fails after a good start: it is reported with its reason, tried again, looked through, and used."""

from __future__ import annotations

import contextlib
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



def test_a_backend_that_is_down_goes_over_to_its_replicas(make_daemon: Callable[..., Daemon]) -> None:
    """It must not wait for what it lost: neither where that was noticed, nor after a start without it, nor a death."""
    daemon = make_daemon(options=OPTIONS)
    faults = daemon.folder / "faults.json"
    daemon.config_file.write_text(daemon.config_file.read_text() + f"sim_faults_file = {faults}\n")
    gone = json.dumps([{
        "verb": "check_for_setup_error", "times": None, "match": "default", "error": "volmgr.backend_down",
        "message": "the array burns",
    }])
    daemon.start()
    with daemon.client() as client:
        api, context, volume_id = client.api, client.context, new_id()

        def followed() -> None:
            wait_until(
                lambda: api.get_volume(context, volume_id)["replication_status"] == "active", SECONDS, "it follows"
            )

        def went(operation_id: str, to: str) -> None:
            done = api.wait_operation(context, operation_id, SECONDS)
            assert done["result"] == {"active_backend_id": to, "lost": []}

        api.type_create(context, new_id(), "replicated", extra_specs={"replication": "<is> True"})
        client.do("create_volume", volume_id, size=1, volume_type="replicated")
        followed()
        faults.write_text(gone)
        wait_until(lambda: service(client)["state"] == "down", SECONDS, "it is reported down")
        with pytest.raises(exception.BackendDown) as caught:
            api.initialize_connection(context, volume_id, CONNECTOR)
        assert f"volmgr backend failover {daemon.host}" in caught.value.hint
        waiting = api.extend_volume(context, volume_id, 2)
        assert waiting["state"] == "queued"
        went(api.failover_host(context, host=daemon.host)["operation_id"], "secondary")
        up(client)
        api.wait_operation(context, waiting["operation_id"], SECONDS)
        api.initialize_connection(context, volume_id, CONNECTOR)
        api.terminate_connection(context, volume_id, CONNECTOR)
        # Back; and the same with a worker that starts without its first storage, and dies on the way.
        faults.unlink()
        client.do("reenable_replication", volume_id)
        followed()
        went(api.failover_host(context, host=daemon.host, secondary_backend_id="default")["operation_id"], "default")
        client.do("reenable_replication", volume_id)
        followed()
        faults.write_text(gone)
        daemon.kill()
        daemon.start(wait=False, VOLMGR_KILL_AT="failover_host/switch/after")

        def dead() -> bool:
            with contextlib.suppress(exception.VolmgrError):  # it serves not yet, or dies before it has answered
                api.failover_host(context, host=daemon.host)
            return daemon.process is not None and daemon.process.poll() is not None

        wait_until(dead, SECONDS, "it has died while it went over")
        daemon.wait_killed(SECONDS)
        daemon.start(wait=False)
        wait_until(
            lambda: service(client)["active_backend_id"] == "secondary", SECONDS, "the next life has gone over",
            retry_on=exception.VolmgrError,
        )
        up(client)
        api.initialize_connection(context, volume_id, CONNECTOR)

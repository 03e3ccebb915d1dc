# SPDX-License-Identifier: Apache-2.0
"""One daemon, two backends: volumes move between them, with bytes read over real iSCSI before and after."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.functional.daemon.test_backends import pid_of
from tests.functional.daemon.test_file_tgt import connect, disconnect, holds, new_id, qemu_io, write
from volmgr import exception
from volmgr.context import RequestContext
from volmgr.testing.daemon import Client, Daemon, free_port, tgtds
from volmgr.testing.waiting import wait_until

TIMEOUT = 90.0


def both_up(client: Client) -> bool:
    """Return whether both workers know that both take volumes."""
    for backend in ("one", "two"):
        answer = client.api.call(client.context, "explain_placement", host=f"node@{backend}", request={"size": 1})
        if sum(item["passed"] for item in answer["backends"]) != 2:
            return False
    return True


def started_with(daemon: Daemon) -> Daemon:
    daemon.start()
    with daemon.client() as client:
        down = (exception.VolmgrError,)
        wait_until(lambda: both_up(client), TIMEOUT, "both backends take volumes", retry_on=down)
    return daemon


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon over two folders, each with a tgtd of its own; for the tests that follow each other here."""
    for tool, package in (("tgtd", "tgt"), ("qemu-io", "qemu-utils")):
        require(tool, package)
    base = {"volume_driver": "file", "target_helper": "tgtadm", "target_ip_address": "127.0.0.1"}
    folder = tmp_path_factory.mktemp("moves")
    for name in ("one", "two"):
        (folder / name).mkdir()
    daemon = Daemon(
        folder / "node",
        options={"enabled_backends": "one, two", "report_interval": 1, "service_down_time": 10},
        sections={
            name: {**base, "target_port": free_port(), "file_store_path": str(folder / name)} for name in ("one", "two")
        },
    )
    try:
        yield started_with(daemon)
        assert daemon.stop() == 0
    finally:
        end(daemon)
        for pid in tgtds(daemon):
            os.kill(pid, signal.SIGKILL)


def end(daemon: Daemon) -> None:
    """End a daemon that a test has left alive."""
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.kill()


def left(daemon: Daemon, name: str, volume_id: str) -> list[str]:
    """Return what a backend has of a volume's first object, or in its trash."""
    room = daemon.folder.parent / name
    names = [path.name for part in ("volumes", "trash") for path in (room / part).iterdir()]
    return [item for item in names if volume_id in item or "trash" in item]


def test_bytes_go_from_one_target_to_another(files: Daemon) -> None:
    volume_id = new_id()
    with files.client() as client:
        client.do("create_volume", volume_id, size=1, host="node@one", timeout=TIMEOUT)
        before = connect(client, volume_id)
        write(before, 0x11)
        moving = client.api.migrate_volume(client.context, volume_id, "node@two")["operation_id"]

        def waits() -> bool:
            return bool(client.api.get_operation(client.context, moving)["state"] == "parked")

        wait_until(waits, TIMEOUT, "what is in use waits to be let go")
        disconnect(client, volume_id)
        done = client.api.wait_operation(client.context, moving, timeout=TIMEOUT)
        assert done["result"]["host"].startswith("node@two#")
        view = client.api.get_volume(client.context, volume_id)
        assert (view["status"], view["migration_status"]) == ("available", "success")
        after = connect(client, volume_id)
        assert holds(after, 0x11), "the bytes did not come along"
        assert after["data"]["serial"] == before["data"]["serial"]
        assert after["data"]["target_portal"] != before["data"]["target_portal"]
        assert qemu_io(before, "read 0 512").returncode != 0, "the old target still serves it"
        wait_until(lambda: left(files, "one", volume_id) == [], TIMEOUT, "the source's space is free")
        disconnect(client, volume_id)
        # A type that only the first backend has leads it back.
        client.api.type_create(client.context, new_id(), "first", extra_specs={"volume_backend_name": "one"})
        with pytest.raises(exception.Conflict):
            client.do("retype", volume_id, "first")
        client.do("retype", volume_id, "first", migration_policy="on-demand", timeout=TIMEOUT)
        assert holds(connect(client, volume_id), 0x11)
        wait_until(lambda: left(files, "two", volume_id) == [], TIMEOUT, "the other's space is free")


@pytest.mark.parametrize("victim", ["one", "two"])
def test_a_worker_that_is_killed_goes_on_with_its_part(files: Daemon, victim: str) -> None:
    volume_id = new_id()
    with files.client() as client:
        client.do("create_volume", volume_id, size=1, host="node@one", timeout=TIMEOUT)
        write(connect(client, volume_id), 0x22)
        disconnect(client, volume_id)
        pid = pid_of(files, victim)
        if victim == "two":
            os.kill(pid, signal.SIGKILL)  # it is there again by the time that its part is due, or a moment later
        answer = wait_until(
            lambda: client.api.call(client.context, "migrate_volume", volume_id=volume_id, host="node@two"),
            TIMEOUT, "the move is admitted", retry_on=exception.VolmgrError,
        )
        if victim == "one":
            os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: client.api.get_operation(client.context, answer["operation_id"])["state"] in ("done", "failed"),
            TIMEOUT, "the move has ended", retry_on=exception.VolmgrError,
        )
        view = client.api.get_volume(client.context, volume_id)
        assert (view["status"], view["host"].partition("#")[0]) == ("available", "node@two")
        assert holds(connect(client, volume_id), 0x22)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Client]]:
    """A daemon over the simulator, which replicates to a second folder; each test leaves it as it was."""
    options = {"report_interval": 1, "backend_stats_polling_interval": 1}
    daemon = Daemon(tmp_path_factory.mktemp("replicas") / "node", options=options).start()
    try:
        with daemon.client() as client:
            client.api.type_create(
                client.context, new_id(), "replicated", extra_specs={"replication": "<is> True"}
            )
            yield daemon, client
    finally:
        end(daemon)


def replication_is(client: Client, volume_id: str, status: str) -> None:
    wait_until(
        lambda: client.api.get_volume(client.context, volume_id)["replication_status"] == status, TIMEOUT, status
    )


def stored(daemon: Daemon, volume_id: str, text: bytes | None = None, *, replica: bool = False) -> bytes:
    """Write to a volume's file, and return what stands there."""
    path = daemon.folder / ("sim.replica" if replica else "sim") / f"volume-{volume_id}"
    if text is not None:
        fd = os.open(path, os.O_WRONLY)
        os.pwrite(fd, text, 0)
        os.close(fd)
    with path.open("rb") as source:
        return source.read(len(text or b"the tenant"))


def test_a_backend_fails_over_lives_again_there_and_goes_back(simulated: tuple[Daemon, Client]) -> None:
    daemon, client = simulated
    volume_id, other = new_id(), new_id()
    client.do("create_volume", volume_id, size=1, volume_type="replicated")
    client.do("create_volume", other, size=1)
    stored(daemon, volume_id, b"the tenant")
    replication_is(client, volume_id, "active")
    wait_until(lambda: stored(daemon, volume_id, replica=True) == b"the tenant", TIMEOUT, "the replica follows")
    answer = client.api.failover_host(client.context, host=daemon.host)
    done = client.api.wait_operation(client.context, answer["operation_id"])
    assert done["result"] == {"active_backend_id": "secondary", "lost": [other]}
    daemon.kill()
    daemon.start()
    (service,) = client.api.list_services(client.context)
    assert (service["active_backend_id"], service["disabled_reason"]) == ("secondary", "failed-over")
    path = client.api.get_volume(client.context, volume_id)
    assert path["status"] == "available"
    connect(client, volume_id)
    disconnect(client, volume_id)
    client.do("reenable_replication", volume_id)
    replication_is(client, volume_id, "active")
    answer = client.api.failover_host(client.context, host=daemon.host, secondary_backend_id="default")
    assert client.api.wait_operation(client.context, answer["operation_id"])["result"]["lost"] == []
    assert client.api.get_volume(client.context, other)["status"] == "available"
    assert stored(daemon, volume_id) == b"the tenant"


def test_a_volume_is_made_from_the_replica_of_another(simulated: tuple[Daemon, Client]) -> None:
    daemon, client = simulated
    volume_id, plain, copy = new_id(), new_id(), new_id()
    client.do("create_volume", volume_id, size=1, volume_type="replicated")
    client.do("create_volume", plain, size=1)
    stored(daemon, volume_id, b"the tenant")
    replication_is(client, volume_id, "active")
    wait_until(lambda: stored(daemon, volume_id, replica=True) == b"the tenant", TIMEOUT, "the replica follows")
    for source, refusal in ((plain, exception.Conflict), (new_id(), exception.VolumeNotFound)):
        with pytest.raises(refusal):
            client.do("create_volume", new_id(), source_replica=source)
    client.do("create_volume", copy, source_replica=volume_id)
    assert stored(daemon, copy) == b"the tenant"
    view = client.api.get_volume(client.context, copy)
    assert (view["size"], view["status"], view["replication_status"]) == (1, "available", None)
    # It is a volume of its own: what becomes of the other is not its affair.
    client.do("delete_volume", volume_id)
    client.do("extend_volume", copy, 2)
    assert stored(daemon, copy) == b"the tenant"


def test_a_frozen_backend_stays_so_over_a_restart(simulated: tuple[Daemon, Client]) -> None:
    daemon, client = simulated
    volume_id, attachment_id = new_id(), new_id()
    client.do("create_volume", volume_id, size=1)
    assert client.api.freeze_host(client.context, host=daemon.host) is True
    daemon.kill()
    daemon.start()
    with pytest.raises(exception.Conflict) as caught:
        client.do("extend_volume", volume_id, 2)
    assert caught.value.details["status"] == "frozen"
    with pytest.raises(exception.NoValidBackend):
        client.do("create_volume", new_id(), size=1)
    client.api.attach_volume(client.context, volume_id, instance_uuid=new_id(), attachment_id=attachment_id)
    client.api.detach_volume(client.context, volume_id, attachment_id)
    assert client.api.thaw_host(client.context, host=daemon.host) is True
    client.do("extend_volume", volume_id, 2)


def tenant(project: str) -> RequestContext:
    return RequestContext(project_id=project, user_id=f"user of {project}", overwrite=False)


def test_a_volume_goes_from_project_to_project(simulated: tuple[Daemon, Client]) -> None:
    _daemon, client = simulated
    api, volume_id, transfer_id = client.api, new_id(), new_id()
    giver, taker = tenant("giver"), tenant("taker")
    answer = api.create_volume(giver, volume_id, size=1)
    api.wait_operation(giver, answer["operation_id"])
    offered = api.transfer_create(giver, transfer_id, volume_id, name="gift", expires_in=600)
    assert "auth_key" not in api.get_transfer(giver, transfer_id)
    assert [item["id"] for item in api.list_transfers(giver)] == [transfer_id]
    assert api.list_transfers(taker) == []
    for wrong in (giver, taker):
        with pytest.raises(exception.Forbidden):
            api.transfer_accept(wrong, transfer_id, "00" * 16)
    with pytest.raises(exception.VolumeNotFound):
        api.get_volume(taker, volume_id)
    accepted = api.transfer_accept(taker, transfer_id, offered["auth_key"])
    api.wait_operation(taker, accepted["operation_id"])
    assert api.get_volume(taker, volume_id)["project_id"] == "taker"
    with pytest.raises(exception.VolumeNotFound):
        api.get_volume(giver, volume_id)
    with pytest.raises(exception.Forbidden):
        api.accept_transfer(taker, volume_id, "x", "giver")
    for verb in ("failover_host", "freeze_host", "thaw_host"):
        with pytest.raises(exception.Forbidden):
            getattr(api, verb)(taker)
    with pytest.raises(exception.Forbidden):
        api.migrate_volume(taker, volume_id, "node@b")

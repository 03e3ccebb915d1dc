# SPDX-License-Identifier: Apache-2.0
"""The daemon behind RabbitMQ: a message that was not acknowledged is redelivered, and runs once."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import amqp  # type: ignore[import-untyped]
import pytest

from volmgr import exception
from volmgr.rpc.client import UNANSWERED
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.servers import RabbitMQServer
from volmgr.testing.waiting import wait_until

pytest_plugins = ("volmgr.testing.servers.pytest_fixtures",)

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
QUORUM = {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True}
WAIT = 60.0


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def rabbit_daemon(rabbitmq_server: RabbitMQServer, make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon that is not started yet, with topics of its own on the session's broker."""
    options = {
        "transport_url": rabbitmq_server.url,
        "volume_topic": f"volume-{uuid.uuid4().hex[:8]}",
        "control_exchange": f"exchange-{uuid.uuid4().hex[:8]}",
    }
    return make_daemon(options=options, sections={"oslo_messaging_rabbit": QUORUM})


@pytest.fixture
def client(rabbit_daemon: Daemon) -> Iterator[Client]:
    with rabbit_daemon.client() as made:
        yield made


def cast(client: Client, host: str | None, method: str, **arguments: object) -> None:
    """Send a message that nobody answers, as a client of another program would."""
    context = client.context.to_dict() | {"request_key": new_id()}
    client.api._client.prepare(server=host).cast(context, method, **arguments)


def available(client: Client, volume_id: str) -> bool:
    found = client.api.list_volumes(client.context, filters={"id": volume_id})
    return [item["status"] for item in found] == ["available"]


def connected(server: RabbitMQServer) -> amqp.Connection:
    url = urlsplit(server.url)
    made = amqp.Connection(
        f"{url.hostname}:{url.port}", userid=url.username, password=url.password, virtual_host=url.path[1:]
    )
    made.connect()
    return made


def test_beside_a_service_with_queues_that_do_not_last(
    rabbitmq_server: RabbitMQServer, make_daemon: Callable[..., Daemon]
) -> None:
    """What others have declared under oslo.messaging's default name is none of the daemon's affair."""
    other = connected(rabbitmq_server)
    try:
        other.channel().exchange_declare("openstack", "topic", durable=False, auto_delete=False)
        daemon = make_daemon(
            options={"transport_url": rabbitmq_server.url}, sections={"oslo_messaging_rabbit": QUORUM}
        ).start()
        with daemon.client() as client:
            assert client.api.get_capabilities(client.context)["volume_backend_name"]
    finally:
        other.close()


@pytest.mark.once
@pytest.mark.parametrize("concurrency", ["eventlet", "threading"])
def test_the_life_of_a_volume(rabbit_daemon: Daemon, client: Client, concurrency: str) -> None:
    rabbit_daemon.start(VOLMGR_CONCURRENCY=concurrency)
    api, context = client.api, client.context
    volume_id, snapshot_id = new_id(), new_id()
    client.do("create_volume", volume_id, size=1, name="data")
    client.do("create_snapshot", volume_id, snapshot_id)
    client.do("extend_volume", volume_id, 2)
    info = api.initialize_connection(context, volume_id, CONNECTOR)
    assert info["data"]["volume_id"] == volume_id
    assert api.terminate_connection(context, volume_id, CONNECTOR)["disconnected"] is True
    with pytest.raises(exception.VolumeHasSnapshots) as refused:
        api.delete_volume(context, volume_id)
    assert type(refused.value) is exception.VolumeHasSnapshots
    client.do("delete_volume", volume_id, cascade=True)
    assert api.list_volumes(context) == []
    api.publish_service_capabilities(context)  # a fanout
    assert rabbit_daemon.stop() == 0


@pytest.mark.parametrize("to_the_worker", [False, True], ids=["topic", "server"])
def test_a_cast_that_was_sent_while_the_daemon_was_down_runs(
    rabbit_daemon: Daemon, client: Client, to_the_worker: bool
) -> None:
    rabbit_daemon.start()
    assert rabbit_daemon.stop() == 0
    volume_id = new_id()
    cast(client, rabbit_daemon.host if to_the_worker else None, "create_volume", volume_id=volume_id, size=1)
    rabbit_daemon.start()
    wait_until(lambda: available(client, volume_id), WAIT, "the volume is made")
    assert len(client.api.list_operations(client.context)) == 1


@pytest.mark.once
@pytest.mark.parametrize("concurrency", ["eventlet", "threading"])
@pytest.mark.parametrize("point", ["received", "admitted"])
def test_a_cast_whose_worker_was_killed_is_redelivered_and_runs_once(
    rabbit_daemon: Daemon, client: Client, point: str, concurrency: str
) -> None:
    rabbit_daemon.start(VOLMGR_KILL_AT=f"create_volume/-/{point}", VOLMGR_CONCURRENCY=concurrency)
    volume_id = new_id()
    cast(client, rabbit_daemon.host, "create_volume", volume_id=volume_id, size=1)
    rabbit_daemon.wait_killed(WAIT)
    rabbit_daemon.start(VOLMGR_CONCURRENCY=concurrency)
    wait_until(lambda: available(client, volume_id), WAIT, "the volume is made")
    (operation,) = client.api.list_operations(client.context)
    assert (operation["verb"], operation["state"]) == ("create_volume", "done")
    # The broker has nothing left to deliver: a third life finds no second message.
    rabbit_daemon.kill()
    rabbit_daemon.start()
    assert len(client.api.list_operations(client.context)) == 1


def test_a_client_whose_answers_never_come_listens_elsewhere(
    rabbitmq_server: RabbitMQServer, rabbit_daemon: Daemon, client: Client
) -> None:
    """As after a death of the broker that leaves the client's queue of answers without a leader."""
    rabbit_daemon.start()
    client.api.timeout = 30.0
    client.api.get_capabilities(client.context)
    queue = client.api._transport._driver._reply_q
    thief = connected(rabbitmq_server)
    try:
        # Whoever has the higher priority gets everything.
        thief.channel().basic_consume(queue, no_ack=True, callback=lambda _message: None, arguments={"x-priority": 10})
        client.api.timeout = 1.5
        for _ in range(UNANSWERED):
            with pytest.raises(exception.Timeout):
                client.api.get_capabilities(client.context)
        client.api.timeout = 30.0
        assert client.api.get_capabilities(client.context)
        assert client.api._transport._driver._reply_q != queue
    finally:
        thief.close()
    rabbit_daemon.stop()

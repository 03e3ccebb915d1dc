# SPDX-License-Identifier: Apache-2.0
"""A real daemon's events as a real listener of oslo.messaging takes them, on both transports; and the usage audit."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import oslo_messaging
import pytest

from volmgr import conf as config
from volmgr import exception
from volmgr.rpc import transport
from volmgr.testing.daemon import Daemon
from volmgr.testing.servers import RabbitMQServer
from volmgr.testing.waiting import wait_until

pytest_plugins = ("volmgr.testing.servers.pytest_fixtures",)

NOTIFYING = {"oslo_messaging_notifications": {"driver": "messagingv2"}}
QUORUM = {"oslo_messaging_rabbit": {"rabbit_quorum_queue": True, "rabbit_transient_quorum_queue": True}}


class Ears:
    """An endpoint of a notification listener."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, _context: Any, publisher: str, event: str, payload: dict[str, Any], _metadata: Any) -> None:
        self.heard.append((publisher, event, payload))

    error = info


@contextmanager
def listening(daemon: Daemon) -> Iterator[Ears]:
    conf = config.load(["--config-file", str(daemon.config_file)])
    ears = Ears()
    listener = oslo_messaging.get_notification_listener(
        transport.get_notification_transport(conf), [oslo_messaging.Target(topic="notifications")], [ears],
        executor="threading",
    )
    listener.start()
    try:
        yield ears
    finally:
        listener.stop()
        listener.wait()


def heard_life(daemon: Daemon) -> None:
    """A volume's life, as a listener hears it."""
    with listening(daemon) as ears:
        daemon.start()
        volume_id = str(uuid.uuid4())
        with daemon.client() as client:
            client.do("create_volume", volume_id, size=1)
            # What is refused before it begins is no event.
            with pytest.raises(exception.Invalid):
                client.api.call(client.context, "attach_volume", volume_id=volume_id, mode="sideways")
            client.api.attach_volume(client.context, volume_id, host_name="compute")
            client.api.detach_volume(client.context, volume_id)
            client.do("delete_volume", volume_id)
        wanted = ["volume.create.start", "volume.create.end", "volume.attach.end", "volume.detach.end",
                  "volume.delete.start", "volume.delete.end"]
        wait_until(lambda: len(ears.heard) >= len(wanted), 30, "the events arrive")
    # Verbs of different threads may overtake each other on the way; nothing else is promised of the order.
    assert sorted(event for _publisher, event, _payload in ears.heard) == sorted(wanted)
    assert {publisher for publisher, _event, _payload in ears.heard} == {f"volume.{daemon.host}"}
    assert {payload["volume_id"] for _publisher, _event, payload in ears.heard} == {volume_id}
    assert "secret" not in str(ears.heard).lower()


def test_events_on_one_host(make_daemon: Callable[..., Daemon]) -> None:
    heard_life(make_daemon(sections=NOTIFYING))


def test_events_over_rabbitmq(rabbitmq_server: RabbitMQServer, make_daemon: Callable[..., Daemon]) -> None:
    options = {
        "transport_url": rabbitmq_server.url,
        "volume_topic": f"volume-{uuid.uuid4().hex[:8]}",
        "control_exchange": f"exchange-{uuid.uuid4().hex[:8]}",
    }
    heard_life(make_daemon(options=options, sections={**NOTIFYING, **QUORUM}))


def test_an_audit_of_the_usage_tells_what_there_is(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(sections=NOTIFYING).start()
    volume_id, snapshot_id = str(uuid.uuid4()), str(uuid.uuid4())
    with daemon.client() as client:
        client.do("create_volume", volume_id, size=2)
        client.do("create_snapshot", volume_id, snapshot_id)
    assert daemon.stop() == 0
    period = ["--start", "2000-01-01T00:00:00", "--end", "2100-01-01T00:00:00+00:00"]
    with listening(daemon) as ears:
        done = usage_audit(daemon, *period)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: len(ears.heard) >= 2, 30, "the events arrive")
    told = {event: payload for _publisher, event, payload in ears.heard}
    assert set(told) == {"volume.exists", "snapshot.exists"}
    assert (told["volume.exists"]["volume_id"], told["volume.exists"]["size"]) == (volume_id, 2)
    assert told["snapshot.exists"]["snapshot_id"] == snapshot_id
    assert told["volume.exists"]["audit_period_ending"] == "2100-01-01T00:00:00"
    early = usage_audit(daemon, "--start", "2000-01-01", "--end", "2000-02-01")
    assert early.stdout.startswith("0 resources")


@pytest.mark.parametrize(
    ("period", "said"),
    [
        (("--start", "2001-01-01", "--end", "2000-01-01"), "before it begins"),
        (("--start", "2001-01-01"), "belong together"),
        ((), "no notification driver"),
    ],
)
def test_an_audit_that_makes_no_sense_is_refused(
    make_daemon: Callable[..., Daemon], period: tuple[str, ...], said: str
) -> None:
    done = usage_audit(make_daemon(), *period)
    assert done.returncode == 1
    assert said in done.stderr


def usage_audit(daemon: Daemon, *period: str) -> subprocess.CompletedProcess[str]:
    """Run the command as an operator does."""
    return subprocess.run(
        [sys.executable, "-m", "volmgr.cmd.manage", "--config-file", str(daemon.config_file), "usage-audit", *period],
        capture_output=True, text=True, check=False,
    )

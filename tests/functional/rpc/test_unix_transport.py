# SPDX-License-Identifier: Apache-2.0
"""The unix transport between real processes: what is delivered, to whom, and what a sender is told when it is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest

from tests.functional.rpc.conftest import until
from volmgr import exception
from volmgr.rpc.unix import directory as names
from volmgr.rpc.unix import errors

Start = Callable[..., Any]


class Held:
    """A call that is running in a server, until it is told to end."""

    def __init__(self, client: Any, folder: Path, **prepare: Any) -> None:
        self.until = folder / f"until-{id(self)}"
        started = folder / f"started-{id(self)}"
        self.result: futures.Future[Any] = futures.Future()

        def run() -> None:
            try:
                prepared = client.prepare(**{"timeout": 60, **prepare})
                self.result.set_result(prepared.call({}, "hold", started=str(started), until=str(self.until)))
            except Exception as error:
                self.result.set_exception(error)

        self.thread = threading.Thread(target=run)
        self.thread.start()
        until(started.exists)

    def end(self) -> Any:
        """Let it go on and return what its caller got."""
        self.until.touch()
        self.thread.join(20)
        return self.result.result(0)


def test_call_returns_the_value(serve: Start, connect: Start) -> None:
    serve()
    value = {"text": "ü€", "list": [1, None, 2.5], "nested": {"a": {"b": []}}}
    assert connect("s1").call({}, "echo", value=value) == value


def test_threads_share_one_connection(serve: Start, connect: Start, tmp_path: Path) -> None:
    server = serve()
    client = connect("s1")
    before = _sockets(server.pid)
    held = Held(client, tmp_path)  # the slow call must not hold up the others
    with futures.ThreadPoolExecutor(20) as pool:
        assert list(pool.map(lambda n: client.call({}, "echo", value=n), range(400))) == list(range(400))
    after = _sockets(server.pid)
    assert held.end() == "held"
    assert len(after - before) == 1


def _sockets(pid: int) -> set[str]:
    """Return the sockets that a process has open."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return {link for link in links if link.startswith("socket:")}


def test_cast_returns_when_acknowledged(serve: Start, connect: Start, tmp_path: Path) -> None:
    serve()
    record = tmp_path / "record"
    connect("s1").cast({}, "intent_write", path=str(record), text="kept")
    assert record.read_text() == "kept"


def test_cast_tells_of_failure_and_requeue(serve: Start, connect: Start) -> None:
    serve()
    client = connect("s1")
    with pytest.raises(errors.Requeued) as raised:
        client.cast({}, "requeue")
    assert isinstance(raised.value, exception.Busy)
    with pytest.raises(errors.Requeued):
        client.call({}, "requeue")
    with pytest.raises(Exception, match="v-1"):
        client.cast({}, "intent_conflict")


def test_cast_without_acknowledgement_times_out(serve: Start, connect: Start, tmp_path: Path) -> None:
    serve()
    client = connect("s1", conf={"cast_ack_timeout": 0.2})
    with pytest.raises(oslo_messaging.MessagingTimeout, match="No acknowledgement"):
        client.cast({}, "intent_hold", started=str(tmp_path / "s"), until=str(tmp_path / "u"))
    (tmp_path / "u").touch()
    assert client.call({}, "echo", value=1) == 1


def test_fanout_reaches_every_server(serve: Start, connect: Start, tmp_path: Path) -> None:
    serve("s1")
    serve("s2")
    serve("other", topic="other")
    record = tmp_path / "record"
    connect().prepare(fanout=True).cast({}, "write", path=str(record), text="x")
    until(lambda: record.exists() and record.read_text() == "xx")


def test_fanout_without_servers_is_no_error(connect: Start) -> None:
    connect().prepare(fanout=True).cast({}, "write", path="/nowhere", text="x")


def test_workers_of_a_topic_take_turns(serve: Start, connect: Start) -> None:
    first, second = serve("s1"), serve("s2")
    client = connect()
    answers = [client.call({}, "pid") for _ in range(10)]
    assert sorted(answers) == sorted([first.pid, second.pid] * 5)
    second.kill()
    assert {client.call({}, "pid") for _ in range(6)} == {first.pid}


def test_server_killed_in_the_middle(serve: Start, connect: Start, tmp_path: Path) -> None:
    server = serve()
    held = Held(connect("s1"), tmp_path, timeout=3600)
    server.kill()
    held.thread.join(20)
    with pytest.raises(errors.ConnectionLost) as raised:
        held.result.result(0)
    assert isinstance(raised.value, oslo_messaging.MessageDeliveryFailure)
    assert "volmgr-volume" in raised.value.hint


@pytest.mark.parametrize("server", ["s1", None])
def test_no_server_is_an_error_at_once(connect: Start, directory: Path, server: str | None) -> None:
    for method in ("call", "cast"):
        with pytest.raises(errors.ServerUnreachable) as raised:
            getattr(connect(server), method)({}, "echo", value=1)
        assert str(directory) in str(raised.value)
        assert "volmgr-volume" in raised.value.hint
        assert isinstance(raised.value, oslo_messaging.MessageDeliveryFailure)


def test_files_of_a_dead_server_are_removed(serve: Start, connect: Start, directory: Path) -> None:
    serve().kill()
    assert len(list(directory.iterdir())) == 3
    with pytest.raises(errors.ServerUnreachable):
        connect().call({}, "echo", value=1)
    assert list(directory.iterdir()) == []


def test_files_of_a_living_server_are_never_removed(serve: Start, connect: Start, directory: Path) -> None:
    server = serve()
    server.process.send_signal(signal.SIGSTOP)
    files = sorted(directory.iterdir())
    assert not names.sweep(str(directory), files[0].stem)
    assert sorted(directory.iterdir()) == files
    server.process.send_signal(signal.SIGCONT)
    address = names.rpc_address("openstack", "t", "s1")
    with pytest.raises(errors.AddressInUse):
        names.Claim(str(directory), address)
    assert connect("s1").call({}, "echo", value=1) == 1


def test_restarted_server_is_found_again(serve: Start, connect: Start) -> None:
    first = serve()
    direct, topic = connect("s1"), connect()
    assert direct.call({}, "pid") == topic.call({}, "pid") == first.pid
    first.kill()
    second = serve()
    assert direct.call({}, "pid") == topic.call({}, "pid") == second.pid


def test_full_queue_answers_busy(serve: Start, connect: Start, tmp_path: Path) -> None:
    serve(workers=1, conf={"queue_size": 1})
    client = connect("s1")
    held = Held(client, tmp_path)
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.call, {}, "echo", value="waits")
        refused = until(lambda: _busy(client))
        held.end()
        assert waiting.result(20) == "waits"
    assert refused.retryable
    assert "queue_size" in refused.hint
    assert client.call({}, "echo", value=1) == 1


def _busy(client: Any) -> exception.Busy | None:
    """Return the refusal, None if the request before has not arrived yet and this one waited instead."""
    try:
        client.prepare(timeout=0.5).call({}, "echo", value="too many")
    except oslo_messaging.MessagingTimeout:
        return None
    except exception.Busy as error:
        return error
    return None


def test_busy_server_is_passed_over(serve: Start, connect: Start, tmp_path: Path) -> None:
    serve("s1", workers=1, conf={"queue_size": 1})
    client = connect()
    held = Held(connect("s1"), tmp_path)
    connect("s1").prepare(fanout=True).cast({}, "write", path=str(tmp_path / "x"), text="x")  # fills the queue
    until(lambda: _busy(connect("s1")))
    other = serve("s2")
    assert [client.call({}, "pid") for _ in range(4)] == [other.pid] * 4
    held.end()


def test_remote_exceptions_keep_their_class(serve: Start, connect: Start) -> None:
    serve()
    client = connect("s1")
    with pytest.raises(ValueError, match="no such value"):
        client.call({}, "value_error")
    with pytest.raises(oslo_messaging.RemoteError, match="JSONDecodeError"):
        client.call({}, "foreign_error")


def test_volmgr_errors_keep_class_and_details(serve: Start, connect: Start) -> None:
    serve()
    with pytest.raises(exception.VolumeAttached) as raised:
        connect("s1").call({}, "conflict")
    assert raised.value.details == {"id": "v-1"}
    assert "attachment list" in raised.value.hint


def test_result_that_json_cannot_hold(serve: Start, connect: Start) -> None:
    serve()
    client = connect("s1")
    with pytest.raises(TypeError, match="keys must be"):
        client.call({}, "odd")
    assert client.call({}, "echo", value=1) == 1


def test_late_reply_is_dropped(serve: Start, connect: Start, tmp_path: Path) -> None:
    serve()
    client = connect("s1")
    started, go = tmp_path / "s", tmp_path / "u"
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.prepare(timeout=0.3).call({}, "hold", started=str(started), until=str(go))
    until(started.exists)
    go.touch()
    assert [client.call({}, "echo", value=n) for n in range(50)] == list(range(50))


def test_long_call_gives_signs_of_life(serve: Start, connect: Start, tmp_path: Path) -> None:
    server = serve()
    client = connect("s1")
    watched = client.prepare(timeout=60, call_monitor_timeout=2)
    assert watched.call({}, "hold", started=str(tmp_path / "s"), until=str(tmp_path / "u"), seconds=3) == "held"
    held = Held(client, tmp_path, call_monitor_timeout=2)
    server.process.send_signal(signal.SIGSTOP)
    held.thread.join(20)
    with pytest.raises(oslo_messaging.MessagingTimeout):
        held.result.result(0)
    server.process.send_signal(signal.SIGCONT)


CLIENT = """
import sys
from volmgr import concurrency
concurrency.setup(sys.argv[2])
import threading
import oslo_messaging
from oslo_config import cfg
from volmgr.rpc.transport import get_transport
conf = cfg.ConfigOpts()
conf([], project="volmgr", default_config_files=[])
client = oslo_messaging.get_rpc_client(get_transport(conf, sys.argv[1]), oslo_messaging.Target(topic="t"))
answers = []
def run(start):
    for number in range(start, start + 20):
        answers.append(client.call({}, "echo", value=number))
    client.cast({}, "write", path=sys.argv[3], text="x")
threads = [threading.Thread(target=run, args=(n * 20,)) for n in range(10)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(answers) == list(range(200)))
"""


@pytest.mark.once
@pytest.mark.parametrize("client_mode", ["eventlet", "threading"])
@pytest.mark.parametrize("server_mode", ["eventlet", "threading"])
def test_green_and_native_threads(
    serve: Start, directory: Path, python_path: str, tmp_path: Path, server_mode: str, client_mode: str
) -> None:
    server = serve(mode=server_mode)
    record = tmp_path / "record"
    command = [sys.executable, "-W", "ignore", "-c", CLIENT, f"unix://{directory}", client_mode, str(record)]
    environment = {**os.environ, "PYTHONPATH": python_path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.stdout.strip() == "True", done.stderr
    until(lambda: record.exists() and record.read_text() == "x" * 10)
    server.ask_to_stop()
    assert server.process.wait(timeout=20) == 0, server.log()
    assert list(directory.iterdir()) == []


@pytest.mark.once
@pytest.mark.parametrize("mode", ["eventlet", "threading"])
def test_stop_answers_what_was_taken(serve: Start, connect: Start, directory: Path, tmp_path: Path, mode: str) -> None:
    server = serve(mode=mode)
    client = connect("s1")
    held = Held(client, tmp_path)
    server.ask_to_stop()
    server.expect("stopped")
    assert list(directory.iterdir()) == []
    with pytest.raises(errors.ServerUnreachable):
        client.call({}, "echo", value="too late")
    assert held.end() == "held"
    assert server.process.wait(timeout=20) == 0, server.log()


def test_successor_serves_while_the_old_one_drains(serve: Start, connect: Start, tmp_path: Path) -> None:
    old = serve()
    client = connect("s1")
    held = Held(client, tmp_path)
    old.ask_to_stop()
    old.expect("stopped")
    new = serve()
    assert client.call({}, "pid") == new.pid
    assert held.end() == "held"
    assert old.process.wait(timeout=20) == 0
    assert client.call({}, "pid") == new.pid


def test_path_longer_than_a_socket_name_may_be(serve: Start, connect: Start, tmp_path: Path) -> None:
    where = tmp_path / ("d" * 120)
    serve(where=where)
    assert connect("s1", where=where).call({}, "echo", value=1) == 1
    assert connect(where=where).call({}, "echo", value=2) == 2


class Sink:
    """A notification endpoint."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def info(self, ctxt: Any, publisher: str, event: str, payload: Any, metadata: Any) -> None:
        self.seen.append((event, payload))


def test_notifications_reach_a_listener_or_nobody(connect: Start) -> None:
    transport = connect().transport
    notifier = oslo_messaging.Notifier(transport, "me", driver="messagingv2", topics=["events"])
    notifier.info({}, "lost", {})
    sink, other = Sink(), Sink()
    targets = [oslo_messaging.Target(topic="events")]
    listeners = [
        oslo_messaging.get_notification_listener(transport, targets, [endpoint], executor="threading", pool=pool)
        for endpoint, pool in ((sink, "a"), (sink, "a"), (other, "b"))
    ]
    for listener in listeners:
        listener.start()
    for number in range(4):
        notifier.info({}, "kept", {"number": number})
    until(lambda: len(sink.seen) == len(other.seen) == 4)
    for listener in listeners:
        listener.stop()
        listener.wait()
    assert sorted(payload["number"] for _event, payload in sink.seen) == [0, 1, 2, 3]
    assert {event for event, _payload in other.seen} == {"kept"}

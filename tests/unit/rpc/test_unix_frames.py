# SPDX-License-Identifier: Apache-2.0
"""Frames of the unix transport: what is cut from a stream, and what no byte sequence can do to a server."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oslo_config import cfg

from volmgr.rpc.unix import directory as names
from volmgr.rpc.unix import frames
from volmgr.rpc.unix_transport import UnixDriver

LIMIT = 65536
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(), JSON, max_size=4)


@given(st.lists(OBJECTS, max_size=6), st.data())
def test_any_cut_of_the_stream_gives_the_same_objects(objects: list[dict[str, Any]], data: st.DataObject) -> None:
    stream = b"".join(frames.encode(value, LIMIT) for value in objects)
    splitter, found = frames.Splitter(LIMIT), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += [frames.decode(body) for body in splitter.feed(stream[:size])]
        stream = stream[size:]
    assert found == objects
    assert not splitter.partial


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b'"text"',
        b"{",
        b'{"a":1}x',
        b"\xff\xfe",
        b"[" * 60000,
        b'{"a":' * 10000 + b"1" + b"}" * 10000,
        b'{"n":' + b"9" * 5000 + b"}",
    ],
)
def test_bodies_that_are_no_objects(body: bytes) -> None:
    with pytest.raises(frames.FrameError):
        frames.decode(body)


def test_limit_holds_in_both_directions() -> None:
    exact = {"a": "x" * (LIMIT - 8)}
    data = frames.encode(exact, LIMIT)
    assert len(data) == LIMIT + 4
    assert frames.decode(frames.Splitter(LIMIT).feed(data)[0]) == exact
    with pytest.raises(frames.TooLarge):
        frames.encode({"a": "x" * (LIMIT - 7)}, LIMIT)
    splitter = frames.Splitter(LIMIT - 1)
    with pytest.raises(frames.FrameError):
        splitter.feed(data[:4])  # the header is enough, the body is not waited for
    assert not splitter.partial


class Endpoint:
    """Echoes."""

    def echo(self, ctxt: dict[str, Any], value: Any) -> Any:
        return value


class Server:
    """A server in this process, its socket, and a proper client of it."""

    def __init__(self, folder: str) -> None:
        conf = cfg.ConfigOpts()
        conf([], project="volmgr", default_config_files=[])
        url = oslo_messaging.TransportURL.parse(conf, f"unix://{folder}")
        self.driver = UnixDriver(conf, url, default_exchange="x")
        self.listener = self.driver.listen(oslo_messaging.Target(topic="t", server="s"), 1, None)
        self.listener.start(self._serve)
        self._path = f"{folder}/{names.rpc_address('x', 't', 's').name}.sock"

    @staticmethod
    def _serve(messages: list[Any]) -> None:
        for message in messages:
            message.acknowledge()
            message.reply(message.message.get("value"))

    def answers(self) -> bool:
        """Return whether a proper client gets its answer."""
        target = oslo_messaging.Target(topic="t", server="s")
        return bool(self.driver.send(target, {}, {"value": 42}, wait_for_reply=True, timeout=20) == 42)

    def connect(self, greet: bool) -> socket.socket:
        """Return a raw connection."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(20)
        sock.connect(self._path)
        if greet:
            sock.sendall(frames.encode(frames.hello(LIMIT), LIMIT))
            assert b"volmgr-rpc" in sock.recv(LIMIT)
        return sock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(str(tmp_path_factory.mktemp("rpc")))
    yield started
    started.driver.cleanup()
    started.listener.stop()
    started.listener.cleanup()


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "i": JSON,
        "k": st.sampled_from(["call", "cast", "fan", "other"]) | JSON,
        "c": JSON,
        "m": JSON,
        "t": JSON,
        "magic": JSON,
    },
)
RAW = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=200).map(framed),
    st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=50)).map(lambda pair: struct.pack(">I", pair[0]) + pair[1]),
    REQUEST.map(lambda value: frames.encode(value, LIMIT)),
    JSON.map(lambda value: framed(frames.json.dumps(value).encode())),
)


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=RAW, greet=st.booleans())
def test_no_bytes_end_the_server(server: Server, raw: bytes, greet: bool) -> None:
    # The server may end the connection at any byte.
    with server.connect(greet) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(LIMIT):  # answers to what happened to be a request, then the end
            continue
    assert server.answers()


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        framed(b"[1]"),
        framed(b"{"),
        framed(b"[" * 60000),
        framed(b'{"i":1,"k":"call","c":{}}'),
        framed(b'{"i":true,"k":"call","c":{},"m":{}}'),
        framed(b'{"i":1,"k":[],"c":{},"m":{}}'),
        struct.pack(">I", 2**32 - 1),
        framed(b'{"i":1}')[:-1],
    ],
)
def test_a_malformed_frame_costs_one_connection_and_one_line(
    server: Server, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    bystander = server.connect(greet=True)
    caplog.set_level(logging.WARNING, "volmgr.rpc")
    with server.connect(greet=True) as sock:
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):  # the other way to learn of the end
            assert sock.recv(LIMIT) == b""
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Closed the connection" in caplog.text
    with bystander:
        bystander.sendall(frames.encode({"i": 7, "k": "call", "c": {}, "m": {"value": 1}}, LIMIT))
        assert frames.decode(bystander.recv(LIMIT)[4:]) == {"i": 7, "r": 1}


def test_requests_read_while_stopping_are_refused(tmp_path: Path) -> None:
    server = Server(str(tmp_path))
    running, go_on = threading.Event(), threading.Event()

    def serve(messages: list[Any]) -> None:
        running.set()
        go_on.wait(20)
        Server._serve(messages)

    server.listener.on_incoming_callback = serve
    stopping = threading.Thread(target=server.listener.stop)
    with server.connect(greet=True) as sock:
        requests = [{"i": number, "k": "call", "c": {}, "m": {"value": number}} for number in (1, 2)]
        sock.sendall(b"".join(frames.encode(request, LIMIT) for request in requests))
        assert running.wait(20)
        stopping.start()
        deadline = time.monotonic() + 20
        while list(tmp_path.iterdir()):  # the files go as the first thing of a stop
            assert time.monotonic() < deadline
            time.sleep(0.01)
        go_on.set()
        stopping.join(20)
        server.listener.cleanup()
        splitter, answers = frames.Splitter(LIMIT), []
        while data := sock.recv(LIMIT):
            answers += [frames.decode(body) for body in splitter.feed(data)]
    assert answers == [{"i": 1, "r": 1}, {"i": 2, "e": "stopping", "x": {}}]

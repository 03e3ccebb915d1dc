# SPDX-License-Identifier: Apache-2.0
"""StorPool's answers in any form, over real connections: understood, or an error that has a type."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.edges.strange import DEEP, VALUES, bent, dumped, nearly
from volmgr import exception
from volmgr.drivers import storpool_setup
from volmgr.drivers.storpool_api import StorPoolAPI
from volmgr.drivers.storpool_config import StorPoolConfig
from volmgr.types import Secret

#: nothing of it waits for anybody, so that one kind of threads is enough.
pytestmark = pytest.mark.once
STORED = {"data": [{
    "name": "os--volume-1", "templateName": "hdd", "globalId": "a.b.c", "size": 1073741824, "tags": {"vol": "1"},
}]}  # fmt: skip
TEMPLATES = {"data": [{"name": "hdd", "replication": 3}, {"name": "ssd", "replication": "-"}]}
DISKS = {"data": {"1": {"id": 1, "generationLeft": -1, "agCount": 10, "agFree": 5}, "2": {"generationLeft": 7}}}
ATTACHED = {"data": [{"globalId": "a.b.c", "client": 1, "rights": "rw"}, {"volume": "old", "client": 2}]}
REFUSAL = {"error": {"name": "objectDoesNotExist", "descr": "no", "transient": False}}
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


def answered(text: str, status: int = 200) -> bytes:
    body = text.encode(errors="surrogatepass")
    return (OK % (len(body), body)).replace(b"200 OK", b"%d X" % status)


class Server(socketserver.TCPServer):
    """Answers every request with the same bytes, then hangs up."""

    allow_reuse_address = True
    answer = b""


class Handler(socketserver.StreamRequestHandler):
    timeout = 10

    def handle(self) -> None:
        while self.rfile.readline().strip():
            continue
        assert isinstance(self.server, Server)
        self.wfile.write(self.server.answer)

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            return  # the client has hung up: it had seen enough


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(server: Server, answer: bytes) -> list[Any]:
    """Return what each call makes of an answer; an error that has no type is not caught."""
    server.answer = answer
    config = StorPoolConfig(
        host="127.0.0.1", port=server.server_address[1], token=Secret("1"), prefix="os", cluster="x", node="here"
    )
    api, found = StorPoolAPI(config, timeout=10, pauses=()), list[Any]()
    calls = (
        api.volumes, api.snapshots, api.templates, lambda: storpool_setup._capacity(api.disks()),
        lambda: {item["globalId"] for item in api.attachments() if "globalId" in item},
        lambda: api.volume("x"), lambda: api.snapshot("x"),
        lambda: api.change("x", lambda client: client.volume_delete("x")),
    )  # fmt: skip
    for call in calls:
        try:
            found.append(call())
        except exception.VolmgrError as error:
            found.append(error)
    return found


RIGHT = st.sampled_from([STORED, TEMPLATES, DISKS, ATTACHED, REFUSAL])


@given(
    RIGHT.flatmap(nearly).map(dumped).map(answered)
    | st.builds(answered, VALUES.map(dumped), st.sampled_from([200, 204, 404, 500, 999]))
    | st.builds(answered, st.builds(lambda value: dumped({"error": value}), VALUES), st.sampled_from([200, 404]))
    | RIGHT.map(dumped).map(answered).flatmap(bent)
    | st.binary(max_size=80)
)
@example(answered(DEEP[0]))
@example(answered("{}", 200))
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}")
@example(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n")
@example(b"X" * 200000)
@settings(max_examples=150)
def test_any_answer(server: Server, answer: bytes) -> None:
    ask(server, answer)


def test_the_answers_that_others_are_made_of_are_right(server: Server) -> None:
    stored = STORED["data"]
    assert ask(server, answered(json.dumps(STORED)))[:2] == [stored, stored]
    assert ask(server, answered(json.dumps(TEMPLATES)))[2] == TEMPLATES["data"]
    total, free = ask(server, answered(json.dumps(DISKS)))[3]
    assert total == 2 * free > 0
    assert ask(server, answered(json.dumps(ATTACHED)))[4] == {"a.b.c"}
    refused = ask(server, answered(json.dumps(REFUSAL), 404))
    assert refused[5:7] == [None, None]
    assert isinstance(refused[7], exception.NotFound)

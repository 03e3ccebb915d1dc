# SPDX-License-Identifier: Apache-2.0
"""The API over HTTP on the loopback, and beside it, under ``/contract/``, what tests steer it by. Knows no storage.

Steering: ``POST /contract/faults`` with a list of :mod:`volmgr.testing.storpool.faults`, ``GET`` for how many are left;
``GET /contract/calls`` for every call since the last ``POST`` to it; ``POST /contract/open`` with ``name``, ``client``,
``open``; ``POST /contract/write`` with ``name``, ``offset``, ``data`` (hexadecimal), which writes as a client of the
volume; ``POST /contract/release``, which lets every call go on that is held; ``POST /contract/reset``. All of it needs
the token, too.
"""

from __future__ import annotations

import http.server
import json
import socket
import struct
import threading
from pathlib import Path
from typing import Any

from volmgr.testing.storpool.cluster import Cluster
from volmgr.testing.storpool.contract import ApiError, contract
from volmgr.testing.storpool.faults import Faults

STEERING = "/contract/"
#: Seconds between two looks of a call that is held for whether the server ends.
POLL = 0.2


class Server(http.server.ThreadingHTTPServer):
    """The server.

    :param token: what ``Authorization: Storpool v1:`` must be followed by.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, cluster: Cluster, token: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.cluster = cluster
        self.token = token
        self.faults = Faults()
        self.calls: list[dict[str, Any]] = []
        self.stopping = threading.Event()
        self._gate = threading.Event()

    def hold(self, entry: dict[str, Any]) -> None:
        """Let a call wait until :meth:`release`, or the end of the server; from now on it counts as held."""
        gate = self._gate
        entry["held"] = True
        while not gate.wait(POLL) and not self.stopping.is_set():
            continue

    def release(self) -> None:
        """Let every call go on that is held now."""
        gate, self._gate = self._gate, threading.Event()
        gate.set()

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return int(self.server_address[1])


class _Broken(Exception):
    """The connection was broken on purpose."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Server
    server_version = "storpool-contract"

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the calls are kept for whoever asks."""

    def _serve(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        entry: dict[str, Any] = {"call": None, "method": method, "path": self.path, "status": 200, "error": None}
        entry |= {"held": False, "finished": False}
        steering = self.path.startswith(STEERING)
        if not steering:
            self.server.calls.append(entry)
        try:
            self._authorize()
            reply = self._steer(method, body) if steering else self._call(entry, method, body)
        except _Broken:
            entry["status"] = 0
            reply = None
        except ApiError as error:
            entry |= {"status": error.status, "error": error.name}
            reply = error.reply()
        entry["finished"] = True
        if reply is not None:
            self._answer(entry["status"], json.dumps(reply).encode())

    def _authorize(self) -> None:
        if self.headers.get("Authorization") != f"Storpool v1:{self.server.token}":
            raise ApiError("notAuthorized", "The token is not this cluster's")

    def _call(self, entry: dict[str, Any], method: str, body: bytes) -> dict[str, Any]:
        call, argument = contract().find(method, self.path)
        entry["call"] = call.name
        data = contract().check_request(call, body)
        entry["data"] = data
        self._fault(entry, "before")
        try:
            answer = self.server.cluster.call(call.name, argument, data)
        except ApiError:
            self._fault(entry, "after")
            raise
        problems = list(contract().problems(call.response, answer))
        if problems:
            raise ApiError("contract", f"The answer of {call.name} is not as described: {problems[0].message}")
        self._fault(entry, "after")
        return {"generation": self.server.cluster.world.generation, "data": answer}

    def _fault(self, entry: dict[str, Any], when: str) -> None:
        fault = self.server.faults.take(entry["call"], when)
        if fault is None:
            return
        kind = fault["kind"]
        if kind == "transient":
            raise ApiError("tryAgain", fault.get("descr", "Not now"))
        if kind == "error":
            raise ApiError(fault["name"], fault.get("descr", "As told"), status=fault.get("status"))
        if kind == "slow":
            self.server.stopping.wait(fault.get("seconds", 1.0))
            return
        if kind == "held":
            self.server.hold(entry)
            return
        if kind == "reset":
            self._reset()
        elif kind == "garbage":
            self._answer(200, b"<html>not what you wanted</html>")
        elif kind == "empty":
            self._answer(200, b"{}")
        elif kind == "drip":
            self._drip(fault.get("seconds", 0.1), b"" if when == "before" else b'OK\r\n\r\n{"data":')
        elif kind == "hangup":
            self.wfile.write(b'HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n{"data":')
        raise _Broken

    def _reset(self) -> None:
        """Close the connection in a way that the other side sees as a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
        self.close_connection = True

    def _drip(self, seconds: float, first: bytes) -> None:
        """Send an answer that never ends, a byte at a time: no single wait of the other side is long.

        :param first: what of it comes at once; after that nothing but blanks comes, in its head or in its data.
        """
        try:
            self.wfile.write(b"HTTP/1.0 200 " + first)
            while not self.server.stopping.wait(seconds):
                self.wfile.write(b" ")
        except ConnectionError:
            self.close_connection = True  # it has seen enough

    def _answer(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Cache-Control", "private")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except ConnectionError:
            self.close_connection = True  # it did not wait for the answer

    def _steer(self, method: str, body: bytes) -> dict[str, Any]:
        server, what = self.server, self.path.removeprefix(STEERING)
        data: Any = json.loads(body) if body else None
        if (method, what) == ("POST", "faults"):
            server.faults.set(data)
        elif (method, what) == ("GET", "faults"):
            return {"data": server.faults.left()}
        elif (method, what) == ("GET", "calls"):
            return {"data": list(server.calls)}
        elif (method, what) == ("POST", "calls"):
            server.calls.clear()
        elif (method, what) == ("POST", "open"):
            with server.cluster.lock:
                item = server.cluster.find(data.get("kind", "volume"), data["name"])
                server.cluster.attachments.open(item, data["client"], data["open"])
        elif (method, what) == ("GET", "attached"):
            with server.cluster.lock:
                items = server.cluster.world.items.values()
                return {"data": {item.name: server.cluster.attachments.of(item) for item in items}}
        elif (method, what) == ("GET", "files"):
            with server.cluster.lock:
                items = server.cluster.world.items.values()
                return {"data": {item.name: str(server.cluster.blocks.path(item.number)) for item in items}}
        elif (method, what) == ("POST", "write"):
            kind, content = data.get("kind", "volume"), bytes.fromhex(data["data"])
            server.cluster.write(kind, data["name"], data["offset"], content)
        elif (method, what) == ("POST", "release"):
            server.release()
        elif (method, what) == ("POST", "reset"):
            server.faults.set([])
            server.release()
            server.cluster.reset()
            server.calls.clear()
        else:
            raise ApiError("unknownCall", f"There is nothing to steer by {method} {self.path}")
        return {"data": None}


def make(
    folder: Path, *, token: str, clients: set[int], port: int = 0, devices: tuple[Path, int] | None = None
) -> Server:
    """Return a server that listens already; ``serve_forever`` serves.

    :param devices: the folder of the devices and the id of the client whose they are.
    """
    from volmgr.testing.storpool.devices import Devices

    made = Devices(*devices) if devices is not None else None
    return Server(Cluster(folder, clients, made), token, port)

# SPDX-License-Identifier: Apache-2.0
"""A proxy before tgtd's management socket that answers garbage, half an answer, nothing, or hangs up, to order."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

MODES = ("pass", "garbage", "half", "silent", "close")
ANSWER_SECONDS = 30.0


class Garbler:
    """Listens at a path and forwards to another one, a connection for each request.

    :ivar mode: one of :data:`MODES`; it counts from the next request on.
    """

    def __init__(self, path: Path, behind: str) -> None:
        self.path = path
        self.mode = "pass"
        self.spoilt = 0
        self._behind = behind
        self._held: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener was shut: the test is over
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._one, args=(client, self.mode), daemon=True).start()

    def _one(self, client: socket.socket, mode: str) -> None:
        with contextlib.suppress(OSError):  # one side hung up, which ends it
            if mode == "pass":
                self._forward(client, whole=True)
            else:
                self.spoilt += 1
                if mode == "silent":
                    self._held.append(client)
                    return
                if mode == "garbage":
                    client.recv(65536)
                    client.sendall(os.urandom(64))
                elif mode == "half":
                    self._forward(client, whole=False)
        client.close()

    def _forward(self, client: socket.socket, *, whole: bool) -> None:
        """Send the request on and its answer back; tgtd closes after each."""
        with socket.socket(socket.AF_UNIX) as server:
            server.settimeout(ANSWER_SECONDS)
            server.connect(self._behind)
            up = threading.Thread(target=_copy, args=(client, server), daemon=True)
            up.start()
            answer = b""
            while data := server.recv(65536):
                answer += data
            client.sendall(answer if whole else answer[: max(1, len(answer) // 2)])
            client.shutdown(socket.SHUT_RDWR)
            up.join(ANSWER_SECONDS)

    def close(self) -> None:
        """Answer no more."""
        with contextlib.suppress(OSError):  # it was shut before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(ANSWER_SECONDS)
        self._listener.close()
        for held in self._held:
            held.close()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one side hung up
        while data := source.recv(65536):
            to.sendall(data)

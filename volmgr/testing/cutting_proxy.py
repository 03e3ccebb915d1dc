# SPDX-License-Identifier: Apache-2.0
"""A TCP proxy before a database server that can lose the connection when a certain text passes. Knows no protocol."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field

ANSWER_SECONDS = 30.0


@dataclass
class _Ends:
    """One connection: ``cut`` when it is to be lost, ``answered`` when the server has done the last it was told."""

    client: socket.socket
    server: socket.socket
    cut: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)


class CuttingProxy:
    """Forwards to a port of this host; :attr:`cut_at` is the text of a client at which it drops its connection.

    :param port: where the server listens.
    :param deliver: whether the server still gets the text, so that only the answer is lost.
    :param host: the address of this host at which it listens.
    """

    def __init__(self, port: int, *, deliver: bool, host: str = "127.0.0.1") -> None:
        self._port = port
        self.deliver = deliver
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut_at: bytes | None = None
        self.cuts = 0
        self._open: list[socket.socket] = []
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener was closed: the test is over
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port), timeout=10)
                server.settimeout(None)
                self._open += [client, server]
                ends = _Ends(client, server)
                threading.Thread(target=self._up, args=(ends,), daemon=True).start()
                threading.Thread(target=self._down, args=(ends,), daemon=True).start()

    def _up(self, ends: _Ends) -> None:
        client, server = ends.client, ends.server
        with contextlib.suppress(OSError):  # one end hung up, which ends the forwarding
            while data := client.recv(65536):
                if self.cut_at is not None and self.cut_at in data:
                    self.cut_at = None
                    self.cuts += 1
                    ends.cut.set()
                    if self.deliver:
                        server.sendall(data)
                        ends.answered.wait(ANSWER_SECONDS)
                    break
                server.sendall(data)
        _shut(client)
        _shut(server)

    def _down(self, ends: _Ends) -> None:
        client, server = ends.client, ends.server
        with contextlib.suppress(OSError):  # one end hung up, which ends the forwarding
            while data := server.recv(65536):
                if ends.cut.is_set():
                    # The server has done what it was told, and nobody will hear of it.
                    ends.answered.set()
                    break
                client.sendall(data)
        _shut(client)

    def drop(self) -> None:
        """Lose every connection; new ones are welcome."""
        while self._open:
            _shut(self._open.pop())

    def close(self) -> None:
        """Lose every connection and take no more."""
        _shut(self._listener)  # a close alone would let a thread that waits in accept() take one more
        self._server.join(ANSWER_SECONDS)  # a descriptor that somebody waits at must not be given away anew
        self._listener.close()
        self.drop()


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was shut by the other side already
        end.shutdown(socket.SHUT_RDWR)

# SPDX-License-Identifier: Apache-2.0
"""Asks a zygote for daemons, and stands for each as :class:`subprocess.Popen` stands for a child."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from volmgr import concurrency

#: what a zygote says of a daemon: its process id when it is there, its wait status when it has ended.
NUMBER = struct.Struct("!q")
START_SECONDS = 300.0


class Life:
    """One process that a zygote made: the methods of :class:`subprocess.Popen` that tests use.

    :ivar pid: its process id. :ivar returncode: as :class:`subprocess.Popen` has it, None while it lives.
    """

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self._told.settimeout(START_SECONDS)
        self.pid = self._number()
        self.returncode: int | None = None

    def _number(self) -> int:
        message = self._told.recv(NUMBER.size)
        if len(message) != NUMBER.size:
            raise RuntimeError("the zygote has ended before its daemon; what it wrote is on our standard error")
        return int(NUMBER.unpack(message)[0])

    def poll(self) -> int | None:
        """Return how it ended, None while it lives."""
        if self.returncode is None:
            self._hear(0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended, once it has.

        :param timeout: seconds. :raises subprocess.TimeoutExpired: it lives still.
        """
        if self.returncode is None and not self._hear(timeout):
            raise subprocess.TimeoutExpired("volmgr-volume", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def _hear(self, timeout: float | None) -> bool:
        """Wait for its end; returns whether that has come."""
        self._told.settimeout(timeout)
        try:
            status = self._number()
        except (TimeoutError, BlockingIOError):
            return False
        # Not before this the zygote lets go of its number, so no other process can have been meant by it.
        self._told.shutdown(socket.SHUT_WR)
        self._told.settimeout(START_SECONDS)
        self._told.recv(1)
        self._told.close()
        self.returncode = os.waitstatus_to_exitcode(status)
        return True

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Zygote:
    """A process that has loaded the daemon, and waits.

    It ends with the process that made it, or by :meth:`close`; the daemons that it made go on.

    :param backend: the concurrency backend of its daemons.
    """

    def __init__(self, backend: str) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "volmgr.testing.zygote.server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env={**os.environ, concurrency.ENVIRONMENT: backend},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    def start(self, arguments: Sequence[str], environment: dict[str, str], log: int) -> Life:
        """Start a daemon.

        :param arguments: what follows ``volmgr-volume``. :param environment: all of it.
        :param log: the open file for what it writes.
        :raises RuntimeError: the zygote has ended.
        """
        request = {"arguments": list(arguments), "environment": environment, "folder": os.getcwd()}
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], [theirs.fileno(), log])
        return Life(mine)

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self.process.wait(START_SECONDS)


_zygotes: dict[str, Zygote] = {}
_making = threading.Lock()


def zygote_of(config_file: Path, environment: dict[str, str]) -> Zygote:
    """Return this process's zygote for a daemon with this configuration and environment; it is made on first use."""
    backend = environment.get(concurrency.ENVIRONMENT) or concurrency.choose([str(config_file)])
    with _making:
        known = _zygotes.get(backend)
        if known is None or known.process.poll() is not None:
            _zygotes[backend] = known = Zygote(backend)
        return known

# SPDX-License-Identifier: Apache-2.0
"""What the private servers have in common: a folder, ports, a user to run as, a proved start and a bounded stop.

A server's life is ``start()``, any number of ``restart()`` or ``kill()`` and ``start()`` with the same data, and
``stop()``, after which no process and no file is left. This module knows no particular server.
"""

from __future__ import annotations

import abc
import contextlib
import logging
import os
import pwd
import random
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from volmgr.testing.servers.errors import (
    ServerError,
    ServerNotRunning,
    ServerStartFailed,
    ServerStopFailed,
    ServerUnavailable,
)
from volmgr.testing.servers.keeping import Keeper
from volmgr.testing.waiting import WaitTimeout, wait_until

__all__ = [
    "HOST",
    "PrivateServer",
    "ServerError",
    "ServerNotRunning",
    "ServerStartFailed",
    "ServerStopFailed",
    "ServerUnavailable",
    "find_program",
    "free_port",
]

LOG = logging.getLogger(__name__)

HOST = "127.0.0.1"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOWEST_PORT = 20000
_START_ATTEMPTS = 3
_TCP_LISTEN = "0A"
_issued_ports: set[int] = set()


def free_port() -> int:
    """Return a loopback TCP port on which nobody listens and that this process has not been given before.

    It lies outside the kernel's range for outgoing connections (ip(7), ip_local_port_range), so that none of those
    takes it between this call and the server's bind(2), nor while the server is down between kill and start.

    :raises ServerUnavailable: no port is free.
    """
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    candidates = [port for port in range(_LOWEST_PORT, 65536) if not first <= port <= last]
    random.shuffle(candidates)
    for port in candidates:
        if port not in _issued_ports and _can_bind(port):
            _issued_ports.add(port)
            return port
    raise ServerUnavailable("no loopback port is free outside of the range for outgoing connections")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections of a predecessor in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _listens(pid: int, port: int) -> bool:
    """Return whether that very process listens on the loopback port (proc(5): /proc/net/tcp and /proc/PID/fd).

    Whoever else has taken the port might accept a connection and never answer, so it is not even tried.
    """
    address = f"{int.from_bytes(socket.inet_aton(HOST), sys.byteorder):08X}:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1] == address and row[3] == _TCP_LISTEN}
    # The process may end, or close a file, while it is looked at.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(descriptor) in sockets:
                    return True
    return False


def find_program(name: str, package: str, *, pattern: str | None = None) -> str:
    """Return the path of a program.

    :param package: the Debian package that brings it, for the error.
    :param pattern: where to look besides the system's path, a glob under ``/``; the highest version wins.
    :raises ServerUnavailable: it is not installed.
    """
    found = sorted(Path("/").glob(pattern), key=_version_key) if pattern else []
    path = str(found[-1]) if found else shutil.which(name, path=SYSTEM_PATH)
    if path is None:
        raise ServerUnavailable(f"{name} is not installed: install the Debian package {package}")
    return path


def _version_key(path: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in path.parts if part.isdigit())


class PrivateServer(abc.ABC):
    """One private server; also a context manager that starts and stops it.

    :param durable: let the server wait for the disk as in production; without it, data survive the death of the
        server but not of the machine, and it is several times faster.
    :param start_timeout_seconds: how long each of initialisation and start may take.
    """

    label: ClassVar[str]
    package: ClassVar[str]
    #: Whom to run as when the caller is root, which these servers refuse or should not be.
    account: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_grace_seconds: ClassVar[float] = 20.0
    #: What the server's log says when another program took a port first.
    port_taken: ClassVar[str]

    def __init__(self, *, durable: bool = False, start_timeout_seconds: float = 90.0) -> None:
        self.durable = durable
        #: The loopback port that clients connect to; 0 before the first start.
        self.port = 0
        self._start_timeout_seconds = start_timeout_seconds
        self._keeper: Keeper | None = None
        self._folder: Path | None = None
        self._pid: int | None = None
        self._user: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} folder={self._folder} pid={self._pid}>"

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """Where and as whom to connect, password included."""

    @property
    def folder(self) -> Path:
        """The folder that holds everything of the server; it exists from the first start to the stop."""
        if self._folder is None:
            raise ServerNotRunning(f"{self.label} was not started")
        return self._folder

    @property
    def pid(self) -> int:
        """The process id of the server's main process."""
        if self._pid is None:
            raise ServerNotRunning(f"{self.label} does not run")
        return self._pid

    @property
    def keeper_pid(self) -> int:
        """The process id of the keeper, whose descendants are all processes of the server."""
        return self._require_keeper().pid

    def start(self) -> None:
        """Start the server, and wait until it answers; after :meth:`kill`, with the data and ports it had.

        :raises ServerUnavailable: something is not installed; nothing was started.
        :raises ServerStartFailed: it ended or did not answer in time; the message holds the end of its log.
        """
        if self._pid is not None:
            raise ServerError(f"{self.label} runs already, as process {self._pid}")
        if self._keeper is not None:
            self._start_process()
            return
        self._check_available()
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._start_afresh()
                return
            except ServerStartFailed as error:
                if attempt == _START_ATTEMPTS or self.port_taken not in error.log:
                    raise
                LOG.warning("%s: a port was taken by another program, trying others", self.label)

    def stop(self) -> None:
        """End the server, politely and then by SIGKILL, and remove its folder. Without a server it does nothing.

        :raises ServerStopFailed: something is left.
        """
        keeper, self._keeper = self._keeper, None
        if keeper is None:
            return
        try:
            if self._pid is not None:
                self._stop_process(keeper)
        finally:
            self._pid = self._folder = None
            keeper.finish()

    def restart(self) -> None:
        """End the server politely and start it again with the same data and ports."""
        keeper = self._require_keeper()
        if self._pid is not None:
            self._stop_process(keeper)
        self._start_process()

    def kill(self) -> None:
        """SIGKILL every process of the server at once, as a crash would; its data stay for :meth:`start`."""
        self._require_keeper().kill()
        self._pid = None

    def log_text(self) -> str:
        """Return what the server has written so far."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    # --- what a kind of server defines ------------------------------------------------------------------------------

    @abc.abstractmethod
    def _check_available(self) -> None:
        """Find the programs.

        :raises ServerUnavailable: one is missing.
        """

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Choose ports and passwords, and make the data folder inside :attr:`folder`."""

    @abc.abstractmethod
    def _launch(self) -> int:
        """Start the processes by :meth:`_run`; returns the main one's id, whose name is ``server``."""

    @abc.abstractmethod
    def _answers(self) -> bool:
        """Return whether the server answers a real request of an authenticated client."""

    # --- for the kinds of server ------------------------------------------------------------------------------------

    def _run(self, name: str, argv: list[str], *, cwd: Path, env: dict[str, str] | None = None) -> int:
        environment = {"PATH": SYSTEM_PATH, "HOME": str(self.folder), "LANG": "C.UTF-8"} | (env or {})
        log = self.folder / f"{name}.log"
        return self._require_keeper().run(name, argv, env=environment, cwd=cwd, log=log, user=self._user)

    def _run_to_end(self, name: str, argv: list[str]) -> None:
        """Run a program that initialises something; its output is ``name``.log.

        :raises ServerStartFailed: it failed or took too long.
        """
        self._run(name, argv, cwd=self.folder)
        keeper = self._require_keeper()
        try:
            wait_until(lambda: keeper.poll(name) is not None, self._start_timeout_seconds, f"{name} to end")
        except WaitTimeout as error:
            raise ServerStartFailed(f"{self.label}: {error}", self._log_of(name)) from error
        status = keeper.poll(name)
        if status != 0:
            raise ServerStartFailed(f"{self.label}: {name} ended with status {status}", self._log_of(name))

    def _make_folder(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(mode=0o700)
        self._give(path)
        return path

    def _write_file(self, name: str, text: str) -> Path:
        """Write a file that only the server can read: the place for a password."""
        path = self.folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        self._give(path)
        return path

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, *self._user)

    # --- the parts of starting and stopping -------------------------------------------------------------------------

    def _require_keeper(self) -> Keeper:
        if self._keeper is None:
            raise ServerNotRunning(f"{self.label} was not started")
        return self._keeper

    def _start_afresh(self) -> None:
        self._user = self._account_ids()
        self._folder = Path(tempfile.mkdtemp(prefix="volmgr-server-"))
        self._give(self._folder)
        try:
            self._keeper = Keeper(self._folder)
            self._prepare()
            self._start_process()
        except BaseException:
            if self._keeper is None:
                shutil.rmtree(self._folder)
            self.stop()
            raise

    def _account_ids(self) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        try:
            account = pwd.getpwnam(self.account)
        except KeyError as error:
            raise ServerUnavailable(
                f"the user {self.account} does not exist: install the Debian package {self.package}"
            ) from error
        return account.pw_uid, account.pw_gid

    def _start_process(self) -> None:
        try:
            self._pid = self._launch()
            wait_until(self._answers_or_ended, self._start_timeout_seconds, f"{self.label} to answer")
        except (WaitTimeout, ServerStartFailed) as error:
            log = self.log_text()
            self.kill()
            raise ServerStartFailed(f"{self.label}: {error}", log) from error

    def _answers_or_ended(self) -> bool:
        status = self._require_keeper().poll("server")
        if status is not None:
            raise ServerStartFailed(f"ended with status {status} before it answered")
        return _listens(self.pid, self.port) and self._answers()

    def _stop_process(self, keeper: Keeper) -> None:
        if keeper.stop("server", self.stop_signal, self.stop_grace_seconds) is None:
            LOG.warning("%s did not end within %g s and is killed", self.label, self.stop_grace_seconds)
        self._pid = None
        keeper.kill()

    def _log_of(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):  # the program was never started
            return (self.folder / f"{name}.log").read_text(errors="replace")
        return ""

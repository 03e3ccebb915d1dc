# SPDX-License-Identifier: Apache-2.0
"""One volmgr-volume for several backends: a worker process for each, and this process above them.

The parent starts, watches and restarts the workers and serves nothing itself, so a worker that dies, hangs or cannot
start harms no other. To its workers it is what systemd is to it: they tell it that they are ready and feed its
watchdog. To systemd all of them are one service. It uses native threads only, as it has none.
"""

from __future__ import annotations

import configparser
import contextlib
import ctypes
import dataclasses
import logging
import os
import secrets
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from volmgr import concurrency, systemd

LOG = logging.getLogger(__name__)

#: tells a process which of the backends is its own, and a worker who its parent is.
BACKEND, PARENT = "VOLMGR_BACKEND", "VOLMGR_PARENT"
#: seconds before a worker that has ended is started again, by how often it has ended in a row.
BACKOFF = (0.5, 1, 2, 5, 15, 60)
#: a worker that has lived so long had a good start.
GOOD_SECONDS = 60.0
#: a little more than a worker takes to drain.
STOP_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1
_CREDENTIALS = struct.Struct("3i")


def named(argv: Sequence[str]) -> list[str]:
    """Return the backends that a process with this command line would serve, before anything heavy is imported.

    The files are read as :func:`volmgr.concurrency.choose` reads them.
    """
    if own := os.environ.get(BACKEND):
        return [own]
    text = os.environ.get("OS_DEFAULT__ENABLED_BACKENDS")
    if text is None:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read(concurrency.config_files_of(list(argv)))
        text = parser.defaults().get("enabled_backends", "")
    return [name.strip() for name in text.split(",") if name.strip()]


def follow_parent() -> None:
    """Let this worker drain when its parent dies, however that happens (prctl(2), PR_SET_PDEATHSIG)."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)  # it has died before it was asked for


@dataclasses.dataclass
class Child:
    """One worker: its process, and what is known of it."""

    backend: str
    process: subprocess.Popen[bytes] | None = None
    ready: bool = False
    #: whether it has been ready, or has ended, once: systemd waits no longer for it.
    settled: bool = False
    started: float = 0.0
    fed: float = 0.0
    failures: int = 0
    #: when to start it.
    due: float = 0.0
    #: what its configuration was when it was started; and whether it is not to be started again.
    settings: str = ""
    leaving: bool = False


class Supervisor:
    """Keeps a worker for each backend.

    :param argv: the command line, which the workers are given too.
    :param backends: by name, a text that is another one when the configuration of its worker is.
    """

    def __init__(self, argv: Sequence[str], backends: Mapping[str, str]) -> None:
        self._argv = list(argv)
        self.children = [Child(name, settings=settings) for name, settings in backends.items()]
        self._patience = systemd.watchdog_timeout()
        self._stopping_since: float | None = None
        self._told = False
        #: whether the configuration is to be read again.
        self._outdated = False
        self._selector = selectors.DefaultSelector()
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._notices.setblocking(False)
        self._address = f"@volmgr-{os.getpid()}-{secrets.token_hex(8)}"
        self._notices.bind("\0" + self._address[1:])
        self._wake, wakeup = socket.socketpair()
        for end in (self._wake, wakeup):
            end.setblocking(False)
        self._wakeup = wakeup
        for end in (self._notices, self._wake):
            self._selector.register(end, selectors.EVENT_READ)

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT and all workers have ended; returns the exit status."""
        with self._signals():
            while True:
                if self._outdated:
                    self._outdated = False
                    self._reread()
                now = time.monotonic()
                self._reap(now)
                self._start_due(now)
                self._check_watchdogs(now)
                self._tell_systemd()
                if self._stopping_since is not None and self._stopped(now):
                    return 0
                for _key, _events in self._selector.select(self._pause(now)):
                    self._listen()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        signal.signal(signal.SIGHUP, lambda *_: setattr(self, "_outdated", True))
        signal.signal(signal.SIGUSR2, lambda *_: self.meditate())
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2))
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            self._selector.close()
            for end in (self._notices, self._wake, self._wakeup):
                end.close()

    def stop(self) -> None:
        """Let every worker drain."""
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()
            systemd.notify(STOPPING=1)
            for child in self._living():
                child.process.terminate()  # type: ignore[union-attr]

    def meditate(self) -> None:
        """Let every worker that serves write what it is at; one that still starts would end of the signal."""
        for child in self._living():
            if child.ready:
                child.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]

    def _reread(self) -> None:
        """Read the configuration again: begin with new backends, leave those that went, let others follow changes.

        A configuration that cannot be used changes nothing, and a worker whose part has not changed is left alone.
        """
        if self._stopping_since is not None:
            return
        try:
            wanted = configured(self._argv)
        except _unusable() as error:
            LOG.error("The configuration stays what it was: %s", error)
            return
        for child in self.children:
            if (settings := wanted.get(child.backend)) is None:
                LOG.info("The backend %s is no longer configured, its worker drains", child.backend)
                child.leaving = True
                if child.process is not None:
                    child.process.terminate()
            elif child.leaving:
                child.leaving, child.settings = False, settings  # it drains, and is started again after that
            elif child.settings != settings:
                LOG.info("The configuration of %s has changed, its worker follows", child.backend)
                child.settings, child.failures, child.due = settings, 0, 0.0
                if child.process is not None and child.ready:
                    child.process.send_signal(signal.SIGHUP)
                    child.ready = False
                elif child.process is not None:
                    child.process.terminate()
        known = {child.backend for child in self.children}
        self.children += [Child(name, settings=text) for name, text in wanted.items() if name not in known]
        self.children = [child for child in self.children if not child.leaving or child.process is not None]

    def _living(self) -> list[Child]:
        return [child for child in self.children if child.process is not None]

    def _pause(self, now: float) -> float | None:
        """Return how long nothing can happen by itself, None for ever."""
        moments = [child.due for child in self.children if child.process is None and self._stopping_since is None]
        if self._stopping_since is not None:
            moments.append(self._stopping_since + STOP_SECONDS)
        if self._patience is not None:
            moments.append(now + self._patience / 4)
        return max(0.0, min(moments) - now) if moments else None

    def _listen(self) -> None:
        """Read what workers say, and let signals that came have their effect in the loop."""
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4096):
                continue
        with contextlib.suppress(BlockingIOError):
            while True:
                text, ancillary, _flags, _sender = self._notices.recvmsg(4096, socket.CMSG_SPACE(_CREDENTIALS.size))
                for level, kind, data in ancillary:
                    if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                        self._note(_CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0], text.decode().split("\n"))

    def _note(self, pid: int, said: list[str]) -> None:
        for child in self._living():
            if child.process.pid == pid:  # type: ignore[union-attr]
                child.fed = time.monotonic()
                if "READY=1" in said:
                    child.ready = child.settled = True

    # --- workers --------------------------------------------------------------------------------------------------

    def _reap(self, now: float) -> None:
        for child in self._living():
            code = child.process.poll()  # type: ignore[union-attr]
            if code is None:
                continue
            lived = now - child.started
            child.failures = 1 if child.ready and lived >= GOOD_SECONDS else child.failures + 1
            pause = BACKOFF[min(child.failures, len(BACKOFF)) - 1]
            child.process, child.ready, child.settled, child.due = None, False, True, now + pause
            if child.leaving:
                LOG.info("The worker of %s has ended", child.backend)
            elif self._stopping_since is None:
                LOG.error("The worker of %s ended with %s, it is started again in %s s", child.backend, code, pause)
        self.children = [child for child in self.children if not child.leaving or child.process is not None]

    def _start_due(self, now: float) -> None:
        for child in self.children:
            if child.process is not None or child.leaving or child.due > now or self._stopping_since is not None:
                continue
            environment = {key: value for key, value in os.environ.items() if key != "WATCHDOG_PID"}
            environment |= {BACKEND: child.backend, PARENT: str(os.getpid()), "NOTIFY_SOCKET": self._address}
            child.process = subprocess.Popen(
                [sys.executable, "-m", "volmgr.cmd.volume", *self._argv], stdin=subprocess.DEVNULL, env=environment
            )
            child.started = child.fed = now
            LOG.info("The worker of %s is process %d", child.backend, child.process.pid)

    def _check_watchdogs(self, now: float) -> None:
        if self._patience is None or self._stopping_since is not None:
            return
        for child in self._living():
            if child.ready and now - child.fed > self._patience:
                LOG.error("The worker of %s gave no sign of life for %d s and is ended", child.backend, self._patience)
                child.process.kill()  # type: ignore[union-attr]
        systemd.notify(WATCHDOG=1)

    def _tell_systemd(self) -> None:
        if not self._told and all(child.settled for child in self.children):
            self._told = True
            ready = sum(child.ready for child in self.children)
            systemd.notify(READY=1, STATUS=f"{ready} of {len(self.children)} workers serve")

    def _stopped(self, now: float) -> bool:
        left = self._living()
        if left and self._stopping_since is not None and now - self._stopping_since >= STOP_SECONDS:
            for child in left:
                LOG.error("The worker of %s did not drain and is ended", child.backend)
                child.process.kill()  # type: ignore[union-attr]
                child.process.wait()  # type: ignore[union-attr]
            return True
        return not left


def run(argv: Sequence[str]) -> int:
    """Check the configuration, then keep a worker for each backend; returns the exit status."""
    from volmgr import conf as config
    from volmgr import exception, logs

    try:
        conf = config.load(argv)
        backends = configured(argv)
    except exception.VolmgrError as error:
        print(f"volmgr-volume: {error}", file=sys.stderr)
        return 2
    logs.setup(conf)
    return Supervisor(argv, backends).run()


def _unusable() -> tuple[type[BaseException], ...]:
    from volmgr import exception

    return (exception.VolmgrError, SystemExit)


def configured(argv: Sequence[str]) -> dict[str, str]:
    """Return the backends that are configured now, each with what its worker's configuration is, as one text.

    What else is in the files counts for every worker, except which other backends there are.

    :raises InvalidConfiguration: the configuration cannot be used.
    """
    from volmgr import conf as config

    conf = config.load(list(argv))
    names = [backend.config_group for backend in config.backends(conf)]
    # No section is handed on to the others, as [DEFAULT] would be.
    parser = configparser.RawConfigParser(strict=False, default_section="")
    parser.read([*conf.config_file, *_in_folders(conf.config_dir)])
    shared = {name: dict(parser[name]) for name in sorted(parser.sections()) if name not in names}
    shared.get("DEFAULT", {}).pop("enabled_backends", None)
    # A worker's own port of metrics is made from its place.
    places = {name: index if conf.metrics.port else 0 for index, name in enumerate(names)}
    own = {name: dict(parser[name]) if parser.has_section(name) else {} for name in names}
    return {name: repr([shared, own[name], places[name]]) for name in names}


def _in_folders(folders: Sequence[str]) -> list[str]:
    return sorted(str(path) for folder in folders for path in Path(folder).glob("*.conf"))

# SPDX-License-Identifier: Apache-2.0
"""The daemon's life: configuration, logging, one worker, signals. Imported after the concurrency backend is chosen."""

from __future__ import annotations

import faulthandler
import functools
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from volmgr import conf as config
from volmgr import exception, killpoints, logs, systemd
from volmgr.cmd import supervisor
from volmgr.conf.backend import BackendConfiguration
from volmgr.rpc.transport import get_transport
from volmgr.service import Worker

LOG = logging.getLogger(__name__)

#: how long a stop lets operations run, and how long it may take in all.
DRAIN_SECONDS = 10.0
STOP_SECONDS = 20.0


def run(argv: list[str]) -> int:
    """Serve until a signal; returns the exit status."""
    try:
        conf = config.load(argv)
        backends = config.backends(conf)
    except exception.VolmgrError as error:
        print(f"volmgr-volume: {error}", file=sys.stderr)
        return 2
    supervisor.follow_parent()
    logs.setup(conf)
    stop = _Signals(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    try:
        worker = Worker(conf, _own(backends), killpoint=killpoints.from_environment())
        worker.open()
        _freeze()
        worker.start(get_transport(conf, conf.transport_url))
    except exception.VolmgrError as error:
        LOG.error("volmgr-volume cannot start: %s", error)
        print(f"volmgr-volume: {error}", file=sys.stderr)
        return 1
    systemd.notify(READY=1, STATUS=f"serving {worker.host}")
    stop.also(signal.SIGUSR2, lambda: _meditate(worker))
    again = _until_ended(stop, argv)
    systemd.notify(**(systemd.reloading() if again else {"STOPPING": 1}))
    end = functools.partial(_begin_again, argv) if again else _end
    guard = threading.Timer(STOP_SECONDS, _give_up, (end,))
    guard.daemon = True
    guard.start()
    drained = worker.stop(DRAIN_SECONDS)
    LOG.info("Stopped%s", "" if drained else "; what still ran is taken up by the next start")
    end()


def _until_ended(signals: _Signals, argv: list[str]) -> bool:
    """Return once the process is to end, or, with True, to begin again with a configuration that can be used."""
    while signal.SIGHUP in (came := signals.wait()) and came == {signal.SIGHUP}:
        try:
            config.backends(config.load(argv))
        except (exception.VolmgrError, SystemExit) as error:
            LOG.error("The configuration stays what it was: %s", error)
        else:
            LOG.info("The configuration is read again")
            return True
    return False


def _meditate(worker: Worker) -> None:
    from volmgr.support import meditation

    meditation.write(worker)


def _own(backends: list[BackendConfiguration]) -> BackendConfiguration:
    """Return the one backend that this process serves.

    :raises InvalidConfiguration: it is not known which.
    """
    wanted = os.environ.get(supervisor.BACKEND)
    found = [item for item in backends if wanted in (None, item.config_group)]
    if len(found) != 1:
        raise exception.InvalidConfiguration(
            reason=f"{supervisor.BACKEND} is {wanted!r}" if wanted else "it is not known which backend to serve",
            hint="Name all backends in enabled_backends of one file that --config-file names",
        )
    return found[0]


class _Signals:
    """Catches signals from its making on.

    A main thread that waits for a lock does not see a signal that the kernel gave to another of its threads; the
    interpreter's own note of it, written to a socket in whichever thread, wakes it.
    """

    def __init__(self, *numbers: int) -> None:
        self._numbers = set(numbers)
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        # Those that came while a process began again, see _begin_again, are waiting.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._numbers)
        self._also: dict[int, Callable[[], None]] = {}

    def also(self, number: int, act: Callable[[], None]) -> None:
        """Act on a further signal, in the thread that waits."""
        self._also[number] = act
        signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))

    def wait(self) -> set[int]:
        """Return those that have come, also before, once one has."""
        while True:
            select.select([self._reader], [], [])
            seen = set(self._reader.recv(64))
            for number in seen & set(self._also):
                self._also[number]()
            if came := self._numbers & seen:
                return came


def _freeze() -> None:
    """Leave what is loaded by now out of garbage collection: a full one would hold up every request for 50 ms."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _give_up(end: Callable[[], NoReturn]) -> None:
    """End a stop that does not end; where each thread waits is written for whoever looks into it."""
    LOG.error("The stop took more than %d s; what still ran is taken up by the next start", STOP_SECONDS)
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    end()


def _begin_again(argv: list[str]) -> NoReturn:
    """Let this very process begin anew, with what the configuration says now; its exports are served meanwhile."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # A signal that comes before the new image has its handlers would end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2))
    os.execv(sys.executable, [sys.executable, "-m", "volmgr.cmd.volume", *argv])  # noqa: S606 - itself


def _end() -> NoReturn:
    """End the process at once.

    Whatever is to last is in the journal. A library's thread that waits for a connection that is closed already must
    not keep the process: interpreters wait for their threads without an end.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)

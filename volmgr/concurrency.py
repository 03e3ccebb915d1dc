# SPDX-License-Identifier: Apache-2.0
"""Chooses green threads or native threads, once, before anything else is imported.

Every console script calls :func:`setup` as its very first act. Nothing else in volmgr imports eventlet: code is
written against ``threading``, ``queue`` and ``socket``, which eventlet replaces when it is chosen. This module knows
nothing of volumes, configuration objects or RPC.
"""

from __future__ import annotations

import _queue
import _thread
import configparser
import os
import threading
import warnings
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

BACKENDS = ("eventlet", "threading")
DEFAULT = "eventlet"
ENVIRONMENT = "VOLMGR_CONCURRENCY"

P = ParamSpec("P")
R = TypeVar("R")

_chosen: str | None = None


def choose(config_files: list[str] | None = None) -> str:
    """Return the backend to use: the environment, then ``[DEFAULT] concurrency_backend``, then eventlet.

    The file is read with configparser, because oslo.config must not be imported before the choice is made.

    :param config_files: paths of oslo config files, later ones win.
    :raises ValueError: the value is none of :data:`BACKENDS`.
    """
    value = os.environ.get(ENVIRONMENT)
    source = f"environment variable {ENVIRONMENT}"
    if not value:
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read(config_files or [])
        value = parser.defaults().get("concurrency_backend", DEFAULT)
        source = "option concurrency_backend"
    if value not in BACKENDS:
        raise ValueError(f"{source} is {value!r}; it must be one of {', '.join(BACKENDS)}")
    return value


def setup(backend: str | None = None) -> str:
    """Put the process on ``backend`` for its whole life; a repeat with the same backend changes nothing.

    :param backend: ``eventlet``, ``threading`` or None for :func:`choose`.
    :returns: the backend that is in force.
    :raises RuntimeError: another backend was chosen before.
    """
    global _chosen
    backend = backend or choose()
    if _chosen is not None:
        if _chosen != backend:
            raise RuntimeError(f"the process already runs on {_chosen}, it cannot change to {backend}")
        return _chosen
    if backend not in BACKENDS:
        raise ValueError(f"concurrency backend {backend!r} is none of {', '.join(BACKENDS)}")
    # eventlet announces its own deprecation at import; the operator chose it and is told so in the documentation.
    # oslo libraries import it in threading mode as well, and announce the end of their own support for it.
    warnings.filterwarnings("ignore", message=r"(?s)\s*Eventlet is deprecated", category=Warning)
    warnings.filterwarnings("ignore", message=r"(?s).*[Ee]ventlet", category=DeprecationWarning)
    if backend == "eventlet":
        # Its own resolver costs 25 MB and a tenth of a second; addresses of brokers and databases are resolved seldom.
        os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")
        import eventlet

        eventlet.monkey_patch()
    _chosen = backend
    return backend


def is_green() -> bool:
    """Return whether threads are green threads."""
    return _chosen == "eventlet"


def offload(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a call that blocks in the kernel (fsync, FICLONE, copy_file_range) without stopping the other threads.

    Under native threads that is a plain call; under eventlet it goes to a native thread of eventlet's pool.
    ``function`` must not use locks, sockets or queues that green threads use as well.

    :returns: what ``function`` returns; its exceptions pass through.
    """
    if not is_green():
        return function(*args, **kwargs)
    from eventlet import tpool

    result: R = tpool.execute(function, *args, **kwargs)
    return result


class Call(Generic[R]):
    """A call that the kernel may hold for ever, on a native thread of its own; the caller need not wait for its end.

    eventlet's pool has a fixed number of threads, so a few calls that hang would stop every :func:`offload`. A thread
    whose call has ended waits for the next one; one whose call hangs is missed by nobody.

    :param function: called at once. It must not use what green threads use as well, see :func:`offload`.
    """

    def __init__(self, function: Callable[[], R]) -> None:
        self._function = function
        self._outcome: list[R] = []
        self._failure: list[BaseException] = []
        self._ended = _Bell()
        self.done = False
        try:
            worker = _idle.pop()
        except IndexError:
            worker = _Worker()
        worker.give(self)

    def result(self, timeout: float) -> R:
        """Wait for the end; to be called once.

        :param timeout: seconds. :returns: what the function returned; its exceptions pass through.
        :raises TimeoutError: it has not ended; it goes on, see :attr:`done`.
        """
        self._ended.wait(timeout)
        if self._failure:
            raise self._failure[0]
        return self._outcome[0]

    def run(self) -> None:
        """Do it, on the native thread."""
        try:
            self._outcome.append(self._function())
        except BaseException as error:
            self._failure.append(error)

    def end(self) -> None:
        """Tell whoever waits, on the native thread."""
        self.done = True
        self._ended.ring()


class _Bell:
    """Rung once by a native thread, waited for once by a green or a native one."""

    def __init__(self) -> None:
        self._reader = self._writer = -1
        if is_green():
            self._reader, self._writer = os.pipe()
        else:
            self._lock = threading.Lock()
            self._lock.acquire()

    def ring(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)  # the reader's end becomes readable, which wakes the hub
        else:
            self._lock.release()

    def wait(self, timeout: float) -> None:
        if self._reader < 0:
            if not self._lock.acquire(timeout=timeout):
                raise TimeoutError
            return
        from eventlet import hubs

        try:
            hubs.trampoline(self._reader, read=True, timeout=timeout, timeout_exc=TimeoutError)
        finally:
            os.close(self._reader)


class _Worker:
    """A native thread that does one call after the other."""

    def __init__(self) -> None:
        if is_green():
            from eventlet import patcher

            start: Any = patcher.original("_thread").start_new_thread
        else:
            start = _thread.start_new_thread
        # Of C, so nothing in it is a green thread's.
        self._calls: _queue.SimpleQueue[Call[Any]] = _queue.SimpleQueue()
        start(self._run, ())

    def give(self, call: Call[Any]) -> None:
        self._calls.put(call)

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            call.run()
            _idle.append(self)
            call.end()
            del call


_idle: list[_Worker] = []
# A child has none of its parent's threads.
os.register_at_fork(after_in_child=_idle.clear)


def momentary_lock() -> Any:
    """Return a lock for a few statements that never wait, taken by green threads and by native ones beside them."""
    if not is_green():
        return _thread.allocate_lock()
    from eventlet import patcher

    original: Any = patcher.original("_thread")
    return original.allocate_lock()


def init_service_backend() -> None:
    """Tell oslo.service which backend to use; called by the daemon only, as it costs an import."""
    from oslo_service import backend as service_backend

    kind = service_backend.BackendType.EVENTLET if is_green() else service_backend.BackendType.THREADING
    service_backend.init_backend(kind)


def config_files_of(argv: list[str]) -> list[str]:
    """Return the config files that ``argv`` names, for :func:`choose`; what oslo.config would find by default is added.

    :param argv: the command line without the program's name.
    """
    files: list[str] = []
    for index, word in enumerate(argv):
        if word == "--config-file" and index + 1 < len(argv):
            files.append(argv[index + 1])
        elif word.startswith("--config-file="):
            files.append(word.split("=", 1)[1])
    return files or ["/etc/volmgr/volmgr.conf"]

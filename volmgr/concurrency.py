# SPDX-License-Identifier: Apache-2.0
"""Chooses green threads or native threads, once, before anything else is imported.

Every console script calls :func:`setup` as its very first act. Nothing else in volmgr imports eventlet: code is
written against ``threading``, ``queue`` and ``socket``, which eventlet replaces when it is chosen. This module knows
nothing of volumes, configuration objects or RPC.
"""

from __future__ import annotations

import configparser
import os
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

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


def own_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a call that the kernel may hold for ever; as :func:`offload`, but nobody else waits for its thread.

    eventlet's pool has a fixed number of threads: a few calls that hang would stop every other :func:`offload`. The
    call gets a native thread that is made for it. Under native threads that is a plain call. It has no deadline of its
    own: a caller that wants one starts a thread for it and waits for that.

    :returns: what ``function`` returns; its exceptions pass through.
    """
    if not is_green():
        return function(*args, **kwargs)
    from eventlet import hubs, patcher

    outcome: list[R] = []
    failure: list[BaseException] = []
    reader, writer = os.pipe()

    def run() -> None:
        try:
            outcome.append(function(*args, **kwargs))
        except BaseException as error:
            failure.append(error)
        finally:
            os.close(writer)  # which wakes the hub

    try:
        patcher.original("_thread").start_new_thread(run, ())
        hubs.trampoline(reader, read=True)
    finally:
        os.close(reader)
    if failure:
        raise failure[0]
    return outcome[0]


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



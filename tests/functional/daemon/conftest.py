# SPDX-License-Identifier: Apache-2.0
"""A real daemon per test, on the simulator or on files with tgt."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr.testing.daemon import Client, Daemon, tgtds


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Make daemons that are ended with the test, whatever happens."""
    made: list[Daemon] = []

    def make(name: str = "node", **kwargs: Any) -> Daemon:
        daemon = Daemon(tmp_path / name, **kwargs)
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        if daemon.process is not None and daemon.process.poll() is None:
            os.kill(daemon.process.pid, signal.SIGKILL)
            daemon.process.wait()
        for pid in tgtds(daemon):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A started daemon on the simulator."""
    return make_daemon().start()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    """A client of ``daemon``."""
    with daemon.client() as made:
        yield made

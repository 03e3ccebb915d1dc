# SPDX-License-Identifier: Apache-2.0
"""Real server processes and clients for the tests of the unix transport."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg
from stevedore import ExtensionManager

from volmgr.rpc.transport import get_transport

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = Path(__file__).with_name("unix_echo_server.py")


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Return the first true value of ``condition``; fail when there is none in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
    return value


@pytest.fixture(scope="session")
def python_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The search path of child processes, on which the driver can be found even if volmgr is not installed."""
    entries = importlib.metadata.entry_points(group="oslo.messaging.drivers", name="unix")
    if entries:
        yield str(ROOT)
        return
    extra = tmp_path_factory.mktemp("entry-point")
    info = extra / "volmgr_checkout-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: volmgr-checkout\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[oslo.messaging.drivers]\nunix = volmgr.rpc.unix_transport:UnixDriver\n")
    sys.path.insert(0, str(extra))
    ExtensionManager.ENTRY_POINT_CACHE.clear()
    yield f"{extra}{os.pathsep}{ROOT}"
    sys.path.remove(str(extra))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of the sockets; the first server makes it."""
    return tmp_path / "rpc"


class ServerProcess:
    """A running ``unix_echo_server.py``."""

    def __init__(self, directory: Path, name: str, python_path: str, options: dict[str, Any]) -> None:
        command = [sys.executable, "-W", "ignore", str(SCRIPT), f"unix://{directory}", name, json.dumps(options)]
        self._log = open(directory.parent / f"{name}.log", "a+", encoding="utf-8")  # noqa: SIM115  closed in end()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONPATH": python_path},
        )
        self.pid = self.process.pid
        self.expect("ready")

    def expect(self, word: str) -> None:
        """Read the next line of the process."""
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        assert line == word, self.log()

    def log(self) -> str:
        """Return what the process wrote to its standard error."""
        self._log.seek(0)
        return self._log.read()

    def ask_to_stop(self) -> None:
        """Begin a clean stop."""
        assert self.process.stdin
        self.process.stdin.close()

    def kill(self) -> None:
        """SIGKILL, and wait until the process has gone."""
        self.process.kill()
        self.process.wait(timeout=20)

    def end(self) -> None:
        """Stop it whatever state it is in."""
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdin, self.process.stdout, self._log):
            if stream:
                stream.close()


@pytest.fixture
def serve(directory: Path, python_path: str) -> Iterator[Callable[..., ServerProcess]]:
    """Start servers: ``serve("a", topic="t", workers=2, conf={...}, mode="eventlet")``."""
    servers: list[ServerProcess] = []

    def start(name: str = "s1", where: Path | None = None, **options: Any) -> ServerProcess:
        servers.append(ServerProcess(where or directory, name, python_path, options))
        return servers[-1]

    yield start
    for server in servers:
        server.end()


@pytest.fixture
def connect(directory: Path, python_path: str) -> Iterator[Callable[..., Any]]:
    """Make RPC clients: ``connect(server="s1")``; options of [unix_transport] go in ``conf``."""
    transports: list[Any] = []

    def make(
        server: str | None = None, topic: str = "t", where: Path | None = None, conf: dict[str, Any] | None = None
    ) -> Any:
        settings = cfg.ConfigOpts()
        settings([], project="volmgr", default_config_files=[])
        url = f"unix://{where or directory}"
        transports.append(get_transport(settings, url))
        for key, value in (conf or {}).items():
            settings.set_override(key, value, group="unix_transport")
        transports.append(get_transport(settings, url))
        target = oslo_messaging.Target(topic=topic, server=server)
        return oslo_messaging.get_rpc_client(transports[-1], target)

    yield make
    for transport in transports:
        transport.cleanup()

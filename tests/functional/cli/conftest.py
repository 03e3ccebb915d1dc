# SPDX-License-Identifier: Apache-2.0
"""The real daemon on its embedded defaults, with a state folder of its own, and the real command line beside it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from volmgr.testing.waiting import wait_until
from volmgr.tools.tgtd import Tgtd
from volmgr.types import Portal

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 180.0  # a guest under User Mode Linux is slow


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


class Site:
    """One daemon and the command line that talks to it.

    :param folder: the state folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.env = {
            **os.environ,
            "OS_DEFAULT__STATE_PATH": str(folder),
            "OS_BACKEND_DEFAULTS__TARGET_IP_ADDRESS": "127.0.0.1",
            "OS_BACKEND_DEFAULTS__TARGET_PORT": str(self.port),
            "OS_BACKEND_DEFAULTS__TRASH_RETENTION": "3600",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def volmgr(self, *argv: str, stdin: str = "") -> Done:
        """Run one command to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "volmgr.cli.app", *argv],
            cwd=ROOT, env=self.env, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self) -> None:
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "volmgr.cmd.volume"],
                cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        wait_until(self._is_up, SECONDS, f"the daemon is up, see {self.folder}/daemon.log")

    def _is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "daemon.log").read_text()
        done = self.volmgr("service", "list", "-f", "json")
        return done.code == 0 and any(row["up"] for row in json.loads(done.out))

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(SECONDS)
            self.process = None
        # It outlives the daemon on purpose, for its initiators.
        Tgtd(str(self.folder / "embedded" / "target"), (Portal("127.0.0.1", self.port),)).stop()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="volmgr-cli-") as folder:
        made = Site(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture
def volume(site: Site) -> Iterator[Callable[..., dict[str, Any]]]:
    """Return a function that makes a volume; all are deleted afterwards."""
    made: list[str] = []

    def make(*argv: str) -> dict[str, Any]:
        row: dict[str, Any] = site.volmgr("volume", "create", "--wait", "-f", "json", *argv).json
        made.append(row["id"])
        return row

    yield make
    for item in made:
        site.volmgr("volume", "delete", "--force", "--cascade", "--wait", item)

# SPDX-License-Identifier: Apache-2.0
"""volmgr-manage as a process, against a real database: what it prints, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from volmgr.db import schema
from volmgr.testing import database as testing
from volmgr.testing.servers import ServerUnavailable
from volmgr.testing.servers.pytest_fixtures import unavailable

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    try:
        url = testing.empty_database_url(testing.kind_asked_for())
    except ServerUnavailable as error:
        unavailable(str(error))
    path = tmp_path / "volmgr.conf"
    path.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\n[database]\nconnection = {url}\n")

    def _run(*words: str, config: str = str(path)) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-W", "ignore", "-m", "volmgr.cmd.manage", "--config-file", config, *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)

    return _run


def test_upgrade_version_check(run: Run) -> None:
    assert run("db", "version").stdout == "none\n"
    refused = run("db", "check")
    assert refused.returncode == 1
    assert "Run: volmgr-manage db upgrade" in refused.stderr
    assert "Traceback" not in refused.stderr
    for _ in range(2):
        done = run("db", "upgrade")
        assert (done.returncode, done.stdout) == (0, f"{schema.HEAD}\n"), done.stderr
    assert run("db", "version").stdout == f"{schema.HEAD}\n"
    assert run("db", "check").returncode == 0


@pytest.mark.parametrize("words", [(), ("db",), ("db", "drop"), ("--what",)])
def test_bad_usage_is_2(run: Run, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert "usage: volmgr-manage" in done.stderr


def test_a_wrong_configuration_is_told_without_a_traceback(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "wrong.conf"
    path.write_text("[DEFAULT]\nmax_volume_size = 0\n[database]\nconnection = oracle://u:hidden-word@h/x\n")
    done = run("db", "version", config=str(path))
    assert done.returncode == 1
    assert "max_volume_size" in done.stderr
    assert "Traceback" not in done.stderr
    path.write_text("[database]\nconnection = oracle://u:hidden-word@h/x\n")
    done = run("db", "version", config=str(path))
    assert done.returncode == 1
    assert "names no database" in done.stderr
    assert "hidden-word" not in done.stderr + done.stdout

# SPDX-License-Identifier: Apache-2.0
"""Runs the tests of ``inside.py`` in a mount namespace: os-brick's connector with real block devices."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr.testing.storpool import namespace

#: The host is a process of its own, which waits for nobody but the service.
pytestmark = pytest.mark.once
INSIDE = Path(__file__).with_name("inside.py")
ROOT = Path(__file__).parents[3]


def _tests() -> Iterator[str]:
    """Return the names of the tests inside; they are only read here, not run."""
    yield from re.findall(r"^def (test_\w+)", INSIDE.read_text(), re.MULTILINE)


def test_os_brick_attaches_what_the_driver_connects(tmp_path: Path) -> None:
    if reason := namespace.missing():
        if os.environ.get("VOLMGR_STRICT", "") not in ("", "0"):
            pytest.fail(f"cannot run here: {reason}")
        pytest.skip(reason)
    private = tmp_path / "private"
    private.mkdir()
    options = ["-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "inside"), "--rootdir", str(ROOT)]
    argv = [sys.executable, "-m", "pytest", *options, str(INSIDE)]
    done = subprocess.run(
        namespace.command(private, argv), capture_output=True, text=True, cwd=ROOT, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(list(_tests()))} passed" in done.stdout
    assert not Path("/etc/storpool.conf").exists() or "contract" not in Path("/etc/storpool.conf").read_text()
    left = subprocess.run(["losetup", "--list", "--noheadings"], capture_output=True, text=True, timeout=30, check=True)
    assert str(tmp_path) not in left.stdout

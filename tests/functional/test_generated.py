# SPDX-License-Identifier: Apache-2.0
"""What is generated and kept: man pages, completion, the options' sample; and the release notes' form."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.once


def run(*argv: str) -> str:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _text(path: Path) -> list[str]:
    # The head of a page names the versions of what made it.
    return [line for line in path.read_text().splitlines() if not line.startswith((".\\\"", "'\\\""))]


def test_the_man_pages_are_what_the_documentation_says(tmp_path: Path) -> None:
    run(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "man", "-d", str(tmp_path / "trees"),
        "doc/source", str(tmp_path / "man"))
    made = {path.name: _text(path) for path in (tmp_path / "man").glob("*.[18]")}
    kept = {path.name: _text(path) for path in (ROOT / "doc" / "man").glob("*.[18]")}
    assert set(kept) == {"volmgr.1", "volmgr-manage.8", "volmgr-status.8", "volmgr-volume.8"}
    assert kept == made, "run: make genman"


def test_the_completion_knows_every_command() -> None:
    kept = (ROOT / "etc" / "bash_completion.d" / "volmgr").read_text()
    assert run(sys.executable, "-m", "volmgr.cli.app", "complete") == kept, "run: make gencompletion"


def test_the_release_notes_can_be_read() -> None:
    run("reno", "lint")

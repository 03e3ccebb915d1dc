# SPDX-License-Identifier: Apache-2.0
"""volmgr-status against the database and the key file that a real daemon has made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def check(env: dict[str, str]) -> tuple[int, dict[str, str]]:
    argv = [sys.executable, "-m", "volmgr.cmd.status", "upgrade", "check", "--json"]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    found = json.loads(done.stdout)
    return done.returncode, {item["check"]: str(item["result"]) for item in found["checks"]}


def test_a_running_deployment_is_ready(site: Any) -> None:
    code, found = check(site.env)
    assert set(found) == {"configuration", "database schema", "key file", "journal"}
    assert code == 0, found


def test_another_key_file_is_a_failure(site: Any, tmp_path: Path) -> None:
    from volmgr import crypto

    foreign = tmp_path / "keys.json"
    crypto.create_key_file(str(foreign))
    code, found = check({**site.env, "OS_DEFAULT__KEY_FILE": str(foreign)})
    assert code == 2
    assert found["key file"] != found["configuration"]


def test_an_empty_state_folder_has_no_schema_yet(site: Any, tmp_path: Path) -> None:
    code, _found = check({**site.env, "OS_DEFAULT__STATE_PATH": str(tmp_path)})
    assert code == 1
    assert list(tmp_path.iterdir()) == []

# SPDX-License-Identifier: Apache-2.0
"""The unit files: how much they leave open, and that what the documentation says of them is so."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from volmgr.testing.privileges import UNIT, UNITS, capabilities, setpriv, settings

#: the most that systemd-analyze may say of a unit, times ten.
THRESHOLD = 30
DROP_INS = sorted((UNITS / "drop-ins").glob("*.conf"))


@pytest.mark.parametrize("drop_in", [None, *DROP_INS], ids=lambda path: path.name if path else "alone")
@pytest.mark.parametrize("unit", sorted(UNITS.glob("*.service")), ids=lambda path: path.name)
def test_a_unit_leaves_little_open(
    unit: Path, drop_in: Path | None, require: Callable[..., str], tmp_path: Path
) -> None:
    program = require("systemd-analyze", "systemd")
    merged = tmp_path / unit.name  # what a drop-in says comes after what the unit says
    merged.write_text(unit.read_text() + (drop_in.read_text() if drop_in else ""))
    argv = [program, "security", "--offline=true", f"--threshold={THRESHOLD}", "--no-pager", str(merged)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_daemon_is_a_user_without_rights() -> None:
    said = settings(UNIT)
    assert said["User"] == ["volmgr"]
    assert said["NoNewPrivileges"] == ["yes"]
    assert capabilities("CapabilityBoundingSet", UNIT) == capabilities("AmbientCapabilities", UNIT) == []
    assert setpriv([UNIT], 5) == [
        "setpriv", "--no-new-privs", "--bounding-set=-all", "--reuid=5", "--regid=5", "--clear-groups",
        "--inh-caps=-all", "--ambient-caps=-all", "--",
    ]  # fmt: skip
    lvm = setpriv([UNIT, UNITS / "drop-ins" / "lvm-lio.conf"])
    assert "--bounding-set=-all,+sys_admin" in lvm


def test_the_page_names_every_right_and_no_other() -> None:
    page = (UNITS.parents[1] / "doc" / "source" / "privileges.rst").read_text()
    rights = set(capabilities("CapabilityBoundingSet", UNIT, *DROP_INS))
    assert set(re.findall(r"^``(CAP_[A-Z_]+)``", page, re.MULTILINE)) == rights

# SPDX-License-Identifier: Apache-2.0
"""The driver of the guide for those who write one: it keeps the contract, and the suite notices when it does not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "doc" / "source" / "examples"


def suite(folder: Path, *options: str) -> tuple[int, str]:
    """Install the driver of a folder as a distribution would be, and run the suite over it as the guide says."""
    info = folder / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[volmgr.drivers]\nacme = acme:AcmeDriver\n[volmgr.conformance]\nacme = acme_factory:Acme\n"
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-rs", "-p", "volmgr.testing.conformance.plugin",
            "-p", "no:cacheprovider", "--driver-factory", "acme", "--pyargs", "volmgr.testing.conformance.suite",
            *options,
        ],
        cwd=folder, env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}, capture_output=True, text=True, timeout=120,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.once
def test_the_guides_driver_conforms(tmp_path: Path) -> None:
    for name in ("acme.py", "acme_factory.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    code, said = suite(tmp_path)
    assert code == 0, said
    assert int(re.findall(r"(\d+) passed", said)[0]) >= 25, said
    reasons = re.findall(r"^SKIPPED \[\d+\] [^:]+:\d+: (.*)$", said, re.MULTILINE)
    assert reasons and all(reason.startswith("does not apply: ") for reason in reasons), said


@pytest.mark.once
def test_a_driver_that_takes_what_it_finds_does_not_conform(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "acme_factory.py", tmp_path)
    text = (EXAMPLES / "acme.py").read_text()
    broken = text.replace("            making.expect(resource.name, self._mark(path), making.mark())\n", "")
    assert broken != text
    (tmp_path / "acme.py").write_text(broken)
    code, said = suite(tmp_path, "-k", "TestOrphans or TestVolumes")
    assert code == 1 and "failed" in said, said

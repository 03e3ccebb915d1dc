# SPDX-License-Identifier: Apache-2.0
"""What the tests inside a guest share: a volume group, and the proof that each module leaves nothing in the kernel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import LoopGroup, loop_group


def kernel_leftovers() -> list[str]:
    """Return everything that a storage test can forget in the kernel."""
    devices = [line for line in run("dmsetup", "ls").splitlines() if line.strip() != "No devices found"]
    return [*lio.leftovers(), *initiator.sessions(), *devices, *run("losetup", "--list", "--noheadings").splitlines()]


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail the module that leaves a target, a session, a device-mapper or a loop device behind."""
    yield
    assert kernel_leftovers() == []


@pytest.fixture(scope="module")
def group(nothing_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopGroup]:
    """A volume group with a thin pool, for all tests of the module."""
    folder: Path = tmp_path_factory.mktemp("group")
    with loop_group(folder, "lab") as made:
        yield made


# --- the matrix of the driver conformance suite ---------------------------------------------------------------------

_KIND = re.compile(
    r"\[(?:(?P<target>lio|tgt)-)?(?P<kind>lvm-(?:thin-mirrored|thick|thin|mirrored))(?:-(?P<behind>lio|tgt))?(?:-.*)?\]$"
)
_results: dict[tuple[str, str], Counter[str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what each kind of driver has passed, alone and with each target."""
    match = _KIND.search(report.nodeid)
    if match is None or (report.when != "call" and report.outcome == "passed"):
        return
    column = match["target"] or match["behind"] or "driver"
    _results.setdefault((match["kind"], column), Counter())[report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the matrix, if there is one."""
    if not _results:
        return
    terminalreporter.section("conformance matrix: passed / failed / does not apply")
    columns = ("driver", "lio", "tgt")
    terminalreporter.write_line(f"{'':20}" + "".join(f"{column:>16}" for column in columns))
    for kind in sorted({kind for kind, _column in _results}):
        cells = []
        for column in columns:
            counts = _results.get((kind, column))
            text = "-" if counts is None else f"{counts['passed']} / {counts['failed']} / {counts['skipped']}"
            cells.append(f"{text:>16}")
        terminalreporter.write_line(f"{kind:20}" + "".join(cells))

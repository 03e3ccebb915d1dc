# SPDX-License-Identifier: Apache-2.0
"""What the tests inside a guest share: a volume group, and the proof that each module leaves nothing in the kernel."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from volmgr.testing.lab import leftovers
from volmgr.testing.lab.loopgroup import LoopGroup, loop_group


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a test has in the extended run only for one of its parameters' values."""
    for item in items:
        call = getattr(item, "callspec", None)
        values = {str(value) for value in call.params.values()} if call else set()
        if any(mark.args[0] in values for mark in item.iter_markers("extended_on")):
            item.add_marker("extended")


@pytest.fixture(autouse=True)
def told(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Put into the report which driver and target a module is about, where its parameters do not say so."""
    for key in ("driver", "target"):
        if (value := getattr(request.module, f"MATRIX_{key.upper()}", None)) is not None:
            record_property(key, value)


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail the module that leaves a target, a session, a device-mapper or a loop device behind, and take that away."""
    yield
    left = leftovers.found()
    if left:
        leftovers.sweep()
    assert left == []


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

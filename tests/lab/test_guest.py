# SPDX-License-Identifier: Apache-2.0
"""Runs a few tests of ``inside`` in two guests at once, tells each outcome, then looks at what the machine kept of it.

All of ``inside`` is a tier of its own.
"""

from __future__ import annotations

import concurrent.futures
import sys
import tempfile
from pathlib import Path

import pytest

from volmgr.testing.lab import errors, report
from volmgr.testing.lab.guest import GuestResult, GuestSpec, living, run_guest

INSIDE = Path(__file__).with_name("inside")

# One boot of each for everything inside.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def results() -> list[GuestResult]:
    spec = GuestSpec(("-m", "lab", "-v", str(INSIDE / "test_smoke.py")), memory_mib=512, cwd=INSIDE.parents[2])
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            sinks = (lambda data: sys.stdout.write(data.decode(errors="replace")), len)
            return list(pool.map(lambda sink: run_guest(spec, sink), sinks))
    except errors.LabUnavailable as error:
        pytest.skip(error.message)


@pytest.fixture(scope="module")
def result(results: list[GuestResult]) -> GuestResult:
    return results[0]


def test_every_test_that_ran_inside_is_told(result: GuestResult, subtests: pytest.Subtests) -> None:
    print(report.table(result.cases))
    assert result.cases, f"pytest made no report in the guest, exit status {result.status}\n{result.kernel_log}"
    for case in result.cases:
        with subtests.test(msg=case.name):
            if case.outcome == report.SKIPPED:
                pytest.skip(case.detail)
            assert case.outcome == report.PASSED, case.detail
    assert result.status == pytest.ExitCode.OK


def test_changes_inside_are_not_on_the_machine(result: GuestResult) -> None:
    assert any(case.name.endswith("::test_changes_are_discarded") for case in result.cases)
    name = f"volmgr-lab-marker-{result.name}"
    for folder in (Path("/etc"), Path("/var"), Path("/tmp"), Path("/usr"), INSIDE.parents[2], Path.home()):
        assert not (folder / name).exists()


def test_nothing_of_the_guest_is_left(result: GuestResult) -> None:
    assert not Path(tempfile.gettempdir(), result.name).exists()
    assert not living(result.process_group)


def test_two_guests_do_not_know_of_each_other(results: list[GuestResult]) -> None:
    assert [each.status for each in results] == [0, 0]
    assert len({each.name for each in results}) == 2
    assert all(case.outcome == report.PASSED for each in results for case in each.cases)

# SPDX-License-Identifier: Apache-2.0
"""Runs a few tests of ``inside`` in a guest, tells each outcome, then looks at what the machine kept of it.

All of ``inside`` is a tier of its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from volmgr.testing.lab import errors, report
from volmgr.testing.lab.guest import GuestResult, GuestSpec, run_guest

INSIDE = Path(__file__).with_name("inside")

# One boot for everything inside.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def result() -> GuestResult:
    spec = GuestSpec(("-m", "lab", "-v", str(INSIDE / "test_smoke.py")), cwd=INSIDE.parents[2])
    try:
        return run_guest(spec, lambda data: sys.stdout.write(data.decode(errors="replace")))
    except errors.LabUnavailable as error:
        pytest.skip(error.message)


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
    with pytest.raises(ProcessLookupError):
        os.killpg(result.process_group, 0)

# SPDX-License-Identifier: Apache-2.0
"""How the harness tells the bad ends of a guest apart."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from volmgr.testing.lab import errors, guest, report
from volmgr.testing.lab.commands import wait_until
from volmgr.testing.lab.guest import GuestResult, GuestSpec, run_guest

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]

#: They need nothing of what the suite shares, whose imports take half of such a guest's time.
FAULTS = (str(HERE / "faults"), "-q", "--noconftest")


@pytest.fixture(autouse=True)
def lab(request: pytest.FixtureRequest) -> None:
    if "without_guest" not in request.fixturenames:
        try:
            guest.require_programs()
        except errors.LabUnavailable as error:
            pytest.skip(error.message)


@pytest.fixture
def without_guest() -> None:
    """Marks the tests that need no guest."""


def _fault(name: str, timeout_seconds: float = 120.0, output: bytearray | None = None) -> GuestResult:
    spec = GuestSpec((*FAULTS, "-k", name), timeout_seconds=timeout_seconds, cwd=CHECKOUT)
    return run_guest(spec, output.extend if output is not None else len)


def _guests_in(folder: Path) -> list[str]:
    """Return the processes of guests whose results folder is below ``folder``."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in process.read_bytes():
                found.append(process.parent.name)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since it was listed
    return found


@pytest.fixture
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of this test's own, to see what a guest leaves in it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_failing_test_is_pytest_s_exit_status(private_tmp: Path) -> None:
    result = _fault("fail")
    assert result.status == pytest.ExitCode.TESTS_FAILED
    assert [case.outcome for case in result.cases] == [report.FAILED]
    assert f"as asked, in guest {result.name}" in result.cases[0].detail


def test_panic_is_told_with_the_kernel_s_words(private_tmp: Path) -> None:
    with pytest.raises(errors.GuestDied, match="Kernel panic - not syncing: sysrq triggered crash"):
        _fault("panic")
    assert _guests_in(private_tmp) == []
    assert list(private_tmp.iterdir()) == []


def test_guest_that_vanishes_is_no_success(private_tmp: Path) -> None:
    with pytest.raises(errors.GuestDied, match="without an exit status"):
        _fault("vanish")


def test_deadline_ends_a_hanging_guest(private_tmp: Path) -> None:
    output = bytearray()
    with pytest.raises(errors.GuestTimedOut):
        _fault("hang", timeout_seconds=15.0, output=output)
    assert b"the test has begun" in output
    assert _guests_in(private_tmp) == []
    assert list(private_tmp.iterdir()) == []


def test_killed_harness_takes_its_guest_along(private_tmp: Path) -> None:
    command = [sys.executable, "-m", "volmgr.testing.lab", "--", *FAULTS, "-k", "hang"]
    environment = {**os.environ, "TMPDIR": str(private_tmp)}
    with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE) as harness:
        assert harness.stdout is not None
        assert harness.stdout.readline() == b"the test has begun\n"
        assert _guests_in(private_tmp)
        harness.kill()
    wait_until(lambda: _guests_in(private_tmp) == [], "the guest is gone")
    wait_until(lambda: list(private_tmp.iterdir()) == [], "its folder is gone")


def test_start_has_a_deadline_of_its_own(private_tmp: Path) -> None:
    spec = GuestSpec((str(HERE / "faults"),), boot_timeout_seconds=0.0, cwd=CHECKOUT)
    with pytest.raises(errors.BootFailed):
        run_guest(spec, len)
    assert _guests_in(private_tmp) == []


def test_command_passes_on_status_output_and_coverage(tmp_path: Path) -> None:
    options = ["--memory", "512", "--cov", "--cov-file", str(tmp_path / "cov"), "--junit", str(tmp_path / "junit.xml")]
    command = [sys.executable, "-m", "volmgr.testing.lab", *options, "--", "tests/lab/inside/test_smoke.py", "-q"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "passed" in done.stdout
    assert "Linux version" not in done.stdout
    assert {case.outcome for case in report.parse((tmp_path / "junit.xml").read_bytes())} == {report.PASSED}
    shown = [
        sys.executable,
        "-m",
        "coverage",
        "report",
        "--data-file",
        str(tmp_path / "cov"),
        "--include",
        "*/lab/commands.py",
    ]
    assert (
        "commands.py"
        in subprocess.run(shown, cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=60).stdout
    )


def test_missing_program_names_its_package(without_guest: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(guest.PACKAGES, "no-such-program", "some-package")
    monkeypatch.delenv(guest.GUEST_ENV, raising=False)
    with pytest.raises(errors.LabUnavailable, match=r"no-such-program \(package some-package\)"):
        guest.require_programs()


def test_report_tells_each_outcome(without_guest: None) -> None:
    xml = (
        b'<testsuites><testsuite><testcase classname="m" name="a" time="0.5"/>'
        b'<testcase classname="m" name="b"><failure message="no">why</failure></testcase>'
        b'<testcase classname="m" name="c"><skipped message="not here"/></testcase>'
        b'<testcase classname="m" name="d"><failure message="no"/><error message="worse"/></testcase>'
        b"</testsuite></testsuites>"
    )
    assert [case.outcome for case in report.parse(xml)] == [report.PASSED, report.FAILED, report.SKIPPED, report.ERROR]
    assert [case.detail for case in report.parse(xml)] == ["", "no\nwhy", "not here", "worse"]
    assert report.matrix(report.parse(xml)) == ""
    assert report.table(report.parse(xml)).splitlines()[0].split() == ["passed", "0.5", "s", "m::a"]


def test_matrix_tells_driver_and_target(without_guest: None) -> None:
    xml = (
        b'<testsuites><testsuite><testcase classname="m" name="a[lvm-thick]"/>'
        b'<testcase classname="m" name="a[lvm-mirrored]"><skipped message="does not apply: to it"/></testcase>'
        b'<testcase classname="m" name="b[lvm-mirrored]"><skipped message="no such program"/></testcase>'
        b'<testcase classname="m" name="c[lvm-mirrored]"><error message="no"/></testcase>'
        b'<testcase classname="m" name="b[lvm-thin-lio]"/><testcase classname="m" name="c[tgt-lvm]"/>'
        b'<testcase classname="m" name="c[lvm-thin-mirrored-tgt]"/>'
        b'<testcase classname="m" name="d[tgt]"><properties><property name="driver" value="file"/></properties>'
        b'<failure message="no"/></testcase>'
        b'<testcase classname="m" name="e[file-tgt]"/><testcase classname="m" name="g[lio]"/></testsuite></testsuites>'
    )
    lines = [re.split(r"\s{2,}", line) for line in report.matrix(report.parse(xml)).splitlines()[1:]]
    assert lines == [
        ["driver", "alone", "lio", "tgt"],
        ["file", "-", "-", "1 / 1 / 0"],
        ["lvm-mirrored", "0 / 1 / 1 (1 skipped)", "-", "-"],
        ["lvm-thick", "1 / 0 / 0", "-", "-"],
        ["lvm-thin", "-", "1 / 0 / 0", "1 / 0 / 0"],
        ["lvm-thin-mirrored", "-", "-", "1 / 0 / 0"],
    ]

# SPDX-License-Identifier: Apache-2.0
"""Runs the test tiers and says what passed, what failed and what could not run here and why.

Each tier is a process with a deadline of its own, its output goes to the terminal and its JUnit XML to build/test. They
run one after the other in several rows at a time, as none fills two processors by itself; what the further rows print
comes at the end. A few failed tests are run once more when all else has ended: who passes then is told as *unstable*,
by name, with both outputs above; more than a few are not looked at twice. The last line is always
``N passed, N failed, N skipped``, summed over all tests. Under ``--strict`` (also ``CI`` or ``VOLMGR_STRICT=1``)
whatever could not run counts as failed. What the tiers are is in tiers.py; this module knows only how to run them.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tiers import TIERS, Tier

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "test"
NO_TESTS_COLLECTED = 5
#: how the conformance suite begins the reason of such a skip.
NOT_APPLICABLE = "does not apply: "
TIMED_OUT = 124
GRACE_SECONDS = 10.0
#: so many failed tests of a whole run may be a machine's mood; one more is a broken change.
MOST_UNSTABLE = 3
#: the tiers' processes, so that an interrupted run ends those of its other threads, too.
_running: set[subprocess.Popen[bytes]] = set()


@dataclass
class Result:
    """How one tier ended.

    :param failed: the failed tests.
    :param addresses: what pytest takes to run a failed test again, by its name.
    :param unstable: tests that failed at first and passed when they were run again.
    :param skipped: a reason per skipped test.
    :param not_applicable: tests about something that a driver does not have; no machine could run them.
    :param not_run: why the whole tier did not run, else None.
    :param complaint: what is wrong beyond failed tests, else None.
    """

    tier: Tier
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    unstable: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    not_applicable: int = 0
    not_run: str | None = None
    complaint: str | None = None
    seconds: float = 0.0

    def failures(self, strict: bool) -> int:
        """Return the number of failures; a tier that is red without a failed test counts as one."""
        count = len(self.failed) + (len(self.skipped) if strict else 0)
        if self.complaint or (strict and self.not_run):
            count = max(count, 1)
        return count

    def line(self, strict: bool) -> str:
        """Return the tier's line of the summary."""
        if self.not_run:
            return f"{'FAILED' if strict else 'not run':8} {self.tier.name:24} {self.not_run}"
        state = "FAILED" if self.failures(strict) else "ok"
        counts = f"{self.passed} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"
        counts = counts if self.tier.folder else ""
        tail = f"  ({self.complaint})" if self.complaint else ""
        return f"{state:8} {self.tier.name:24} {counts:40} {self.seconds / 60:6.1f} min{tail}"


def is_strict(environment: Mapping[str, str]) -> bool:
    """Return whether the environment asks for strictness."""
    return any(environment.get(name, "").lower() not in ("", "0", "false", "no") for name in ("CI", "VOLMGR_STRICT"))


def argv_of(tier: Tier, junit: Path, extra: Sequence[str], only: Sequence[str] = ()) -> list[str]:
    """Return the command of ``tier``.

    :param junit: where pytest puts its report.
    :param extra: further arguments of pytest.
    :param only: these tests instead of the whole folder.
    """
    if tier.command:
        return [sys.executable, "-m", *tier.command]
    # The older form of the report says in which file a test is.
    pytest = ["-q", "-o", "junit_family=xunit1", *tier.options, *extra, *(only or (tier.folder,))]
    if tier.guest:
        # The guest ends its own tests before this deadline, so that its log is not lost.
        deadline = str(max(60.0, tier.minutes * 60 - 240))
        memory = ["--memory", str(tier.memory)] if tier.memory else []
        return [sys.executable, "-m", tier.guest, *memory, "--timeout", deadline, "--junit", str(junit), "--", *pytest]
    return [sys.executable, "-m", "pytest", "--junit-xml", str(junit), *pytest]


def _end(process: subprocess.Popen[bytes]) -> None:
    # The tier is a session of its own, so that its daemons and servers end with it.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile, which is what is wanted
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):  # SIGKILL comes next
            process.wait(GRACE_SECONDS)


def execute(argv: Sequence[str], environment: Mapping[str, str], seconds: float, output: Path | None = None) -> int:
    """Run a command in the checkout.

    :param seconds: its deadline; then its whole process group is ended. :param output: a file instead of the terminal.
    :returns: its exit status, :data:`TIMED_OUT` at the deadline.
    """
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(output.open("wb")) if output is not None else None
        process = subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=where, stderr=where,
            start_new_session=True,
        )
        _running.add(process)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return TIMED_OUT
        finally:
            _end(process)
            _running.discard(process)


def read_report(result: Result, junit: Path) -> None:
    """Add the tests that ``junit`` reports to ``result``."""
    for case in ElementTree.parse(junit).iter("testcase"):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            result.failed.append(name)
            if file := case.get("file"):
                result.addresses[name] = address_of(file, case.get("classname", ""), case.get("name", ""))
        elif skipped is not None and skipped.get("message", "").startswith(NOT_APPLICABLE):
            result.not_applicable += 1
        elif skipped is not None and skipped.get("type") != "pytest.xfail":
            result.skipped.append(f"{name}: {skipped.get('message', 'no reason given')}")
        else:
            result.passed += 1


def address_of(file: str, classname: str, name: str) -> str:
    """Return what pytest takes to run one test of its report: the file, the classes, the name with its parameters."""
    module = file.removesuffix(".py").replace("/", ".")
    classes = [part for part in classname.removeprefix(module).split(".") if part]
    return "::".join([file, *classes, name])


def run(
    tier: Tier, strict: bool, extra: Sequence[str], output: Path | None = None, only: Sequence[str] = ()
) -> Result:
    """Run one tier.

    :param strict: tests that cannot run fail.
    :param extra: further arguments of pytest.
    :param output: a file for what it prints.
    :param only: these tests instead of all of its folder.
    """
    result = Result(tier, not_run=tier.absent(ROOT))
    if result.not_run:
        return result
    if output is None:
        print(f"\n=== {tier.name}{', again' * bool(only)} ===", flush=True)
    junit = BUILD / f"{tier.name}{'-again' * bool(only)}.xml"
    environment = {**os.environ, **tier.env, "VOLMGR_STRICT": "1" if strict else ""}
    started = time.monotonic()
    status = execute(argv_of(tier, junit, extra, only), environment, tier.minutes * 60, output)
    result.seconds = time.monotonic() - started
    if status == TIMED_OUT:
        result.complaint = f"not done after {tier.minutes:g} minutes"
    elif status and tier.command:
        result.complaint = f"exit status {status}"
    elif status == NO_TESTS_COLLECTED and not extra:
        result.not_run = "no test found"
    if junit.exists():
        try:
            read_report(result, junit)
        except ElementTree.ParseError as error:
            result.complaint = f"its report is broken: {error}"
    elif tier.folder:
        result.complaint = result.complaint or f"no report, exit status {status}"
    if status not in (0, NO_TESTS_COLLECTED) and not result.failed:
        result.complaint = result.complaint or f"exit status {status}"
    return result


def look_again(results: Sequence[Result], strict: bool, extra: Sequence[str]) -> None:
    """Run failed tests once more, if they are few, and move those that pass now to the unstable ones.

    A tier that ended in any other way than by failed tests is red for good.
    """
    red = [result for result in results if result.failed]
    if sum(len(set(result.failed)) for result in red) > MOST_UNSTABLE:
        return
    for result in red:
        if result.complaint or not set(result.failed) <= set(result.addresses):
            continue
        names = sorted(set(result.failed))
        again = run(result.tier, strict, extra, only=[result.addresses[name] for name in names])
        if not again.complaint and again.passed + len(set(again.failed)) == len(names):
            result.unstable = sorted(set(names) - set(again.failed))
            result.passed += len(result.unstable)
            result.failed = again.failed


def run_all(tiers: Sequence[Tier], strict: bool, extra: Sequence[str]) -> list[Result]:
    """Run tiers in their rows; the results are in the order of ``tiers``."""
    first, *others = ([tier for tier in tiers if tier.row == row] for row in sorted({tier.row for tier in tiers}))
    interrupted = threading.Event()

    def work(row: Sequence[Tier]) -> list[Result]:
        return [run(tier, strict, extra, _log_of(tier)) for tier in row if not interrupted.is_set()]

    with concurrent.futures.ThreadPoolExecutor(max(1, len(others))) as pool:
        beside = [pool.submit(work, row) for row in others]
        try:
            results = [run(tier, strict, extra) for tier in first]
            for row in beside:
                results += row.result()
        finally:
            interrupted.set()
            for process in list(_running):
                _end(process)
    for tier in (tier for row in others for tier in row):
        if _log_of(tier).exists():
            print(f"\n=== {tier.name} ===\n{_log_of(tier).read_text(encoding='utf-8', errors='replace')}", flush=True)
    return sorted(results, key=lambda result: tiers.index(result.tier))


def _log_of(tier: Tier) -> Path:
    return BUILD / f"{tier.name}.log"


def summary(results: Sequence[Result], strict: bool) -> str:
    """Return the closing report; its last line is the machine's."""
    lines = ["=== summary ===", *(result.line(strict) for result in results)]
    failed = [f"  {result.tier.name}: {name}" for result in results for name in result.failed]
    unstable = [f"  {result.tier.name}: {name}" for result in results for name in result.unstable]
    skipped = [f"  {result.tier.name}: {reason}" for result in results for reason in result.skipped]
    if failed:
        lines += ["", "failed:", *failed]
    if unstable:
        lines += ["", "unstable (failed, then passed by themselves; each is a defect to be found):", *unstable]
    if skipped:
        lines += ["", "skipped (a failure, as this run is strict):" if strict else "skipped:", *skipped]
    passed = sum(result.passed for result in results)
    failures = sum(result.failures(strict) for result in results)
    # In a strict run the skipped ones are among the failed.
    skips = 0 if strict else len(skipped)
    return "\n".join([*lines, "", f"{passed} passed, {failures} failed, {skips} skipped"])


def matrix(results: Sequence[Result]) -> str:
    """Return the table of drivers and targets of those tiers that have one, from what their tests reported."""
    from volmgr.testing.lab import report  # which is not there for the tools alone

    ran = [result for result in results if result.tier.matrix and (result.passed or result.failed)]
    reports = [(BUILD / f"{result.tier.name}.xml").read_bytes() for result in ran]
    return report.matrix(tuple(case for junit in reports for case in report.parse(junit)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tools/test.py", description="Run the test tiers.")
    parser.add_argument("--strict", action="store_true", help="what cannot run fails (also CI or VOLMGR_STRICT=1)")
    parser.add_argument("--quick", action="store_true", help="only ruff, mypy, unit and conformance")
    names = [tier.name for tier in TIERS]
    only = "only this tier; may be repeated: %(choices)s"
    parser.add_argument("--tier", action="append", default=[], metavar="NAME", choices=names, help=only)
    parser.add_argument("--list", action="store_true", help="print the tiers and whether they can run here")
    parser.add_argument("pytest_args", nargs="*", metavar="-- PYTEST_ARGUMENT")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    :param arguments: the command line without the program; None means the process's own.
    :returns: the exit status: 0, or 1 when anything failed.
    """
    options = _parser().parse_args(arguments)
    # As an exception, so that the running tier is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    strict = options.strict or is_strict(os.environ)
    wanted = [tier for tier in TIERS if tier.name in options.tier or not (options.tier or tier.on_request)]
    if options.quick:
        wanted = [tier for tier in wanted if tier.quick]
    wanted = [tier for tier in wanted if not tier.optional or tier.name in options.tier or not tier.absent(ROOT)]
    if options.list:
        for tier in wanted:
            print(f"{tier.name:24} {tier.absent(ROOT) or 'can run'}")
        return 0
    BUILD.mkdir(parents=True, exist_ok=True)
    for old in BUILD.iterdir():
        if old.is_file():
            old.unlink()
    results = run_all(wanted, strict, options.pytest_args)
    look_again(results, strict, options.pytest_args)
    if told := matrix(results):
        print(f"\n=== conformance matrix ===\n{told}", flush=True)
    report = summary(results, strict)
    print(f"\n{report}", flush=True)
    (BUILD / "summary").write_text(report + "\n", encoding="utf-8")
    return 1 if any(result.failures(strict) for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m volmgr.testing.fabric [options] -- <pytest arguments>``: pytest on Fibre Channel and RDMA.

It prints which check of which transport passed. Its exit status is pytest's, or that of the harness's error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from volmgr.testing.fabric import guest
from volmgr.testing.lab import errors
from volmgr.testing.lab.guest import GuestSpec
from volmgr.testing.lab.report import Case


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m volmgr.testing.fabric", description="Run pytest in an emulated machine with Debian's kernel."
    )
    add = parser.add_argument
    add("--memory", type=int, default=1024, metavar="MIB", help="memory of the guest (default: %(default)s)")
    add("--timeout", type=float, default=1200.0, metavar="S", help="deadline of the tests (default: %(default)g)")
    add("--boot-timeout", type=float, default=300.0, metavar="S", help="deadline of the start (default: %(default)g)")
    add("--junit", type=Path, metavar="FILE", help="where to put the JUnit XML report")
    add("--kernel-log", type=Path, metavar="FILE", help="where to put the guest's kernel log")
    add("--folder", type=Path, default=Path("build/fabric"), metavar="DIR", help="of the kernel (%(default)s)")
    add("pytest_args", nargs="*", metavar="-- PYTEST_ARGUMENT")
    return parser


def matrix(cases: Sequence[Case]) -> str:
    """Return the table transport x check, from tests that are named ``test_<check>[<transport>]``."""
    outcomes: dict[str, dict[str, str]] = {}
    for case in cases:
        name = case.name.rpartition("::")[2].rpartition(".")[2]
        if not name.endswith("]"):
            continue
        check, _, transport = name.removesuffix("]").partition("[")
        outcomes.setdefault(check.removeprefix("test_").replace("_", " "), {})[transport] = case.outcome
    transports = sorted({transport for row in outcomes.values() for transport in row})
    width = max([len(check) for check in outcomes] + [5])
    lines = [f"{'check':{width}}  " + "  ".join(f"{name:13}" for name in transports)]
    for check, row in outcomes.items():
        lines.append(f"{check:{width}}  " + "  ".join(f"{row.get(name, '-'):13}" for name in transports))
    return "\n".join(line.rstrip() for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    :param arguments: the command line without the program; None means the process's own.
    :returns: the exit status.
    """
    options = _parser().parse_args(arguments)
    spec = GuestSpec(
        pytest_args=tuple(options.pytest_args),
        memory_mib=options.memory,
        timeout_seconds=options.timeout,
        boot_timeout_seconds=options.boot_timeout,
    )
    try:
        result = guest.run_guest(spec, _show, options.folder)
    except errors.LabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        if options.kernel_log is not None:
            options.kernel_log.write_text(error.log, encoding="utf-8")
        return error.exit_status
    if options.junit is not None and result.junit_xml is not None:
        options.junit.write_bytes(result.junit_xml)
    if options.kernel_log is not None:
        options.kernel_log.write_text(result.kernel_log, encoding="utf-8")
    if result.cases:
        print(f"\n{matrix(result.cases)}\n")
    print(f"guest {result.name}: started in {result.boot_seconds:g} s, pytest's exit status {result.status}")
    return result.status


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())

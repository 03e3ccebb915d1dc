# SPDX-License-Identifier: Apache-2.0
"""The command ``python -m volmgr.testing.lab [options] -- <pytest arguments>``: pytest in a real kernel.

Its exit status is pytest's, or that of the harness's error. It knows the command line only.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from volmgr.testing.lab import errors, guest, report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m volmgr.testing.lab", description="Run pytest in a User Mode Linux guest."
    )
    add = parser.add_argument
    add("--memory", type=int, default=1024, metavar="MIB", help="memory of the guest (default: %(default)s)")
    add("--timeout", type=float, default=1800.0, metavar="S", help="deadline of the tests (default: %(default)g)")
    add("--boot-timeout", type=float, default=180.0, metavar="S", help="deadline of the start (default: %(default)g)")
    add("--cov", action="store_true", help="measure the coverage of volmgr")
    add("--cov-file", type=Path, default=Path(".coverage.lab"), metavar="FILE", help="for its data (%(default)s)")
    add("--junit", type=Path, metavar="FILE", help="where to put the JUnit XML report")
    add("--kernel-log", type=Path, metavar="FILE", help="where to put the guest's kernel log")
    add("pytest_args", nargs="*", metavar="-- PYTEST_ARGUMENT")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    :param arguments: the command line without the program; None means the process's own.
    :returns: the exit status.
    """
    options = _parser().parse_args(arguments)
    spec = guest.GuestSpec(
        pytest_args=tuple(options.pytest_args),
        memory_mib=options.memory,
        timeout_seconds=options.timeout,
        boot_timeout_seconds=options.boot_timeout,
        coverage=options.cov,
    )
    try:
        result = guest.run_guest(spec, _show)
    except errors.LabError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        _keep(options.kernel_log, error.log.encode())
        return error.exit_status
    _keep(options.junit, result.junit_xml)
    _keep(options.cov_file, result.coverage_data)
    _keep(options.kernel_log, result.kernel_log.encode())
    if result.status:
        print(
            f"--- what the kernel said meanwhile ---\n{result.kernel_log.partition(guest.READY_MARK)[2].strip()}",
            file=sys.stderr,
        )
    if told := report.matrix(result.cases):
        print(f"\n{told}\n", flush=True)
    print(
        f"guest {result.name}: started in {result.boot_seconds:g} s, pytest's exit status {result.status}",
        file=sys.stderr,
    )
    return result.status


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _keep(path: Path | None, content: bytes | None) -> None:
    if path is not None and content is not None:
        path.write_bytes(content)


if __name__ == "__main__":
    sys.exit(main())

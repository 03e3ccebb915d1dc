# SPDX-License-Identifier: Apache-2.0
"""Writes down each program that a Python process starts: found by the interpreter itself, by way of ``PYTHONPATH``.

Source: the table of audit events of the Python documentation. See :mod:`benchmarks.processes`.
"""

import os
import sys
from typing import Any

_FILE = os.environ.get("VOLMGR_BENCH_PROGRAMS")
_FORKS = ("os.fork", "os.forkpty")


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        name = os.path.basename(os.fsdecode(arguments[0]))
    elif event in _FORKS:
        name = event
    else:
        return
    descriptor = os.open(str(_FILE), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{name}\n".encode())
    os.close(descriptor)


if _FILE:
    sys.addaudithook(_note)

# SPDX-License-Identifier: Apache-2.0
"""What every test of an outer edge is under: a bound on memory, so that what grows without an end fails here."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr.concurrency import offload
from volmgr.types import MiB

#: bytes that a test may need beyond what the process has.
MORE = 512 * MiB


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """Let the process have little more memory than it has."""
    offload(int)  # the threads that it keeps have their stacks before the bound is there
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MORE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)

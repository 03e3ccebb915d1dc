# SPDX-License-Identifier: Apache-2.0
"""What the tests inside a guest share: a volume group, and the proof that each module leaves nothing in the kernel."""

from __future__ import annotations

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

# SPDX-License-Identifier: Apache-2.0
"""What the tests inside a guest share: a volume group, and the proof that each module leaves nothing in the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from volmgr.testing.lab import leftovers
from volmgr.testing.lab.loopgroup import LoopGroup, loop_group


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a test has in the extended run only for some values of its parameters: all that a mark names."""
    for item in items:
        call = getattr(item, "callspec", None)
        values = {str(getattr(value, "name", value)) for value in call.params.values()} if call else set()
        if any(values.issuperset(mark.args) for mark in item.iter_markers("extended_on")):
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

# SPDX-License-Identifier: Apache-2.0
"""Stages that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr.testing.chaos.stage import Stage


@pytest.fixture
def make_stage(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Make stages; their daemons are not started yet."""
    made: list[Stage] = []

    def make(**options: Any) -> Stage:
        made.append(Stage(tmp_path / f"stage{len(made)}", **options))
        return made[-1]

    yield make
    for stage in made:
        stage.close()


@pytest.fixture
def stage(make_stage: Callable[..., Stage]) -> Stage:
    """A stage on the simulator whose daemon lives."""
    return make_stage().start()

# SPDX-License-Identifier: Apache-2.0
"""What the schedules of this tier share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from volmgr.testing.simulation.bench import Bench


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The database, key and stages of all schedules."""
    made = Bench()
    yield made
    made.close()

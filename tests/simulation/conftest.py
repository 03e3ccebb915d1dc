# SPDX-License-Identifier: Apache-2.0
"""What the schedules of this tier share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from volmgr.testing.simulation.bench import Bench


@pytest.fixture(scope="session")
def bench() -> Iterator[Bench]:
    """The database, key and stages of all schedules; what thousands of faults would be logged as is of no interest."""
    logger = logging.getLogger("volmgr")
    propagate, logger.propagate = logger.propagate, False
    made = Bench()
    yield made
    made.close()
    logger.propagate = propagate

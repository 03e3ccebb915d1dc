# SPDX-License-Identifier: Apache-2.0
"""The whole driver conformance suite over every kind of LVM volume. It holds no test of its own."""

from __future__ import annotations

import pytest

from tests.lab.inside.test_lvm_driver import bench, made_driver
from volmgr.testing.conformance import suite
from volmgr.testing.conformance.factories import DriverFactory
from volmgr.testing.lab.lvm_factories import ALL

__all__ = ["bench", "made_driver"]


@pytest.fixture(scope="module", params=ALL, ids=lambda factory: str(factory.name))
def factory(request: pytest.FixtureRequest) -> DriverFactory:
    made: DriverFactory = request.param()
    return made


TestBackups = suite.TestBackups
TestClones = suite.TestClones
TestContract = suite.TestContract
TestExtending = suite.TestExtending
TestImagesAndMoves = suite.TestImagesAndMoves
TestManageable = suite.TestManageable
TestManaging = suite.TestManaging
TestObserving = suite.TestObserving
TestOrphans = suite.TestOrphans
TestReverts = suite.TestReverts
TestSnapshots = suite.TestSnapshots
TestTrash = suite.TestTrash
TestVolumes = suite.TestVolumes

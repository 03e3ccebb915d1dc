# SPDX-License-Identifier: Apache-2.0
"""The stages of the matrix: each is made once, before its first check, and ended after its last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fabric.inside import transports
from tests.fabric.inside.stages import Stage, Volumes
from volmgr.testing.lab.loopgroup import loop_group

#: How many exports one check needs at most, and those of the transports that are up beside it.
VOLUMES, SIZE_MIB = 6, 24


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure at once: the run may take long, and not come to its end."""
    if report.failed:
        print(f"\n{report.nodeid}\n{report.longreprtext}", flush=True)


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volumes]:
    with loop_group(tmp_path_factory.mktemp("group"), "fabric", size_mib=400, pool_mib=8) as group:
        yield Volumes(group, [group.create_thick(f"v{number}", SIZE_MIB) for number in range(VOLUMES)])


@pytest.fixture(scope="session")
def fibre_channel(volumes: Volumes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with transports.fibre_channel(volumes, tmp_path_factory.mktemp("fc")) as made:
        yield made


@pytest.fixture(scope="session")
def iser(volumes: Volumes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with transports.iser(volumes, tmp_path_factory.mktemp("iser")) as made:
        yield made


@pytest.fixture(scope="session")
def aoe(volumes: Volumes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with transports.aoe(volumes, tmp_path_factory.mktemp("aoe")) as made:
        yield made


@pytest.fixture(params=["fibre_channel", "iser", "aoe"])
def stage(request: pytest.FixtureRequest) -> Stage:
    made: Stage = request.getfixturevalue(request.param)
    return made

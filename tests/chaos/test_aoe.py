# SPDX-License-Identifier: Apache-2.0
"""Random kills under a load of mixed verbs, on files served by vblade: what runs is what SQL says, no byte is lost.

The processes outlive the daemon, so a host's writes are taken at any moment; each life takes over what it finds.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require, unavailable
from volmgr.testing.aoe import cable
from volmgr.testing.chaos.aoe import CONNECTOR, AoeOutside, Wire
from volmgr.testing.chaos.raids import Raiders
from volmgr.testing.chaos.stage import Stage

SEED = int(os.environ.get("VOLMGR_CHAOS_SEED", "1"))
KILLS = int(os.environ.get("VOLMGR_CHAOS_KILLS", "6"))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    for tool, package in (("vblade", "vblade"), ("ip", "iproute2")):
        require(tool, package)
    with contextlib.ExitStack() as undo:
        try:
            near, far = undo.enter_context(cable())
        except RuntimeError as error:
            unavailable(f"no pair of network interfaces: {error}")
        backend = {
            "volume_driver": "file", "target_helper": "vblade", "target_protocol": "aoe", "aoe_eth_dev": near,
        }
        made = Stage(tmp_path, backend=backend, outside=AoeOutside, trash_retention=1)
        made.connector, made.write = CONNECTOR, Wire(far).write
        undo.callback(made.close)
        yield made.start()


@pytest.mark.timeout(600)
def test_kills_on_files_with_vblade(stage: Stage) -> None:
    raiders = Raiders(stage, SEED, by_target=True, tenants=2, vandals=1, tell=print)
    raid = raiders.run(KILLS)
    assert raid.violations == []
    assert len(raid.kills) == KILLS
    assert raid.written

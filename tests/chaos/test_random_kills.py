# SPDX-License-Identifier: Apache-2.0
"""Random kills under a load of mixed verbs, on files served by tgt: no violation, no byte lost, no byte astray."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import require
from volmgr.testing.chaos.raids import series

SEED = int(os.environ.get("VOLMGR_CHAOS_SEED", "1"))
KILLS, LANES = 60, 3


@pytest.mark.timeout(1200)
def test_sixty_kills_on_files_with_tgt(tmp_path: Path) -> None:
    for tool, package in (("tgtd", "tgt"), ("qemu-io", "qemu-utils")):
        require(tool, package)
    raids = series(tmp_path, SEED, KILLS, backend="file", lanes=LANES, tell=print)
    assert [text for raid in raids for text in raid.violations] == []
    assert sum(len(raid.kills) for raid in raids) == KILLS
    assert all(raid.requests and raid.written for raid in raids)

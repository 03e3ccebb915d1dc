# SPDX-License-Identifier: Apache-2.0
"""The wall clock jumps forwards and backwards under the daemon: nothing hangs, nothing is lost, nothing waits a day."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import unavailable
from volmgr.db import models
from volmgr.testing.chaos.raids import Raiders
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"
JUMPS = ("+1d", "-1d", "+400d", "+0")
REQUESTS = 15


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """The file that says by how much the daemon's clock is wrong."""
    path = tmp_path / "clock"
    path.write_text("+0\n")
    return path


@pytest.fixture
def make(make_stage: Callable[..., Stage], clock: Path) -> Callable[..., Stage]:
    found = glob.glob(LIBRARY)
    if not found:
        unavailable("libfaketime is missing: install faketime")
    environment = {
        "LD_PRELOAD": found[0],
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

    def made(**options: Any) -> Stage:
        return make_stage(environment=environment, **options)

    return made


def set_clock(path: Path, offset: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(f"{offset}\n")
    os.replace(temporary, path)


def test_jumps_under_load(make: Callable[..., Stage], clock: Path) -> None:
    stage = make().start()
    raiders = Raiders(stage, 5, by_target=False)
    for offset in JUMPS:
        with raiders.working():
            raiders.work(REQUESTS)
            set_clock(clock, offset)
            raiders.work(REQUESTS)
        assert raiders.look() == []
    assert raiders.close().violations == []
    times = [row.created_at for row in stage.outside.rows(models.operations)]
    assert (max(times) - min(times)).days > 300, "the clock did not jump"


def test_a_clock_that_is_put_back_does_not_make_an_operation_wait_a_day(
    make: Callable[..., Stage], clock: Path
) -> None:
    set_clock(clock, "+1d")
    stage = make().start()
    volume = {"volume_id": "5c7c6c9c-8f39-4d7e-9f07-1d2a5a0f7a11"}
    stage.do("create_volume", {**volume, "size": 1}, project="p")
    # Parked for the backend, whose answer a later try will get.
    faults: list[dict[str, Any]] = [
        {"verb": "create_volume_from_snapshot", "action": "fail", "when": "after", "error": "volmgr.backend_down"},
        {"verb": "delete_volume", "action": "fail", "when": "before", "times": None, "error": "volmgr.backend_down"},
    ]
    snapshot = {**volume, "snapshot_id": "5c7c6c9c-8f39-4d7e-9f07-1d2a5a0f7a12"}
    stage.do("create_snapshot", snapshot, project="p")
    stage.lay_faults(*faults)
    answer = stage.ask("revert_to_snapshot", snapshot, project="p")
    of = models.operations.c.id == answer["operation_id"]

    def state() -> str:
        return str(stage.outside.rows(models.operations, of)[0].state)

    wait_until(lambda: state() == "parked", 30, "it is parked")
    set_clock(clock, "+0")
    stage.lay_faults()
    wait_until(lambda: state() == "failed", 30, "it is tried again though its time is a day away")
    assert stage.outside.settle() == []

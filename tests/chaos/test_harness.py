# SPDX-License-Identifier: Apache-2.0
"""The harness's own promises: what waits for a death tells why it does not come."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from volmgr.testing.chaos.stage import Stage


def test_a_daemon_that_stands_still_tells_where(make_stage: Callable[..., Stage]) -> None:
    stage = make_stage(forked=True).start()
    stage.lay_faults({"verb": "create_volume", "action": "delay", "when": "before", "seconds": 3600, "times": 1})
    stage.aim("create_volume/create/after")
    asked = stage.ask("create_volume", {"volume_id": "5b5e3a9e-98c8-4d8a-9f4e-8f0f4e6f7a11", "size": 1}, project="p")
    with pytest.raises(subprocess.TimeoutExpired):
        stage.wait_killed(2.0)
    told = stage.stands_at()
    assert f"create_volume {asked['operation_id']} is running" in told
    assert "Guru Meditation" in told
    assert "volmgr/drivers/sim" in told  # the very thread
    assert stage.kills == 0

# SPDX-License-Identifier: Apache-2.0
"""The I/O priority of a piece of work, as ionice sees it from outside."""

from __future__ import annotations

import subprocess
import threading

import pytest

from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.options import Configuration
from volmgr.exception import InvalidConfiguration
from volmgr.tools import ioprio

IDLE = 3 << 13
BEST_EFFORT = 2 << 13


@pytest.mark.parametrize(
    ("words", "priority"),
    [
        (None, None),
        (" ", None),
        ("-c3", IDLE),
        ("-c 3", IDLE),
        ("--class idle", IDLE),
        ("-c Idle", IDLE),
        ("-c0", 0),
        ("-c2", BEST_EFFORT | 4),
        ("-c2 -n7", BEST_EFFORT | 7),
        ("--class=best-effort --classdata=0", BEST_EFFORT),
        ("-n 1 -c realtime", 1 << 13 | 1),
    ],
)
def test_arguments_of_ionice_mean_what_they_mean_there(words: str | None, priority: int | None) -> None:
    assert ioprio.parse(words) == priority


@pytest.mark.parametrize(
    "words",
    ["3", "-c4", "-c", "-c idle -n 3", "-c2 -n8", "-c2 -n x", "-n7", "-c3 rm", "-c3 -p 1", "-t", "-c lazy", "-c '"],
)
def test_what_means_nothing_is_refused_when_the_backend_is_set_up(words: str) -> None:
    driver = LVMVolumeDriver(configuration=Configuration({"volume_group": "absent", "volume_clear_ionice": words}))
    with pytest.raises(InvalidConfiguration, match="volume_clear_ionice"):
        driver.do_setup(None)


def test_work_has_its_priority_and_its_thread_none_of_it_afterwards() -> None:
    def seen() -> str:
        return subprocess.check_output(["ionice", "-p", str(threading.get_native_id())], text=True).strip()

    usual = ioprio.offloaded(None, seen)
    assert ioprio.offloaded(ioprio.parse("-c3"), seen) == "idle"
    # Green threads share a pool: each of its threads has its turn.
    assert {ioprio.offloaded(None, seen) for _ in range(40)} == {usual}
    assert ioprio.offloaded(ioprio.parse("-c2 -n7"), seen) == "best-effort: prio 7"
    with pytest.raises(ZeroDivisionError):
        ioprio.offloaded(IDLE, lambda: 1 // 0)
    assert {ioprio.offloaded(None, seen) for _ in range(40)} == {usual}

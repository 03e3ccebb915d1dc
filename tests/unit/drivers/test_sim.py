# SPDX-License-Identifier: Apache-2.0
"""The simulator's faults, in its process and from a file, and what it leaves when it is killed."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import uuid
from typing import Any

import pytest

import volmgr
from volmgr import exception
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import MemoryStore, SimDriver
from volmgr.runtime import SystemClock
from volmgr.types import GiB, Volume

ROOT = pathlib.Path(volmgr.__file__).parents[1]
DEADLINE = 30.0
CREATE = """
import sys
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import SimDriver
from volmgr.types import Volume
driver = SimDriver(configuration=Configuration({"sim_store_path": sys.argv[1], "sim_faults_file": sys.argv[2]}))
driver.create_volume(Volume(id=sys.argv[3], size=1))
"""


class RecordingClock(SystemClock):
    """A clock on which waiting takes no time."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait(self, event: threading.Event, timeout: float) -> bool:
        self.waits.append(timeout)
        return event.is_set()


def volume() -> Volume:
    return Volume(id=str(uuid.uuid4()), size=1)


def simulator(**options: Any) -> SimDriver:
    clock = options.pop("clock", None)
    return SimDriver(configuration=Configuration(options), store=MemoryStore(), clock=clock)


def test_a_fault_before_leaves_nothing_one_after_leaves_all() -> None:
    driver, first, second = simulator(), volume(), volume()
    driver.faults.fail("create_volume", exception.NoSpace("ordered"), match=first.id)
    driver.faults.fail("create_volume", exception.Timeout, when="after", match=second.id)
    with pytest.raises(exception.NoSpace, match="ordered"):
        driver.create_volume(first)
    assert driver.observe() == []
    with pytest.raises(exception.Timeout):
        driver.create_volume(second)
    assert [(item.object_id, item.state) for item in driver.observe()] == [(second.id, "current")]
    driver.create_volume(first)
    assert driver.faults.calls["create_volume"] == 3


def test_a_fault_while_building_leaves_a_building_object() -> None:
    driver, made = simulator(), volume()
    driver.faults.fail("create_volume", exception.BackendDown, times=2, when="building")
    for _ in range(2):
        with pytest.raises(exception.BackendDown):
            driver.create_volume(made)
        assert [item.state for item in driver.observe()] == ["building"]
    driver.create_volume(made)
    assert [item.state for item in driver.observe()] == ["current"]


def test_a_hang_lasts_until_it_is_released() -> None:
    driver, made = simulator(), volume()
    hang = driver.faults.hang("create_volume", when="building", deadline=DEADLINE)
    thread = threading.Thread(target=driver.create_volume, args=(made,), daemon=True)
    thread.start()
    assert hang.reached.wait(DEADLINE)
    assert [item.state for item in driver.observe()] == ["building"]
    hang.release()
    thread.join(DEADLINE)
    assert [item.state for item in driver.observe()] == ["current"]


def test_a_hang_ends_in_an_error_at_its_deadline() -> None:
    driver = simulator()
    driver.faults.hang("*", deadline=0.01)
    with pytest.raises(exception.Timeout, match="delete_volume hung"):
        driver.delete_volume(volume())


def test_latency_and_delays_are_waited_for_on_the_clock() -> None:
    clock = RecordingClock()
    driver = simulator(clock=clock, sim_latency=0.25)
    driver.faults.delay("create_volume", 5.0)
    driver.create_volume(volume())
    driver.get_volume_stats()
    assert clock.waits == [0.25, 5.0, 0.25]


def test_a_hook_is_called_where_a_process_would_be_killed() -> None:
    driver, seen = simulator(), []
    driver.faults.kill("create_volume", when="building", hook=lambda: seen.append(len(driver.observe())))
    driver.create_volume(volume())
    assert seen == [1]


def test_faults_can_be_cleared() -> None:
    driver = simulator()
    driver.faults.fail("*", exception.BackendDown, times=None)
    with pytest.raises(exception.BackendDown):
        driver.observe()
    driver.faults.clear()
    assert driver.observe() == []


def test_faults_from_a_file_follow_the_file(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "faults.json"
    driver = simulator(sim_faults_file=str(file))
    driver.create_volume(volume())
    rule = {"verb": "create_volume", "error": "volmgr.no_space", "message": "ordered", "times": 2}
    file.write_text(json.dumps([rule]))
    for _ in range(2):
        with pytest.raises(exception.NoSpace, match="ordered"):
            driver.create_volume(volume())
    driver.create_volume(volume())
    anew = simulator(sim_faults_file=str(file))
    anew.create_volume(volume())
    file.write_text(json.dumps([{**rule, "id": "once more", "times": None}]))
    with pytest.raises(exception.NoSpace):
        anew.create_volume(volume())
    file.unlink()
    anew.create_volume(volume())
    file.write_text('{"verb": 1')
    with pytest.raises(exception.InvalidConfiguration, match="no list of faults"):
        anew.create_volume(volume())


def test_a_hang_from_a_file_ends_with_the_rule(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps([{"verb": "create_volume", "action": "hang", "deadline": DEADLINE, "id": "h"}]))
    driver = simulator(sim_faults_file=str(file))
    thread = threading.Thread(target=driver.create_volume, args=(volume(),), daemon=True)
    thread.start()
    spent = tmp_path / "faults.json.spent"
    while not spent.exists():
        thread.join(0.01)
        assert thread.is_alive()
    file.unlink()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    assert len(driver.observe()) == 1


def test_a_process_is_killed_once_and_its_successor_makes_it_whole(tmp_path: pathlib.Path) -> None:
    store, faults, made = tmp_path / "store", tmp_path / "faults.json", volume()
    faults.write_text(json.dumps([{"verb": "create_volume", "action": "kill", "when": "building"}]))
    argv = [sys.executable, "-c", CREATE, str(store), str(faults), made.id]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.run(argv, env=environment, timeout=DEADLINE, check=False)
    assert first.returncode == -signal.SIGKILL
    driver = SimDriver(configuration=Configuration({"sim_store_path": str(store)}))
    assert [(item.object_id, item.state) for item in driver.observe()] == [(made.id, "building")]
    second = subprocess.run(argv, env=environment, timeout=DEADLINE, check=False)
    assert second.returncode == 0
    assert [(item.state, item.size_bytes) for item in driver.observe()] == [("current", GiB)]


def test_the_pool_has_an_end_and_counts_exactly(tmp_path: pathlib.Path) -> None:
    for place in ({}, {"sim_store_path": str(tmp_path)}):
        options = {"sim_capacity_gb": 4.0, "max_over_subscription_ratio": 1.0, "sim_store": str(uuid.uuid4()), **place}
        driver = SimDriver(configuration=Configuration(options))
        first, second, third = volume(), volume(), volume()
        driver.create_volume(first)
        driver.create_cloned_volume(second, first)
        with pytest.raises(exception.NoSpace):
            driver.extend_volume(second, 4)
        driver.extend_volume(second, 2)
        driver.create_volume(third)
        with pytest.raises(exception.NoSpace):
            driver.create_volume(volume())
        assert driver.get_volume_stats()["pools"][0]["free_capacity_gb"] == 0
        driver.trash_volume(second)
        with pytest.raises(exception.NoSpace):
            driver.create_volume(volume())
        driver.wipe("volume", second.id, lambda fraction: None)
        driver.delete_volume(first)
        driver.delete_volume(third)
        assert driver.get_volume_stats()["pools"][0]["provisioned_capacity_gb"] == 0


def test_drivers_with_the_same_store_name_share_it() -> None:
    name, made = str(uuid.uuid4()), volume()
    SimDriver(configuration=Configuration({"sim_store": name})).create_volume(made)
    assert [item.object_id for item in SimDriver(configuration=Configuration({"sim_store": name})).observe()] == [
        made.id
    ]
    assert SimDriver(configuration=Configuration({"sim_store": name + "x"})).observe() == []
    with pytest.raises(exception.Unsupported, match="memory"):
        simulator().local_path(made)

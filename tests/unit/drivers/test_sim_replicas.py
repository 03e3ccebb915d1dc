# SPDX-License-Identifier: Apache-2.0
"""The simulator's replicas when they lag, break, are promoted, or become the backend; every status, and every crash."""

import dataclasses
import pathlib
import uuid
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import MemoryStore, SimDriver
from volmgr.drivers.sim.replication import Pair
from volmgr.types import GiB, Volume, VolumeType

REPLICATED = VolumeType("t", "replicated", {"replication": "<is> True"})


@pytest.fixture(params=["memory", "folder"])
def options(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> dict[str, Any]:
    return {"sim_store": str(tmp_path)} if request.param == "memory" else {"sim_store_path": str(tmp_path / "sim")}


@pytest.fixture
def driver(options: dict[str, Any]) -> SimDriver:
    return SimDriver(configuration=Configuration(options))


def made(driver: SimDriver, data: bytes = b"first") -> Volume:
    volume = Volume(id=str(uuid.uuid4()), size=1, object_id=str(uuid.uuid4()), volume_type=REPLICATED)
    update = driver.create_volume(volume)
    assert update is not None
    assert update["replication_status"] == "copying"
    assert {"replication_extended_status", "replication_driver_data", "driver_data"} <= set(update)
    driver.write_bytes(volume, 0, data)
    return volume


def status(driver: SimDriver, volume: Volume) -> str:
    update = driver.get_replication_status(None, volume)
    assert update is not None
    return str(update["replication_status"])


def pair(volume: Volume) -> Pair:
    return Pair(volume.id, volume.name_id)


def test_a_replica_lags_behind_while_it_is_held(driver: SimDriver) -> None:
    volume = made(driver)
    driver.replication.hold()
    assert status(driver, volume) == "copying"
    with pytest.raises(exception.Conflict, match="copying"):
        driver.promote_replica(None, volume)
    driver.replication.release()
    assert status(driver, volume) == "active"
    driver.replication.hold(volume.id)
    driver.write_bytes(volume, 0, b"later")
    assert status(driver, volume) == "active"
    trial = Volume(id=str(uuid.uuid4()), size=1)
    driver.create_replica_test_volume(trial, volume)
    assert driver.read_bytes(trial, 0, 5) == b"first"
    # What had not been copied is lost with a promotion, as it is in life.
    promoted = driver.promote_replica(None, volume)
    assert promoted is not None
    assert promoted["replication_status"] == "inactive"
    assert driver.read_bytes(volume, 0, 5) == b"first"


def test_a_stopped_replica_is_consistent_or_not(driver: SimDriver) -> None:
    first, second = made(driver), made(driver)
    driver.replication.hold(second.id)
    assert status(driver, first) == "active"
    for volume in (first, second):
        driver.replication.stop(pair(volume))
    assert (status(driver, first), status(driver, second)) == ("active-stopped", "inactive")
    driver.write_bytes(first, 0, b"later")
    assert status(driver, first) == "active-stopped"
    update = driver.reenable_replication(None, first)
    assert update is not None
    assert update["replication_status"] == "copying"
    assert status(driver, first) == "active"
    driver.promote_replica(None, first)
    assert driver.read_bytes(first, 0, 5) == b"later"


def test_a_copy_that_fails_is_an_error_until_it_is_enabled_again(options: dict[str, Any], driver: SimDriver) -> None:
    volume, other = made(driver), made(driver)
    driver.faults.fail("replicate", exception.BackendDown, when="building", match=volume.id)
    assert (status(driver, volume), status(driver, other)) == ("error", "active")
    assert status(driver, volume) == "error"
    with pytest.raises(exception.Conflict):
        driver.promote_replica(None, volume)
    anew = SimDriver(configuration=Configuration(options))
    assert status(anew, volume) == "error"
    anew.reenable_replication(None, volume)
    assert status(anew, volume) == "active"


def test_extending_reaches_the_replica(driver: SimDriver) -> None:
    volume = made(driver)
    assert status(driver, volume) == "active"
    driver.extend_volume(volume, 2)
    driver.write_bytes(volume, 2 * GiB - 3, b"end")
    assert status(driver, volume) == "active"
    assert driver.replication.other.size(volume.name) == 2 * GiB
    assert driver.replication.other.read(volume.name, 2 * GiB - 3, 3) == b"end"


@pytest.mark.parametrize("end", ["delete_volume", "trash_volume", "unmanage"])
def test_whatever_ends_a_volume_ends_its_replica(driver: SimDriver, end: str) -> None:
    volume, other = made(driver), made(driver)
    status(driver, volume)
    status(driver, other)
    getattr(driver, end)(volume)
    left = {name for name, _size in driver.replication.secondary.entries()}
    assert left == {other.name, names.replica_mark("active", other.id, other.name_id)}
    if end == "trash_volume":
        driver.restore_volume(volume)
        assert status(driver, volume) == "active"


def test_retyping_makes_and_ends_a_replica(driver: SimDriver) -> None:
    plain = Volume(id=str(uuid.uuid4()), size=1)
    driver.create_volume(plain)
    on = {"extra_specs": {"replication": (None, "<is> True")}}
    answer = driver.retype(None, plain, REPLICATED, on, {})
    assert isinstance(answer, tuple)
    assert answer[0] is True
    assert answer[1] is not None
    assert answer[1]["replication_status"] == "copying"
    assert driver.retype(None, plain, REPLICATED, on, {}) is True
    copied = dataclasses.replace(plain, volume_type=REPLICATED)
    assert status(driver, copied) == "active"
    off = {"extra_specs": {"replication": ("<is> True", None)}}
    answer = driver.retype(None, copied, {}, off, {})
    assert isinstance(answer, tuple)
    assert answer[1] is not None
    assert answer[1]["replication_status"] == "deleted"
    assert driver.get_replication_status(None, plain) is None


@pytest.mark.usefixtures("one_work")
def test_a_volume_whose_replica_was_never_set_up_is_not_recognised(driver: SimDriver) -> None:
    volume = made(driver)
    driver.replication.drop(pair(volume))
    with pytest.raises(exception.NotFound):
        driver.recognise("create_volume", volume)
    assert status(driver, volume) == "error"
    driver.create_volume(volume)
    assert driver.recognise("create_volume", volume) is not None
    assert status(driver, volume) == "active"


def test_a_promotion_that_died_is_done_again(driver: SimDriver) -> None:
    volume = made(driver)
    assert status(driver, volume) == "active"
    driver.replication.hold()
    driver.write_bytes(volume, 0, b"later")
    driver.faults.fail("promote_replica", exception.Cancelled, when="building", match=volume.id)
    with pytest.raises(exception.Cancelled):
        driver.promote_replica(None, volume)
    assert driver.read_bytes(volume, 0, 5) == b"later"
    driver.replication.release()
    driver.promote_replica(None, volume)
    assert driver.read_bytes(volume, 0, 5) == b"first"
    assert [item.state for item in driver.observe()] == ["current"]


def test_a_failover_that_died_is_done_again_by_the_next_driver(options: dict[str, Any], driver: SimDriver) -> None:
    first, second = made(driver), made(driver)
    assert (status(driver, first), status(driver, second)) == ("active", "active")
    driver.faults.fail("failover_host", exception.Cancelled, when="building", match=second.id)
    with pytest.raises(exception.Cancelled):
        driver.failover_host(None, [first, second])
    anew = SimDriver(configuration=Configuration(options))
    target, updates = anew.failover_host(None, [first, second])
    assert target == "secondary"
    assert [item["updates"]["replication_status"] for item in updates] == ["inactive", "inactive"]
    assert all("status" not in item["updates"] for item in updates)
    after = SimDriver(configuration=Configuration(options), active_backend_id=target)
    after.write_bytes(first, 0, b"later")
    assert after.read_bytes(second, 0, 5) == b"first"
    assert SimDriver(configuration=Configuration(options)).read_bytes(first, 0, 5) == b"first"


def test_going_back_without_a_copy_back_is_an_error_not_a_silent_loss(driver: SimDriver) -> None:
    volume, copied = made(driver), made(driver)
    assert (status(driver, volume), status(driver, copied)) == ("active", "active")
    driver.failover_host(None, [volume, copied])
    for item in (volume, copied):
        driver.write_bytes(item, 0, b"later")
    driver.reenable_replication(None, copied)
    _target, updates = driver.failover_host(None, [volume, copied], "default")
    answers = {item["volume_id"]: item["updates"] for item in updates}
    assert (answers[volume.id]["status"], answers[volume.id]["replication_status"]) == ("error", "error")
    assert answers[copied.id]["replication_status"] == "inactive"
    assert driver.read_bytes(copied, 0, 5) == b"later"


def test_a_replica_that_was_not_ready_is_an_error_after_a_failover(driver: SimDriver) -> None:
    volume = made(driver)
    driver.replication.hold()
    _target, updates = driver.failover_host(None, [volume])
    assert updates[0]["updates"]["status"] == "error"


def test_the_target_is_the_configured_device() -> None:
    options = {"replication_device": [{"backend_id": "cellar"}]}
    driver = SimDriver(configuration=Configuration(options), store=MemoryStore(), replica_store=MemoryStore())
    volume = made(driver)
    assert status(driver, volume) == "active"
    assert driver.failover_host(None, [volume], "cellar")[0] == "cellar"
    assert driver.active_backend_id == "cellar"
    assert driver.get_volume_stats()["replication_targets"] == ["cellar"]


def test_freezing_is_told(driver: SimDriver) -> None:
    assert driver.freeze_backend(None) is True
    assert driver.get_volume_stats()["frozen"] is True
    assert driver.thaw_backend(None) is True
    assert driver.get_volume_stats()["frozen"] is False


def test_changes_are_told_once(driver: SimDriver) -> None:
    volume, failing = made(driver), made(driver)
    driver.faults.fail("replicate", exception.BackendDown, when="building", match=failing.id)
    told = {item["volume_id"]: item["updates"]["replication_status"] for item in driver.get_replication_updates(None)}
    assert told == {volume.id: "active", failing.id: "error"}
    assert driver.get_replication_updates(None) == []
    driver.replication.stop(pair(volume))
    assert [item["volume_id"] for item in driver.get_replication_updates(None)] == [volume.id]


def test_without_replicas_there_is_no_second_folder(tmp_path: pathlib.Path) -> None:
    driver = SimDriver(configuration=Configuration({"sim_store_path": str(tmp_path / "sim")}))
    plain = Volume(id=str(uuid.uuid4()), size=1)
    driver.create_volume(plain)
    assert driver.get_replication_updates(None) == []
    driver.delete_volume(plain)
    assert [item.name for item in tmp_path.iterdir()] == ["sim"]

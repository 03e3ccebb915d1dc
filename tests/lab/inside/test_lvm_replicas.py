# SPDX-License-Identifier: Apache-2.0
"""Replicas of thin volumes in a second group: bytes shipped, lost with the first group, and found in the second."""

from __future__ import annotations

import os
import pathlib
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from volmgr import exception, killpoints, names
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.testing.conformance import suite
from volmgr.testing.conformance.bench import Bench
from volmgr.testing.lab.lvm_pair import FIRST, REPLICATED, SECOND, LvmReplicated, Pair, read, volumes_of, write
from volmgr.types import GiB, MiB, Volume

MATRIX_DRIVER = "lvm-thin"
LOOKED_AT = 24 * MiB
extended = pytest.mark.extended


@pytest.fixture(scope="module")
def pair(nothing_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    made = Pair(tmp_path_factory.mktemp("pair"))
    with made.world():
        yield made


@pytest.fixture
def rng() -> random.Random:
    return random.Random(5)


def replicated(driver: LVMVolumeDriver) -> Volume:
    volume = Volume(id=str(uuid.uuid4()), size=1, volume_type=REPLICATED)
    update = driver.create_volume(volume)
    assert update is not None
    assert update["replication_status"] == "copying"
    return volume


def ship(driver: LVMVolumeDriver, volume: Volume) -> None:
    assert driver.shipping is not None
    driver.shipping.ship(volume.name_id, volume.id)


def status(driver: LVMVolumeDriver, volume: Volume) -> str:
    """Return how a replica stands; nothing is shipped for it."""
    assert driver.shipping is not None
    with driver.shipping.stopped():
        update = driver.get_replication_status(None, volume)
    assert update is not None
    return str(update["replication_status"])


def ended(driver: LVMVolumeDriver, volume: Volume) -> None:
    """Delete a volume and see that neither group has anything of it."""
    driver.delete_volume(volume)
    left = volumes_of(FIRST) | volumes_of(SECOND)
    assert not [name for name in left if volume.name_id in name]


@pytest.mark.timeout(600)
def test_a_first_group_that_dies_leaves_exactly_what_was_shipped(pair: Pair, rng: random.Random) -> None:
    driver = pair.driver()
    volume = replicated(driver)
    write(driver, volume, rng.randbytes(3 * MiB), offset=4 * MiB)
    ship(driver, volume)
    write(driver, volume, rng.randbytes(MiB), offset=6 * MiB + 4096)
    write(driver, volume, bytes(MiB), offset=4 * MiB)
    ship(driver, volume)
    shipped = read(driver, volume, LOOKED_AT)
    write(driver, volume, rng.randbytes(8 * MiB))
    pair.kill(FIRST)

    target, updates = driver.failover_host(None, [volume])
    assert target == "cellar"
    assert updates[0]["updates"]["replication_status"] == "inactive"
    assert "status" not in updates[0]["updates"]
    assert driver.export_path(volume) == f"/dev/{SECOND}/{volume.name}"
    assert read(driver, volume, LOOKED_AT) == shipped
    pair.revive(FIRST)
    ended(driver, volume)


@extended
@pytest.mark.timeout(600)
def test_a_first_group_that_comes_back_gets_what_was_written_meanwhile(pair: Pair, rng: random.Random) -> None:
    driver = pair.driver()
    volume = replicated(driver)
    write(driver, volume, rng.randbytes(3 * MiB), offset=4 * MiB)
    ship(driver, volume)
    pair.kill(FIRST)
    driver.failover_host(None, [volume])
    write(driver, volume, rng.randbytes(2 * MiB), offset=10 * MiB)
    later = read(driver, volume, LOOKED_AT)
    pair.revive(FIRST)
    driver = pair.driver(over=True)
    driver.reenable_replication(None, volume)
    _target, updates = driver.failover_host(None, [volume], "default")
    assert "status" not in updates[0]["updates"]
    assert driver.export_path(volume) == f"/dev/{FIRST}/{volume.name}"
    assert read(driver, volume, LOOKED_AT) == later
    ended(driver, volume)


# --- a death at any moment ----------------------------------------------------------------------------------------


DYING = """
import sys
from pathlib import Path
from volmgr.testing.lab.lvm_pair import REPLICATED, Pair
from volmgr.types import Volume
folder, what, volume_id, over = sys.argv[1:]
volume = Volume(id=volume_id, size=1, volume_type=REPLICATED)
driver = Pair(Path(folder)).driver(over == "over")
if what == "ship":
    driver.shipping.ship(volume.name_id, volume.id)
elif what == "promote":
    driver.promote_replica(None, volume)
else:
    driver.failover_host(None, [volume], what)
"""


def killed_at(moment: str, pair: Pair, what: str, volume: Volume, over: bool = False) -> None:
    """Have another process, which starts as a worker does, do something until it is killed at a moment."""
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(pair.folder), what, volume.id, "over" if over else "begins"],
        env={**os.environ, killpoints.ENVIRONMENT: moment}, capture_output=True, text=True, timeout=300, check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


SHIPPING = ("taken", "begun", "copying#2", "copied")


@extended
@pytest.mark.timeout(600)
def test_a_death_while_shipping_leaves_the_last_whole_point(pair: Pair, rng: random.Random) -> None:
    driver = pair.driver()
    volume = replicated(driver)
    write(driver, volume, rng.randbytes(4 * MiB))
    ship(driver, volume)
    whole = read(driver, volume, LOOKED_AT)
    for moment in SHIPPING:
        write(driver, volume, rng.randbytes(5 * MiB), offset=2 * MiB)
        killed_at(f"lvm/ship/{moment}", pair, "ship", volume)
        assert status(pair.driver(), volume) == "active"
        trial = Volume(id=str(uuid.uuid4()), size=1)
        driver.create_replica_test_volume(trial, volume)
        assert read(driver, trial, LOOKED_AT) == whole, moment
        driver.delete_volume(trial)
    # Killed right after the tag: the new point counts, and what is older goes with the next cycle.
    newest = read(driver, volume, LOOKED_AT)
    killed_at("lvm/ship/whole", pair, "ship", volume)
    pair.kill(FIRST)
    driver.failover_host(None, [volume])
    assert read(driver, volume, LOOKED_AT) == newest
    pair.revive(FIRST)
    driver.reenable_replication(None, volume)
    driver.failover_host(None, [volume], "default")
    assert read(driver, volume, LOOKED_AT) == newest
    driver.reenable_replication(None, volume)
    write(driver, volume, rng.randbytes(MiB))
    ship(driver, volume)
    assert len([name for name in volumes_of(SECOND) if volume.name_id in name]) == 1
    ended(driver, volume)


@extended
@pytest.mark.timeout(600)
@pytest.mark.parametrize("moment", ["failover/removed", "failover/entered"])
def test_a_failover_that_died_is_done_again(pair: Pair, rng: random.Random, moment: str) -> None:
    driver = pair.driver()
    volume = replicated(driver)
    write(driver, volume, rng.randbytes(4 * MiB))
    first = read(driver, volume, LOOKED_AT)
    killed_at(f"lvm/{moment}", pair, "cellar", volume)
    driver = pair.driver()
    driver.failover_host(None, [volume])
    assert read(driver, volume, LOOKED_AT) == first
    write(driver, volume, rng.randbytes(MiB), offset=8 * MiB)
    later = read(driver, volume, LOOKED_AT)
    driver.reenable_replication(None, volume)
    killed_at(f"lvm/{moment}", pair, "default", volume, over=True)
    driver = pair.driver(over=True)
    assert driver.failover_host(None, [volume], "default")[1][0]["updates"].get("status") is None
    assert read(driver, volume, LOOKED_AT) == later
    ended(driver, volume)


@extended
@pytest.mark.timeout(600)
def test_a_promotion_that_died_is_done_again(pair: Pair, rng: random.Random) -> None:
    driver = pair.driver()
    volume = replicated(driver)
    write(driver, volume, rng.randbytes(4 * MiB))
    ship(driver, volume)
    good = read(driver, volume, LOOKED_AT)
    for moment in ("begun", "copied", "removed"):
        write(driver, volume, rng.randbytes(2 * MiB), offset=MiB)
        killed_at(f"lvm/promote/{moment}", pair, "promote", volume)
        driver = pair.driver()
        update = driver.promote_replica(None, volume)
        assert update is not None
        assert update["replication_status"] == "inactive"
        assert read(driver, volume, LOOKED_AT) == good, moment
        assert [item.state for item in driver.observe()] == ["current"]
        driver.reenable_replication(None, volume)
        ship(driver, volume)
    ended(driver, volume)


# --- the rest -----------------------------------------------------------------------------------------------------


@extended
@pytest.mark.timeout(600)
def test_only_what_differs_is_shipped_and_nothing_where_nothing_was_written(pair: Pair, rng: random.Random) -> None:
    driver = pair.driver()
    assert driver.shipping is not None
    volume = replicated(driver)
    write(driver, volume, rng.randbytes(16 * MiB))
    ship(driver, volume)
    assert driver.shipping.shipped_bytes == 0, "the first copy is no difference"
    write(driver, volume, rng.randbytes(3 * MiB), offset=5 * MiB + 4096)
    ship(driver, volume)
    assert 3 * MiB <= driver.shipping.shipped_bytes <= 4 * MiB
    points = volumes_of(FIRST)
    ship(driver, volume)
    assert volumes_of(FIRST) == points, "a point was taken although nothing was written"
    assert driver.get_volume_stats(refresh=True)["pools"][0]["replication_lag_seconds"] >= 0
    # It grows with its volume.
    driver.extend_volume(volume, 2)
    grown = Volume(id=volume.id, size=2, volume_type=REPLICATED)
    end = rng.randbytes(MiB)
    write(driver, grown, end, offset=2 * GiB - MiB)
    ship(driver, grown)
    driver.failover_host(None, [grown])
    with open(driver.export_path(grown), "rb") as device:
        device.seek(2 * GiB - MiB)
        assert device.read() == end
    driver.failover_host(None, [grown], "default")
    ended(driver, grown)


@extended
@pytest.mark.timeout(600)
def test_going_back_too_early_keeps_both_versions(pair: Pair, rng: random.Random) -> None:
    driver = pair.driver()
    volume, plain = replicated(driver), Volume(id=str(uuid.uuid4()), size=1)
    driver.create_volume(plain)
    write(driver, volume, rng.randbytes(2 * MiB))
    before = read(driver, volume, LOOKED_AT)
    _target, updates = driver.failover_host(None, [volume, plain])
    answers = {item["volume_id"]: item["updates"] for item in updates}
    assert answers[plain.id] == {"status": "error"} and "status" not in answers[volume.id]
    write(driver, volume, rng.randbytes(2 * MiB))
    later = read(driver, volume, LOOKED_AT)
    _target, updates = driver.failover_host(None, [volume, plain], "default")
    answers = {item["volume_id"]: item["updates"] for item in updates}
    assert plain.id not in answers
    assert (answers[volume.id]["status"], answers[volume.id]["replication_status"]) == ("error", "error")
    assert read(driver, volume, LOOKED_AT) == before
    assert driver.shipping is not None
    assert driver.shipping.finish(60.0)
    driver.failover_host(None, [volume, plain])
    assert read(driver, volume, LOOKED_AT) == later, "the later version was overwritten unasked"
    driver.failover_host(None, [volume, plain], "default")
    # Who says so goes on with the earlier one.
    driver.reenable_replication(None, volume)
    assert driver.shipping.finish(60.0)
    assert status(driver, volume) == "active"
    ended(driver, volume)
    driver.delete_volume(plain)


@extended
@pytest.mark.timeout(600)
def test_points_are_hidden_and_known_to_audits(pair: Pair, rng: random.Random) -> None:
    driver = pair.driver()
    assert driver.shipping is not None
    volume = replicated(driver)
    ship(driver, volume)
    assert [(item.object_id, item.state) for item in driver.observe()] == [(volume.name_id, "current")]
    for listed in (driver.get_manageable_volumes, driver.get_manageable_snapshots):
        found = listed([], None, None, None, None, None)
        assert not [item for item in found if names.parse_point_name(item["reference"]["source-name"])]
    assert driver.get_volume_stats(refresh=True)["pools"][0]["provisioned_capacity_gb"] == 1.0
    # The second group is away while the volume is deleted: what it has is found when it is back.
    pair.kill(SECOND)
    assert driver.get_replication_updates(None)[0]["updates"]["replication_status"] == "error"
    with pytest.raises(exception.VolmgrError):
        driver.failover_host(None, [volume])
    driver.delete_volume(volume)
    pair.revive(SECOND)
    (left,) = driver.observe()
    assert (left.object_id, left.state, left.marked) == (volume.name_id, "building", True)
    driver.discard(left.name, lambda _fraction: None)
    assert driver.observe() == []
    assert volumes_of(SECOND) == set()


# --- the contract of every driver ---------------------------------------------------------------------------------


@pytest.fixture(scope="class")
def factory() -> LvmReplicated:
    return LvmReplicated()


@pytest.fixture(scope="class")
def made_driver(
    nothing_left: None, factory: LvmReplicated, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LVMVolumeDriver, pathlib.Path]]:
    with factory.world(tmp_path_factory.mktemp("replicated")) as folder:
        yield factory.make(folder), folder


@pytest.fixture
def bench(
    one_work: None, factory: LvmReplicated, made_driver: tuple[LVMVolumeDriver, pathlib.Path]
) -> Iterator[Bench]:
    driver, folder = made_driver
    made = Bench(driver, factory, folder)
    try:
        yield made
    finally:
        factory.end(made.driver, folder)
        if made.driver is not driver:
            factory.end(driver, folder)


@extended
@pytest.mark.timeout(600)
class TestReplicas(suite.TestReplicas):
    """Replicas of single volumes."""


@extended
@pytest.mark.timeout(600)
class TestFailover(suite.TestFailover):
    """A backend that fails over."""

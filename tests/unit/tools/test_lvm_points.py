# SPDX-License-Identifier: Apache-2.0
"""What names and tags say of replicas on LVM, who has the turn, and which options are refused: all without a device."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.lvm_build import tags_of
from volmgr.drivers.lvm_points import (
    BASE,
    FOLLOWS,
    STOPPED,
    WHOLE,
    common,
    newest_whole,
    point_tag,
    points_of,
    replicated,
    stance,
    stance_tags,
    taken_tag,
)
from volmgr.drivers.lvm_ship import Turns
from volmgr.drivers.options import Configuration
from volmgr.tools.lvm_report import LogicalVolume, LvAttributes, Report, VgAttributes
from volmgr.types import Snapshot, Volume, VolumeType

ONE, TWO = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC)
REPLICATED = VolumeType("t", "replicated", {"replication": "<is> True"})


def volume(name: str, *tags: str) -> LogicalVolume:
    attributes = LvAttributes.parse("Vwi-a-tz--")
    return LogicalVolume(name, "u", attributes, 1 << 30, 1 << 30, "", "p", None, None, frozenset(tags), True)


def point(number: int, state: str = "", of: str = ONE, moment: datetime.datetime = MOMENT) -> LogicalVolume:
    return volume(names.point_name(of, number), taken_tag(moment), *([point_tag(state)] if state else []))


def report(*volumes: LogicalVolume) -> Report:
    bits = VgAttributes.parse("wz--n-")
    return Report("vg", "u", bits, 1 << 40, 1 << 40, 1 << 22, frozenset(), 0, {item.name: item for item in volumes})


def test_what_is_unfinished_never_counts() -> None:
    found = report(point(3), point(2, WHOLE), point(1, WHOLE), point(9, WHOLE, TWO))
    newest = newest_whole(found, ONE)
    assert newest is not None
    assert (newest.number, newest.moment) == (2, MOMENT)
    assert [item.number for item in points_of(found, ONE)] == [3, 2, 1]
    assert newest_whole(report(point(1), point(2, BASE)), ONE) is None


def test_both_sides_have_a_point_only_if_it_is_of_the_same_moment() -> None:
    mine = points_of(report(point(3, WHOLE), point(2, WHOLE)), ONE)
    found = common(mine, points_of(report(point(3), point(2, BASE)), ONE))
    assert found is not None
    assert found.number == 2
    other = MOMENT + datetime.timedelta(microseconds=1)
    assert common(mine, points_of(report(point(3, WHOLE, moment=other)), ONE)) is None
    assert common(mine, []) is None


def test_a_volume_says_by_its_tag_how_it_stands() -> None:
    add, remove = stance_tags(STOPPED)
    made = volume(names.object_name("volume", ONE), *names.lv_tags(ONE, "volume", TWO), *add)
    assert stance(made) == STOPPED
    assert not set(add) & set(remove)
    plain = volume(names.object_name("volume", TWO))
    trash = volume(names.trash_name(TWO), *add)
    assert replicated(report(made, plain, trash)) == {ONE: TWO}


def test_only_volumes_whose_type_says_so_are_replicated() -> None:
    wanted = Volume(id=ONE, size=1, volume_type=REPLICATED)
    assert stance(volume("v", *tags_of(wanted))) == FOLLOWS
    assert stance(volume("v", *tags_of(Volume(id=ONE, size=1)))) is None
    snapshot = Snapshot(id=TWO, volume_id=ONE, volume_size=1, volume=wanted)
    assert stance(volume("s", *tags_of(snapshot))) is None


def test_whoever_ships_is_told_that_somebody_waits() -> None:
    turns, waiting, done = Turns(), threading.Event(), threading.Event()

    def wait() -> None:
        waiting.set()
        with turns.held(ONE):
            done.set()

    with turns.held(ONE):
        assert not turns.asked(ONE)
        thread = threading.Thread(target=wait)
        thread.start()
        assert waiting.wait(30)
        while not turns.asked(ONE):
            threading.Event().wait(0.01)
        with turns.held(TWO):
            assert not done.is_set()
        with pytest.raises(exception.Busy), turns.held(ONE, 0.0):
            raise AssertionError("two have the turn")
    thread.join(30)
    assert done.is_set()
    assert not turns.asked(ONE)


def driver(*devices: dict[str, str]) -> LVMVolumeDriver:
    options: dict[str, Any] = {"volume_group": "vg", "lvm_type": "thin", "replication_device": list(devices)}
    return LVMVolumeDriver(configuration=Configuration(options), host="host@lvm")


@pytest.mark.parametrize(
    "devices",
    [
        [{"backend_id": "cellar"}],
        [{"volume_group": "vg"}],
        [{"volume_group": "other", "pool": "p"}],
        [{"volume_group": "other"}, {"volume_group": "third"}],
    ],
)
def test_a_device_that_cannot_be_is_refused(devices: list[dict[str, str]]) -> None:
    with pytest.raises(exception.InvalidConfiguration, match="replication_device"):
        driver(*devices)


def test_without_a_device_the_verbs_say_what_they_need() -> None:
    plain, pair = driver(), driver({"volume_group": "cellar"})
    assert pair.lacks == {}
    for verb in ("failover_host", "promote_replica", "reenable_replication", "create_replica_test_volume"):
        assert "replication_device" in plain.lacks[verb]
    assert plain.get_replication_updates(None) == []
    assert plain.get_replication_status(None, Volume(id=ONE, size=1, volume_type=REPLICATED)) is None
    with pytest.raises(exception.Unsupported):
        plain.failover_host(None, [])


def test_a_driver_that_starts_after_a_failover_works_on_the_other_group() -> None:
    options = {
        "volume_group": "vg", "lvm_type": "thin",
        "replication_device": [{"backend_id": "cellar", "volume_group": "deep", "thin_pool": "p"}],
    }
    made = LVMVolumeDriver(configuration=Configuration(options), host="host@lvm", active_backend_id="cellar")
    assert (made.vg.name, made.pool, made.gates.group) == ("deep", "p", "deep")
    assert made.local_path(Volume(id=ONE, size=1)) == f"/dev/deep/volume-{ONE}"
    with pytest.raises(exception.Invalid):
        made.failover_host(None, [], "nowhere")

# SPDX-License-Identifier: Apache-2.0
"""Conformance: volumes with a replica, and the failover of a whole backend. Knows no driver.

A driver copies when it likes; a test waits until it says that the replica is consistent.
"""

from __future__ import annotations

from typing import Any

import pytest

from volmgr import exception
from volmgr.drivers.interfaces import supports
from volmgr.testing.conformance.bench import Bench
from volmgr.testing.conformance.suite.test_copies import LATER
from volmgr.testing.conformance.suite.test_volumes import DATA
from volmgr.testing.waiting import wait_until
from volmgr.types import Volume, VolumeType

REPLICATED = VolumeType("11111111-1111-4111-8111-111111111111", "replicated", {"replication": "<is> True"})
STATUSES = {"error", "copying", "active", "active-stopped", "inactive"}
KEYS = {"replication_status", "replication_extended_status", "replication_driver_data"}
DEADLINE = 60.0


def _replicated(bench: Bench, data: bytes = DATA) -> Volume:
    bench.need("get_replication_status", "promote_replica")
    volume = bench.volume(volume_type=REPLICATED)
    update = bench.driver.create_volume(volume)
    assert set(update) >= KEYS
    assert update["replication_status"] in ("copying", "active")
    bench.write(volume, 0, data)
    return volume


def _status(bench: Bench, volume: Volume) -> Any:
    update = bench.driver.get_replication_status(None, volume)
    assert set(update) == KEYS
    assert update["replication_status"] in STATUSES
    return update["replication_status"]


def _in_sync(bench: Bench, volume: Volume) -> None:
    wait_until(lambda: _status(bench, volume) == "active", DEADLINE, "the replica is consistent")


class TestReplicas:
    def test_a_replica_becomes_consistent_and_can_be_tried(self, bench: Bench) -> None:
        volume = _replicated(bench)
        _in_sync(bench, volume)
        trial = bench.volume(2)
        bench.driver.create_replica_test_volume(trial, volume)
        bench.driver.create_replica_test_volume(trial, volume)
        assert bench.read(trial, 0, len(DATA) + 5) == DATA + bytes(5)
        bench.write(trial, 0, LATER)
        assert bench.read(volume, 0, len(DATA)) == DATA
        assert _status(bench, volume) == "active"

    def test_a_volume_without_one_has_nothing_to_say(self, bench: Bench) -> None:
        bench.need("get_replication_status", "promote_replica", "create_replica_test_volume")
        volume = bench.created(data=DATA)
        assert bench.driver.get_replication_status(None, volume) is None
        with pytest.raises(exception.VolmgrError):
            bench.driver.promote_replica(None, volume)
        with pytest.raises(exception.VolmgrError):
            bench.driver.create_replica_test_volume(bench.volume(), volume)
        assert bench.read(volume, 0, len(DATA)) == DATA

    def test_creating_again_and_recognising_say_the_same(self, bench: Bench) -> None:
        volume = _replicated(bench)
        first = bench.driver.create_volume(volume)
        assert first["replication_status"] in ("copying", "active")
        bench.need("recognise")
        assert bench.driver.recognise("create_volume", volume) == first

    def test_promotion_ends_the_copying_and_can_be_repeated(self, bench: Bench) -> None:
        volume = _replicated(bench)
        _in_sync(bench, volume)
        for _ in range(2):
            update = bench.driver.promote_replica(None, volume)
            assert set(update) == KEYS
            assert update["replication_status"] == "inactive"
        assert bench.read(volume, 0, len(DATA)) == DATA
        bench.write(volume, 0, LATER)
        assert _status(bench, volume) == "inactive"
        update = bench.driver.reenable_replication(None, volume)
        assert update["replication_status"] in ("copying", "active")
        _in_sync(bench, volume)
        bench.driver.promote_replica(None, volume)
        assert bench.read(volume, 0, len(LATER)) == LATER

    def test_deleting_the_volume_deletes_its_replica(self, bench: Bench) -> None:
        volume = _replicated(bench)
        _in_sync(bench, volume)
        bench.driver.delete_volume(volume)
        bench.driver.delete_volume(volume)
        assert bench.seen() == {}
        plain = bench.volume(id=volume.id)
        bench.driver.create_volume(plain)
        assert bench.driver.get_replication_status(None, plain) is None

    def test_a_driver_made_anew_knows_how_it_stands(self, bench: Bench) -> None:
        volume = _replicated(bench)
        _in_sync(bench, volume)
        bench.driver.promote_replica(None, volume)
        bench.driver = bench.factory.make(bench.folder)
        assert _status(bench, volume) == "inactive"

    def test_copies_have_a_replica_too(self, bench: Bench) -> None:
        bench.need("create_cloned_volume", "promote_replica")
        source = bench.created(data=DATA)
        made = bench.volume(volume_type=REPLICATED)
        assert set(bench.driver.create_cloned_volume(made, source)) >= KEYS
        _in_sync(bench, made)
        bench.driver.promote_replica(None, made)
        assert bench.read(made, 0, len(DATA)) == DATA


class TestFailover:
    def test_a_backend_fails_over_and_back(self, bench: Bench) -> None:
        bench.need("failover_host", "promote_replica")
        kept, lost = _replicated(bench), bench.created(data=DATA)
        _in_sync(bench, kept)
        target, updates = bench.driver.failover_host(None, [kept, lost])
        assert target
        answers = {item["volume_id"]: item["updates"] for item in updates}
        assert answers[kept.id]["replication_status"] == "inactive"
        assert "status" not in answers[kept.id]
        assert answers[lost.id]["status"] == "error"
        assert bench.read(kept, 0, len(DATA)) == DATA
        bench.write(kept, 0, LATER)
        again = bench.driver.failover_host(None, [kept, lost], target)
        assert again[0] == target
        assert {item["volume_id"]: item["updates"] for item in again[1]} == answers
        bench.driver.reenable_replication(None, kept)
        _in_sync(bench, kept)
        back, updates = bench.driver.failover_host(None, [kept, lost], "default")
        assert back == "default"
        assert all("status" not in item["updates"] for item in updates)
        assert bench.read(kept, 0, len(LATER)) == LATER
        assert bench.read(lost, 0, len(DATA)) == DATA

    def test_an_unknown_target_is_refused(self, bench: Bench) -> None:
        bench.need("failover_host")
        volume = bench.created(data=DATA)
        with pytest.raises(exception.Invalid):
            bench.driver.failover_host(None, [volume], "nowhere")
        assert bench.read(volume, 0, len(DATA)) == DATA

    def test_freezing_and_thawing_are_answered_for(self, bench: Bench) -> None:
        for verb in ("freeze_backend", "thaw_backend"):
            answer = getattr(bench.driver, verb)(None)
            assert answer is True or not supports(bench.driver, verb)

    def test_changes_that_nobody_asked_for_are_told_once(self, bench: Bench) -> None:
        bench.need("get_replication_updates", "promote_replica")
        volume = _replicated(bench)
        told: list[Any] = []

        def active() -> bool:
            told.extend(bench.driver.get_replication_updates(None))
            return bool(told) and told[-1]["updates"]["replication_status"] == "active"

        wait_until(active, DEADLINE, "the replica is consistent")
        assert {item["volume_id"] for item in told} == {volume.id}
        assert bench.driver.get_replication_updates(None) == []

# SPDX-License-Identifier: Apache-2.0
"""Conformance: trash, wipes and observation. Knows no driver."""

from __future__ import annotations

import pytest

from volmgr import exception, names
from volmgr.testing.conformance.bench import Bench
from volmgr.testing.conformance.suite.test_volumes import DATA, zeros
from volmgr.types import GiB


class _StopAt:
    """A receiver of progress that breaks the work off, as a cancelled operation does."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, fraction: float) -> None:
        raise self.error


class TestTrash:
    def test_trash_keeps_the_bytes_until_it_is_restored(self, bench: Bench) -> None:
        bench.need("trash_volume", "restore_volume")
        volume = bench.created(data=DATA)
        assert bench.driver.trash_volume(volume) is None
        assert {item.name: item.state for item in bench.driver.observe()} == {names.trash_name(volume.name_id): "trash"}
        bench.driver.trash_volume(volume)
        bench.driver.restore_volume(volume)
        bench.driver.restore_volume(volume)
        assert set(bench.seen("current")) == {volume.name_id}
        assert bench.read(volume, 0, len(DATA)) == DATA

    def test_snapshots_go_to_the_trash_and_come_back(self, bench: Bench) -> None:
        bench.need("trash_snapshot", "restore_snapshot", "create_volume_from_snapshot")
        volume = bench.created(data=DATA)
        snapshot = bench.snapped(volume)
        bench.driver.trash_snapshot(snapshot)
        assert set(bench.seen("current")) == {volume.name_id}
        bench.driver.trash_snapshot(snapshot)
        bench.driver.restore_snapshot(snapshot)
        bench.driver.restore_snapshot(snapshot)
        made = bench.volume()
        bench.driver.create_volume_from_snapshot(made, snapshot)
        assert bench.read(made, 0, len(DATA)) == DATA

    def test_what_is_absent_is_trashed_and_wiped_already(self, bench: Bench) -> None:
        bench.need("trash_volume", "trash_snapshot", "wipe")
        volume = bench.volume()
        bench.driver.trash_volume(volume)
        bench.driver.trash_snapshot(bench.snapshot(volume))
        bench.driver.wipe("volume", volume.name_id, bench.progress.append)
        assert bench.seen() == {}

    def test_what_is_absent_cannot_be_restored(self, bench: Bench) -> None:
        bench.need("restore_volume", "restore_snapshot")
        volume = bench.volume()
        with pytest.raises(exception.NotFound):
            bench.driver.restore_volume(volume)
        with pytest.raises(exception.NotFound):
            bench.driver.restore_snapshot(bench.snapshot(volume))

    def test_a_wipe_frees_and_says_how_far_it_is(self, bench: Bench) -> None:
        bench.need("trash_volume", "wipe")
        volume, other = bench.created(3, data=DATA), bench.created(data=DATA)
        bench.driver.trash_volume(volume)
        bench.driver.wipe("volume", volume.name_id, bench.progress.append)
        assert set(bench.seen()) == {other.name_id}
        assert bench.progress == sorted(bench.progress)
        assert bench.progress[-1] == 1.0
        assert all(0 <= fraction <= 1 for fraction in bench.progress)
        bench.driver.wipe("volume", volume.name_id, bench.progress.append)
        with pytest.raises(exception.NotFound):
            bench.driver.restore_volume(volume)

    @pytest.mark.parametrize("error", [exception.Cancelled(), exception.LeaseLost(id="x")], ids=["cancel", "lease"])
    def test_a_wipe_can_be_broken_off_and_run_again(self, bench: Bench, error: Exception) -> None:
        bench.need("trash_volume", "restore_volume", "wipe")
        volume = bench.created(5, data=DATA)
        bench.driver.trash_volume(volume)
        with pytest.raises(type(error)):
            bench.driver.wipe("volume", volume.name_id, _StopAt(error))
        with pytest.raises(exception.NotFound):
            bench.driver.restore_volume(volume)
        bench.driver.wipe("volume", volume.name_id, bench.progress.append)
        assert bench.seen() == {}

    def test_a_volume_made_again_has_nothing_to_do_with_its_trash(self, bench: Bench) -> None:
        bench.need("trash_volume", "wipe")
        volume = bench.created(data=DATA)
        bench.driver.trash_volume(volume)
        bench.driver.create_volume(volume)
        assert zeros(bench, volume)
        assert sorted(item.state for item in bench.driver.observe()) == ["current", "trash"]
        bench.driver.wipe("volume", volume.name_id, bench.progress.append)
        assert sorted(item.state for item in bench.driver.observe()) == ["current"]
        bench.driver.trash_volume(volume)
        assert sorted(item.state for item in bench.driver.observe()) == ["trash"]

    def test_a_half_made_object_does_not_stay(self, bench: Bench) -> None:
        bench.need("trash_volume", "wipe")
        volume = bench.volume()
        bench.half_build(volume, DATA)
        bench.driver.trash_volume(volume)
        bench.driver.wipe("volume", volume.name_id, bench.progress.append)
        assert bench.seen() == {}


class TestObserving:
    def test_everything_is_seen_as_what_it_is(self, bench: Bench) -> None:
        bench.need("observe", "create_snapshot", "trash_volume")
        volume, trashed, half = bench.created(2), bench.created(), bench.volume()
        snapshot = bench.snapped(volume)
        bench.driver.trash_volume(trashed)
        bench.half_build(half, DATA)
        found = {item.object_id: (item.kind, item.state) for item in bench.driver.observe()}
        assert found == {
            volume.name_id: ("volume", "current"),
            snapshot.name_id: ("snapshot", "current"),
            trashed.name_id: ("", "trash"),
            half.name_id: ("", "building"),
        }
        sizes = {item.object_id: item.size_bytes for item in bench.driver.observe() if item.state != "building"}
        assert sizes == {volume.name_id: 2 * GiB, snapshot.name_id: 2 * GiB, trashed.name_id: GiB}

    def test_names_can_be_parsed_back(self, bench: Bench) -> None:
        bench.need("observe", "create_snapshot")
        volume = bench.created()
        snapshot = bench.snapped(volume)
        parsed = {names.parse_object_name(item.name) for item in bench.driver.observe()}
        assert parsed == {
            names.ObjectName("volume", volume.name_id),
            names.ObjectName("snapshot", snapshot.name_id),
        }

    def test_creates_are_recognised_when_they_are_whole(self, bench: Bench) -> None:
        bench.need("recognise", "create_snapshot")
        volume = bench.volume()
        with pytest.raises(exception.NotFound):
            bench.driver.recognise("create_volume", volume)
        bench.half_build(volume, DATA)
        with pytest.raises(exception.NotFound):
            bench.driver.recognise("create_volume", volume)
        made = bench.driver.create_volume(volume)
        assert (bench.driver.recognise("create_volume", volume) or {}) == (made or {})
        snapshot = bench.snapshot(volume)
        with pytest.raises(exception.NotFound):
            bench.driver.recognise("create_snapshot", snapshot)
        made = bench.driver.create_snapshot(snapshot)
        assert (bench.driver.recognise("create_snapshot", snapshot) or {}) == (made or {})

    def test_extends_and_deletes_are_recognised(self, bench: Bench) -> None:
        bench.need("recognise", "extend_volume")
        volume = bench.created()
        grown = bench.volume(2, id=volume.id)
        with pytest.raises(exception.NotFound):
            bench.driver.recognise("extend_volume", grown)
        bench.driver.extend_volume(volume, 2)
        bench.driver.recognise("extend_volume", grown)
        with pytest.raises(exception.NotFound):
            bench.driver.recognise("delete_volume", grown)
        bench.driver.delete_volume(grown)
        bench.driver.recognise("delete_volume", grown)

    def test_what_is_observed_can_be_freed_by_its_name(self, bench: Bench) -> None:
        """Each of its names alone: what lies beside it under the same id stays."""
        bench.need("observe", "discard", "trash_volume")
        kept, trashed = bench.created(), bench.created()
        bench.driver.trash_volume(trashed)
        bench.half_build(kept, DATA)
        heard: list[float] = []
        for state, name in (("building", names.building_name(kept.name_id)), ("trash", names.trash_name(trashed.id))):
            assert name in {item.name for item in bench.driver.observe() if item.state == state}
            bench.driver.discard(name, heard.append)
            assert name not in {item.name for item in bench.driver.observe()}
            bench.driver.discard(name, heard.append)
        assert heard[-1] == 1.0
        assert [item.name for item in bench.driver.observe()] == [kept.name]
        bench.driver.discard(kept.name, heard.append)
        assert list(bench.driver.observe()) == []

    def test_only_our_names_can_be_freed(self, bench: Bench) -> None:
        bench.need("discard")
        for name in ("root", "../volume", "volume-1", "", names.unmanaged_name("volume", bench.volume().id)):
            with pytest.raises(exception.Invalid):
                bench.driver.discard(name, lambda _fraction: None)

    def test_statistics_follow_what_is_there(self, bench: Bench) -> None:
        empty = bench.driver.get_volume_stats(refresh=True)
        assert {"volume_backend_name", "vendor_name", "driver_version", "storage_protocol"} <= set(empty)
        before = sum(pool["provisioned_capacity_gb"] for pool in empty["pools"])
        volume = bench.created(7)
        pools = bench.driver.get_volume_stats(refresh=True)["pools"]
        assert sum(pool["provisioned_capacity_gb"] for pool in pools) == before + 7
        assert all(0 <= pool["free_capacity_gb"] <= pool["total_capacity_gb"] for pool in pools)
        assert bench.driver.get_pool(volume) in [None, *(pool["pool_name"] for pool in pools)]

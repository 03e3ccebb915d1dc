# SPDX-License-Identifier: Apache-2.0
"""Conformance: snapshots, clones and reverts hold the bytes of one moment and share nothing. Knows no driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from volmgr import exception
from volmgr.testing.conformance.bench import Bench, does_not_apply
from volmgr.testing.conformance.suite.test_volumes import DATA, PLACES, zeros
from volmgr.types import GiB, Snapshot, Volume

LATER = b"written a while later"


class TestSnapshots:
    def test_a_snapshot_keeps_the_bytes_of_its_moment(self, bench: Bench) -> None:
        bench.need("create_snapshot", "create_volume_from_snapshot")
        volume = bench.created(data=DATA, offset=PLACES[1])
        snapshot = bench.snapshot(volume)
        update = bench.driver.create_snapshot(snapshot)
        assert update is None or isinstance(update, dict)
        bench.write(volume, PLACES[1], LATER)
        made = bench.volume()
        bench.driver.create_volume_from_snapshot(made, snapshot)
        assert bench.read(made, PLACES[1], len(DATA)) == DATA
        assert bench.read(volume, PLACES[1], len(LATER)) == LATER

    def test_creating_again_keeps_the_first_moment(self, bench: Bench) -> None:
        bench.need("create_snapshot", "create_volume_from_snapshot")
        volume = bench.created(data=DATA)
        snapshot = bench.snapped(volume)
        bench.write(volume, 0, LATER)
        bench.driver.create_snapshot(snapshot)
        made = bench.volume()
        bench.driver.create_volume_from_snapshot(made, snapshot)
        assert bench.read(made, 0, len(DATA)) == DATA

    def test_delete_and_delete_again(self, bench: Bench) -> None:
        bench.need("create_snapshot")
        volume = bench.created(data=DATA)
        snapshot = bench.snapped(volume)
        assert bench.driver.delete_snapshot(snapshot) is None
        bench.driver.delete_snapshot(snapshot)
        bench.driver.delete_snapshot(bench.snapshot(volume))
        assert set(bench.seen()) == {volume.name_id}
        assert bench.read(volume, 0, len(DATA)) == DATA

    def test_without_its_volume_nothing_is_made(self, bench: Bench) -> None:
        bench.need("create_snapshot")
        with pytest.raises(exception.NotFound):
            bench.driver.create_snapshot(bench.snapshot(bench.volume()))
        assert bench.seen() == {}

    def test_a_half_made_snapshot_is_made_anew(self, bench: Bench) -> None:
        bench.need("create_snapshot", "create_volume_from_snapshot")
        volume = bench.created(data=DATA)
        snapshot = bench.snapshot(volume)
        bench.half_build(snapshot, LATER)
        bench.driver.create_snapshot(snapshot)
        made = bench.volume()
        bench.driver.create_volume_from_snapshot(made, snapshot)
        assert bench.read(made, 0, len(LATER)) == DATA.ljust(len(LATER), b"\0")
        assert bench.seen("building") == {}


def _from_snapshot(bench: Bench, source: Volume) -> Callable[[Volume], Any]:
    bench.need("create_snapshot", "create_volume_from_snapshot")
    snapshot = bench.snapped(source)
    return lambda volume: bench.driver.create_volume_from_snapshot(volume, snapshot)


def _from_volume(bench: Bench, source: Volume) -> Callable[[Volume], Any]:
    bench.need("create_cloned_volume")
    return lambda volume: bench.driver.create_cloned_volume(volume, source)


Way = Callable[[Bench, Volume], Callable[[Volume], Any]]
both_ways = pytest.mark.parametrize("way", [_from_snapshot, _from_volume], ids=["snapshot", "volume"])


class TestClones:
    @both_ways
    def test_a_copy_has_the_bytes_and_zeros_behind_them(self, bench: Bench, way: Way) -> None:
        source = bench.created(data=DATA, offset=PLACES[2])
        clone = way(bench, source)
        made = bench.volume(3)
        update = clone(made)
        assert update is None or isinstance(update, dict)
        assert bench.read(made, PLACES[2], len(DATA) + 100) == DATA + bytes(100)
        assert bench.read(made, 3 * GiB - 100, 200) == bytes(100)
        assert bench.read(made, 0, 100) == bytes(100)

    @both_ways
    def test_source_and_copy_share_nothing_afterwards(self, bench: Bench, way: Way) -> None:
        source = bench.created(data=DATA)
        made = bench.volume()
        way(bench, source)(made)
        bench.write(made, 0, LATER)
        assert bench.read(source, 0, len(DATA)) == DATA
        bench.write(source, 0, DATA[::-1])
        assert bench.read(made, 0, len(LATER)) == LATER

    @both_ways
    def test_copying_again_keeps_what_was_written_since(self, bench: Bench, way: Way) -> None:
        source = bench.created(data=DATA)
        clone, made = way(bench, source), bench.volume()
        clone(made)
        bench.write(made, 0, LATER)
        clone(made)
        assert bench.read(made, 0, len(LATER)) == LATER

    @both_ways
    def test_a_half_made_copy_is_made_anew(self, bench: Bench, way: Way) -> None:
        source = bench.created(data=DATA)
        clone, made = way(bench, source), bench.volume()
        bench.half_build(made, LATER * 100)
        clone(made)
        assert bench.read(made, 0, 2 * len(DATA)) == DATA + bytes(len(DATA))
        assert bench.seen("building") == {}

    @both_ways
    def test_a_copy_cannot_be_smaller_than_its_source(self, bench: Bench, way: Way) -> None:
        clone, made = way(bench, bench.created(2)), bench.volume(1)
        with pytest.raises(exception.Invalid):
            clone(made)
        assert made.name_id not in bench.seen()

    def test_an_absent_source_is_not_found(self, bench: Bench) -> None:
        bench.need("create_cloned_volume", "create_volume_from_snapshot")
        made, absent = bench.volume(), bench.volume()
        with pytest.raises(exception.NotFound):
            bench.driver.create_cloned_volume(made, absent)
        with pytest.raises(exception.NotFound):
            bench.driver.create_volume_from_snapshot(made, bench.snapshot(absent))
        assert bench.seen() == {}

    def test_nothing_but_the_clone_is_made(self, bench: Bench) -> None:
        bench.need("create_cloned_volume")
        source, made = bench.created(), bench.volume()
        bench.driver.create_cloned_volume(made, source)
        assert set(bench.seen()) == {source.name_id, made.name_id}

    def test_copies_outlive_their_source(self, bench: Bench) -> None:
        bench.need("create_snapshot", "create_volume_from_snapshot")
        source = bench.created(data=DATA)
        snapshot, made = bench.snapped(source), bench.volume()
        bench.driver.create_volume_from_snapshot(made, snapshot)
        bench.driver.delete_snapshot(snapshot)
        bench.driver.delete_volume(source)
        assert bench.read(made, 0, len(DATA)) == DATA

    def test_much_scattered_data_is_copied_whole(self, bench: Bench) -> None:
        bench.need("create_cloned_volume")
        source, made = bench.created(), bench.volume()
        marks = {offset: f"mark {offset}".encode() for offset in range(0, GiB, 37 * 1024 * 1024 + 511)}
        for offset, mark in marks.items():
            bench.write(source, offset, mark)
        bench.driver.create_cloned_volume(made, source)
        assert {offset: bench.read(made, offset, len(mark)) for offset, mark in marks.items()} == marks
        unwritten = bench.volume()
        bench.driver.create_volume(unwritten)
        assert zeros(bench, unwritten)


class TestReverts:
    def _reverted(self, bench: Bench) -> tuple[Volume, Snapshot]:
        bench.need("revert_to_snapshot")
        volume = bench.created(data=DATA)
        snapshot = bench.snapped(volume)
        bench.write(volume, 0, LATER)
        bench.write(volume, PLACES[2], DATA)
        bench.driver.revert_to_snapshot(None, volume, snapshot)
        return volume, snapshot

    def test_a_reverted_volume_has_the_snapshot_s_bytes(self, bench: Bench) -> None:
        volume, _snapshot = self._reverted(bench)
        assert bench.read(volume, 0, 2 * len(DATA)) == DATA + bytes(len(DATA))
        assert bench.read(volume, PLACES[2], len(DATA)) == bytes(len(DATA))
        assert bench.seen("building") == {}

    def test_the_snapshot_is_still_good_afterwards(self, bench: Bench) -> None:
        volume, snapshot = self._reverted(bench)
        bench.write(volume, 0, LATER)
        bench.driver.revert_to_snapshot(None, volume, snapshot)
        assert bench.read(volume, 0, len(DATA)) == DATA

    def test_a_volume_that_has_grown_keeps_its_size(self, bench: Bench) -> None:
        bench.need("revert_to_snapshot", "extend_volume")
        volume = bench.created(data=DATA)
        snapshot = bench.snapped(volume)
        try:
            bench.driver.extend_volume(volume, 2)
        except exception.Unsupported:
            assert bench.seen()[volume.name_id].size_bytes == GiB
            does_not_apply(f"{bench.factory.name} extends no volume that has snapshots")
        bench.write(volume, 2 * GiB - len(LATER), LATER)
        bench.driver.revert_to_snapshot(None, bench.volume(2, id=volume.id), snapshot)
        assert bench.seen()[volume.name_id].size_bytes == 2 * GiB
        assert bench.read(volume, 2 * GiB - len(LATER), len(LATER)) == bytes(len(LATER))
        assert bench.read(volume, 0, len(DATA)) == DATA

# SPDX-License-Identifier: Apache-2.0
"""Conformance: plain volumes, created, extended, deleted, again and again. Knows no driver."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from volmgr import exception
from volmgr.testing.conformance.bench import Bench
from volmgr.types import GiB

DATA = b"first tenant's bytes"
#: Places in a volume of 1 GiB: the first block, off a block's border, the last bytes.
PLACES = (0, 4096 * 7 - 3, GiB - len(DATA))


def zeros(bench: Bench, resource: object, size_gib: int = 1) -> bool:
    """Return whether the places of interest read as zeros."""
    last = (size_gib - 1) * GiB
    return all(
        bench.read(resource, offset, len(DATA)) == bytes(len(DATA))  # type: ignore[arg-type]
        for offset in (*PLACES, *(place + last for place in PLACES))
    )


class TestVolumes:
    def test_a_new_volume_has_its_size_and_reads_as_zeros(self, bench: Bench) -> None:
        volume = bench.volume(3)
        update = bench.driver.create_volume(volume)
        assert update is None or isinstance(update, dict)
        assert zeros(bench, volume, 3)
        assert bench.seen()[volume.name_id].size_bytes == 3 * GiB
        bench.write(volume, 3 * GiB - len(DATA), DATA)
        assert bench.read(volume, 3 * GiB - len(DATA), 2 * len(DATA)) == DATA

    def test_creating_again_is_success_and_changes_nothing(self, bench: Bench) -> None:
        volume = bench.created(data=DATA, offset=PLACES[1])
        update = bench.driver.create_volume(volume)
        assert update is None or isinstance(update, dict)
        assert bench.read(volume, PLACES[1], len(DATA)) == DATA
        assert len(bench.seen()) == 1

    def test_another_size_under_the_same_name_is_a_conflict(self, bench: Bench) -> None:
        volume = bench.created(data=DATA)
        with pytest.raises(exception.Conflict):
            bench.driver.create_volume(bench.volume(2, id=volume.id))
        assert bench.read(volume, 0, len(DATA)) == DATA
        assert bench.seen()[volume.name_id].size_bytes == GiB

    def test_delete_and_delete_again(self, bench: Bench) -> None:
        volume, other = bench.created(data=DATA), bench.created(data=DATA)
        assert bench.driver.delete_volume(volume) is None
        assert set(bench.seen()) == {other.name_id}
        bench.driver.delete_volume(volume)
        bench.driver.delete_volume(bench.volume())
        assert bench.read(other, 0, len(DATA)) == DATA

    def test_a_volume_created_again_has_none_of_the_old_bytes(self, bench: Bench) -> None:
        volume = bench.volume()
        bench.driver.create_volume(volume)
        for place in PLACES:
            bench.write(volume, place, DATA)
        bench.driver.delete_volume(volume)
        bench.driver.create_volume(volume)
        assert zeros(bench, volume)

    def test_a_half_made_volume_is_made_anew(self, bench: Bench) -> None:
        volume = bench.volume()
        bench.half_build(volume, DATA)
        bench.driver.create_volume(volume)
        assert zeros(bench, volume)
        found = bench.seen()
        assert [(item.state, item.size_bytes) for item in found.values()] == [("current", GiB)]

    def test_deleting_takes_a_half_made_volume_too(self, bench: Bench) -> None:
        volume = bench.volume()
        bench.half_build(volume, DATA)
        bench.driver.delete_volume(volume)
        assert bench.seen() == {}

    def test_a_driver_made_anew_finds_everything(self, bench: Bench) -> None:
        volume = bench.created(data=DATA)
        bench.driver = bench.factory.make(bench.folder)
        assert bench.read(volume, 0, len(DATA)) == DATA
        bench.driver.create_volume(volume)
        assert set(bench.seen("current")) == {volume.name_id}

    def test_volumes_can_be_created_side_by_side(self, bench: Bench) -> None:
        volumes = [bench.volume() for _ in range(12)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(bench.driver.create_volume, volumes))
        found = bench.seen("current")
        assert set(found) == {volume.name_id for volume in volumes}
        assert {item.size_bytes for item in found.values()} == {GiB}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(bench.driver.delete_volume, volumes))
        assert bench.seen() == {}

    def test_what_the_target_is_to_serve_is_named(self, bench: Bench) -> None:
        bench.need("export_path")
        first, second = bench.created(), bench.created()
        assert bench.driver.export_path(first)
        assert bench.driver.export_path(first) != bench.driver.export_path(second)


class TestExtending:
    def test_bytes_stay_and_what_is_new_reads_as_zeros(self, bench: Bench) -> None:
        bench.need("extend_volume")
        volume = bench.created(data=DATA, offset=PLACES[2])
        assert bench.driver.extend_volume(volume, 3) is None
        assert bench.read(volume, PLACES[2], 3 * len(DATA)) == DATA + bytes(2 * len(DATA))
        assert bench.read(volume, 3 * GiB - 512, 1024) == bytes(512)
        assert bench.seen()[volume.name_id].size_bytes == 3 * GiB

    def test_the_present_size_is_success(self, bench: Bench) -> None:
        bench.need("extend_volume")
        volume = bench.created(2, data=DATA)
        bench.driver.extend_volume(volume, 2)
        bench.driver.extend_volume(volume, 3)
        bench.driver.extend_volume(volume, 3)
        assert bench.read(volume, 0, len(DATA)) == DATA
        assert bench.seen()[volume.name_id].size_bytes == 3 * GiB

    def test_a_volume_never_shrinks(self, bench: Bench) -> None:
        bench.need("extend_volume")
        volume = bench.created(2, data=DATA, offset=2 * GiB - len(DATA))
        with pytest.raises(exception.Invalid):
            bench.driver.extend_volume(volume, 1)
        assert bench.read(volume, 2 * GiB - len(DATA), len(DATA)) == DATA

    def test_what_is_absent_cannot_grow(self, bench: Bench) -> None:
        bench.need("extend_volume")
        with pytest.raises(exception.NotFound):
            bench.driver.extend_volume(bench.volume(), 2)
        assert bench.seen() == {}

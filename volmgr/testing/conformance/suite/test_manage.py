# SPDX-License-Identifier: Apache-2.0
"""Conformance: storage that exists already becomes a volume, a volume is let go, and lists of both come in pages.

Also images inside the backend, and moves to a neighbour. Knows no driver; what is foreign is put there by its factory.
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.drivers.interfaces import supports
from volmgr.testing.conformance.bench import Bench, does_not_apply
from volmgr.testing.conformance.suite.test_copies import LATER
from volmgr.testing.conformance.suite.test_volumes import DATA, zeros
from volmgr.types import GiB, MiB, Volume

KEYS = {"reference", "size", "safe_to_manage", "reason_not_safe", "cinder_id", "extra_info"}
ALL = (None, None, None, None, None)


def _foreign(bench: Bench, size_bytes: int = GiB, data: bytes = DATA) -> dict[str, str]:
    """Return the reference of a volume that is not ours."""
    name = f"foreign{uuid.uuid4().hex[:8]}"
    if not bench.factory.foreign(bench.driver, name, size_bytes, data):
        does_not_apply(f"{bench.factory.name} cannot be given foreign objects")
    return {"source-name": name}


def _references(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["reference"]["source-name"] for entry in entries]


class TestManaging:
    def test_what_is_foreign_becomes_a_volume_with_its_bytes(self, bench: Bench) -> None:
        bench.need("manage_existing", "manage_existing_get_size")
        reference = _foreign(bench)
        volume = bench.volume(bench.driver.manage_existing_get_size(bench.volume(), reference))
        assert volume.size == 1
        assert bench.seen() == {}
        update = bench.driver.manage_existing(volume, reference)
        assert update is None or isinstance(update, dict)
        assert bench.read(volume, 0, len(DATA)) == DATA
        assert bench.seen("current")[volume.name_id].size_bytes == GiB
        # A repeat after a crash finds the work done.
        bench.driver.manage_existing(volume, reference)
        assert bench.read(volume, 0, len(DATA)) == DATA

    def test_a_size_between_is_rounded_up_with_zeros(self, bench: Bench) -> None:
        bench.need("manage_existing", "manage_existing_get_size")
        reference = _foreign(bench, GiB + 4 * MiB)
        assert bench.driver.manage_existing_get_size(bench.volume(), reference) == 2
        volume = bench.volume(2)
        bench.driver.manage_existing(volume, reference)
        assert bench.seen()[volume.name_id].size_bytes == 2 * GiB
        assert bench.read(volume, 0, len(DATA)) == DATA
        assert bench.read(volume, 2 * GiB - 512, 1024) == bytes(512)

    @pytest.mark.parametrize("reference", [{}, {"source-name": ""}, {"source-name": "absent"}, {"source-id": "x"}])
    def test_a_reference_that_names_nothing_is_refused(self, bench: Bench, reference: dict[str, str]) -> None:
        bench.need("manage_existing", "manage_existing_get_size")
        volume = bench.volume()
        for verb in (bench.driver.manage_existing_get_size, bench.driver.manage_existing):
            with pytest.raises(exception.ManageExistingInvalidReference):
                verb(volume, reference)
        assert bench.seen() == {}

    def test_another_volume_s_object_is_not_for_taking(self, bench: Bench) -> None:
        bench.need("manage_existing")
        other, volume = bench.created(data=DATA), bench.volume()
        with pytest.raises(exception.ManageExistingAlreadyManaged):
            bench.driver.manage_existing(volume, {"source-name": other.name})
        assert set(bench.seen()) == {other.name_id}
        assert bench.read(other, 0, len(DATA)) == DATA

    def test_what_is_let_go_stays_and_is_not_ours(self, bench: Bench) -> None:
        bench.need("manage_existing", "unmanage")
        volume = bench.created(data=DATA)
        for _ in range(2):
            assert bench.driver.unmanage(volume) is None
            assert bench.seen() == {}
        # The same id again gets storage of its own.
        bench.driver.create_volume(volume)
        assert zeros(bench, volume)
        bench.write(volume, 0, LATER)
        again = bench.volume()
        bench.driver.manage_existing(again, {"source-name": names.unmanaged_name("volume", volume.name_id)})
        assert bench.read(again, 0, len(DATA)) == DATA
        assert bench.read(volume, 0, len(LATER)) == LATER

    def test_letting_go_never_replaces_what_was_let_go_before(self, bench: Bench) -> None:
        bench.need("manage_existing", "unmanage")
        volume = bench.created(data=DATA)
        bench.driver.unmanage(volume)
        bench.driver.create_volume(volume)
        with pytest.raises(exception.Conflict):
            bench.driver.unmanage(volume)
        again = bench.volume()
        bench.driver.manage_existing(again, {"source-name": names.unmanaged_name("volume", volume.name_id)})
        assert bench.read(again, 0, len(DATA)) == DATA

    def test_snapshots_are_let_go_and_managed_again(self, bench: Bench) -> None:
        bench.need("manage_existing_snapshot", "unmanage_snapshot", "create_volume_from_snapshot")
        volume = bench.created(data=DATA)
        snapshot = bench.snapped(volume)
        bench.write(volume, 0, LATER)
        for _ in range(2):
            bench.driver.unmanage_snapshot(snapshot)
            assert set(bench.seen()) == {volume.name_id}
        reference = {"source-name": names.unmanaged_name("snapshot", snapshot.name_id)}
        again, made = bench.snapshot(volume), bench.volume()
        assert bench.driver.manage_existing_snapshot_get_size(again, reference) == 1
        bench.driver.manage_existing_snapshot(again, reference)
        bench.driver.manage_existing_snapshot(again, reference)
        bench.driver.create_volume_from_snapshot(made, again)
        assert bench.read(made, 0, len(DATA)) == DATA
        with pytest.raises(exception.ManageExistingInvalidReference):
            bench.driver.manage_existing_snapshot(bench.snapshot(volume), reference)


class TestManageable:
    def test_entries_say_what_may_be_managed(self, bench: Bench) -> None:
        bench.need("get_manageable_volumes")
        reference, ours = _foreign(bench, GiB + 4 * MiB), bench.created()
        if supports(bench.driver, "trash_volume"):
            bench.driver.trash_volume(bench.created())
        entries = bench.driver.get_manageable_volumes([ours], *ALL)
        assert all(set(entry) == KEYS for entry in entries)
        found = {entry["reference"]["source-name"]: entry for entry in entries}
        free, taken = found.pop(reference["source-name"]), found.pop(ours.name)
        assert not found
        assert (free["size"], free["safe_to_manage"], free["reason_not_safe"], free["cinder_id"]) == (
            2,
            True,
            None,
            None,
        )
        assert (taken["size"], taken["safe_to_manage"], taken["cinder_id"]) == (1, False, ours.id)
        assert isinstance(taken["reason_not_safe"], str)
        volume = bench.volume(free["size"])
        bench.driver.manage_existing(volume, free["reference"])
        assert _references(bench.driver.get_manageable_volumes([ours, volume], *ALL)) == sorted(
            [ours.name, volume.name]
        )

    def test_pages_cover_the_list_once_and_in_order(self, bench: Bench) -> None:
        bench.need("get_manageable_volumes")
        for size in (3, 1, 2, 1, 2):
            _foreign(bench, size * GiB, b"")
        whole = bench.driver.get_manageable_volumes([], None, None, None, ["size", "reference"], ["desc", "asc"])
        assert [entry["size"] for entry in whole] == [3, 2, 2, 1, 1]
        assert whole == sorted(whole, key=lambda entry: (-entry["size"], entry["reference"]["source-name"]))
        paged, marker = [], None
        while True:
            part = bench.driver.get_manageable_volumes([], marker, 2, 0, ["size", "reference"], ["desc", "asc"])
            assert len(part) <= 2
            if not part:
                break
            paged += part
            marker = part[-1]["reference"]["source-name"]
        assert paged == whole
        assert bench.driver.get_manageable_volumes([], None, 2, 1, ["size", "reference"], ["desc", "asc"]) == whole[1:3]

    @pytest.mark.parametrize(
        ("arguments", "field"),
        [
            (("nobody", None, None, None, None), "marker"),
            ((None, -1, None, None, None), "limit"),
            ((None, None, -1, None, None), "offset"),
            ((None, None, None, ["colour"], None), "sort_keys"),
            ((None, None, None, ["size"], ["up"]), "sort_dirs"),
        ],
    )
    def test_bad_arguments_are_refused_by_name(self, bench: Bench, arguments: tuple[Any, ...], field: str) -> None:
        bench.need("get_manageable_volumes")
        _foreign(bench)
        with pytest.raises(exception.Invalid) as caught:
            bench.driver.get_manageable_volumes([], *arguments)
        assert caught.value.details["field"] == field

    def test_snapshots_name_their_source_too(self, bench: Bench) -> None:
        bench.need("get_manageable_snapshots", "create_snapshot")
        volume = bench.created()
        snapshot = bench.snapped(volume)
        (entry,) = bench.driver.get_manageable_snapshots([snapshot], *ALL)
        assert set(entry) == KEYS | {"source_reference"}
        assert (entry["cinder_id"], entry["safe_to_manage"], entry["size"]) == (snapshot.id, False, 1)
        assert entry["source_reference"] == {"source-name": volume.name}


class Images:
    """An image service in memory, at the outer edge; of what it is given it keeps the beginning and the length."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.length = len(data)

    def show(self, context: Any, image_id: str) -> dict[str, Any]:
        return {"id": image_id, "disk_format": "raw", "size": self.length}

    def download(self, context: Any, image_id: str, file: Any) -> None:
        for start in range(0, len(self.data), MiB):
            file.write(self.data[start : start + MiB])

    def update(self, context: Any, image_id: str, image_meta: dict[str, Any], file: Any) -> None:
        self.data, self.length = b"", 0
        while part := file.read(4 * MiB):
            self.data = self.data or part
            self.length += len(part)


class TestImagesAndMoves:
    def test_an_image_is_written_to_a_volume_and_read_from_it(self, bench: Bench) -> None:
        bench.need("copy_image_to_volume", "copy_volume_to_image", "local_path")
        volume, other = bench.created(), bench.created(data=DATA)
        try:
            bench.driver.local_path(volume)
        except exception.Unsupported:
            does_not_apply(f"{bench.factory.name} has no devices")
        content = DATA + bytes(3 * MiB) + LATER
        bench.driver.copy_image_to_volume(None, volume, Images(content), "image")
        assert bench.read(volume, 0, len(content) + 512) == content + bytes(512)
        assert bench.read(volume, GiB - 512, 512) == bytes(512)
        kept = Images()
        bench.driver.copy_volume_to_image(None, volume, kept, {"id": "image", "disk_format": "raw"})
        assert (kept.length, kept.data[: len(content)]) == (GiB, content[: len(kept.data)])
        assert bench.read(other, 0, len(DATA)) == DATA

    def test_an_image_in_the_backend_is_cloned(self, bench: Bench) -> None:
        bench.need("clone_image")
        location = bench.factory.image_location(bench.driver, DATA)
        if location is None:
            does_not_apply(f"{bench.factory.name} holds no images")
        volume, meta = bench.volume(2), {"id": str(uuid.uuid4()), "disk_format": "raw"}
        for _ in range(2):
            update, cloned = bench.driver.clone_image(None, volume, location, meta, None)
            assert (isinstance(update, dict), cloned) == (True, True)
        assert bench.read(volume, 0, len(DATA) + 10) == DATA + bytes(10)
        assert bench.seen()[volume.name_id].size_bytes == 2 * GiB
        other = bench.volume(2)
        assert bench.driver.clone_image(None, other, location, {**meta, "disk_format": "qcow2"}, None)[1] is False
        assert other.name_id not in bench.seen()

    @pytest.mark.parametrize("location", [None, "http://elsewhere/image", (None, []), "sim://../etc/passwd"])
    def test_an_image_elsewhere_is_left_to_the_caller(self, bench: Bench, location: Any) -> None:
        bench.need("clone_image")
        volume = bench.volume()
        _update, cloned = bench.driver.clone_image(None, volume, location, {"disk_format": "raw"}, None)
        assert cloned is False
        assert bench.seen() == {}

    def test_a_volume_moves_to_a_neighbour_over_the_same_storage(self, bench: Bench) -> None:
        bench.need("migrate_volume")
        neighbour = bench.factory.neighbour(bench.driver, bench.folder)
        if neighbour is None:
            does_not_apply(f"{bench.factory.name} has no neighbours")
        volume = bench.created(data=DATA)
        for _ in range(2):
            moved, update = bench.driver.migrate_volume(None, volume, self._host(neighbour))
            assert moved is True
            assert update is None or isinstance(update, dict)
        there = Volume(id=volume.id, size=1, host=neighbour.host)
        assert bench.factory.read(neighbour, there, 0, len(DATA)) == DATA

    def test_a_volume_does_not_move_where_the_storage_is_not(self, bench: Bench) -> None:
        bench.need("migrate_volume")
        volume = bench.created(data=DATA)
        for host in ({"host": "far@away#pool"}, {"host": "far@away#pool", "capabilities": {"location_info": "x"}}):
            assert bench.driver.migrate_volume(None, volume, host) == (False, None)
        assert bench.read(volume, 0, len(DATA)) == DATA
        assert set(bench.seen("current")) == {volume.name_id}

    def _host(self, driver: Any) -> dict[str, Any]:
        return {"host": f"{driver.host}#{driver.backend_name}", "capabilities": driver.get_volume_stats(refresh=True)}

# SPDX-License-Identifier: Apache-2.0
"""What the LVM driver says of itself, checks of its options, lists and progress: all that needs no device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.drivers import lvm_copy, lvm_manage
from volmgr.drivers.lvm import LVMVolumeDriver, between_id
from volmgr.drivers.options import Configuration
from volmgr.tools.lvm import VolumeGroup
from volmgr.types import MiB, Volume


def driver(**options: Any) -> LVMVolumeDriver:
    return LVMVolumeDriver(configuration=Configuration({"volume_group": "vg", **options}), host="host@lvm")


def test_what_it_supports() -> None:
    for verb in (
        "create_volume",
        "create_cloned_volume",
        "create_volume_from_snapshot",
        "extend_volume",
        "trash_volume",
        "restore_snapshot",
        "wipe",
        "observe",
        "recognise",
        "export_path",
        "retype",
        "manage_existing",
        "manage_existing_snapshot",
        "get_manageable_volumes",
        "get_manageable_snapshots",
        "unmanage",
        "initialize_connection",
    ):
        assert LVMVolumeDriver.supports(verb), verb
    for verb in ("create_consistencygroup", "migrate_volume", "promote_replica", "revert_to_snapshot"):
        assert not LVMVolumeDriver.supports(verb), verb


def test_the_group_can_be_given() -> None:
    group = VolumeGroup("another")
    made = LVMVolumeDriver(group, configuration=Configuration())
    assert made.vg is group and made.pool == "another-pool"
    identity = "11111111-1111-4111-8111-111111111111"
    assert made.local_path(Volume(id=identity, size=1)) == f"/dev/another/volume-{identity}"


@pytest.mark.parametrize(
    "options", [{"lvm_mirrors": 1}, {"lvm_conf_file": "/nonexistent/lvm.conf"}, {"lvm_conf_file": "/etc/hostname"}]
)
def test_options_that_cannot_be_kept_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(exception.InvalidConfiguration) as caught:
        driver(**options).do_setup(None)
    assert next(iter(options)) in caught.value.message


@pytest.mark.parametrize("group", ["", "a/b", "-x", "a b"])
def test_a_group_that_cannot_be_is_refused(group: str) -> None:
    with pytest.raises(exception.Invalid):
        driver(volume_group=group)


def test_the_snapshot_between_belongs_to_its_clone() -> None:
    first, second = "11111111-1111-4111-8111-111111111111", "11111111-1111-4111-8111-111111111112"
    assert between_id(first) == between_id(first) != between_id(second)


class TestPages:
    ENTRIES = [{"reference": {"source-name": name}, "size": size} for name, size in (("b", 2), ("a", 2), ("c", 1))]

    def page(self, marker: Any = None, limit: int | None = None, offset: int | None = None, **order: Any) -> list[str]:
        found = lvm_manage.page(list(self.ENTRIES), marker, limit, offset, order.get("keys"), order.get("dirs"))
        return [item["reference"]["source-name"] for item in found]

    def test_order(self) -> None:
        assert self.page() == ["a", "b", "c"]
        assert self.page(keys=["reference"], dirs=["desc"]) == ["c", "b", "a"]
        assert self.page(keys=["size", "reference"], dirs=["desc", "asc"]) == ["a", "b", "c"]
        assert self.page(keys=["size"]) == ["c", "b", "a"]

    def test_pages_follow_each_other(self) -> None:
        assert self.page(limit=2) == ["a", "b"]
        assert self.page("b", limit=2) == ["c"]
        assert self.page({"source-name": "a"}, limit=1) == ["b"]
        assert self.page(offset=1, limit=1) == ["b"]
        assert self.page(limit=0) == []

    @pytest.mark.parametrize("order", [{"keys": ["colour"]}, {"keys": ["size"], "dirs": ["up"]}])
    def test_an_unknown_order_is_refused(self, order: dict[str, Any]) -> None:
        with pytest.raises(exception.Invalid):
            self.page(**order)

    def test_an_unknown_marker_is_refused(self) -> None:
        with pytest.raises(exception.Invalid):
            self.page("nowhere")

    @pytest.mark.parametrize("reference", [{}, {"source-name": ""}, {"source-name": 7}, "volume", None])
    def test_a_reference_without_a_name_is_refused(self, reference: Any) -> None:
        with pytest.raises(exception.ManageExistingInvalidReference):
            lvm_manage._source_name(reference)


class TestCopies:
    """Over plain files: they take O_DIRECT as devices do."""

    def test_bytes_are_copied_and_zeros_left_out(self, tmp_path: Path) -> None:
        source, copy = tmp_path / "source", tmp_path / "copy"
        data = b"x" * 4096 + bytes(9 * MiB) + b"y" * 4096
        source.write_bytes(data)
        copy.write_bytes(bytes(len(data)))
        dense = tmp_path / "dense"
        dense.write_bytes(b"\xff" * len(data))
        seen: list[float] = []
        lvm_copy.copy(str(source), str(copy), len(data), seen.append, sparse=True, pace=lvm_copy.Pace(0))
        lvm_copy.copy(str(source), str(dense), len(data), seen.append, sparse=False, pace=lvm_copy.Pace(0))
        assert copy.read_bytes() == data
        assert dense.read_bytes() == data
        assert seen[-1] == 1.0 and len(seen) == 6

    def test_zeros(self, tmp_path: Path) -> None:
        device = tmp_path / "device"
        device.write_bytes(b"\xff" * (12 * MiB))
        seen: list[float] = []
        lvm_copy.zero(str(device), seen.append, start=MiB, end=11 * MiB)
        data = device.read_bytes()
        assert data == b"\xff" * MiB + bytes(10 * MiB) + b"\xff" * MiB
        assert seen == sorted(seen) and seen[-1] == 1.0
        lvm_copy.zero(str(device), seen.append)
        assert device.read_bytes() == bytes(12 * MiB)

    def test_what_progress_raises_stops_the_work(self, tmp_path: Path) -> None:
        device = tmp_path / "device"
        device.write_bytes(b"\xff" * (12 * MiB))

        def cancel(_fraction: float) -> None:
            raise exception.Cancelled

        with pytest.raises(exception.Cancelled):
            lvm_copy.zero(str(device), cancel, end=12 * MiB)
        assert device.read_bytes()[-4096:] == b"\xff" * 4096

    def test_a_device_that_is_not_there_is_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(exception.NotFound):
            lvm_copy.zero(str(tmp_path / "nowhere"), lambda _fraction: None)

    def test_a_limit_makes_the_chunks_small(self) -> None:
        assert lvm_copy.Pace(0).chunk(256 * MiB) == 256 * MiB
        assert lvm_copy.Pace(20 * MiB).chunk(256 * MiB) == 20 * MiB
        assert lvm_copy.Pace(1).chunk(256 * MiB) == lvm_copy.COPY_CHUNK

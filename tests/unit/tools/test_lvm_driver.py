# SPDX-License-Identifier: Apache-2.0
"""What the LVM driver says of itself, checks of its options, lists and progress: all that needs no device."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.drivers import lvm_copy, lvm_manage
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.lvm_build import between_id
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
        "revert_to_snapshot",
        "check_revert",
        "initialize_connection",
        "create_consistencygroup",
        "failover_host",
        "promote_replica",
    ):
        assert LVMVolumeDriver.supports(verb), verb
    assert not LVMVolumeDriver.supports("accept_transfer")


def test_the_group_can_be_given() -> None:
    group = VolumeGroup("another")
    made = LVMVolumeDriver(group, configuration=Configuration())
    assert made.vg is group and made.pool == "another-pool"
    identity = "11111111-1111-4111-8111-111111111111"
    assert made.local_path(Volume(id=identity, size=1)) == f"/dev/another/volume-{identity}"


@pytest.mark.parametrize(
    "options", [{"lvm_conf_file": "/nonexistent/lvm.conf"}, {"lvm_conf_file": "/etc/hostname"}]
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


class TestReferences:
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

    @pytest.mark.parametrize(
        ("text", "chunk"), [("1M", MiB), ("8192", 8192), ("5000", 8192), ("512K", 512 * 1024), ("1G", 4 * MiB)]
    )
    def test_the_size_of_a_write_is_what_was_asked_for(self, tmp_path: Path, text: str, chunk: int) -> None:
        source, copy, seen = tmp_path / "source", tmp_path / "copy", list[float]()
        source.write_bytes(b"x" * (4 * MiB))
        copy.write_bytes(bytes(4 * MiB))
        pace, size = lvm_copy.Pace(0), lvm_copy.block(text)
        lvm_copy.copy(str(source), str(copy), 4 * MiB, seen.append, sparse=True, pace=pace, chunk=size)
        assert copy.read_bytes() == source.read_bytes()
        assert len(seen) == 4 * MiB // chunk

    def test_ranges_are_copied_with_their_zeros_and_nothing_else(self, tmp_path: Path) -> None:
        source, copy = tmp_path / "source", tmp_path / "copy"
        data = b"x" * 4096 + bytes(2 * MiB) + b"y" * (MiB - 4096)
        source.write_bytes(data)
        copy.write_bytes(b"\xff" * len(data))
        seen: list[float] = []
        ranges = [(0, 8192), (MiB, MiB + 65536), (3 * MiB - 65536, 4 * MiB), (8 * MiB, 9 * MiB)]
        count = lvm_copy.copy_ranges(str(source), str(copy), ranges, seen.append, pace=lvm_copy.Pace(0), chunk=32768)
        wanted = bytearray(b"\xff" * len(data))
        for start, end in ranges[:3]:
            wanted[start : min(end, len(data))] = data[start:end]
        assert copy.read_bytes() == bytes(wanted)
        assert count == 8192 + 2 * 65536
        assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) == 5
        assert lvm_copy.copy_ranges(str(source), str(copy), [], seen.append, pace=lvm_copy.Pace(0)) == 0

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
        with device.open("wb") as file:
            file.truncate(lvm_copy.UNMAP_CHUNK)
            file.seek(lvm_copy.UNMAP_CHUNK)
            file.write(b"\xff" * 4096)

        def cancel(_fraction: float) -> None:
            raise exception.Cancelled

        with pytest.raises(exception.Cancelled):
            lvm_copy.zero(str(device), cancel)
        with device.open("rb") as file:
            file.seek(lvm_copy.UNMAP_CHUNK)
            assert file.read() == b"\xff" * 4096

    def test_a_device_that_is_not_there_is_not_found(self, tmp_path: Path) -> None:
        with pytest.raises(exception.NotFound):
            lvm_copy.zero(str(tmp_path / "nowhere"), lambda _fraction: None)

    def test_a_limit_makes_the_chunks_small(self) -> None:
        assert lvm_copy.Pace(0).chunk(256 * MiB) == 256 * MiB
        assert lvm_copy.Pace(20 * MiB).chunk(256 * MiB) == 20 * MiB
        assert lvm_copy.Pace(1).chunk(256 * MiB) == lvm_copy.COPY_CHUNK


#: What the LVM driver of this tree is called with, argument by argument; ``=`` marks those that may be left out.
SIGNATURES = {
    "check_for_setup_error": "",
    "create_volume": "volume",
    "update_migrated_volume": "ctxt volume new_volume original_volume_status",
    "create_volume_from_snapshot": "volume snapshot",
    "delete_volume": "volume",
    "create_snapshot": "snapshot",
    "delete_snapshot": "snapshot",
    "revert_to_snapshot": "context volume snapshot",
    "local_path": "volume vg=",
    "copy_image_to_volume": "context volume image_service image_id",
    "copy_volume_to_image": "context volume image_service image_meta",
    "create_cloned_volume": "volume src_vref",
    "clone_image": "context volume image_location image_meta image_service",
    "get_volume_stats": "refresh=",
    "extend_volume": "volume new_size",
    "manage_existing": "volume existing_ref",
    "manage_existing_object_get_size": "existing_object existing_ref object_type",
    "manage_existing_get_size": "volume existing_ref",
    "manage_existing_snapshot_get_size": "snapshot existing_ref",
    "manage_existing_snapshot": "snapshot existing_ref",
    "get_manageable_volumes": "cinder_volumes marker limit offset sort_keys sort_dirs",
    "get_manageable_snapshots": "cinder_snapshots marker limit offset sort_keys sort_dirs",
    "retype": "context volume new_type diff host",
    "migrate_volume": "ctxt volume host thin= mirror_count=",
    "get_pool": "volume",
    "ensure_export": "context volume",
    "create_export": "context volume connector vg=",
    "remove_export": "context volume",
    "initialize_connection": "volume connector",
    "validate_connector": "connector",
    "terminate_connection": "volume connector",
}


@pytest.mark.parametrize("verb", SIGNATURES)
def test_verbs_have_the_arguments_that_callers_name(verb: str) -> None:
    parameters = list(inspect.signature(getattr(LVMVolumeDriver, verb)).parameters.values())[1:]
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    told = [f"{item.name}{'' if item.default is item.empty else '='}" for item in parameters if item.kind not in kinds]
    wanted = SIGNATURES[verb].split()
    assert told[: len(wanted)] == wanted
    assert all(name.endswith("=") for name in told[len(wanted) :])

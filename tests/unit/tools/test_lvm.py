# SPDX-License-Identifier: Apache-2.0
"""LVM's reports and refusals, as a real LVM 2.03.16 gave them, become types; and the kernel's pool status."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volmgr import exception, names
from volmgr.tools import lvm_dm, lvm_errors, lvm_report
from volmgr.tools.lvm import VolumeGroup
from volmgr.tools.lvm_report import (
    Allocation,
    Health,
    LvAttributes,
    LvKind,
    LvState,
    Permission,
    PvAttributes,
    Target,
    VgAttributes,
)
from volmgr.types import GiB, MiB

TEXT = Path(__file__).with_name("fullreport.json").read_text(encoding="ascii")
OBJECT = "11111111-1111-4111-8111-11111111111"


def report() -> lvm_report.Report:
    found = lvm_report.parse(TEXT)
    assert found is not None
    return found


class TestReport:
    def test_the_group(self) -> None:
        found = report()
        assert (found.name, found.extent_bytes, found.tags) == ("vg-one", 4 * MiB, {"volmgr.clean"})
        assert found.size_bytes == 40 * GiB - 4 * MiB
        assert 0 < found.free_bytes < found.size_bytes
        assert found.attributes == VgAttributes(
            writeable=True,
            resizeable=True,
            exported=False,
            partial=False,
            allocation=Allocation.NORMAL,
            clustered=False,
            shared=False,
        )
        assert [item.name for item in found.physical] == ["/dev/loop0"]
        assert found.physical[0].attributes.allocatable and not found.physical[0].attributes.missing

    def test_a_thick_volume_and_its_snapshot(self) -> None:
        found = report()
        origin, snapshot = found.volumes[f"volume-{OBJECT}1"], found.volumes[f"_snapshot-{OBJECT}2"]
        assert origin.attributes.kind is LvKind.ORIGIN and not origin.thin
        assert origin.tags == set(names.lv_tags(f"{OBJECT}1", "volume", f"{OBJECT}1"))
        assert (origin.size_bytes, origin.active) == (GiB, True)
        # It is read as its origin's size and takes the space of the changes.
        assert (snapshot.size_bytes, snapshot.space_bytes) == (GiB, 64 * MiB)
        assert snapshot.thick_snapshot and found.thick_snapshots_of(origin.name) == [snapshot]
        assert found.thick_snapshots_of(f"volume-{OBJECT}3") == []

    def test_thin_volumes_and_their_pool(self) -> None:
        found = report()
        volume, snapshot = found.volumes[f"volume-{OBJECT}3"], found.volumes[f"_snapshot-{OBJECT}4"]
        assert volume.thin and volume.attributes.is_open and volume.attributes.zeroes
        assert snapshot.thin and snapshot.attributes.skips_activation
        assert (snapshot.active, snapshot.data_percent, snapshot.origin) == (False, None, volume.name)
        pool = found.volumes["vg-one-pool"]
        assert pool.attributes.kind is LvKind.THIN_POOL
        assert pool.metadata_percent == 11.13

    def test_an_overflowed_snapshot_is_told(self) -> None:
        text = json.loads(TEXT)
        row = next(row for row in text["report"][0]["lv"] if row["lv_name"] == f"_snapshot-{OBJECT}2")
        for letters, overflowed in (("swi-a-s---", False), ("swi-I-s---", True), ("swi-S-s---", True)):
            row["lv_attr"] = letters
            found = lvm_report.parse(json.dumps(text))
            assert found is not None and found.volumes[row["lv_name"]].overflowed is overflowed

    @pytest.mark.parametrize(("size", "rounded"), [(1, 4 * MiB), (4 * MiB, 4 * MiB), (4 * MiB + 1, 8 * MiB)])
    def test_sizes_are_rounded_as_lvm_does(self, size: int, rounded: int) -> None:
        assert report().rounded(size) == rounded

    def test_no_group_is_none(self) -> None:
        assert lvm_report.parse('{"report": []}') is None

    @given(st.sampled_from(["vg_attr", "lv_size", "vg_extent_size", "lv_attr"]), st.text(max_size=3))
    def test_what_is_no_report_is_a_typed_error(self, column: str, value: str) -> None:
        broken = json.loads(TEXT)
        part = broken["report"][0][column[:2]][0]
        part[column] = f"?{value}"
        with pytest.raises(lvm_errors.LvmReportUnreadable):
            lvm_report.parse(json.dumps(broken))

    @given(st.text(max_size=200))
    def test_any_text_is_a_report_or_a_typed_error(self, text: str) -> None:
        try:
            assert lvm_report.parse(text) is None
        except lvm_errors.LvmReportUnreadable as error:
            assert error.details["reason"]


class TestExtents:
    TEXT = json.dumps(
        {
            "report": [
                {
                    "lv": [
                        {"lv_name": "spread", "seg_pe_ranges": "/dev/loop0:786-787"},
                        {"lv_name": "spread", "seg_pe_ranges": "/dev/loop0:790-791"},
                        {"lv_name": "g", "seg_pe_ranges": "g_rimage_0:0-31 g_rimage_1:0-31"},
                        {"lv_name": "[g_rimage_0]", "seg_pe_ranges": "/dev/loop0:66-97"},
                        {"lv_name": "[g_rimage_1]", "seg_pe_ranges": "/dev/loop1:66-90 /dev/loop1:100-106"},
                        {"lv_name": "[g_rmeta_0]", "seg_pe_ranges": "/dev/loop0:65-65"},
                    ]
                }
            ]
        }
    )

    @pytest.mark.parametrize(
        ("volume", "extents"),
        [
            ("spread", ("/dev/loop0:786-787", "/dev/loop0:790-791")),
            ("g", ("/dev/loop0:66-97", "/dev/loop1:66-90", "/dev/loop1:100-106")),
            ("absent", ()),
        ],
    )
    def test_all_pieces_of_all_copies(self, volume: str, extents: tuple[str, ...]) -> None:
        assert lvm_report.physical_extents(lvm_report.parse_extents(self.TEXT), volume) == extents

    @pytest.mark.parametrize("text", ["", "{}", '{"report": []}', '{"report": [{"lv": [{"lv_name": "x"}]}]}'])
    def test_what_is_no_report_is_a_typed_error(self, text: str) -> None:
        with pytest.raises(lvm_errors.LvmReportUnreadable):
            lvm_report.parse_extents(text)


def letters(kind: type) -> st.SearchStrategy[str]:
    return st.sampled_from([item.value for item in kind])  # type: ignore[attr-defined]


class TestAttributes:
    @given(
        letters(LvKind),
        letters(Permission),
        letters(Allocation),
        st.booleans(),
        st.sampled_from("-m"),
        letters(LvState),
        st.sampled_from("-oX"),
        letters(Target),
        st.sampled_from("-z"),
        letters(Health),
        st.sampled_from("-k"),
    )
    def test_every_letter_keeps_its_meaning(
        self,
        kind: str,
        permission: str,
        allocation: str,
        locked: bool,
        minor: str,
        state: str,
        is_open: str,
        target: str,
        zeroes: str,
        health: str,
        skip: str,
    ) -> None:
        third = allocation.upper() if locked and allocation not in "-X" else allocation
        bits = LvAttributes.parse(f"{kind}{permission}{third}{minor}{state}{is_open}{target}{zeroes}{health}{skip}")
        assert bits.kind.value == kind
        assert bits.permission.value == permission
        assert bits.allocation is (Allocation.UNKNOWN if allocation == "X" else Allocation(allocation))
        assert bits.locked is (third.isupper())
        assert bits.state.value == state
        assert bits.target.value == target
        assert bits.health.value == health
        assert (bits.fixed_minor, bits.is_open, bits.zeroes, bits.skips_activation) == (
            minor == "m",
            is_open == "o",
            zeroes == "z",
            skip == "k",
        )

    @given(st.text(alphabet=string.printable, min_size=10, max_size=10))
    def test_letters_of_a_newer_lvm_are_unknown_and_no_error(self, text: str) -> None:
        bits = LvAttributes.parse(text)
        assert bits.kind.value == text[0] or bits.kind is LvKind.UNKNOWN
        assert bits.health.value == text[8] or bits.health is Health.UNKNOWN

    @given(st.text(alphabet="-wzx", max_size=14).filter(lambda text: len(text) != 10))
    def test_another_number_of_letters_is_an_error(self, text: str) -> None:
        with pytest.raises(lvm_errors.LvmReportUnreadable):
            LvAttributes.parse(text)

    def test_groups_and_disks(self) -> None:
        broken = VgAttributes.parse("r-xpls")
        assert (broken.writeable, broken.resizeable, broken.exported, broken.partial) == (False, False, True, True)
        assert (broken.allocation, broken.shared) == (Allocation.CLING, True)
        assert PvAttributes.parse("a-m").missing
        assert PvAttributes.parse("ux-") == PvAttributes(False, False, True, True, False)


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "words", "kind", "remedy"),
        [
            (5, '  Volume group "x" not found\n  Cannot process volume group x', "GroupMissing", exception.BackendDown),
            (5, '  Logical Volume "thick" already exists in volume group "vg"', "LvExists", exception.Conflict),
            (
                5,
                '  Volume group "vg" has insufficient free space (9983 extents): 25600 required.',
                "GroupFull",
                exception.NoSpace,
            ),
            (5, "  Insufficient free space: 256 extents needed, but only 0 available", "GroupFull", exception.NoSpace),
            (5, "  Snapshot origin LV nothere not found in Volume group vgp.", "LvNotFound", exception.NotFound),
            (5, '  Existing logical volume "nope" not found in volume group "vg"', "LvNotFound", exception.NotFound),
            (5, '  Failed to find logical volume "vg/nope"', "LvNotFound", exception.NotFound),
            (5, "  Logical volume vg/thin in use.", "LvInUse", exception.Busy),
            (5, "  Logical volume vg/thin is used by another device.", "LvInUse", exception.Busy),
            (
                5,
                "  Snapshot origin volumes can be resized only while inactive: try lvchange -an.",
                "LvActiveOrigin",
                exception.Busy,
            ),
            (5, "  New size (256 extents) matches existing size (256 extents).", "LvSameSize", exception.Conflict),
            (
                5,
                "  New size given (128 extents) not larger than existing size (256 extents)",
                "LvWouldShrink",
                exception.Invalid,
            ),
            (
                5,
                "  Cannot create new thin volume, free space in thin pool vg/pool reached threshold.",
                "PoolFull",
                exception.NoSpace,
            ),
            (
                5,
                "  Thin pool vg-pool-tpool (254:6) transaction_id is 2, while expected 3.",
                "PoolBroken",
                exception.Inconsistent,
            ),
            (5, "  Couldn't find device with uuid wXSsRi.", "GroupPartial", exception.BackendDown),
            (5, "  Can't get lock for vg.", "LvmLocked", exception.Busy),
            (5, "  Volume group vg is read-only.\n  Cannot process", "GroupReadOnly", exception.BackendDown),
            (
                5,
                "  Error writing device /dev/loop0 at 185344 length 7680.\n  Failed to write VG vg.",
                "GroupReadOnly",
                exception.BackendDown,
            ),
            (5, "  Unable to merge invalidated snapshot LV vg/s.", "SnapshotOverflowed", exception.Inconsistent),
            (5, "  Something never seen before", "LvmFailed", exception.BackendDown),
            (139, "", "LvmCrashed", exception.BackendDown),
            (-11, '  Logical Volume "x" already exists in volume group "vg"', "LvmCrashed", exception.BackendDown),
        ],
    )
    def test_each_has_its_type_and_says_what_lvm_said(
        self, status: int, words: str, kind: str, remedy: type[exception.VolmgrError]
    ) -> None:
        error = lvm_errors.classify("lvcreate", "vg", status, words)
        assert type(error).__name__ == kind
        assert isinstance(error, remedy)
        assert error.details["status"] == status
        assert words.strip().splitlines()[0].strip() in error.details["reason"] if words else error.details["reason"]

    def test_warnings_are_left_out(self) -> None:
        error = lvm_errors.classify("lvcreate", "vg", 5, "  WARNING: Sum of all thin volumes\n  Can't get lock for vg")
        assert error.details["reason"] == "Can't get lock for vg"

    def test_codes_are_unique(self) -> None:
        kinds = [kind for kind in vars(lvm_errors).values() if isinstance(kind, type) and "code" in vars(kind)]
        assert len({kind.code for kind in kinds}) == len(kinds) > 10
        assert all(exception.by_code(kind.code) is kind for kind in kinds)


class TestCommandLines:
    @pytest.mark.parametrize("name", ["", "-rf", "a/b", "..", "a b", "x" * 200, "vg;reboot", "ü"])
    def test_names_that_would_mean_something_else_are_refused(self, name: str) -> None:
        with pytest.raises(exception.Invalid):
            VolumeGroup(name)
        group = VolumeGroup("vg")
        for call in (group.remove, group.activate, group.split_snapshot):
            with pytest.raises(exception.Invalid):
                call(name)

    def test_device_names_double_hyphens(self) -> None:
        assert lvm_dm.device_name("vg-one", "volume-1") == "vg--one-volume--1"


class TestPoolStatus:
    def test_percentages(self) -> None:
        status = lvm_dm.parse_pool_status("2 114/1024 8192/32768 - rw discard_passdown queue_if_no_space - 256 ")
        assert status == lvm_dm.PoolStatus(2, 100 * 114 / 1024, 25.0)

    @pytest.mark.parametrize("text", ["Fail", "Error", "", "2 1 2", "2 0/0 1/2", "x 1/2 1/2"])
    def test_a_failed_pool_is_an_error(self, text: str) -> None:
        with pytest.raises(ValueError, match="status"):
            lvm_dm.parse_pool_status(text)

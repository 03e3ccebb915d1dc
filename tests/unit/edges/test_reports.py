# SPDX-License-Identifier: Apache-2.0
"""What LVM, tgtd, LIO and qemu-img say, in any form: it is understood, or refused with an error that has a type."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.edges.strange import DEEP, VALUES, WORDS, bent, dumped, nearly
from volmgr import exception
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import LioTarget, iscsi
from volmgr.targets.lio.configfs import Configfs
from volmgr.targets.lio.tree import hba, plan
from volmgr.tools import lvm_report, qemu_img
from volmgr.tools.lvm_errors import LvmReportUnreadable
from volmgr.tools.tgt import show
from volmgr.tools.tgt.errors import TgtProtocolError

#: nothing of it waits for anybody, so that one kind of threads is enough.
pytestmark = pytest.mark.once
FULLREPORT = json.loads((Path(__file__).parents[1] / "tools" / "fullreport.json").read_text())
EXTENTS = {"report": [{"lv": [
    {"lv_name": "a", "seg_pe_ranges": "[a_rimage_0]:0-9 [a_rimage_1]:0-9"},
    {"lv_name": "[a_rimage_0]", "seg_pe_ranges": "/dev/sda:0-9"},
]}]}  # fmt: skip

# --- LVM ------------------------------------------------------------------------------------------------------------


def read_lvm(text: str) -> None:
    try:
        found = lvm_report.parse(text)
    except LvmReportUnreadable:
        return
    if found is not None:
        assert found.rounded(1) >= 1
        assert all(item.size_bytes >= 0 and item.space_bytes >= 0 for item in found.volumes.values())
        assert isinstance(found.thick_snapshots_of("x"), list)


@given(nearly(FULLREPORT).map(dumped) | VALUES.map(dumped) | st.text(max_size=60))
@example(DEEP[0])
@example(DEEP[1])
@settings(max_examples=400)
def test_any_report_of_lvm(text: str) -> None:
    read_lvm(text)


def test_the_report_that_others_are_made_of_is_right() -> None:
    assert lvm_report.parse(json.dumps(FULLREPORT)) is not None


@given(nearly(EXTENTS).map(dumped) | st.text(max_size=60), st.text(max_size=8))
@example(DEEP[0], "a")
@example(dumped({"report": [{"lv": [{"lv_name": "a", "seg_pe_ranges": "a:0-1"}]}]}), "a")
@example(dumped({"report": [{"lv": [
    {"lv_name": str(number), "seg_pe_ranges": f"{number + 1}:0-1 {number + 1}:2-3"} for number in range(64)
]}]}), "0")  # fmt: skip
@settings(max_examples=200)
def test_any_list_of_extents(text: str, volume: str) -> None:
    try:
        found = lvm_report.parse_extents(text)
        lvm_report.physical_extents(found, volume)
        for name in found:
            lvm_report.physical_extents(found, name)
    except LvmReportUnreadable:
        return


# --- tgtd -----------------------------------------------------------------------------------------------------------

LISTING = b"""Target 1: iqn.2010-10.org.openstack:volume-1
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 2
            Initiator: iqn.1993-08.org.debian:01:a alias: host
            Connection: 0
                IP Address: 127.0.0.1
    LUN information:
        LUN: 0
            Type: controller
            SCSI ID: IET     00010000
            SCSI SN: beaf10
            Size: 0 MB, Block size: 1
            Online: Yes
            Backing store path: None
        LUN: 1
            Type: disk
            SCSI ID: IET     00010001
            SCSI SN: beaf11
            Size: 1024 MB, Block size: 512
            Online: Yes
            Readonly: No
            Backing store type: rdwr
            Backing store path: /x
    Account information:
        user
        other (outgoing)
    ACL information:
        iqn.1993-08.org.debian:01:a
"""
PARSERS = (
    show.parse_targets, show.parse_sessions, show.parse_portals, show.parse_accounts, show.parse_parameters,
    show.parse_system,
)  # fmt: skip
LINES = st.lists(
    st.builds(
        lambda depth, word, value: " " * depth + word + value,
        st.integers(0, 20),
        st.sampled_from([
            "Target ", "LUN: ", "I_T nexus: ", "Connection: ", "Session: ", "Portal: ", "Size: ", "System:", "LLDs:",
            "Account list:", "LUN information:", "Initiator: ", "Backing stores:", "",
        ]),
        WORDS | st.text(max_size=10) | st.builds("{} MB, Block size: {}".format, WORDS, WORDS)
        | st.builds("{}: {}".format, WORDS, WORDS),
    ),
    max_size=12,
).map("\n".join)  # fmt: skip


@given(bent(LISTING).map(lambda data: data.decode(errors="replace")) | LINES | st.text(max_size=80))
@example("Target " + "9" * 5000 + ": x")
@example(LISTING.decode().replace("1024", "9" * 5000))
@example(LISTING.decode().replace("nexus: 2", "nexus: " + "9" * 5000))
@settings(max_examples=400)
def test_any_listing_of_tgtd(text: str) -> None:
    for parse in PARSERS:
        try:
            parse(text)
        except TgtProtocolError:
            continue


def test_the_listing_that_others_are_made_of_is_right() -> None:
    (target,) = show.parse_targets(LISTING.decode())
    assert (target.disks[0].size_mb, target.sessions[0].initiator) == (1024, "iqn.1993-08.org.debian:01:a")


# --- LIO ------------------------------------------------------------------------------------------------------------

PREFIX = "iqn.2010-10.org.openstack:"
NAME = f"{PREFIX}volume-5a4b9f14-6f6d-4b36-8c3b-0c9a4dd7d4fc"
NAMES = st.sampled_from([
    NAME, f"{PREFIX}volume-x", "tpgt_1", "tpgt_" + "9" * 60, "lun_1", "lun_x", "acls", "np", "lun", "enable",
    "iblock_x",
    "iqn.1993-08.org.debian:01:a", "127.0.0.1:3260", "info", "attrib", "auth", "password", "core", "iscsi", "udev_path",
    "iblock_²", "iblock_" + "9" * 200, hba("iblock", NAME).rpartition("/")[2], hba("fileio", NAME).rpartition("/")[2],
])  # fmt: skip
CONTENTS = st.binary(max_size=40) | st.sampled_from([
    b"1\n", b"0", b"\0" * 5000, b"TCM FILEIO ID: 0  File: /x  Size: " + b"9" * 4000, b"\xff\xfe", b"=" * 9000,
    " Size: ٣".encode(), b"iBlock Major: " + b"9" * 4500 + b" Minor: 1", b"T10 VPD Unit Serial Number: ",
])  # fmt: skip
#: (path, contents of a file, None for a folder, text for a link)
ENTRIES = st.lists(
    st.tuples(st.lists(NAMES, min_size=1, max_size=6), st.none() | CONTENTS | st.just("link")), max_size=14
)


def grow(root: Path, entries: list[tuple[list[str], bytes | str | None]]) -> None:
    (root / "core").mkdir()
    for names, content in entries:
        path = root.joinpath(*names)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            elif isinstance(content, str):
                path.symlink_to(root)
            else:
                path.write_bytes(content)
        except OSError:
            continue  # a file or a link where a folder would be, or the other way round


def known_tree() -> list[tuple[list[str], bytes | str | None]]:
    target, group = ["iscsi", NAME], ["iscsi", NAME, "tpgt_1"]
    store = [*hba("iblock", NAME).split("/"), NAME]
    return [
        (target, None), ([*group, "enable"], b"1"), ([*group, "lun", "lun_1", "store"], "link"),
        ([*group, "acls", "iqn.1993-08.org.debian:01:a", "lun_1", "write_protect"], b"0"),
        ([*store, "info"], b"Major: 253 Minor: 1"), ([*store, "udev_path"], b"/dev/x"),
        (["core", "iblock_\u00b2", NAME], None),
        ([*hba("fileio", NAME).split("/"), NAME, "info"], b"File: /x  Size: " + b"9" * 4050),
    ]  # fmt: skip


@given(ENTRIES, st.booleans())
@settings(max_examples=150)
def test_any_tree_of_lio(entries: list[tuple[list[str], bytes | str | None]], known: bool) -> None:
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    try:
        grow(Path(folder), [*(known_tree() if known else []), *entries])
        target = LioTarget(TargetConfig(PREFIX, (), folder, options={"lio_configfs": folder}))
        tree = Configfs(folder)
        for look in (target._names, target._observe, target.present):
            try:
                look()
            except exception.VolmgrError:
                continue
        try:
            with target._told("read"):
                assert isinstance(plan(None, iscsi.read(tree, NAME, sessions=True)), list)
        except exception.VolmgrError:
            return
    finally:
        shutil.rmtree(folder)


# --- qemu-img -------------------------------------------------------------------------------------------------------

DESCRIBED = {
    "virtual-size": 1048576, "format": "vmdk", "backing-filename": "x", "full-backing-filename": "/x",
    "format-specific": {"data": {"data-file": "y", "extents": [{"filename": "/proc/self/fd/9"}, {"filename": "z"}]}},
}  # fmt: skip


@given(nearly(DESCRIBED).map(dumped) | VALUES.map(dumped) | st.text(max_size=40))
@example(DEEP[0])
@settings(max_examples=300)
def test_any_description_of_qemu_img(text: str) -> None:
    try:
        found = qemu_img.described(text, "/proc/self/fd/9")
    except exception.ImageUnacceptable:
        return
    assert isinstance(found.virtual_size, int)
    assert all(isinstance(item, str) for item in found.others)


def test_the_description_that_others_are_made_of_is_right() -> None:
    found = qemu_img.described(dumped(DESCRIBED), "/proc/self/fd/9")
    assert found == qemu_img.Described("vmdk", 1048576, ("x", "/x", "y", "z"))
    with pytest.raises(exception.ImageUnacceptable):
        qemu_img.described("{}", "")

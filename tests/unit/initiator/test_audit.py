# SPDX-License-Identifier: Apache-2.0
"""A host's audit over sysfs trees that were recorded in a real kernel (User Mode Linux 6.1, LIO, open-iscsi 2.1.8).

``one_path``: four sessions: a volume that is granted, one that is not any more, one whose id and LUN another volume has
by now, and a foreign target with a name like ours. ``multipath``: two volumes with two paths each, both granted.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.connector import check_serial
from volmgr.initiator import audit, sysfs
from volmgr.initiator.audit import EMPTY, MISSING, MIXED, REVOKED, STALE, Backend, Granted, HostFinding
from volmgr.initiator.sysfs import View

TREES = Path(__file__).parent / "trees"


class Recorded:
    """A recorded host: its tree is made anew below a folder."""

    def __init__(self, name: str, folder: Path) -> None:
        found = json.loads((TREES / f"{name}.json").read_text(encoding="utf-8"))
        for path, value in found["sysfs"].items():
            where = folder / path
            where.parent.mkdir(parents=True, exist_ok=True)
            if value.startswith("->"):
                where.symlink_to(folder / value[2:])
            elif value == "/":
                where.mkdir(parents=True, exist_ok=True)
            else:
                where.write_bytes(bytes.fromhex(value))
        self.root = str(folder)
        self.view = sysfs.read(self.root)
        rows: list[dict[str, Any]] = found["grants"]
        self.grants = audit.granted_of(rows)
        self.backends = audit.backends_of(found["backends"])
        self.resources: dict[str, str] = found["resources"]

    def compare(self, view: View | None = None, grants: list[Granted] | None = None) -> list[HostFinding]:
        return audit.compare(view or self.view, self.grants if grants is None else grants, self.backends)

    def without(self, name: str) -> list[Granted]:
        return [grant for grant in self.grants if grant.resource_id != self.resources[name]]


@pytest.fixture
def one_path(tmp_path: Path) -> Recorded:
    return Recorded("one_path", tmp_path / "one_path")


@pytest.fixture
def multipath(tmp_path: Path) -> Recorded:
    return Recorded("multipath", tmp_path / "multipath")


def test_what_the_kernel_has(one_path: Recorded, multipath: Recorded) -> None:
    view = one_path.view
    assert {(disk.session, disk.lun) for disk in view.disks} == {(item.number, 1) for item in view.sessions}
    assert {len(disk.serial) for disk in view.disks} == {32}
    assert sorted(item.portal for item in view.sessions) == ["127.0.0.1:3270"] * 3 + ["127.0.0.1:3999"]
    assert {disk.size_bytes for disk in view.disks} == {1 << 30, 16 << 20}
    assert multipath.view.maps and {len(item.paths) for item in multipath.view.maps} == {2}
    for item in multipath.view.maps:
        by_name = {disk.name: disk for disk in multipath.view.disks}
        assert {by_name[path].holders for path in item.paths} == {(item.device,)}
        assert len({by_name[path].serial for path in item.paths}) == 1
        # LIO's NAA name has the first 25 digits of the serial: one volume, one map.
        assert item.wwid == f"36001405{by_name[item.paths[0]].serial[:25]}"


def test_an_empty_host_has_nothing(tmp_path: Path) -> None:
    assert sysfs.read(str(tmp_path)) == View()
    assert sysfs.initiator_name(str(tmp_path)) is None


def test_stale_ones_are_found_and_a_foreign_one_is_not_looked_at(one_path: Recorded) -> None:
    found = {finding.kind: finding for finding in one_path.compare()}
    assert set(found) == {REVOKED, STALE}
    for kind, resource in ((REVOKED, "revoked"), (STALE, "replaced")):
        finding = found[kind]
        assert finding.session is not None and finding.session.target.endswith(one_path.resources[resource])
        assert (len(finding.disks), finding.whole, finding.fixable) == (1, True, True)
    assert found[STALE].disks[0].serial in found[STALE].reason


def test_nothing_is_ours_without_its_portal(one_path: Recorded) -> None:
    elsewhere = [Backend(backend.prefix, frozenset({"192.0.2.1:3260"})) for backend in one_path.backends]
    assert audit.compare(one_path.view, [], elsewhere) == []
    assert audit.compare(one_path.view, [], []) == []
    assert len(one_path.compare(grants=[])) == 3


def test_another_initiator_s_grant_is_not_this_one_s(one_path: Recorded) -> None:
    others = [dataclasses.replace(grant, initiator=f"{grant.initiator}-other") for grant in one_path.grants]
    assert {finding.kind for finding in one_path.compare(grants=others)} == {REVOKED}
    shouted = [dataclasses.replace(grant, initiator=grant.initiator.upper()) for grant in one_path.grants]
    assert len(one_path.compare(grants=shouted)) == 2, "iSCSI names have no case"


def test_a_lun_that_moved_is_stale(one_path: Recorded) -> None:
    moved = [dataclasses.replace(grant, lun=2) for grant in one_path.grants]
    assert [finding.kind for finding in one_path.compare(grants=moved)].count(STALE) == 2


def test_a_session_without_a_disk_is_told_and_kept(one_path: Recorded) -> None:
    kept = next(item for item in one_path.view.sessions if item.target.endswith(one_path.resources["kept"]))
    bare = dataclasses.replace(one_path.view, disks=(), sessions=(kept,))
    (finding,) = one_path.compare(bare)
    assert (finding.kind, finding.fixable) == (MISSING, False)
    assert f"-r {kept.number} --rescan" in finding.hint
    lost = dataclasses.replace(bare, sessions=(dataclasses.replace(kept, state="FAILED"),))
    assert one_path.compare(lost) == []


def test_every_path_of_a_revoked_map_is_found(multipath: Recorded) -> None:
    assert multipath.compare() == []
    found = multipath.compare(grants=multipath.without("revoked"))
    assert [finding.kind for finding in found] == [REVOKED, REVOKED]
    assert len({item.device for finding in found for item in finding.maps}) == 1
    assert {disk.name for finding in found for disk in finding.disks} == set(found[0].maps[0].paths)


def test_a_map_of_different_volumes_and_one_without_paths(multipath: Recorded) -> None:
    one, other = multipath.view.maps
    mixed = dataclasses.replace(one, paths=(one.paths[0], other.paths[0]))
    empty = dataclasses.replace(other, paths=())
    found = multipath.compare(dataclasses.replace(multipath.view, maps=(mixed, empty)))
    assert [(finding.kind, finding.fixable) for finding in found] == [(MIXED, False), (EMPTY, False)]
    # When the path that does not belong there is stale itself, that finding says it all.
    view = dataclasses.replace(multipath.view, maps=(mixed,))
    assert {finding.kind for finding in multipath.compare(view, multipath.without("revoked"))} == {REVOKED}


def test_a_disk_with_another_serial_is_refused(one_path: Recorded) -> None:
    disk = one_path.view.disks[0]
    # /dev/null stands for the node: only its number is asked for, and that leads to the disk.
    root = Path(one_path.root)
    numbers = root / "sys/dev/block"
    numbers.mkdir(parents=True)
    (numbers / "1:3").symlink_to(root / "sys/block" / disk.name)
    check_serial("/dev/null", disk.serial, one_path.root)
    check_serial("/dev/null", None, one_path.root)
    with pytest.raises(exception.Inconsistent, match=f"{disk.name} says {disk.serial}") as refused:
        check_serial("/dev/null", "0" * 32, one_path.root)
    assert "volmgr host audit --fix" in refused.value.hint
    # The audit is about sessions, which Fibre Channel has not.
    with pytest.raises(exception.Inconsistent) as refused:
        check_serial("/dev/null", "0" * 32, one_path.root, has_audit=False)
    assert f"echo 1 > /sys/block/{disk.name}/device/delete" in refused.value.hint


def test_every_path_of_a_map_must_have_the_serial(multipath: Recorded) -> None:
    root = Path(multipath.root)
    numbers = root / "sys/dev/block"
    numbers.mkdir(parents=True)
    item = multipath.view.maps[0]
    (numbers / "1:3").symlink_to(root / "sys/block" / item.device)
    assert set(sysfs.serials("/dev/null", multipath.root)) == set(item.paths)
    serial = next(disk.serial for disk in multipath.view.disks if disk.name == item.paths[0])
    check_serial("/dev/null", serial, multipath.root)
    page = root / "sys/block" / item.paths[1] / "device/vpd_pg80"
    page.write_bytes(page.read_bytes()[:4] + b"f" * 32)
    with pytest.raises(exception.Inconsistent, match=item.paths[1]):
        check_serial("/dev/null", serial, multipath.root)

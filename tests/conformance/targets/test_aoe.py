# SPDX-License-Identifier: Apache-2.0
"""The AoE target serves what it is told and nobody else: real vblades, a real cable, real frames, real bytes."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import unavailable
from volmgr import exception, names
from volmgr.targets.aoe import AoeTarget
from volmgr.targets.base import TargetConfig
from volmgr.testing.aoe import Initiator, Refused, cable
from volmgr.testing.waiting import wait_until
from volmgr.tools import vblade
from volmgr.types import ExportSpec, Grant, MiB, Portal

PREFIX = "iqn.2010-10.org.openstack:"
ONE, TWO = "02:00:00:00:00:01", "02:00:00:00:00:02"
SIZE = 4 * MiB
SHELF, BLADE = 3, 7


@pytest.fixture(scope="module")
def ends(require: Callable[..., str]) -> Iterator[tuple[str, str]]:
    """The target's and the initiators' end of a cable."""
    require("vblade")
    require("ip", "iproute2")
    try:
        with cable() as made:
            yield made
    except RuntimeError as error:
        unavailable(f"no pair of network interfaces: {error}")


@pytest.fixture
def make(tmp_path: Path, ends: tuple[str, str]) -> Iterator[Callable[[], AoeTarget]]:
    """Make a target on its own folder; on the same one again as after our restart."""
    made: list[AoeTarget] = []

    def build(**options: Any) -> AoeTarget:
        options = {"aoe_eth_dev": ends[0]} | options
        portals = (Portal("127.0.0.1", 3260),)
        made.append(AoeTarget(TargetConfig(PREFIX, portals, str(tmp_path / "target"), timeout=20, options=options)))
        made[-1].start()
        return made[-1]

    yield build
    for target in made:
        target.stop(and_exports=True)


@pytest.fixture
def target(make: Callable[[], AoeTarget]) -> AoeTarget:
    return make()


@pytest.fixture
def spec(tmp_path: Path) -> ExportSpec:
    return make_spec(tmp_path, ONE)


@pytest.fixture
def wire(ends: tuple[str, str]) -> Iterator[Initiator]:
    with Initiator(ends[1], SHELF, BLADE) as made:
        yield made


def make_spec(folder: Path, *macs: str, mode: str = "rw", **more: Any) -> ExportSpec:
    resource = str(uuid.uuid4())
    path = folder / f"volume-{resource}"
    path.touch()
    os.truncate(path, SIZE)
    fields: dict[str, Any] = {
        "path": str(path),
        "serial": names.new_serial(),
        "size_bytes": SIZE,
        "grants": tuple(Grant(str(uuid.uuid4()), mode=mode, macs=(mac,)) for mac in macs),
        "shelf": SHELF,
        "blade": BLADE,
    }
    return ExportSpec("volume", resource, names.target_name(PREFIX, "volume", resource), **(fields | more))


def pids(target: AoeTarget) -> list[int]:
    return sorted(process.pid for process in vblade.found(target.folder))


def kill(*processes: int) -> None:
    """Kill processes and return when they have ended."""
    for pid in processes:
        handle = os.pidfd_open(pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], 20)[0]
        os.close(handle)


def test_granted_hosts_only(target: AoeTarget, spec: ExportSpec, wire: Initiator) -> None:
    assert target.sync(spec) is True
    assert wire.identify(ONE) * 512 == SIZE
    assert not wire.is_let_in(TWO, fence=ONE)


def test_without_grants_nothing_runs(target: AoeTarget, spec: ExportSpec) -> None:
    assert target.sync(dataclasses.replace(spec, grants=())) is False
    assert pids(target) == []
    target.sync(spec)
    assert target.sync(dataclasses.replace(spec, grants=())) is True
    assert pids(target) == []


def test_bytes_are_the_files(target: AoeTarget, spec: ExportSpec, wire: Initiator) -> None:
    target.sync(spec)
    data = os.urandom(4096)
    wire.write(ONE, 65536, data)
    assert wire.read(ONE, 65536, 4096) == data
    assert Path(spec.path).read_bytes() == bytes(65536) + data + bytes(SIZE - 65536 - 4096)


def test_what_was_acknowledged_is_stored(target: AoeTarget, spec: ExportSpec) -> None:
    """vblade does nothing on a flush, so its writes must be synchronous."""
    target.sync(spec)
    (pid,) = pids(target)
    flags = [
        int(line.split()[1], 8)
        for one in Path(f"/proc/{pid}/fd").iterdir()
        if os.path.realpath(one) == spec.path
        for line in Path(f"/proc/{pid}/fdinfo/{one.name}").read_text().splitlines()
        if line.startswith("flags:")
    ]
    assert flags and all(flag & os.O_SYNC == os.O_SYNC for flag in flags)


def test_repeat_changes_nothing(target: AoeTarget, spec: ExportSpec) -> None:
    target.sync(spec)
    before = pids(target)
    assert target.sync(spec) is False
    assert pids(target) == before


def test_revoked_host_is_out_and_the_other_stays(target: AoeTarget, tmp_path: Path, wire: Initiator) -> None:
    spec = make_spec(tmp_path, ONE, TWO)
    target.sync(spec)
    assert wire.is_let_in(ONE, fence=TWO)
    assert target.sync(dataclasses.replace(spec, grants=spec.grants[1:])) is True
    assert not wire.is_let_in(ONE, fence=TWO)
    wire.write(TWO, 0, b"2" * 512)
    assert Path(spec.path).read_bytes()[:512] == b"2" * 512


def test_read_only_grant_beside_a_writer(target: AoeTarget, spec: ExportSpec, wire: Initiator) -> None:
    reader = Grant("reader", mode="ro", macs=(TWO,))
    spec = dataclasses.replace(spec, grants=(*spec.grants, reader))
    target.sync(spec)
    modes = [target.connection(spec, grant)["access_mode"] for grant in spec.grants]
    assert modes == ["rw", "ro"]
    wire.write(ONE, 0, b"1" * 512)
    assert wire.read(TWO, 0, 512) == b"1" * 512
    with pytest.raises(Refused):
        wire.write(TWO, 0, b"2" * 512)
    assert Path(spec.path).read_bytes()[:512] == b"1" * 512


def test_export_turned_read_only(target: AoeTarget, spec: ExportSpec, wire: Initiator) -> None:
    target.sync(spec)
    wire.write(ONE, 0, b"1" * 512)
    assert target.sync(dataclasses.replace(spec, read_only=True)) is True
    with pytest.raises(Refused):
        wire.write(ONE, 0, b"2" * 512)
    assert target.sync(spec) is True
    wire.write(ONE, 0, b"3" * 512)


def test_growth_shows_while_in_use(target: AoeTarget, spec: ExportSpec, wire: Initiator) -> None:
    target.sync(spec)
    wire.write(ONE, 0, b"1" * 512)
    os.truncate(spec.path, 2 * SIZE)
    assert target.sync(dataclasses.replace(spec, size_bytes=2 * SIZE)) is True
    assert wire.identify(ONE) * 512 == 2 * SIZE
    wire.write(ONE, 2 * SIZE - 512, b"9" * 512)
    assert wire.read(ONE, 0, 512) == b"1" * 512


def test_removed_export_leaves_nothing(target: AoeTarget, spec: ExportSpec) -> None:
    target.sync(spec)
    gone = ExportSpec("volume", spec.resource_id, spec.target_name, wanted=False)
    assert target.sync(gone) is True
    assert pids(target) == []
    assert target.sync(gone) is False


def test_killed_vblade_is_started_again(target: AoeTarget, spec: ExportSpec, wire: Initiator) -> None:
    target.sync(spec)
    (before,) = pids(target)
    kill(before)
    assert wire.identify(ONE) * 512 == SIZE
    target.check()
    # And at once for whoever asks: nobody has to wait for the next look.
    kill(*pids(target))
    target.check()
    assert len(pids(target)) == 1


def test_restart_of_ours_adopts(make: Callable[[], AoeTarget], tmp_path: Path, wire: Initiator) -> None:
    first = make()
    spec = make_spec(tmp_path, ONE)
    spec = dataclasses.replace(spec, grants=(*spec.grants, Grant("reader", mode="ro", macs=(TWO,))))
    first.sync(spec)
    before = pids(first)
    first.stop()
    second = make()
    assert second.rebuild([spec]) == 0
    assert pids(second) == before
    kill(*before)
    assert wire.identify(ONE) * 512 == SIZE
    assert second.sync(dataclasses.replace(spec, grants=())) is True
    assert pids(second) == []


@pytest.mark.parametrize(
    "change",
    [
        {"sectors": 8},
        {"macs": (TWO,)},
        {"macs": (ONE, TWO)},
        {"read_only": True},
        {"shelf": 9},
        {"slot": 9},
    ],
    ids=str,
)
def test_half_right_process_is_replaced(
    make: Callable[[], AoeTarget], spec: ExportSpec, wire: Initiator, change: dict[str, Any]
) -> None:
    """What a kill, or an older state, left running is brought to what it should be by the next life."""
    first = make()
    first.stop()
    right = first._blades(spec)[0]
    vblade.start(dataclasses.replace(right, **change), first.folder, 20)
    second = make()
    assert second.sync(spec) is True
    assert [process.blade for process in vblade.found(second.folder)] == [right]
    assert wire.identify(ONE) * 512 == SIZE
    assert not wire.is_let_in(TWO, fence=ONE)


def test_same_process_twice_is_one_too_many(make: Callable[[], AoeTarget], spec: ExportSpec) -> None:
    first = make()
    first.sync(spec)
    first.stop()
    vblade.start(first._blades(spec)[0], first.folder, 20)
    second = make()
    assert second.sync(spec) is True
    assert len(pids(second)) == 1


def test_other_storage_under_the_same_path(target: AoeTarget, spec: ExportSpec, wire: Initiator) -> None:
    """A process is known by what it has open: an old one serves a file that is not there any more."""
    target.sync(spec)
    wire.write(ONE, 0, b"1" * 512)
    os.unlink(spec.path)
    Path(spec.path).touch()
    os.truncate(spec.path, SIZE)
    assert target.sync(spec) is True
    assert wire.read(ONE, 0, 512) == bytes(512)


def test_other_storage_after_a_pivot(target: AoeTarget, spec: ExportSpec, tmp_path: Path, wire: Initiator) -> None:
    target.sync(spec)
    other = make_spec(tmp_path)
    Path(other.path).write_bytes(b"o" * SIZE)
    assert target.sync(dataclasses.replace(spec, path=other.path, serial=other.serial)) is True
    assert wire.read(ONE, 0, 512) == b"o" * 512


def test_address_belongs_to_one_export(target: AoeTarget, spec: ExportSpec, tmp_path: Path, wire: Initiator) -> None:
    """What still serves an address that SQL has given to another is ended, and stays so."""
    target.sync(spec)
    heir = make_spec(tmp_path, ONE)
    Path(heir.path).write_bytes(b"h" * SIZE)
    assert target.sync(heir) is True
    assert wire.read(ONE, 0, 512) == b"h" * 512
    target.check()
    assert [process.blade.name for process in vblade.found(target.folder)] == [heir.target_name]


def test_foreign_vblade_is_untouched(make: Callable[[], AoeTarget], tmp_path: Path, ends: tuple[str, str]) -> None:
    foreign = make_spec(tmp_path)
    program = subprocess.Popen(
        ["vblade", "-m", "020000000009", "44", "4", ends[0], foreign.path], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    try:
        target = make()
        spec = make_spec(tmp_path, ONE)
        target.sync(spec)
        assert [export.target_name for export in target.observe()] == [spec.target_name]
        target.stop(and_exports=True)
        assert pids(target) == []
        assert program.poll() is None
        with Initiator(ends[1], 44, 4) as wire:
            assert wire.identify("02:00:00:00:00:09") * 512 == SIZE
    finally:
        program.kill()
        program.wait()


def test_more_ports_than_a_mask_holds(target: AoeTarget, tmp_path: Path, wire: Initiator) -> None:
    macs = [f"02:00:00:00:01:{number:02x}" for number in range(40)]
    spec = make_spec(tmp_path, *macs)
    target.sync(spec)
    assert len(pids(target)) == 2
    assert {wire.identify(mac) * 512 for mac in macs} == {SIZE}


def test_discovery_tells_a_host_only_what_it_may_use(
    target: AoeTarget, spec: ExportSpec, tmp_path: Path, wire: Initiator
) -> None:
    target.sync(spec)
    target.sync(make_spec(tmp_path, TWO, blade=8))
    assert wire.discover(ONE) == {(SHELF, BLADE)}
    assert wire.discover(TWO) == {(SHELF, 8)}


def test_connection_and_location(target: AoeTarget, spec: ExportSpec, ends: tuple[str, str]) -> None:
    data = target.connection(spec, spec.grants[0])
    assert (data["target_shelf"], data["target_lun"], data["volume_id"]) == (SHELF, BLADE, spec.resource_id)
    assert target.location(spec) == f"e3.7 {ends[0]}"


def test_many_at_once(target: AoeTarget, tmp_path: Path) -> None:
    specs = [make_spec(tmp_path, ONE, shelf=5, blade=blade) for blade in range(16)]
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(target.sync, specs))
    seen = {export.target_name: export for export in target.observe()}
    assert {name: (one.paths, one.initiators) for name, one in seen.items()} == {
        spec.target_name: ((spec.path,), (ONE,)) for spec in specs
    }
    with ThreadPoolExecutor(16) as pool:
        assert not any(pool.map(target.sync, specs))
        assert all(pool.map(lambda spec: target.sync(dataclasses.replace(spec, wanted=False)), specs))
    assert pids(target) == []


@pytest.mark.parametrize(
    "bad", ["", "02:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:0g", 7]
)
def test_bad_mac_changes_nothing(target: AoeTarget, spec: ExportSpec, bad: Any) -> None:
    """vblade leaves a mask out that it cannot parse, and serves everybody without one."""
    with pytest.raises(exception.InvalidConnector) as caught:
        target.validate_connector({"aoe_macs": [ONE, bad]})
    assert "ip -brief link" in caught.value.hint
    with pytest.raises(exception.InvalidConnector):
        target.sync(dataclasses.replace(spec, grants=(Grant("1", macs=(bad,)),)))
    assert pids(target) == []


@pytest.mark.parametrize("connector", [{}, {"aoe_macs": []}, {"aoe_macs": ONE}, {"initiator": "iqn.a:b"}])
def test_connector_without_macs(target: AoeTarget, connector: dict[str, Any]) -> None:
    with pytest.raises(exception.InvalidConnector) as caught:
        target.validate_connector(connector)
    assert caught.value.details["missing"] == "aoe_macs"
    assert caught.value.hint


def test_missing_storage_is_not_found(target: AoeTarget, spec: ExportSpec) -> None:
    with pytest.raises(exception.NotFound, match="cannot be opened"):
        target.sync(dataclasses.replace(spec, path="/nonexistent/volume"))
    assert pids(target) == []


def test_export_without_address_is_refused(target: AoeTarget, spec: ExportSpec) -> None:
    with pytest.raises(exception.Invalid, match="shelf and a blade"):
        target.sync(dataclasses.replace(spec, shelf=None))
    assert pids(target) == []


def test_foreign_name_is_refused(target: AoeTarget, spec: ExportSpec) -> None:
    with pytest.raises(exception.Invalid):
        target.sync(dataclasses.replace(spec, target_name="iqn.2020-01.com.example:foreign", wanted=False))


def test_interface_that_does_not_exist(make: Callable[..., AoeTarget]) -> None:
    with pytest.raises(exception.BackendDown, match="no network interface") as caught:
        make(aoe_eth_dev="nosuch0")
    assert "aoe_eth_dev" in caught.value.hint


def test_interface_that_goes_down_and_comes_back(
    target: AoeTarget, spec: ExportSpec, ends: tuple[str, str], wire: Initiator
) -> None:
    """vblade ends when its interface goes down; once it is up again the export is back by itself."""
    target.sync(spec)
    subprocess.run(["ip", "link", "set", ends[0], "down"], check=True)
    try:
        wait_until(lambda: not pids(target), 10, "vblade has ended")
        with pytest.raises(exception.BackendDown) as caught:
            target.check()
        assert f"ip link set {ends[0]} up" in caught.value.hint
    finally:
        subprocess.run(["ip", "link", "set", ends[0], "up"], check=True)
    assert wire.identify(ONE) * 512 == SIZE

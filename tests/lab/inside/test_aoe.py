# SPDX-License-Identifier: Apache-2.0
"""ATA over Ethernet in a real kernel: vblade over logical volumes, and the kernel's own initiator on the other end."""

from __future__ import annotations

import dataclasses
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr import exception, names
from volmgr.initiator.aoe import AoEConnector, ethernet_addresses
from volmgr.privileged import modules
from volmgr.targets.aoe import AoeTarget
from volmgr.targets.base import TargetConfig
from volmgr.testing.aoe import cable
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import LoopGroup, read_device, write_device
from volmgr.tools import vblade
from volmgr.types import ExportSpec, Grant, MiB, Portal

PREFIX = "iqn.2010-10.org.openstack:"
SIZE_MIB = 64


@pytest.fixture(scope="module")
def interface(nothing_left: None) -> Iterator[str]:
    modules.ensure(["veth", "aoe"], timeout=60)
    with cable(keep=True) as (near, _far):
        yield near


@pytest.fixture
def target(tmp_path: Path, interface: str) -> Iterator[AoeTarget]:
    config = TargetConfig(PREFIX, (Portal("127.0.0.1", 3260),), str(tmp_path), options={"aoe_eth_dev": interface})
    made = AoeTarget(config)
    made.start()
    yield made
    made.stop(and_exports=True)


@pytest.fixture
def connector(target: AoeTarget) -> Iterator[AoEConnector]:
    """The initiator; it forgets its devices before the target ends, or whoever scans devices then waits for minutes."""
    made = AoEConnector()
    yield made
    for path in made.get_all_available_volumes():
        Path("/dev/etherd/flush").write_text(Path(path).name, encoding="ascii")


def make_spec(group: LoopGroup, name: str, blade: int) -> ExportSpec:
    resource = str(uuid.uuid4())
    return ExportSpec(
        "volume",
        resource,
        names.target_name(PREFIX, "volume", resource),
        path=str(group.create_thin(name, SIZE_MIB)),
        grants=(Grant("this", macs=tuple(ethernet_addresses())),),
        shelf=3,
        blade=blade,
    )


def test_bytes_of_a_logical_volume(group: LoopGroup, target: AoeTarget, connector: AoEConnector) -> None:
    spec = make_spec(group, "bytes", 7)
    target.sync(spec)
    data = target.connection(spec, spec.grants[0])
    device = connector.connect_volume(data)
    assert device == {"type": "block", "path": "/dev/etherd/e3.7"}
    assert connector.get_volume_paths(data) == ["/dev/etherd/e3.7"]
    assert connector.check_valid_device(device["path"])
    disk, written = Path(device["path"]), os.urandom(MiB)
    assert int(run("blockdev", "--getsize64", str(disk))) == SIZE_MIB * MiB
    write_device(disk, written, offset=8 * MiB)
    assert read_device(Path(spec.path), MiB, offset=8 * MiB) == written
    _grown_in_use(spec, target, connector)
    assert read_device(disk, MiB, offset=8 * MiB) == written
    _killed_in_use(target, disk)
    assert read_device(Path(spec.path), MiB, offset=16 * MiB) == read_device(disk, MiB, offset=16 * MiB)
    with disk.open("rb"), pytest.raises(exception.Busy) as caught:
        connector.disconnect_volume(data)
    assert f"lsof {disk}" in caught.value.hint
    connector.disconnect_volume(data)
    assert not disk.exists()
    connector.disconnect_volume(data)
    assert connector.get_volume_paths(data) == []


def _grown_in_use(spec: ExportSpec, target: AoeTarget, connector: AoEConnector) -> None:
    run("lvextend", "-q", "-L", f"{2 * SIZE_MIB}m", spec.path)
    assert target.sync(spec) is True
    assert connector.extend_volume(target.connection(spec, spec.grants[0])) == 2 * SIZE_MIB * MiB


def _killed_in_use(target: AoeTarget, disk: Path) -> None:
    """The initiator does not notice that what serves it died: it sends again what was not answered."""
    (process,) = vblade.found(target.folder)
    os.kill(process.pid, signal.SIGKILL)
    # In a process of its own: green threads all stand still while one of them waits for a device.
    run("dd", "if=/dev/urandom", f"of={disk}", "bs=64k", "count=16", "seek=256", "oflag=direct", "status=none")
    assert [found.pid for found in vblade.found(target.folder)] != [process.pid]


def test_an_address_that_became_another_volume(group: LoopGroup, target: AoeTarget, connector: AoEConnector) -> None:
    """A host that was cut off still has the old device; when it connects again it gets the new volume's bytes."""
    old, new = make_spec(group, "old", 8), make_spec(group, "new", 8)
    run("lvextend", "-q", "-L", f"{2 * SIZE_MIB}m", new.path)
    mark = os.urandom(MiB)
    write_device(Path(new.path), mark, offset=0)
    target.sync(old)
    connector.connect_volume(target.connection(old, old.grants[0]))
    target.sync(dataclasses.replace(old, wanted=False))
    # Whoever looks at all devices now, as LVM does, waits for the one whose target is gone.
    target.sync(new)
    disk = Path(connector.connect_volume(target.connection(new, new.grants[0]))["path"])
    assert int(run("blockdev", "--getsize64", str(disk))) == 2 * SIZE_MIB * MiB
    assert read_device(disk, MiB, offset=0) == mark
    connector.disconnect_volume(target.connection(new, new.grants[0]))


def test_read_only(group: LoopGroup, target: AoeTarget, connector: AoEConnector) -> None:
    spec = make_spec(group, "readonly", 9)
    spec = dataclasses.replace(spec, grants=(dataclasses.replace(spec.grants[0], mode="ro"),))
    target.sync(spec)
    disk = Path(connector.connect_volume(target.connection(spec, spec.grants[0]))["path"])
    assert run("blockdev", "--getro", str(disk)).strip() == "1"
    with pytest.raises(OSError):
        write_device(disk, bytes(MiB), offset=0)
    connector.disconnect_volume(target.connection(spec, spec.grants[0]))


def test_nobody_there(interface: str) -> None:
    with pytest.raises(exception.BackendDown) as caught:
        AoEConnector(timeout=2).connect_volume({"target_shelf": 4, "target_lun": 4})
    assert "aoe-stat" in caught.value.hint

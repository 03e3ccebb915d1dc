# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel and iSER in a kernel that has them: volmgr's targets on one side, os-brick and the kernel on the other.

Each test is a check of the matrix, for each transport.
"""

from __future__ import annotations

import dataclasses
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.connector import HostConnector
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import LioTarget
from volmgr.targets.lio.fc import FcTarget
from volmgr.targets.lio.iser import IserTarget
from volmgr.testing.lab.commands import run, wait_until
from volmgr.testing.lab.loopgroup import LoopGroup, loop_group, read_device, write_device
from volmgr.types import Chap, ExportSpec, Grant, MiB, Portal, Secret

PREFIX = "iqn.2010-10.org.openstack:"
ADDRESS = "10.99.0.1"
INITIATOR = "iqn.2010-10.org.volmgr:fabric"
SIZE_MIB = 40
#: An emulated machine is slow.
SCANS = 12
#: What to show when a disk does not appear.
_LOOK = (
    "ls -l /dev/disk/by-path; lsscsi; ls /sys/class/fc_transport; cd /sys/class/fc_remote_ports; "
    "grep . */port_name */roles */port_state */scsi_target_id; dmesg | tail -20"
)
VN2VN = Path("/sys/module/libfcoe/parameters/create_vn2vn")


def wwpn(interface: str) -> str:
    """Return the port name that FCoE makes of an interface's address."""
    return "2000" + Path(f"/sys/class/net/{interface}/address").read_text(encoding="ascii").strip().replace(":", "")


@dataclass
class Stage:
    """A transport: its target, who connects, and this host as the client."""

    target: LioTarget
    group: LoopGroup
    client: HostConnector
    grant: Grant
    auth: Chap | None = None
    numbers: list[int] = field(default_factory=list)

    def export(self, name: str) -> ExportSpec:
        """Return what a new logical volume's export should be, with this host let in; nothing is exported yet."""
        number = len(self.numbers) + 1
        self.numbers.append(number)
        resource = str(uuid.uuid4())
        is_fc = self.target.protocol == "fibre_channel"
        name = f"{self.target.protocol}-{name}"
        return ExportSpec(
            "volume",
            resource,
            names.target_name(PREFIX, "volume", resource),
            path=str(self.group.create_thick(name, SIZE_MIB)),
            serial=names.new_serial(),
            lun=100 + number if is_fc else 1,
            auth=self.auth,
            grants=(dataclasses.replace(self.grant, lun=number if is_fc else 1),),
        )

    def info(self, spec: ExportSpec) -> dict[str, Any]:
        """Return connection_info."""
        data = self.target.connection(spec, spec.grants[0])
        return {"driver_volume_type": self.target.protocol, "data": dict(data)}

    def connect(self, spec: ExportSpec) -> Path:
        self.target.sync(spec)
        try:
            return Path(self.client.connect(self.info(spec))).resolve()
        except exception.BackendDown:
            print(run("sh", "-c", _LOOK))
            raise

    def leave(self, spec: ExportSpec) -> None:
        self.client.disconnect(self.info(spec))
        self.target.sync(dataclasses.replace(spec, wanted=False))
        self.group.remove(Path(spec.path).name)

    def extend(self, spec: ExportSpec) -> Any:
        return self.client._protocol(self.target.protocol).extend_volume(self.info(spec)["data"])


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopGroup]:
    with loop_group(tmp_path_factory.mktemp("group"), "fabric", size_mib=500, pool_mib=40) as made:
        yield made


def config(folder: Path, **options: Any) -> TargetConfig:
    return TargetConfig(PREFIX, (Portal(ADDRESS, 3260),), str(folder), timeout=60, options=options)


@pytest.fixture(scope="module")
def fibre_channel(group: LoopGroup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("fc")
    # An emulated machine may stand still for longer than a port waits for another.
    run("modprobe", "scsi_transport_fc", "dev_loss_tmo=600")
    run("modprobe", "-a", "fcoe", "tcm_fc")
    port, initiator = wwpn("fc0"), wwpn("fc1")
    target = FcTarget(config(folder, fc_target_wwpns=[port], fc_initiator_wwpns=[initiator]))
    with pytest.raises(exception.BackendDown) as caught:
        target.start()
    assert port in str(caught.value), "there is no port yet"
    assert "create_vn2vn" in caught.value.hint
    VN2VN.write_text("fc0", encoding="ascii")
    target.start()
    # Only now, that its entry is there, may the initiator log in.
    VN2VN.write_text("fc1", encoding="ascii")
    ports = Path("/sys/class/fc_remote_ports")

    def is_logged_in() -> bool:
        return any(
            port in (remote / "port_name").read_text() and (remote / "scsi_target_id").read_text().strip() != "-1"
            for remote in ports.glob("*")
        )

    wait_until(is_logged_in, "the initiator has found the target's port", 60)
    yield Stage(target, group, HostConnector(str(folder), scan_attempts=SCANS), Grant("host", wwpns=(initiator,)))
    target.stop(and_exports=True)


@pytest.fixture(scope="module")
def iser(group: LoopGroup, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("iser")
    target = IserTarget(config(folder))
    with pytest.raises(exception.BackendDown) as caught:
        target.start()
    assert "rdma link add" in caught.value.hint, "there is no RDMA device yet"
    run("modprobe", "-a", "rdma_rxe", "iscsi_tcp", "ib_iser")
    run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "v0")
    for interface in ("v0", "v1"):
        run("ip", "link", "set", interface, "up")
    run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "v0")
    target.start()
    run("iscsid")
    grant = Grant("host", initiator=INITIATOR)
    client = HostConnector(str(folder), scan_attempts=SCANS)
    yield Stage(target, group, client, grant, Chap("volmgr-user", Secret("a-password-of-16")))
    target.stop(and_exports=True)


@pytest.fixture(params=["fibre_channel", "iser"])
def stage(request: pytest.FixtureRequest) -> Stage:
    made: Stage = request.getfixturevalue(request.param)
    return made


def packets() -> int:
    """Return how many packets the RDMA device has sent."""
    counters = run("rdma", "statistic", "show", "link", "rxe0/1").split()
    return int(counters[counters.index("sent_pkts") + 1])


def test_bytes_at_the_initiator_are_the_volumes(stage: Stage) -> None:
    spec = stage.export("bytes")
    disk = stage.connect(spec)
    written = os.urandom(8 * MiB)
    write_device(disk, written, offset=4 * MiB)
    assert read_device(Path(spec.path), 8 * MiB, offset=4 * MiB) == written
    assert read_device(disk, 8 * MiB, offset=4 * MiB) == written
    assert spec.serial in Path(f"/sys/block/{disk.name}/device/vpd_pg80").read_bytes().decode(errors="replace")
    if stage.target.protocol == "iser":
        assert packets() > 8 * MiB // 4096, "the data goes by RDMA"
    stage.leave(spec)
    assert not disk.exists()


def test_grows_in_use(stage: Stage) -> None:
    spec = stage.export("grows")
    disk = stage.connect(spec)
    run("lvextend", "-q", "-L", f"{SIZE_MIB + 24}m", spec.path)
    stage.target.sync(spec)
    assert stage.extend(spec) == (SIZE_MIB + 24) * MiB
    assert int(run("blockdev", "--getsize64", str(disk))) == (SIZE_MIB + 24) * MiB
    stage.leave(spec)


def test_two_volumes_are_told_apart(stage: Stage) -> None:
    one, two = stage.export("one"), stage.export("two")
    disks = [stage.connect(spec) for spec in (one, two)]
    for number, disk in enumerate(disks):
        write_device(disk, bytes([number + 1]) * MiB)
    for number, spec in enumerate((one, two)):
        assert read_device(Path(spec.path), MiB) == bytes([number + 1]) * MiB
    stage.leave(one)
    assert read_device(disks[1], MiB) == b"\2" * MiB
    stage.leave(two)


def test_revoked_access_is_gone(stage: Stage) -> None:
    """Whoever keeps the disk open reads an error, never another's bytes or zeros."""
    spec = stage.export("revoked")
    disk = stage.connect(spec)
    write_device(disk, b"\7" * MiB)
    assert stage.target.sync(dataclasses.replace(spec, grants=())) is True
    if stage.target.protocol == "fibre_channel":
        with pytest.raises(OSError):
            read_device(disk, 4096)
    stage.client.disconnect(stage.info(spec))
    with pytest.raises(exception.BackendDown):
        stage.client.connect(stage.info(spec))
    stage.target.sync(dataclasses.replace(spec, wanted=False))
    stage.group.remove(Path(spec.path).name)


def test_wiped_target_is_rebuilt(stage: Stage, make_again: Callable[[Stage], LioTarget]) -> None:
    """Another life of ours finds what is there and changes nothing, and makes again what is not."""
    spec = stage.export("rebuilt")
    stage.target.sync(spec)
    again = make_again(stage)
    assert again.sync(spec) is False
    assert [export.target_name for export in again.observe()] == [spec.target_name]
    assert again.sync(dataclasses.replace(spec, wanted=False)) is True
    assert again.observe() == []
    assert again.sync(spec) is True
    assert stage.target.sync(spec) is False
    disk = Path(stage.client.connect(stage.info(spec))).resolve()
    write_device(disk, b"\3" * MiB)
    assert read_device(Path(spec.path), MiB) == b"\3" * MiB
    stage.leave(spec)


@pytest.fixture
def make_again() -> Callable[[Stage], LioTarget]:
    def make(stage: Stage) -> LioTarget:
        made = type(stage.target)(stage.target.config)
        made.start()
        return made

    return make


def test_ends_without_a_trace(stage: Stage) -> None:
    stage.target.stop(and_exports=True)
    assert list(stage.target.observe()) == []

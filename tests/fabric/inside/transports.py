# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel over Ethernet, iSCSI over soft RoCE and ATA over Ethernet, each as a stage of the matrix."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from tests.fabric.inside.stages import CONFIGFS, PREFIX, Host, Stage, Volumes, settled, wipe_lio
from volmgr import exception
from volmgr.initiator.aoe import AoEConnector
from volmgr.targets.aoe import AoeTarget
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import iscsi
from volmgr.targets.lio.configfs import Tree, apply
from volmgr.targets.lio.fc import FcTarget
from volmgr.targets.lio.iser import IserTarget
from volmgr.targets.lio.tree import Step, plan
from volmgr.testing.aoe import Initiator, cable
from volmgr.testing.lab import lio
from volmgr.testing.lab.commands import run, wait_until
from volmgr.testing.lab.errors import CommandFailed
from volmgr.testing.lab.initiator import AUTH_FAILED
from volmgr.testing.lab.loopgroup import read_device
from volmgr.tools import vblade
from volmgr.types import Chap, ExportSpec, Grant, MiB, Portal, Secret

ADDRESS = "10.99.0.1"
PORTAL = f"{ADDRESS}:3260"
INITIATOR, OTHER_INITIATOR = "iqn.2010-10.org.volmgr:fabric", "iqn.2010-10.org.volmgr:other"
FOREIGN = "iqn.2003-01.org.linux-iscsi.host:foreign"
#: An emulated machine that others slow down.
PATIENCE = 90.0
LIBFCOE = Path("/sys/module/libfcoe/parameters")
FC_HOSTS, FC_REMOTE = Path("/sys/class/fc_host"), Path("/sys/class/fc_remote_ports")


def config(folder: Path, **options: object) -> TargetConfig:
    return TargetConfig(PREFIX, (Portal(ADDRESS, 3260),), str(folder), timeout=60, options=options)


def text(path: Path) -> str:
    """Return what a file of sysfs says, empty if it has just gone."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


@dataclasses.dataclass
class Disk(Host):
    """A disk of this kernel that came another way than the first one."""

    path: Path

    def read(self, length: int, offset: int) -> bytes:
        return read_device(self.path, length, offset)


# --- Fibre Channel


def wwpn(interface: str) -> str:
    """Return the port name that FCoE makes of an interface's address."""
    return "2000" + text(Path(f"/sys/class/net/{interface}/address")).replace(":", "")


class FibreChannel(Stage):
    """Three ports on one segment: fc0 serves, fc1 is this host, fc2 another one."""

    target: FcTarget

    def addressed(self, spec: ExportSpec, number: int) -> ExportSpec:
        return dataclasses.replace(spec, lun=100 + number, grants=(dataclasses.replace(self.grant, lun=number),))

    def check_login(self, spec: ExportSpec, disk: Path) -> None:
        (remote,) = [path for path in remote_ports(wwpn("fc1")) if self.target.ports[0] in text(path / "port_name")]
        assert text(remote / "port_state") == "Online"
        assert "FCP Target" in text(remote / "roles")
        links = run("udevadm", "info", "-q", "symlink", str(disk))
        assert f"-fc-0x{self.target.ports[0]}-lun-{spec.grants[0].lun}" in links

    def check_refused(self, spec: ExportSpec) -> None:
        with pytest.raises(exception.BackendDown):
            self.impatient.connect(self.info(spec))

    def other_grant(self) -> Grant:
        return Grant("other", wwpns=(wwpn("fc2"),), lun=77)

    @contextlib.contextmanager
    def other(self, spec: ExportSpec, grant: Grant) -> Iterator[Host]:
        host = host_of(wwpn("fc2"))
        Path(f"/sys/class/scsi_host/{host.name}/scan").write_text(f"- - {grant.lun}", encoding="ascii")
        pattern = f"device/rport-*/target*/*:{grant.lun}/block/*"
        wait_until(lambda: any(host.glob(pattern)), "the other host has its disk", PATIENCE)
        (found,) = host.glob(pattern)
        run("udevadm", "settle")
        yield Disk(Path("/dev", found.name))
        run("udevadm", "settle")
        Path(f"/sys/block/{found.name}/device/delete").write_text("1", encoding="ascii")

    def wipe(self) -> None:
        wipe_lio("fc")

    def come_back(self, spec: ExportSpec) -> Path:
        """A port whose entry went away has to log in anew, as after its host's reboot."""
        for interface in ("fc1", "fc2"):
            (LIBFCOE / "destroy").write_text(interface, encoding="ascii")
        log_in(self.target.ports[0])
        return self.connect(spec)

    def half_made(self, spec: ExportSpec) -> Iterator[str]:
        yield from cut_short(
            self.target.tree,
            lambda: self.target._plan(spec.target_name, self.target._wanted(spec)),
            lambda: self.target._plan(spec.target_name, None),
        )

    @contextlib.contextmanager
    def foreign(self, path: Path) -> Iterator[Callable[[], object]]:
        """At the same port as ours, to a host of ours and to another."""
        store = CONFIGFS / "core/iblock_7/foreign"
        unit = CONFIGFS / "fc" / colons(self.target.ports[0]) / "tpgt_1/lun/lun_200"
        entries = [unit.parents[1] / "acls" / colons(name) for name in (wwpn("fc1"), "2000000000000099")]
        with contextlib.ExitStack() as undo:
            make(undo, store.parent)
            make(undo, store)
            (store / "control").write_text(f"udev_path={path}", encoding="ascii")
            (store / "enable").write_text("1", encoding="ascii")
            make(undo, unit)
            link(undo, unit / "device", store)
            for entry in entries:
                if not entry.is_dir():
                    make(undo, entry)
                make(undo, entry / "lun_200")
                link(undo, entry / "lun_200/mapped", unit)
            yield lambda: settled(store, unit, *(entry / "lun_200" for entry in entries))


def colons(name: str) -> str:
    return ":".join(name[at : at + 2] for at in range(0, 16, 2))


def make(undo: contextlib.ExitStack, folder: Path) -> None:
    folder.mkdir()
    undo.callback(folder.rmdir)


def link(undo: contextlib.ExitStack, at: Path, to: Path) -> None:
    at.symlink_to(to)
    undo.callback(at.unlink)


def host_of(port: str) -> Path:
    """Return the host adapter that has a port."""
    (found,) = [path for path in FC_HOSTS.iterdir() if port in text(path / "port_name")]
    return found


def remote_ports(port: str) -> list[Path]:
    """Return the ports that one of this machine's sees."""
    number = host_of(port).name.removeprefix("host")
    return list(FC_REMOTE.glob(f"rport-{number}:*"))


def log_in(port: str) -> None:
    """Bring the initiators' ports up, and return once they have found the target's."""
    for interface in ("fc1", "fc2"):
        (LIBFCOE / "create_vn2vn").write_text(interface, encoding="ascii")

    def is_found(by: str) -> bool:
        found = [one for one in remote_ports(by) if port in text(one / "port_name")]
        return any(text(one / "scsi_target_id") not in ("", "-1") for one in found)

    def is_up() -> bool:
        return is_found(wwpn("fc1")) and is_found(wwpn("fc2"))

    wait_until(is_up, "both initiators have found the target", PATIENCE)


@contextlib.contextmanager
def fibre_channel(volumes: Volumes, folder: Path) -> Iterator[FibreChannel]:
    """Make a Fibre Channel of this machine's three adapters."""
    # An emulated machine may stand still for longer than a port waits for another.
    run("modprobe", "scsi_transport_fc", "dev_loss_tmo=600")
    run("modprobe", "-a", "fcoe", "tcm_fc")
    port, known = wwpn("fc0"), [wwpn("fc1"), wwpn("fc2")]

    def life() -> FcTarget:
        made = FcTarget(config(folder, fc_target_wwpns=[port], fc_initiator_wwpns=known))
        made.start()
        return made

    with pytest.raises(exception.BackendDown) as caught:
        life()
    assert port in str(caught.value), "there is no port yet"
    assert "create_vn2vn" in caught.value.hint
    (LIBFCOE / "create_vn2vn").write_text("fc0", encoding="ascii")
    target = life()
    # Only now, that its entry is there, may an initiator log in.
    log_in(port)
    made = FibreChannel(target, volumes, folder, Grant("host", wwpns=(known[0],)), life)
    yield made
    made.target.stop(and_exports=True)


# --- iSER


class Iser(Stage):
    """iSCSI over soft RoCE on one end of a cable."""

    target: IserTarget
    auth: ClassVar[Chap] = Chap("volmgr-user", Secret("a-password-of-16"))

    def addressed(self, spec: ExportSpec, number: int) -> ExportSpec:
        return dataclasses.replace(spec, auth=self.auth, grants=(self.grant,))

    def check_login(self, spec: ExportSpec, disk: Path) -> None:
        said = run("iscsiadm", "-m", "session", "-P", "1")
        assert f"Target: {spec.target_name}" in said
        assert "Iface Transport: iser" in said
        assert "iSCSI Connection State: LOGGED IN" in said

    def check_refused(self, spec: ExportSpec) -> None:
        """Who is not let in does not even see the target, and cannot log in where it knows of it."""
        with record_of(spec, "iser", "-o", "new") as node:
            # As often as os-brick would have it tried, an emulated machine is busy for minutes.
            run(*node, "-o", "update", "-n", "node.session.initial_login_retry_max", "-v", "1")
            with pytest.raises(CommandFailed) as caught:
                run(*node, "--login")
            assert caught.value.status == AUTH_FAILED
            assert disks_of(INITIATOR) == []

    def other_grant(self) -> Grant:
        return Grant("other", initiator=OTHER_INITIATOR)

    @contextlib.contextmanager
    def other(self, spec: ExportSpec, grant: Grant) -> Iterator[Host]:
        """A second session by an interface record of its own, which has another initiator's name."""
        with contextlib.ExitStack() as undo:
            record = ("iscsiadm", "-m", "iface", "-I", "other")
            run(*record, "-o", "new")
            undo.callback(run, *record, "-o", "delete")
            for key, value in {"transport_name": "iser", "initiatorname": OTHER_INITIATOR}.items():
                run(*record, "-o", "update", "-n", f"iface.{key}", "-v", value)
            run("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", PORTAL, "-I", "other")
            node = undo.enter_context(record_of(spec, "other"))
            run(*node, "--login")
            undo.callback(run, *node, "--logout")
            wait_until(lambda: bool(disks_of(OTHER_INITIATOR)), "the other host has its disk", PATIENCE)
            run("udevadm", "settle")
            yield Disk(Path("/dev", disks_of(OTHER_INITIATOR)[0]))
            run("udevadm", "settle")

    def wipe(self) -> None:
        wipe_lio("iscsi")

    def come_back(self, spec: ExportSpec) -> Path:
        """The initiator logs in again by itself."""
        wait_until(lambda: set(session_states()) == {"LOGGED_IN"}, "the session is back", PATIENCE)
        return self.connect(spec)

    def half_made(self, spec: ExportSpec) -> Iterator[str]:
        name, tree = spec.target_name, self.target.tree
        wanted = iscsi.wanted(spec, self.target.config.portals, rdma=True)
        yield from cut_short(
            tree, lambda: plan(wanted, iscsi.read(tree, name)), lambda: plan(None, iscsi.read(tree, name))
        )

    @contextlib.contextmanager
    def foreign(self, path: Path) -> Iterator[Callable[[], object]]:
        with lio.exported(path, FOREIGN, INITIATOR, lio.Chap("f", "a-foreign-password"), "f" * 32, port=3262):
            store = CONFIGFS / "core/iblock_0"
            yield lambda: settled(CONFIGFS / "iscsi" / FOREIGN, store)


@contextlib.contextmanager
def record_of(spec: ExportSpec, interface: str, *make: str) -> Iterator[tuple[str, ...]]:
    """Write the export's account into open-iscsi's record of the target; yields how a command names that.

    :param make: the command that makes the record, if discovery has not.
    """
    node = ("iscsiadm", "-m", "node", "-T", spec.target_name, "-p", PORTAL, "-I", interface)
    if make:
        run(*node, *make)
    try:
        assert spec.auth is not None
        account = {"authmethod": "CHAP", "username": spec.auth.username, "password": spec.auth.password.reveal()}
        for key, value in account.items():
            run(*node, "-o", "update", "-n", f"node.session.auth.{key}", "-v", value)
        yield node
    finally:
        run(*node, "-o", "delete")


def disks_of(initiator: str) -> list[str]:
    """Return the disks of an initiator's sessions."""
    every = Path("/sys/class/iscsi_session").iterdir()
    sessions = [path for path in every if text(path / "initiatorname") == initiator]
    return [disk.name for session in sessions for disk in (session / "device").glob("target*/*/block/*")]


def session_states() -> list[str]:
    return [text(path / "state") for path in Path("/sys/class/iscsi_session").iterdir()]


@contextlib.contextmanager
def iser(volumes: Volumes, folder: Path) -> Iterator[Iser]:
    """Make an RDMA device over an Ethernet interface."""

    def life() -> IserTarget:
        made = IserTarget(config(folder))
        made.start()
        return made

    with pytest.raises(exception.BackendDown) as caught:
        life()
    assert "rdma link add" in caught.value.hint, "there is no RDMA device yet"
    run("modprobe", "-a", "rdma_rxe", "iscsi_tcp", "ib_iser")
    run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "v0")
    for interface in ("v0", "v1"):
        run("ip", "link", "set", interface, "up")
    run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "v0")
    run("iscsid")
    made = Iser(life(), volumes, folder, Grant("host", initiator=INITIATOR), life)
    yield made
    made.target.stop(and_exports=True)


def rdma_packets() -> int:
    """Return how many packets the RDMA device has sent."""
    counters = run("rdma", "statistic", "show", "link", "rxe0/1").split()
    return int(counters[counters.index("sent_pkts") + 1])


def cut_short(tree: Tree, making: Callable[[], list[Step]], removing: Callable[[], list[Step]]) -> Iterator[str]:
    """Yield with the first steps of the making done, one more each time; then the same with the removal.

    :param making: plans what is missing of the export. :param removing: plans the way back, of the whole export.
    """
    length = len(making())
    assert length > 5
    for cut in range(1, length):
        for step in making()[:cut]:
            apply(tree, step)
        yield f"made up to step {cut} of {length}"
    length = 1
    cut = 0
    while (cut := cut + 1) <= length:
        for step in making():
            apply(tree, step)
        steps = removing()
        length = len(steps)
        for step in steps[:cut]:
            apply(tree, step)
        yield f"removed up to step {cut} of {length}"


# --- ATA over Ethernet


class Aoe(Stage):
    """vblade on one end of a cable, the kernel's initiator on the other; os-brick has no connector for it any more."""

    has_os_brick: ClassVar[bool] = False
    SHELF: ClassVar[int] = 3
    target: AoeTarget
    #: the initiator's end of the cable.
    far: str

    def addressed(self, spec: ExportSpec, number: int) -> ExportSpec:
        return dataclasses.replace(spec, shelf=self.SHELF, blade=number, grants=(self.grant,))

    def check_login(self, spec: ExportSpec, disk: Path) -> None:
        about = Path("/sys/block", f"etherd!{disk.name}")
        assert text(about / "state").startswith("up")
        assert text(about / "mac") == text(Path(f"/sys/class/net/{self.target.interface}/address")).replace(":", "")
        assert text(about / "netif") == self.far

    def check_refused(self, spec: ExportSpec) -> None:
        with pytest.raises(exception.BackendDown):
            AoEConnector(timeout=3).connect_volume(self.info(spec)["data"])

    def other_grant(self) -> Grant:
        return Grant("other", macs=("02:00:00:00:00:02",))

    @contextlib.contextmanager
    def other(self, spec: ExportSpec, grant: Grant) -> Iterator[Host]:
        assert spec.shelf is not None and spec.blade is not None
        with Initiator(self.far, spec.shelf, spec.blade) as wire:
            yield Frames(wire, grant.macs[0])

    def wipe(self) -> None:
        """Nothing starts again what is ended now: the target's watcher has let go."""
        self.target.stop()
        for process in vblade.found(self.target.folder):
            vblade.end(process, 20)

    def come_back(self, spec: ExportSpec) -> Path:
        return self.connect(spec)

    def half_made(self, spec: ExportSpec) -> Iterator[str]:
        """Processes that serve something else than they should, or twice the same."""
        (right,) = self.target._blades(spec)
        other = self.other_grant().macs
        wrong: Mapping[str, object] = {"sectors": 8, "macs": other, "read_only": True, "shelf": 9, "slot": 99}
        for key, value in wrong.items():
            self.target.stop()
            vblade.start(dataclasses.replace(right, **{key: value}), self.target.folder, 60)  # type: ignore[arg-type]
            yield f"{key} is {value}"
        self.target.stop()
        for _ in range(2):
            vblade.start(right, self.target.folder, 60)
        yield "the same twice"

    @contextlib.contextmanager
    def foreign(self, path: Path) -> Iterator[Callable[[], object]]:
        arguments = ["vblade", "-m", "020000000009", "44", "4", self.target.interface, str(path)]
        with subprocess.Popen(arguments, cwd="/", stdout=subprocess.DEVNULL) as program:
            try:
                with Initiator(self.far, 44, 4) as wire:
                    yield lambda: (program.poll(), wire.read("02:00:00:00:00:09", 0, 512))
            finally:
                program.kill()


@dataclasses.dataclass
class Frames(Host):
    """A host that speaks the protocol by itself."""

    wire: Initiator
    mac: str

    def read(self, length: int, offset: int) -> bytes:
        return self.wire.read(self.mac, offset, length)


@contextlib.contextmanager
def aoe(volumes: Volumes, folder: Path) -> Iterator[Aoe]:
    """Lay a cable between the target and the kernel's initiator."""
    with pytest.raises(exception.BackendDown) as caught:
        AoeTarget(config(folder, aoe_eth_dev="nosuch0")).start()
    assert "aoe_eth_dev" in caught.value.hint
    with cable(keep=True) as (near, far):
        # The initiator makes a device of whatever it hears of; seconds until it gives up one that is gone again.
        run("modprobe", "aoe", f"aoe_iflist={far}", "aoe_deadsecs=20")

        def life() -> AoeTarget:
            started = AoeTarget(config(folder, aoe_eth_dev=near))
            started.start()
            return started

        grant = Grant("host", macs=(text(Path(f"/sys/class/net/{far}/address")),))
        made = Aoe(life(), volumes, folder, grant, life)
        made.far = far
        yield made
        # The initiator forgets its devices before their target ends, or whoever scans devices waits for minutes.
        for device in AoEConnector().get_all_available_volumes():
            Path("/dev/etherd/flush").write_text(Path(device).name, encoding="ascii")
        made.target.stop(and_exports=True)


def size_of(disk: Path) -> int:
    """Return a block device's size in bytes."""
    return int(run("blockdev", "--getsize64", str(disk)))


def grow(path: str) -> int:
    """Make a logical volume larger; returns its size in bytes."""
    before = size_of(Path(path))
    run("lvextend", "-q", "-L", f"{before // MiB + 8}m", path)
    return before + 8 * MiB


def random_bytes() -> bytes:
    return os.urandom(4 * MiB)

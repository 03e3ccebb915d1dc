# SPDX-License-Identifier: Apache-2.0
"""A transport of the matrix: volmgr's target, the kernel's initiator on the same machine, what can go wrong between.

A check says what must hold for each transport; how to look at it, what a reboot takes away, what a kill leaves and what
is somebody else's differs, and is here. Nothing here skips a check: what a transport does not have is said by a check.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import itertools
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from volmgr import names
from volmgr.connector import HostConnector
from volmgr.targets.base import Target
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import LoopGroup
from volmgr.types import ExportSpec, Grant, Json

PREFIX = "iqn.2010-10.org.openstack:"
#: What os-brick looks for this often, as an emulated machine is slow; and what should not be found, this often.
SCANS, FEW_SCANS = 10, 2
CONFIGFS = Path("/sys/kernel/config/target")
#: Shown when something does not appear.
LOOK = (
    "ls -l /dev/disk/by-path; lsscsi; ls /sys/class/fc_transport; cd /sys/class/fc_remote_ports 2>/dev/null && "
    "grep . */port_name */roles */port_state */scsi_target_id; iscsiadm -m session -P 1; dmesg | tail -20; true"
)


@dataclass
class Volumes:
    """Logical volumes that are made once and used by one check after another: to make one takes a second here."""

    group: LoopGroup
    free: list[Path] = field(default_factory=list)

    def take(self) -> Path:
        return self.free.pop(0)

    def give_back(self, path: Path) -> None:
        self.free.append(path)


class Host(abc.ABC):
    """Another host that was let in: it reads what is behind the export."""

    @abc.abstractmethod
    def read(self, length: int, offset: int) -> bytes: ...


class Stage(abc.ABC):
    """One transport.

    :param target: ours. :param volumes: what can be exported. :param folder: for locks. :param grant: of this host.
    :param life: makes another target as after our restart; it is started.
    """

    #: whether os-brick has a connector for it; else ours is the client.
    has_os_brick: ClassVar[bool] = True

    def __init__(
        self, target: Target, volumes: Volumes, folder: Path, grant: Grant, life: Callable[[], Target]
    ) -> None:
        self.target = target
        self.volumes = volumes
        self.grant = grant
        self.client = HostConnector(str(folder), scan_attempts=SCANS)
        self.impatient = HostConnector(str(folder), scan_attempts=FEW_SCANS)
        self._life = life
        self._numbers = itertools.count(1)

    def restart(self) -> None:
        """Let go of the target and begin another life of ours."""
        self.target.stop()
        self.target = self._life()

    # --- exports

    def export(self) -> ExportSpec:
        """Return what the export of a volume should be, with this host let in; nothing is exported yet."""
        resource = str(uuid.uuid4())
        spec = ExportSpec(
            "volume",
            resource,
            names.target_name(PREFIX, "volume", resource),
            path=str(self.volumes.take()),
            serial=names.new_serial(),
        )
        return self.addressed(spec, next(self._numbers))

    @abc.abstractmethod
    def addressed(self, spec: ExportSpec, number: int) -> ExportSpec:
        """Return ``spec`` with the transport's numbers, this host's grant and what else it needs."""

    def info(self, spec: ExportSpec) -> dict[str, Any]:
        """Return connection_info for this host."""
        data: dict[str, Json] = self.target.connection(spec, spec.grants[0])
        serial = spec.serial if self.has_os_brick else None  # as the worker adds it; ATA over Ethernet has none
        return {"driver_volume_type": self.target.protocol, "data": data | {"serial": serial}}

    def attach(self, spec: ExportSpec) -> Path:
        """Export and connect; returns the disk."""
        self.target.sync(spec)
        return self.connect(spec)

    def connect(self, spec: ExportSpec) -> Path:
        try:
            return Path(self.client.connect(self.info(spec))).resolve()
        except Exception:
            print(run("sh", "-c", LOOK))
            raise

    def detach(self, spec: ExportSpec) -> None:
        """Disconnect this host and end the export; the volume can be used again."""
        self.client.disconnect(self.info(spec))
        self.end(spec)

    def end(self, spec: ExportSpec) -> None:
        self.target.sync(dataclasses.replace(spec, wanted=False))
        self.volumes.give_back(Path(spec.path))

    # --- what differs

    @abc.abstractmethod
    def check_login(self, spec: ExportSpec, disk: Path) -> None:
        """Assert that the initiator is logged in by this very transport."""

    @abc.abstractmethod
    def check_refused(self, spec: ExportSpec) -> None:
        """Assert that this host cannot connect."""

    @abc.abstractmethod
    def other(self, spec: ExportSpec, grant: Grant) -> contextlib.AbstractContextManager[Host]:
        """Yield another host that has ``grant``, connected."""

    @abc.abstractmethod
    def other_grant(self) -> Grant:
        """Return the grant of another host."""

    @abc.abstractmethod
    def wipe(self) -> None:
        """Take away all of the target's state, as a reboot does; what knew it has let go."""

    @abc.abstractmethod
    def come_back(self, spec: ExportSpec) -> Path:
        """Wait until this host has its disk again after :meth:`wipe` and a rebuild; returns the disk."""

    @abc.abstractmethod
    def half_made(self, spec: ExportSpec) -> Iterator[str]:
        """Yield after leaving what a kill leaves, in every way; the text says which.

        Each is completed by another life and the export removed again before the next.
        """

    @abc.abstractmethod
    def foreign(self, path: Path) -> contextlib.AbstractContextManager[Callable[[], object]]:
        """Make a stranger's export of ``path``; yields what tells its state."""


def settled(*folders: Path) -> dict[str, str]:
    """Return every folder, link and attribute with a settled value below some of configfs' folders."""
    found = {}
    for top in folders:
        for folder, _, files in os.walk(top):
            found[folder] = "folder"
            for name in files:
                path = Path(folder) / name
                if path.is_symlink():
                    found[str(path)] = os.readlink(path)
                elif name in ("enable", "udev_path", "write_protect", "userid"):
                    found[str(path)] = path.read_text(encoding="ascii")
    return found


def wipe_lio(fabric: str) -> None:
    """Remove all of a fabric and every backstore from LIO, whoever made it, as a restart of its service does."""
    for enable in CONFIGFS.glob(f"{fabric}/*/tpgt_*/enable"):
        enable.write_text("0", encoding="ascii")
    for links in (f"{fabric}/*/tpgt_*/acls/*/lun_*/*", f"{fabric}/*/tpgt_*/lun/lun_*/*"):
        for link in CONFIGFS.glob(links):
            if link.is_symlink():
                link.unlink()
    levels = [f"{fabric}/*/tpgt_*/{level}" for level in ("np/*", "acls/*/lun_*", "acls/*", "lun/lun_*", "")]
    for pattern in (*levels, f"{fabric}/*:*", "core/*_*/*/", "core/*_*/"):
        for folder in CONFIGFS.glob(pattern):
            if folder.is_dir():
                folder.rmdir()

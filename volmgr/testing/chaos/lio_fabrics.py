# SPDX-License-Identifier: Apache-2.0
"""Chaos over the fabrics of LIO: a host that writes by its disk, and what Fibre Channel has in configfs.

It needs root, and a kernel whose initiator is connected with its own target.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from volmgr.connector import HostConnector
from volmgr.db import models
from volmgr.testing.chaos.lvm_lio import CONFIGFS
from volmgr.testing.chaos.outside import PREFIX, Outside
from volmgr.testing.daemon import Daemon
from volmgr.testing.lab.loopgroup import write_device
from volmgr.types import ObservedExport

#: How often os-brick looks for a disk, in a machine that is slow.
SCANS = 10


class Host:
    """A host that connects for each write, by os-brick, as a compute service would.

    :param folder: for os-brick's locks.
    """

    def __init__(self, folder: Path) -> None:
        self.client = HostConnector(str(folder), scan_attempts=SCANS)

    def write(self, info: dict[str, Any], offset: int, block: bytes) -> bool:
        """Write a block past all caches; returns that the target acknowledged it.

        :param info: connection_info. :raises OSError: it did not. :raises BackendDown: the host cannot connect.
        """
        disk = Path(self.client.connect(info))
        write_device(disk, block, offset)
        self.client.disconnect(info)
        return True


class PortsOutside(Outside):
    """What a daemon on Fibre Channel left: the units of its ports, and which host meets which by what number.

    :param ports: WWPNs of the ports that serve.
    """

    def __init__(self, daemon: Daemon, *, ports: tuple[str, ...], **options: Any) -> None:
        super().__init__(daemon, targets=self._exports, **options)
        self.ports = ports

    def _units(self) -> Iterator[tuple[str, Path, Path]]:
        """Yield (port, unit, its backstore) of every export of ours."""
        for port in self.ports:
            for link in (_group(port) / "lun").glob("lun_*/*"):
                if link.is_symlink() and (store := link.resolve()).name.startswith(PREFIX):
                    yield port, link.parent, store

    def _mapped(self) -> Iterator[tuple[str, str, int, str]]:
        """Yield (port, initiator, number, name of the export) of all that a host can meet."""
        exports = {unit.resolve(): store.name for _port, unit, store in self._units()}
        for port in self.ports:
            for link in (_group(port) / "acls").glob("*/lun_*/*"):
                if link.is_symlink() and (name := exports.get(link.resolve())) is not None:
                    number = int(link.parent.name.removeprefix("lun_"))
                    yield port, link.parents[1].name.replace(":", ""), number, name

    def _exports(self) -> list[ObservedExport]:
        found = {store.name: store for _port, _unit, store in self._units()}
        hosts = {(name, initiator) for _port, initiator, _number, name in self._mapped()}
        return [
            ObservedExport(
                target_name=name,
                paths=((store / "udev_path").read_text().strip(),),
                serials=((store / "wwn/vpd_unit_serial").read_text().rpartition(":")[2].strip(),),
                initiators=tuple(sorted(initiator for export, initiator in hosts if export == name)),
            )
            for name, store in sorted(found.items())
        ]

    def strangers(self) -> list[str]:
        """Return what has another number than SQL's, at a port or for a host; and what a host meets twice."""
        names = {row.resource_id: row.target_name for row in self.rows(models.exports)}
        known = {
            (row.port, row.initiator, row.lun): names.get(row.resource_id) for row in self.rows(models.luns)
        }
        units = [(port, "", int(unit.name.removeprefix("lun_")), store.name) for port, unit, store in self._units()]
        found = [
            f"{name} is number {number} at {port} for {initiator or 'all'}, SQL has {known.get(place)} there"
            for port, initiator, number, name in (*units, *self._mapped())
            if known.get(place := (port, initiator, number)) != name
        ]
        return [*super().strangers(), *found]


def _group(port: str) -> Path:
    colons = ":".join(port[at : at + 2] for at in range(0, len(port), 2))
    return CONFIGFS / "fc" / colons / "tpgt_1"

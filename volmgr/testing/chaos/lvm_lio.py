# SPDX-License-Identifier: Apache-2.0
"""What a daemon on LVM and LIO left, seen from outside: logical volumes, device-mapper, configfs. For the lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from volmgr import names
from volmgr.drivers.naming import describe
from volmgr.testing.chaos.outside import PREFIX, Outside
from volmgr.testing.daemon import Daemon
from volmgr.testing.lab.commands import run
from volmgr.types import ObservedExport, ObservedObject

CONFIGFS = Path("/sys/kernel/config/target")


class LvmOutside(Outside):
    """See the module.

    :param group: the volume group.
    """

    def __init__(self, daemon: Daemon, *, group: str, **options: Any) -> None:
        super().__init__(daemon, storage=self._volumes, targets=exports, **options)
        self.group = group

    def path_of(self, object_id: str, kind: str = "volume") -> Path:
        path = Path("/dev", self.group, names.object_name(kind, object_id))
        if not path.exists():
            raise FileNotFoundError(f"no device of object {object_id}")
        return path

    def _volumes(self) -> list[ObservedObject]:
        report = ("lvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "lv_name,lv_size", self.group)
        rows = [line.split() for line in run(*report).splitlines()]
        found = (describe(name, int(size)) for name, size in rows)
        return [item for item in found if item is not None]

    def strangers(self) -> list[str]:
        """Return suspended devices: nobody would ever wake them."""
        rows = run("dmsetup", "info", "-c", "--noheadings", "--separator", " ", "-o", "name,suspended").splitlines()
        return [f"the device {row.split()[0]} is suspended" for row in rows if row.endswith("Suspended")]


def exports() -> list[ObservedExport]:
    """Return the iSCSI targets of ours as configfs has them."""
    fabric = CONFIGFS / "iscsi"
    if not fabric.is_dir():
        return []
    return [_export(path) for path in fabric.iterdir() if path.name.startswith(PREFIX)]


def _export(target: Path) -> ObservedExport:
    group = target / "tpgt_1"
    stores = [link.resolve() for link in group.glob("lun/lun_*/*") if link.is_symlink()]
    return ObservedExport(
        target_name=target.name,
        paths=tuple(sorted({(store / "udev_path").read_text().strip() for store in stores})),
        serials=tuple(
            sorted({(store / "wwn/vpd_unit_serial").read_text().rpartition(":")[2].strip() for store in stores})
        ),
        initiators=tuple(sorted(path.name for path in (group / "acls").iterdir())),
    )

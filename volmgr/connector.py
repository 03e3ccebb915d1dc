# SPDX-License-Identifier: Apache-2.0
"""The initiator's side on this host: what it can connect with, and block devices from a connection_info.

os-brick does the work for iSCSI, iSER, Fibre Channel, StorPool and local devices; ATA over Ethernet, which os-brick
has dropped, has a connector of ours. The kernel parts are looked for first, so that a missing one is an error with a
remedy and not a time-out. This module knows no RPC and no database; it needs root.
"""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volmgr import exception
from volmgr.initiator import aoe, storpool, sysfs
from volmgr.initiator.aoe import ethernet_addresses

__all__ = ["HostConnector", "ethernet_addresses", "module_state", "require_kernel"]

#: How often to look for a disk, as os-brick does if nothing is said.
SCAN_ATTEMPTS = 3

#: By driver_volume_type: os-brick's name of the protocol, the kernel module, and what installs the rest.
PROTOCOLS: dict[str, tuple[str, str, str]] = {
    "iscsi": ("ISCSI", "iscsi_tcp", "apt-get install open-iscsi; modprobe iscsi_tcp"),
    "iser": ("ISER", "ib_iser", "apt-get install open-iscsi rdma-core; modprobe ib_iser"),
    "fibre_channel": ("FIBRE_CHANNEL", "scsi_transport_fc", "load the driver of the host bus adapter"),
    "aoe": ("AOE", "aoe", "modprobe aoe"),
    "storpool": ("STORPOOL", "", "install StorPool's client"),
    "local": ("LOCAL", "", ""),
}

SCSI = ("iscsi", "iser", "fibre_channel")
"""Protocols whose disks tell a serial."""


def module_state(name: str, root: str = "/") -> str:
    """Return whether a kernel module is ``loaded``, ``available`` to modprobe, or ``missing``.

    :param root: the folder that has ``sys`` and ``lib/modules``.
    """
    module = name.replace("-", "_")
    if os.path.isdir(os.path.join(root, "sys/module", module)):
        return "loaded"
    folder = Path(root, "lib/modules", platform.release())
    for listing in ("modules.builtin", "modules.dep"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # a kernel without modules has no lists
            for line in (folder / listing).read_text(encoding="utf-8").splitlines():
                file = line.partition(":")[0].rpartition("/")[2].partition(".ko")[0]
                if file.replace("-", "_") == module:
                    return "loaded" if listing == "modules.builtin" else "available"
    return "missing"


def require_kernel(driver_volume_type: str, root: str = "/") -> None:
    """Check that this kernel has the initiator of a protocol.

    :raises BackendDown: it has not. :raises Unsupported: the protocol is unknown.
    """
    if driver_volume_type not in PROTOCOLS:
        raise exception.Unsupported(
            f"This host cannot attach by {driver_volume_type}", verb="attach", protocol=driver_volume_type
        )
    _name, module, remedy = PROTOCOLS[driver_volume_type]
    if module and module_state(module, root) == "missing":
        raise exception.BackendDown(
            f"This kernel ({platform.release()}) has no {driver_volume_type} initiator: no module {module}",
            hint=f"Use a kernel that has it ({remedy}), or attach in user space with libiscsi or QEMU",
            module=module,
        )


class HostConnector:
    """This host as a client of volumes.

    :param lock_path: folder for os-brick's locks between processes; it is made. :param multipath: use all paths.
    :param scan_attempts: how often to look for a disk that should appear, each time some seconds longer.
    """

    def __init__(self, lock_path: str, *, multipath: bool = False, scan_attempts: int = SCAN_ATTEMPTS) -> None:
        self.multipath = multipath
        self.scan_attempts = scan_attempts
        self._lock_path = lock_path
        self._ready = False

    def properties(self) -> dict[str, Any]:
        """Return the connector: os-brick's properties of this host, and its Ethernet addresses.

        A host without an iSCSI initiator name has ``initiator`` None.
        """
        module = self._os_brick()
        found: dict[str, Any] = module.get_connector_properties("", _own_ip(), self.multipath, False)
        found["aoe_macs"] = ethernet_addresses()
        return found

    def connect(self, connection_info: Mapping[str, Any]) -> str:
        """Make the block device of a connection; returns its path.

        :raises BackendDown: the kernel has no initiator, or the device did not appear.
        :raises Inconsistent: a stale disk is in its place; it is left as it is, and nothing is written to it.
        """
        kind, data = connection_info["driver_volume_type"], dict(connection_info["data"])
        require_kernel(kind)
        with _typed("connect"):
            protocol = self.connector(kind)
            device: dict[str, Any] = (
                storpool.connect(protocol, data) if kind == "storpool" else protocol.connect_volume(data)
            )
        path = device["path"]
        path = path.decode() if isinstance(path, bytes) else str(path)
        if kind in SCSI:
            check_serial(path, data.get("serial"), has_audit=kind != "fibre_channel")
        return path

    def extend(self, connection_info: Mapping[str, Any]) -> int:
        """Let the block device of a connection have the size that its volume has by now; returns it in bytes.

        :raises BackendDown: the device is not there, or its paths differ in size.
        """
        kind, data = connection_info["driver_volume_type"], dict(connection_info["data"])
        with _typed("extend"):
            return int(self.connector(kind).extend_volume(data))

    def disconnect(self, connection_info: Mapping[str, Any], *, force: bool = False) -> None:
        """Flush and remove the block device of a connection; one that is gone already is success.

        :param force: also if it cannot be flushed: what was written last may be lost.
        :raises BackendDown: it is in use, or cannot be flushed.
        """
        kind, data = connection_info["driver_volume_type"], dict(connection_info["data"])
        with _typed("disconnect"):
            if kind == "storpool":
                storpool.disconnect(self.connector(kind), data)
            elif force:
                self.connector(kind).disconnect_volume(data, None, force=True, ignore_errors=True)
            else:
                self.connector(kind).disconnect_volume(data, None)

    def connector(self, driver_volume_type: str) -> Any:
        """Return what connects a protocol's volumes: os-brick's connector, or ours with the same methods."""
        if driver_volume_type == "aoe":
            return aoe.AoEConnector()
        name = PROTOCOLS[driver_volume_type][0]
        return self._os_brick().InitiatorConnector.factory(
            name, "", use_multipath=self.multipath, device_scan_attempts=self.scan_attempts
        )

    def _os_brick(self) -> Any:
        """Import and set up os-brick, which wants its configuration and its locks first."""
        from oslo_concurrency import lockutils
        from oslo_config import cfg

        if not self._ready:
            os.makedirs(self._lock_path, mode=0o700, exist_ok=True)
            lockutils.set_defaults(self._lock_path)
            import os_brick
            from os_brick import privileged

            if cfg.CONF._args is None:
                cfg.CONF([], project="volmgr", default_config_files=[])
            os_brick.setup(cfg.CONF)
            # As root there is nobody to become: no helper process, no sudo.
            privileged.default.set_client_mode(False)
            self._ready = True
        from os_brick.initiator import connector

        return connector


@contextlib.contextmanager
def _typed(verb: str) -> Any:
    """Turn os-brick's errors into ours; the text of a command may hold a secret, so it is not repeated."""
    from os_brick import exception as brick_exception
    from oslo_concurrency import processutils

    try:
        yield
    except processutils.ProcessExecutionError as error:
        program = str(error.cmd or "").split(" ")[0] or "a program"
        if error.exit_code == "-":  # oslo.concurrency's for a program that could not be started
            raise exception.ToolMissing(tool=program, hint=f"Install the package that has {program}") from error
        raise exception.BackendDown(
            f"Could not {verb}: {program} ended with {error.exit_code}", hint="Run: volmgr doctor; dmesg"
        ) from error
    except brick_exception.BrickException as error:
        raise exception.BackendDown(
            f"Could not {verb}: {type(error).__name__}: {error}", hint="Run: volmgr doctor; dmesg"
        ) from error


def check_serial(path: str, serial: str | None, root: str = "/", *, has_audit: bool = True) -> None:
    """Check that a block device is the volume with this serial, by every path of it.

    A LUN number can be given to another volume, and a volume made again under its old id, while a disk of before is
    still in the kernel: it has the old one's size and what was cached of it, and would write that to the new one.

    :param serial: what connection_info says; None if its driver does not know.
    :param has_audit: whether an audit of the host looks at disks of this transport.
    :raises Inconsistent: a disk says another one.
    """
    wrong = {name: said for name, said in sysfs.serials(path, root).items() if serial and said != serial}
    if wrong:
        said = ", ".join(f"{name} says {value or 'nothing'}" for name, value in sorted(wrong.items()))
        away = (
            "volmgr host audit --fix"
            if has_audit
            else "; ".join(f"echo 1 > /sys/block/{name}/device/delete" for name in sorted(wrong))
        )
        raise exception.Inconsistent(
            f"The disk {path} is not the volume with the serial {serial}: {said}",
            hint=f"It is left of another volume; take it away, as root, with: {away}",
            device=path,
        )


def _own_ip() -> str:
    from oslo_utils import netutils

    return str(netutils.get_my_ipv4())

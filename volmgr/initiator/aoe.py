# SPDX-License-Identifier: Apache-2.0
"""The kernel's ATA over Ethernet initiator: a block device below /dev/etherd from a connection_info.

It has the methods of os-brick's connectors, so that whoever uses those can use it. The kernel's driver is driven by its
files in /dev/etherd: ``discover``, ``revalidate``, ``flush``. It knows no volumes and no RPC; it needs root.

Facts of the driver (Linux 6.1): it makes a device for every target that announces itself, whoever wants it or not, and
keeps it until it is flushed, with the size and the cached bytes that it had; a flush by name takes a device down even
while somebody uses it, and knows no name with a line's end; whether a device is up is told by its ``state`` in sysfs;
what a target does not answer is sent again for 180 s.

Source: the kernel's Documentation/admin-guide/aoe/aoe.rst.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volmgr import concurrency, exception
from volmgr.privileged import modules

DEVICES, SYSFS = "/dev/etherd", "/sys/block"
#: Seconds until a device must have appeared, or gone.
TIMEOUT = 30.0
#: Seconds between two discoveries: a frame may be lost.
_PAUSE_SECONDS = 0.5
#: Seconds for which a program may have the device open without meaning to keep it, as udev does.
_GLANCE_SECONDS = 5.0
#: It is there while udev has something to do.
_UDEV_QUEUE = "/run/udev/queue"
ETHERNET = "1"  # ARPHRD_ETHER, if_arp.h
_BLKROSET = 0x125D  # linux/fs.h
_BLKFLSBUF = 0x1261


class AoEConnector:
    """Devices of this host.

    :param devices: the driver's folder. :param sysfs: where the kernel lists block devices.
    :param timeout: seconds until a device must have appeared, or gone.
    """

    def __init__(self, devices: str = DEVICES, sysfs: str = SYSFS, timeout: float = TIMEOUT) -> None:
        self.devices = Path(devices)
        self.sysfs = Path(sysfs)
        self.timeout = timeout

    @staticmethod
    def get_connector_properties(*_args: Any, **_kwargs: Any) -> dict[str, Any]:
        """Return what a connector of this host has for this protocol: ``aoe_macs``."""
        return {"aoe_macs": ethernet_addresses()}

    def connect_volume(self, connection_properties: Mapping[str, Any]) -> dict[str, Any]:
        """Make a connection's device; one that is there and used is asked for its size again.

        :param connection_properties: ``target_shelf``, ``target_lun`` and ``access_mode``, as connection_info has them.
        :returns: ``{'type': 'block', 'path': '/dev/etherd/e3.7'}``.
        :raises BackendDown: the kernel has no such driver, or the device did not appear.
        """
        name = device_name(connection_properties)
        if not (self.devices / "discover").exists():
            modules.ensure(["aoe"], timeout=self.timeout)
        was_there = (self.devices / name).exists()
        self._await_up(name)
        path = self.devices / name
        if was_there:
            self._renew(path)
        self._set_read_only(path, connection_properties.get("access_mode") == "ro")
        return {"type": "block", "path": str(path)}

    def disconnect_volume(
        self,
        connection_properties: Mapping[str, Any],
        device_info: Mapping[str, Any] | None = None,
        force: bool = False,
        ignore_errors: bool = False,
    ) -> None:
        """Write back what is cached and let the kernel forget the device; one that is gone is success.

        :param force: forget it even if what is cached cannot be written back.
        :param ignore_errors: raise nothing.
        :raises Busy: somebody has it open. :raises BackendDown: what is cached cannot be written back.
        """
        name = device_name(connection_properties)
        try:
            _write_back(self.devices / name, force)
            if not self._flush(name):
                raise exception.Busy(
                    f"The device {self.devices / name} is in use",
                    hint=f"See by whom: lsof {self.devices / name}; lsblk",
                    resource="device",
                    id=name,
                )
        except exception.VolmgrError:
            if not ignore_errors:
                raise

    def extend_volume(self, connection_properties: Mapping[str, Any]) -> int | None:
        """Have the kernel ask for the size again.

        :returns: the size in bytes once it has changed, or as it is after the time-out.
        :raises NotFound: there is no such device.
        """
        name = device_name(connection_properties)
        before = self._sectors(name)
        if before is None:
            raise exception.NotFound(resource="device", id=name)
        deadline = time.monotonic() + self.timeout
        pause = threading.Event()
        while (now := self._sectors(name)) == before and time.monotonic() < deadline:
            self._tell("revalidate", name)
            pause.wait(_PAUSE_SECONDS)
        return None if now is None else now * 512

    def get_volume_paths(self, connection_properties: Mapping[str, Any]) -> list[str]:
        """Return the paths of a connection's device, none if it is not there."""
        path = self.devices / device_name(connection_properties)
        return [str(path)] if path.exists() else []

    def get_all_available_volumes(self, connection_properties: Mapping[str, Any] | None = None) -> list[str]:
        """Return the paths of all devices of this protocol, other people's too."""
        return sorted(str(path) for path in self.devices.glob("e[0-9]*.[0-9]*") if "p" not in path.name)

    def get_search_path(self) -> str:
        """Return the folder of the devices."""
        return str(self.devices)

    def check_valid_device(self, path: str, run_as_root: bool = True) -> bool:
        """Return whether the first sectors of a device can be read."""
        try:
            with open(path, "rb", buffering=0) as device:
                return len(device.read(4096)) == 4096
        except OSError:
            return False

    # --- the driver's files

    def _tell(self, file: str, text: str) -> None:
        """Write to one of the driver's files.

        :raises BackendDown: it refuses.
        """
        path = self.devices / file
        try:
            path.write_text(text, encoding="ascii")
        except OSError as error:
            raise exception.BackendDown(
                f"The kernel's AoE driver refuses {file} {text}: {error.strerror}",
                hint="Run as root: modprobe aoe; then see /dev/etherd/err and dmesg",
            ) from error

    def _flush(self, name: str) -> bool:
        """Have the kernel forget a device that nobody uses; returns whether it is gone.

        :raises BackendDown: the kernel keeps it.
        """
        known = self.sysfs / f"etherd!{name}"
        pause = threading.Event()
        deadline = time.monotonic() + _GLANCE_SECONDS
        while known.exists() and (self._is_claimed(name) or self._is_read(name)):
            if time.monotonic() > deadline:
                return False
            pause.wait(_PAUSE_SECONDS / 10)
        if known.exists():
            self._tell("flush", name)
        deadline = time.monotonic() + self.timeout
        while known.exists():
            if time.monotonic() > deadline:
                raise exception.BackendDown(
                    f"The kernel keeps the device {self.devices / name}", hint="See /dev/etherd/err and dmesg"
                )
            pause.wait(_PAUSE_SECONDS / 10)
        return True

    def _is_read(self, name: str) -> bool:
        """Return whether anything has the device open or asks it for something, or udev is about to look at it."""
        if os.path.exists(_UDEV_QUEUE) or _is_open(self.devices / name):
            return True
        with contextlib.suppress(FileNotFoundError):  # it is gone
            return (self.sysfs / f"etherd!{name}" / "inflight").read_text(encoding="ascii").split() != ["0", "0"]
        return False

    def _renew(self, path: Path) -> None:
        """Forget what is cached of a device that was there before: it may have been another volume's.

        A read comes back after the answer to what was asked before it, so the size is known then.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            fcntl.ioctl(descriptor, _BLKFLSBUF, 0)
            self._tell("revalidate", path.name)
            with mmap.mmap(-1, mmap.PAGESIZE) as buffer:
                concurrency.offload(os.preadv, descriptor, [buffer], 0)
        except OSError as error:
            raise exception.BackendDown(
                f"The device {path} does not answer: {error.strerror}", hint="See aoe-stat(8) and dmesg"
            ) from error
        finally:
            os.close(descriptor)

    def _is_claimed(self, name: str) -> bool:
        """Return whether the device is mounted, mapped or part of something."""
        try:
            os.close(os.open(self.devices / name, os.O_RDONLY | os.O_EXCL | os.O_NONBLOCK))
        except OSError as error:
            return error.errno == errno.EBUSY
        return False

    def _await_up(self, name: str) -> None:
        deadline = time.monotonic() + self.timeout
        pause = threading.Event()
        while not (self._is_up(name) and (self.devices / name).exists()):
            if time.monotonic() > deadline:
                raise exception.BackendDown(
                    f"The device {self.devices / name} did not appear within {self.timeout:g} s",
                    hint="Both hosts must be on one Ethernet segment, and their interfaces up; see aoe-interfaces(8), "
                    "aoe-stat(8) and dmesg",
                )
            self._tell("discover", "discover")
            pause.wait(_PAUSE_SECONDS)

    def _is_up(self, name: str) -> bool:
        try:
            state = (self.sysfs / f"etherd!{name}" / "state").read_text(encoding="ascii")
        except FileNotFoundError:
            return False
        return state.split(",")[0].strip() == "up" and bool(self._sectors(name))

    def _sectors(self, name: str) -> int | None:
        try:
            return int((self.sysfs / f"etherd!{name}" / "size").read_text(encoding="ascii"))
        except FileNotFoundError:
            return None

    @staticmethod
    def _set_read_only(path: Path, read_only: bool) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _BLKROSET, int(read_only).to_bytes(4, "little"))
        finally:
            os.close(descriptor)


def _write_back(path: Path, force: bool) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    except OSError as error:
        if force:
            return
        raise exception.BackendDown(f"{path} cannot be opened: {error.strerror}", hint="See dmesg") from error
    try:
        concurrency.offload(os.fsync, descriptor)
        fcntl.ioctl(descriptor, _BLKFLSBUF, 0)
    except OSError as error:
        if not force:
            raise exception.BackendDown(
                f"What is cached of {path} cannot be written back: {error.strerror}",
                hint="See dmesg; what was written last may be lost",
            ) from error
    finally:
        os.close(descriptor)


def device_name(connection_properties: Mapping[str, Any]) -> str:
    """Return the kernel's name of a connection's device, ``e3.7`` for shelf 3 and blade 7.

    :raises Invalid: it has no address.
    """
    try:
        return f"e{int(connection_properties['target_shelf'])}.{int(connection_properties['target_lun'])}"
    except (KeyError, TypeError, ValueError) as error:
        raise exception.Invalid("The connection has no target_shelf and target_lun", field="target_shelf") from error


def _is_open(path: Path) -> bool:
    """Return whether any process has a block device open."""
    try:
        wanted = os.stat(path).st_rdev
    except FileNotFoundError:
        return False
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            for descriptor in os.scandir(folder):
                with contextlib.suppress(OSError):  # a socket or a pipe has no file
                    found = os.stat(descriptor.path)
                    if found.st_rdev == wanted and stat.S_ISBLK(found.st_mode):
                        return True
    return False


def ethernet_addresses(folder: str = "/sys/class/net") -> list[str]:
    """Return the addresses of this host's Ethernet interfaces, sorted by the interfaces' names.

    Those of virtual machines and containers come and go and are no way to storage: they count only on a host that has
    nothing but virtual ones. The loopback never does.

    :param folder: where the kernel lists network interfaces.
    """
    hardware: list[str] = []
    virtual: list[str] = []
    for interface in sorted(Path(folder).iterdir()) if os.path.isdir(folder) else ():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # an interface may vanish at any moment
            address = (interface / "address").read_text(encoding="ascii").strip()
            if (interface / "type").read_text(encoding="ascii").strip() == ETHERNET and address:
                of_hardware = (interface / "device").exists() or (interface / "bonding").exists()
                (hardware if of_hardware else virtual).append(address)
    return list(dict.fromkeys(hardware or virtual))

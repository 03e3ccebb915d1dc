# SPDX-License-Identifier: Apache-2.0
"""What the kernel's initiator has, read from sysfs: iSCSI sessions, SCSI disks, multipath maps.

Nothing is asked of a disk, so nothing waits for one that does not answer. A disk's serial is what it said when the
kernel found it (the cached page 0x80 of its vital product data, SPC-4 7.8.10), which is what tells a stale disk: the
kernel goes on believing it whatever is behind the LUN by now. Source: the kernel's Documentation/ABI and what it shows.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SESSION = re.compile(r"/session(\d+)/")
_ADDRESS = re.compile(r"/\d+:\d+:\d+:(\d+)/block/[^/]+\Z")
_MULTIPATH = "mpath-"
_HEADER = 4
_SERIAL_PAGE = 0x80


@dataclass(frozen=True)
class Session:
    """An iSCSI session.

    :param number: the kernel's. :param portal: ``address:port`` that it was made for. :param state: the kernel's word.
    """

    number: int
    target: str
    portal: str
    initiator: str
    state: str


@dataclass(frozen=True)
class Disk:
    """A SCSI disk.

    :param session: number of the iSCSI session that it came by, None for another transport.
    :param serial: empty if the disk did not tell any. :param holders: devices that are made of it.
    """

    name: str
    session: int | None
    lun: int
    serial: str
    size_bytes: int
    holders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Map:
    """A map of dm-multipath; ``paths`` are the names of its disks."""

    device: str
    name: str
    wwid: str
    paths: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """All of it at one moment."""

    sessions: tuple[Session, ...] = ()
    disks: tuple[Disk, ...] = ()
    maps: tuple[Map, ...] = ()

    def map_of(self, disk: str) -> Map | None:
        """Return the map that a disk is a path of."""
        return next((item for item in self.maps if disk in item.paths), None)


def read(root: str = "/") -> View:
    """Return what the kernel has.

    :param root: the folder that has ``sys``.
    """
    return View(tuple(_sessions(root)), tuple(_disks(root)), tuple(_maps(root)))


def serials(device: str, root: str = "/") -> dict[str, str]:
    """Return the serials of the SCSI disks of a block device: its own, or those of a multipath map's paths.

    :param device: path of the device's node.
    :returns: by the disk's name; empty for a device that is not made of SCSI disks.
    """
    number = os.stat(device).st_rdev
    folder = os.path.realpath(os.path.join(root, f"sys/dev/block/{os.major(number)}:{os.minor(number)}"))
    slaves = os.path.join(folder, "slaves")
    folders = [os.path.join(root, "sys/block", name) for name in _names(slaves)] or [folder]
    return {os.path.basename(os.path.realpath(item)): _serial(item) for item in folders if _is_scsi(item)}


def initiator_name(root: str = "/") -> str | None:
    """Return this host's iSCSI name, None without one."""
    with contextlib.suppress(FileNotFoundError):  # open-iscsi is not installed
        for line in Path(root, "etc/iscsi/initiatorname.iscsi").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "InitiatorName" and value.strip():
                return value.strip()
    return None


def _sessions(root: str) -> Iterator[Session]:
    connections = Path(root, "sys/class/iscsi_connection")
    for folder in _folders(Path(root, "sys/class/iscsi_session")):
        number = folder.name.removeprefix("session")
        first = connections / f"connection{number}:0"
        address = _text(first / "persistent_address")
        address = f"[{address}]" if ":" in address else address
        found = Session(
            int(number),
            target=_text(folder / "targetname"),
            portal=f"{address}:{_text(first / 'persistent_port')}",
            initiator=_text(folder / "initiatorname"),
            state=_text(folder / "state"),
        )
        if found.target:  # it may have gone meanwhile
            yield found


def _disks(root: str) -> Iterator[Disk]:
    for folder in _folders(Path(root, "sys/block")):
        where = os.path.realpath(folder)
        address = _ADDRESS.search(where)
        if address is None or not _is_scsi(str(folder)):
            continue
        session = _SESSION.search(where)
        yield Disk(
            folder.name,
            session=int(session[1]) if session else None,
            lun=int(address[1]),
            serial=_serial(str(folder)),
            size_bytes=512 * int(_text(folder / "size") or 0),
            holders=tuple(_names(str(folder / "holders"))),
        )


def _maps(root: str) -> Iterator[Map]:
    for folder in _folders(Path(root, "sys/block")):
        uuid = _text(folder / "dm/uuid")
        if uuid.startswith(_MULTIPATH):
            paths = tuple(_names(str(folder / "slaves")))
            yield Map(folder.name, _text(folder / "dm/name"), uuid.removeprefix(_MULTIPATH), paths)


def _is_scsi(folder: str) -> bool:
    return os.path.isdir(os.path.join(folder, "device/scsi_device"))


def _serial(folder: str) -> str:
    with contextlib.suppress(OSError):  # the disk has no such page, or is gone
        page = Path(folder, "device/vpd_pg80").read_bytes()
        if len(page) >= _HEADER and page[1] == _SERIAL_PAGE:
            length = int.from_bytes(page[2:_HEADER], "big")
            return page[_HEADER : _HEADER + length].decode("ascii", errors="replace").strip(" \0")
    return ""


def _folders(folder: Path) -> list[Path]:
    return [folder / name for name in _names(str(folder))]


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):  # what goes while it is read is not there
        return path.read_text(encoding="ascii").strip()
    return ""

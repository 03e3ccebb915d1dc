# SPDX-License-Identifier: Apache-2.0
"""An LIO iSCSI target over a block device, by writing to configfs, inside a guest; nothing of it stays.

Source: the kernel's Documentation/target and what configfs shows. The order is the one in which no initiator can meet a
target that lets it in without a LUN: the mapped LUN before ``enable``, the portal last. It must not know LVM or volmgr.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CONFIGFS = Path("/sys/kernel/config/target")
_HBA = "iblock_0"


@dataclass(frozen=True)
class Chap:
    """Credentials of an initiator."""

    user: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Export:
    """A device that is served.

    :param iqn: of the target.
    :param lun: its number; not 0, as LIO answers on LUN 0 even when nothing is mapped there.
    :param address: of the portal.
    :param port: of the portal, TCP.
    """

    iqn: str
    lun: int
    address: str
    port: int

    @property
    def portal(self) -> str:
        """Address and port as ``iscsiadm`` wants them."""
        return f"{self.address}:{self.port}"

    @property
    def by_path(self) -> Path:
        """The link that udev makes for the kernel's disk."""
        return Path(f"/dev/disk/by-path/ip-{self.portal}-iscsi-{self.iqn}-lun-{self.lun}")


@contextlib.contextmanager
def exported(device: Path, iqn: str, initiator_iqn: str, chap: Chap, serial: str, port: int = 3260) -> Iterator[Export]:
    """Serve a block device to one initiator; at the end remove all that was made, the newest first.

    :param device: a block device.
    :param iqn: the target's name.
    :param initiator_iqn: the only initiator let in.
    :param chap: what it has to know.
    :param serial: unit serial number; its first 25 hexadecimal digits make the disk's NAA name.
    :param port: TCP port on the loopback address.
    :raises OSError: the kernel refused a step, or an initiator is still there at the end.
    """
    export = Export(iqn, 1, "127.0.0.1", port)
    backstore = CONFIGFS / "core" / _HBA / iqn.replace(":", "-")
    group = CONFIGFS / "iscsi" / iqn / "tpgt_1"
    with contextlib.ExitStack() as undo:
        undo.callback(_remove_if_empty, CONFIGFS / "iscsi")
        undo.callback(_remove_if_empty, backstore.parent)
        backstore.parent.mkdir(exist_ok=True)
        _make(undo, backstore)
        _write(backstore / "control", f"udev_path={device}")
        _write(backstore / "enable", "1")
        _write(backstore / "wwn/vpd_unit_serial", serial)
        (CONFIGFS / "iscsi").mkdir(exist_ok=True)
        _make(undo, group.parent)
        _make(undo, group)
        _write(group / "attrib/authentication", "1")
        _write(group / "attrib/generate_node_acls", "0")
        _make(undo, group / "lun" / f"lun_{export.lun}")
        _link(undo, group / "lun" / f"lun_{export.lun}" / "device", backstore)
        _make_acl(undo, group, initiator_iqn, chap, export.lun)
        _write(group / "enable", "1")
        undo.callback(_write, group / "enable", "0")
        _make(undo, group / "np" / export.portal)
        yield export


def add_initiator(iqn: str, initiator_iqn: str, chap: Chap, lun: int = 1) -> None:
    """Let one more initiator in to a target that is served."""
    with contextlib.ExitStack() as undo:
        _make_acl(undo, CONFIGFS / "iscsi" / iqn / "tpgt_1", initiator_iqn, chap, lun)
        undo.pop_all()


def remove_initiator(iqn: str, initiator_iqn: str, lun: int = 1) -> None:
    """Take that away again."""
    acl = CONFIGFS / "iscsi" / iqn / "tpgt_1" / "acls" / initiator_iqn
    (acl / f"lun_{lun}" / "mapped").unlink()
    (acl / f"lun_{lun}").rmdir()
    acl.rmdir()


def leftovers() -> list[str]:
    """Return the targets and backstores that exist."""
    found = [*CONFIGFS.glob("iscsi/iqn.*"), *CONFIGFS.glob("core/*_*/"), *CONFIGFS.glob("core/*_*/*/")]
    return sorted(str(path) for path in found)


def wipe() -> None:
    """Remove everything from LIO, whoever made it, as a restart of its service does."""
    for enable in CONFIGFS.glob("iscsi/iqn.*/tpgt_*/enable"):
        _write(enable, "0")
    for links in ("iscsi/iqn.*/tpgt_*/acls/*/lun_*/*", "iscsi/iqn.*/tpgt_*/lun/lun_*/*"):
        for link in CONFIGFS.glob(links):
            if link.is_symlink():
                link.unlink()
    levels = [f"iscsi/iqn.*/tpgt_*/{level}" for level in ("np/*", "acls/*/lun_*", "acls/*", "lun/lun_*", "")]
    for pattern in (*levels, "iscsi/iqn.*/", "core/*_*/*/", "core/*_*/"):
        for folder in CONFIGFS.glob(pattern):
            folder.rmdir()
    if (CONFIGFS / "iscsi").is_dir():
        (CONFIGFS / "iscsi").rmdir()


def _make_acl(undo: contextlib.ExitStack, group: Path, initiator_iqn: str, chap: Chap, lun: int) -> None:
    acl = group / "acls" / initiator_iqn
    _make(undo, acl)
    _write(acl / "auth/userid", chap.user)
    _write(acl / "auth/password", chap.secret)
    _make(undo, acl / f"lun_{lun}")
    _link(undo, acl / f"lun_{lun}" / "mapped", group / "lun" / f"lun_{lun}")


def _make(undo: contextlib.ExitStack, folder: Path) -> None:
    folder.mkdir()
    undo.callback(folder.rmdir)


def _link(undo: contextlib.ExitStack, link: Path, target: Path) -> None:
    link.symlink_to(target)
    undo.callback(link.unlink)


def _write(attribute: Path, value: str) -> None:
    # Neither created nor read: configfs has no files but its own, and some of them can only be written.
    descriptor = os.open(attribute, os.O_WRONLY)
    try:
        os.write(descriptor, value.encode("ascii"))
    finally:
        os.close(descriptor)


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder that others of this kind share, unless they still use it."""
    used = [*folder.glob("iqn.*")] if folder.name == "iscsi" else [path for path in folder.iterdir() if path.is_dir()]
    if folder.is_dir() and not used:
        folder.rmdir()

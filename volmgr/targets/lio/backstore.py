# SPDX-License-Identifier: Apache-2.0
"""Backstores: what one should be for the storage at a path, and what one is, read from configfs.

A block device is served by iblock, which asks the device for its size each time, a file by fileio, which believes what
it was told and can be told again. It must not know targets or initiators.
"""

from __future__ import annotations

import os
import re
import stat

from volmgr import exception
from volmgr.targets.lio.configfs import Reader
from volmgr.targets.lio.tree import FILEIO, IBLOCK, PLUGINS, Backstore, backstore_path, hba

_DEVICE = re.compile(r"Major:\s*(\d+)\s+Minor:\s*(\d+)")
_SIZE = re.compile(r"\sSize:\s*(\d+)")
_READ_ONLY = re.compile(r"\sreadonly:\s*1")
#: LIO makes the disk's NAA name from the serial's first 25 hexadecimal digits; the kernel keeps up to 254 characters.
_SERIAL = re.compile(r"\A[0-9a-fA-F-]{25,254}\Z")
_NAA_DIGITS = 25
_PATH_MAX = 511


def wanted(path: str, serial: str, *, discard: bool) -> Backstore:
    """Return what serves the storage at ``path``.

    :param serial: hexadecimal digits, hyphens between them do not count; the first 25 must be unique.
    :param discard: whether to offer discards, if the storage can.
    :raises NotFound: there is no such storage. :raises Invalid: LIO cannot serve it under this name or serial.
    """
    if not _SERIAL.match(serial) or len(serial.replace("-", "")) < _NAA_DIGITS:
        raise exception.Invalid("LIO needs a serial of 25 hexadecimal digits or more", field="serial", serial=serial)
    if not path.startswith("/") or len(path.encode()) > _PATH_MAX or re.search(r"[,\s\x00]", path):
        raise exception.Invalid(
            f"LIO cannot be told the path {path!r}: it has a comma or a space, or is too long", field="path"
        )
    try:
        found = os.stat(path)
    except OSError as error:
        raise exception.NotFound(
            f"The storage {path} cannot be opened: {error.strerror}", resource="storage", id=path
        ) from error
    if stat.S_ISBLK(found.st_mode):
        device = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
        return Backstore(IBLOCK, path, serial, device=device, read_only=_is_read_only(device), discard=discard)
    if stat.S_ISREG(found.st_mode):
        return Backstore(FILEIO, path, serial, size=found.st_size, discard=discard)
    raise exception.Invalid(f"The storage {path} is neither a block device nor a file", field="path")


def _is_read_only(device: str) -> bool:
    try:
        with open(f"/sys/dev/block/{device}/ro", encoding="ascii") as file:
            return file.read().strip() == "1"
    except FileNotFoundError as error:
        raise exception.NotFound(f"The block device {device} is gone", resource="storage", id=device) from error


def read_all(tree: Reader, name: str) -> dict[str, Backstore | None]:
    """Return the backstores of a target by plugin; None where only their empty folder is left."""
    found: dict[str, Backstore | None] = {}
    for plugin in PLUGINS:
        folder = hba(plugin, name)
        present = tree.folders(folder)
        if name in present:
            found[plugin] = _read(tree, plugin, name)
        elif not present and tree.exists(folder):
            found[plugin] = None
    return found


def _read(tree: Reader, plugin: str, name: str) -> Backstore:
    path = backstore_path(plugin, name)
    info = tree.read(f"{path}/info")
    device = _DEVICE.search(info) if plugin == IBLOCK else None
    size = _SIZE.search(info) if plugin == FILEIO else None
    discards = tree.read(f"{path}/attrib/emulate_tpu") == "1"
    can_discard = discards or tree.read(f"{path}/attrib/max_unmap_block_desc_count") not in ("", "0")
    return Backstore(
        plugin,
        path=tree.read(f"{path}/udev_path"),
        # "T10 VPD Unit Serial Number: ..."
        serial=tree.read(f"{path}/wwn/vpd_unit_serial").partition(":")[2].strip(),
        device=f"{device[1]}:{device[2]}" if device else "",
        size=int(size[1]) if size else 0,
        read_only=plugin == IBLOCK and _READ_ONLY.search(info) is not None,
        discard=discards if can_discard else None,
        enabled=tree.read(f"{path}/enable") == "1",
    )

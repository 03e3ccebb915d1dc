# SPDX-License-Identifier: Apache-2.0
"""What an image truly is, found out before any program that acts on its contents opens it.

oslo.utils' format inspector reads the header without following anything in it. Only an image that is what it is said to
be, and whole in its one file, is then shown to qemu-img, whose answer must be the same. A raw image is never
interpreted at all, but one that bears another format's header is refused: it is a lie, or a mistake that would give a
guest bytes that mean nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import IO, cast

from oslo_utils.imageutils import format_inspector as inspector

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.images.base import RAW, READABLE, ImageInfo
from volmgr.tools.qemu_img import QemuImg

#: what the bytes of a raw disk can look like: nothing, a partition table, a bootable medium, a disk encrypted inside.
RAW_KINDS = frozenset({RAW, "gpt", "iso", "luks"})
_STEP = 64 * 1024
#: Bytes that are read at most to find a format out; no header ends behind them.
_MOST = 64 * 1024 * 1024
_FAILURES = {"backing_file": exception.ImageHasBackingFile, "data_file": exception.ImageHasDataFile}


@dataclass(frozen=True)
class Inspected:
    """:ivar format: ``raw`` or what qemu-img is to read it as. :ivar virtual_size: bytes of the disk in it."""

    format: str
    virtual_size: int


class _Reader:
    """The beginning of an open file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.position = 0

    def read(self, size: int) -> bytes:
        data = os.pread(self._fd, min(size, max(0, _MOST - self.position)), self.position)
        self.position += len(data)
        return data


def _found(fd: int) -> list[inspector.FileInspector]:
    wrapper = inspector.InspectWrapper(cast(IO[bytes], _Reader(fd)))
    try:
        while wrapper.read(_STEP):
            if wrapper.formats:
                break
    finally:
        wrapper.close()
    return wrapper.formats or []


def inspect(fd: int, info: ImageInfo, qemu: QemuImg) -> Inspected:
    """Return what the image behind an open descriptor is.

    :raises ImageFormatMismatch: it is not what ``info`` says. :raises ImageHasBackingFile, ImageHasDataFile: it is not
        whole in itself. :raises ImageUnacceptable: it is unsafe in another way, or of a format that nobody reads here.
    """
    told = info.disk_format
    if told not in READABLE:
        raise exception.ImageUnacceptable(
            id=info.id, reason=f"nobody here reads {told}", hint=f"Convert it to one of {', '.join(sorted(READABLE))}"
        )
    try:
        found = offload(_found, fd)
        names = {str(item) for item in found}
    except (inspector.ImageFormatError, ValueError, OverflowError) as error:
        raise exception.ImageUnacceptable(id=info.id, reason=str(error)) from error
    if told in (RAW, "iso"):
        if not names <= RAW_KINDS or (told == "iso" and "iso" not in names):
            raise exception.ImageFormatMismatch(id=info.id, told=told, found=_shown(names))
        return Inspected(RAW, os.fstat(fd).st_size)
    if names != {told}:
        raise exception.ImageFormatMismatch(id=info.id, told=told, found=_shown(names))
    _safe(info, found[0])
    described = qemu.info(fd, told)
    if described.others:
        raise exception.ImageHasBackingFile(id=info.id)
    if described.format != told or described.virtual_size <= 0:
        raise exception.ImageFormatMismatch(id=info.id, told=told, found=described.format)
    return Inspected(told, described.virtual_size)


def _shown(names: set[str]) -> str:
    return " and ".join(sorted(names)) or "of no known format"


def _safe(info: ImageInfo, found: inspector.FileInspector) -> None:
    try:
        found.safety_check()
    except inspector.SafetyCheckFailed as error:
        for name, cls in _FAILURES.items():
            if name in error.failures:
                raise cls(id=info.id) from error
        reason = "; ".join(str(item) for item in error.failures.values())
        raise exception.ImageUnacceptable(id=info.id, reason=reason) from error
    except inspector.ImageFormatError as error:
        raise exception.ImageUnacceptable(id=info.id, reason=str(error)) from error

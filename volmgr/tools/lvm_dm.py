# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of a device-mapper device, by ioctl: no process, no lock, a few microseconds.

Source: linux/dm-ioctl.h and the kernel's admin-guide/device-mapper. It knows how LVM names its devices and nothing of
volumes. Of what it can do only :func:`resume` and :func:`message` change anything.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from dataclasses import dataclass

from volmgr import exception

CONTROL = "/dev/mapper/control"
_HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7s")
_TARGET = struct.Struct("=Q Q i I 16s")
_DEV_SUSPEND, _DEV_STATUS, _TABLE_STATUS, _TARGET_MSG = 0xC138FD06, 0xC138FD07, 0xC138FD0C, 0xC138FD0E
#: DM_STATUS_TABLE_FLAG: the table is asked for, not the status.
_TABLE = 1 << 4
_BUFFER = 16384
_PAUSE = 0.05
_GONE = {errno.ENXIO, errno.ENOENT}


@dataclass(frozen=True)
class PoolStatus:
    """The kernel's view of a thin pool; the percentages are of what it can hold."""

    transaction_id: int
    metadata_percent: float
    data_percent: float


@dataclass(frozen=True)
class ThinDevice:
    """A thin volume as the kernel knows it.

    :ivar pool: the number of its pool's device, ``253:2``. :ivar number: its own in that pool.
    """

    pool: str
    number: int


def device_name(group: str, volume: str) -> str:
    """Return the device-mapper name of a logical volume: hyphens are doubled, one hyphen joins the two."""
    return f"{group.replace('-', '--')}-{volume.replace('-', '--')}"


def open_count(path: str) -> int:
    """Return how often the device is open at this moment, mounts and layers above it included; 0 if there is none.

    :param path: a node or a link to one.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0
    if not stat.S_ISBLK(status.st_mode):
        return 0
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    # The kernel's huge encoding of a device number.
    device = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
    answer = _ask(_DEV_STATUS, _HEADER.size, device=device)
    return 0 if answer is None else int(_HEADER.unpack_from(answer)[6])


def closes(path: str, timeout: float = 2.0) -> bool:
    """Return whether the device is closed within ``timeout`` seconds: udev looks at whatever was just written."""
    deadline = time.monotonic() + timeout
    while open_count(path):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def table(group: str, volume: str) -> tuple[str, str] | None:
    """Return (target type, its status) of a logical volume's device, None if it is not active."""
    return _table(device_name(group, volume))


def thin_device(group: str, volume: str) -> ThinDevice | None:
    """Return which thin volume of which pool a logical volume is, None if it is not active or not thin."""
    found = _table(device_name(group, volume), flags=_TABLE)
    if found is None or found[0] != "thin":
        return None
    pool, number = found[1].split()[:2]
    return ThinDevice(pool, int(number))


def pool_device(group: str, pool: str) -> str:
    """Return the name of the device that is an active thin pool: with volumes in it, one below a layer of its name."""
    name = device_name(group, pool)
    return f"{name}-tpool" if _table(f"{name}-tpool") is not None else name


def message(device: str, text: str) -> None:
    """Send a message to the target at the beginning of a device.

    :raises OSError: the target refuses it.
    """
    # struct dm_target_msg: the sector, then the text.
    payload = struct.pack("=Q", 0) + text.encode() + b"\0"
    if _ask(_TARGET_MSG, _BUFFER, name=device, payload=payload) is None:
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))


def resume(group: str, volume: str) -> None:
    """Let the device of a logical volume serve reads and writes again; one that is not suspended stays as it is."""
    # DM_DEV_SUSPEND without the flag that says "suspend" resumes.
    _ask(_DEV_SUSPEND, _HEADER.size, name=device_name(group, volume))


def _table(device: str, flags: int = 0) -> tuple[str, str] | None:
    answer = _ask(_TABLE_STATUS, _BUFFER, name=device, flags=flags)
    if answer is None:
        return None
    header = _HEADER.unpack_from(answer)
    if header[5] < 1:
        return None
    _start, _length, _status, _next, kind = _TARGET.unpack_from(answer, header[4])
    text = answer[header[4] + _TARGET.size :].split(b"\0", 1)[0]
    return kind.rstrip(b"\0").decode(), text.decode()


def pool_status(group: str, pool: str) -> PoolStatus | None:
    """Return how full a thin pool is, None if it is not active.

    :raises ValueError: the pool has failed, or says something else than its documentation.
    """
    found = _table(pool_device(group, pool))
    return None if found is None or found[0] != "thin-pool" else parse_pool_status(found[1])


def parse_pool_status(text: str) -> PoolStatus:
    """Return a thin-pool target's status line: transaction id, used/total metadata blocks, used/total data blocks.

    :raises ValueError: it has another form, ``Fail`` for one.
    """
    try:
        transaction, metadata, data = text.split()[:3]
        return PoolStatus(int(transaction), _percent(metadata), _percent(data))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"the thin pool's status is {text!r}") from error


def _percent(text: str) -> float:
    used, total = text.split("/")
    return 100 * int(used) / int(total)


def _ask(
    request: int, size: int, *, name: str = "", device: int = 0, flags: int = 0, payload: bytes = b""
) -> bytes | None:
    header = _HEADER.pack(4, 0, 0, size, _HEADER.size, 0, 0, flags, 0, 0, device, name.encode(), b"", b"")
    buffer = bytearray((header + payload).ljust(size, b"\0"))
    with contextlib.ExitStack() as stack:
        try:
            control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise exception.BackendDown(
                f"The kernel's device-mapper does not answer: {CONTROL}: {error.strerror}",
                hint="Run as root, and: modprobe dm-mod",
            ) from error
        stack.callback(os.close, control)
        try:
            fcntl.ioctl(control, request, buffer)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise
    return bytes(buffer)

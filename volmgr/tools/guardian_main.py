# SPDX-License-Identifier: Apache-2.0
"""The guardian's program: lets go on what somebody has made wait, when that somebody dies or takes too long.

It is run as a script of its own, by ``python -I -S``, so it imports nothing but the standard library and none of the
product. Its memory is locked: a page of it may lie on the very disk that waits. Started before anything is held, it
says ``ready``; SIGUSR1 makes it leave; the end of its input, or its time being over, makes it let everything go on.

Arguments: seconds, then what to let go on: ``process:PID:STARTTIME`` (proc(5), clock ticks since boot; SIGCONT) or
``dm:MAJOR:MINOR`` (device-mapper, DM_DEV_SUSPEND without its flag, which is a resume). Exit status 0 if it was ended, 3
if it let things go on itself.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import struct
import sys

_MCL_CURRENT, _MCL_FUTURE = 1, 2
# <linux/dm-ioctl.h>: DM_DEV_SUSPEND is _IOWR(0xfd, 6, struct dm_ioctl); the structure is 312 bytes, version 4.0.0.
DM_DEV_SUSPEND = 0xC138FD06
DM_SUSPEND_FLAG = 2
_STRUCT = struct.Struct("=3I I I I i I I I Q 128s 129s 7s")
FIRED = 3


def dm_request(major: int, minor: int, flags: int) -> bytearray:
    """Return the argument of a device-mapper ioctl about one device."""
    device = (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
    size = _STRUCT.size
    return bytearray(_STRUCT.pack(4, 0, 0, size, size, 0, 0, flags, 0, 0, device, b"", b"", b""))


def start_of(pid: int) -> int | None:
    """Return when a process was started, None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as source:
            return int(source.read().rpartition(b")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def resume(what: str, control: int | None) -> None:
    """Let one thing go on; one that is gone needs nothing."""
    kind, first, second = what.split(":")
    if kind == "dm":
        assert control is not None
        fcntl.ioctl(control, DM_DEV_SUSPEND, dm_request(int(first), int(second), 0))
        return
    handle = os.pidfd_open(int(first))
    try:
        if start_of(int(first)) == int(second):
            signal.pidfd_send_signal(handle, signal.SIGCONT)
    finally:
        os.close(handle)


def _resume_all(held: list[str], control: int | None) -> None:
    for what in held:
        try:
            resume(what, control)
        except OSError as error:
            os.write(2, f"guardian: {what}: {error}\n".encode())


def main(argv: list[str]) -> int:
    """Guard until the end; returns the exit status."""
    seconds, held = float(argv[1]), argv[2:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are meant for whoever holds, whose end is noticed
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    control = os.open("/dev/mapper/control", os.O_RDWR) if any(item.startswith("dm:") for item in held) else None
    locked = ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE)
    if locked and control is not None:
        os.write(2, f"guardian: mlockall: {os.strerror(ctypes.get_errno())}\n".encode())
        return 1
    os.write(1, b"ready\n")
    select.select([0], [], [], seconds)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    _resume_all(held, control)
    return FIRED


if __name__ == "__main__":
    sys.exit(main(sys.argv))

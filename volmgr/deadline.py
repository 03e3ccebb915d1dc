# SPDX-License-Identifier: Apache-2.0
"""A timer of the kernel that ends this process: nobody outlives his lease, however stuck he is.

timer_create(2) with SIGKILL as its signal. The kernel delivers it also to a process that is stopped, that waits for a
disk, or whose threads all hang; nothing of the process has to run for it. CLOCK_BOOTTIME goes on while the machine
sleeps. A timer is not inherited by children and ends with execve(2). This module knows no lease.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

CLOCK_BOOTTIME = 7
TIMER_ABSTIME = 1
_SIGEV_SIGNAL = 0
#: sizeof(struct sigevent) on every Linux, see sigevent(7) and <asm-generic/siginfo.h>.
_SIGEVENT_SIZE = 64


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class _Sigevent(ctypes.Structure):
    _fields_ = (
        ("sigev_value", ctypes.c_void_p),
        ("sigev_signo", ctypes.c_int),
        ("sigev_notify", ctypes.c_int),
        ("rest", ctypes.c_char * (_SIGEVENT_SIZE - ctypes.sizeof(ctypes.c_void_p) - 2 * ctypes.sizeof(ctypes.c_int))),
    )


def now() -> float:
    """Return seconds of the clock by which the timer goes."""
    return time.clock_gettime(CLOCK_BOOTTIME)


class Deadline:
    """The timer of this process; none is set at first.

    :raises OSError: the kernel has no such timer.
    """

    def __init__(self) -> None:
        # Since glibc 2.34 it is in libc itself, before that in librt, which later ones keep as an empty shell.
        self._libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(self._libc, "timer_create"):
            self._libc = ctypes.CDLL("librt.so.1", use_errno=True)
        self._timer = ctypes.c_void_p()
        event = _Sigevent(sigev_signo=signal.SIGKILL, sigev_notify=_SIGEV_SIGNAL)
        self._must(self._libc.timer_create(CLOCK_BOOTTIME, ctypes.byref(event), ctypes.byref(self._timer)))

    def set(self, at: float | None) -> None:
        """Have the process killed at a time of :func:`now`, instead of any earlier one; None for never."""
        # A value of zero would disarm it.
        seconds = 0.0 if at is None else max(at, 1e-6)
        whole = int(seconds)
        spec = _Itimerspec(it_value=_Timespec(whole, int((seconds - whole) * 1e9)))
        self._must(self._libc.timer_settime(self._timer, TIMER_ABSTIME, ctypes.byref(spec), None))

    @staticmethod
    def _must(result: int) -> None:
        if result:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

# SPDX-License-Identifier: Apache-2.0
"""Holes in files and block devices: fallocate(2) with FALLOC_FL_PUNCH_HOLE, which Python does not have."""

from __future__ import annotations

import ctypes
import errno
import os

FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 0x01, 0x02
#: what a kernel, a file system or a device says that cannot do something.
CANNOT = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS, errno.ENODEV})

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = _libc.fallocate64
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def punch(fd: int, start: int, length: int) -> bool:
    """Unmap bytes with the promise that they read as zeros; returns False where that cannot be.

    On a block device (block/fops.c) that is write-zeroes that may unmap, and never falls back to writing.
    """
    if _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, length) == 0:
        return True
    number = ctypes.get_errno()
    if number in CANNOT:
        return False
    raise OSError(number, os.strerror(number))

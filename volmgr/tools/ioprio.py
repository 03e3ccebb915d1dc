# SPDX-License-Identifier: Apache-2.0
"""The I/O priority of a piece of work: that of the thread which does it, for as long as it does it.

The kernel gives each request for a block device the priority of the thread that made it (ioprio_set(2)); schedulers
such as BFQ and mq-deadline go by it. No process is started. It knows no volumes.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import shlex
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

from volmgr import exception
from volmgr.concurrency import offload

#: ionice(1): the classes by their names; a number does as well.
CLASSES = {"none": 0, "realtime": 1, "best-effort": 2, "idle": 3}
NONE, IDLE = CLASSES["none"], CLASSES["idle"]
#: What ionice takes where a class has levels and none is given.
LEVEL = 4
_CLASS_SHIFT = 13
_THIS_THREAD = (1, 0)  # IOPRIO_WHO_PROCESS, and nobody else
#: ioprio_set and ioprio_get have no function in the C library; their numbers by machine (asm/unistd.h).
_NUMBERS = {
    "x86_64": (251, 252),
    "i386": (289, 290),
    "i686": (289, 290),
    "aarch64": (30, 31),
    "riscv64": (30, 31),
    "loongarch64": (30, 31),
    "ppc64le": (273, 274),
    "s390x": (282, 283),
}
_libc = ctypes.CDLL(None, use_errno=True)

P = ParamSpec("P")
R = TypeVar("R")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def parse(text: str | None) -> int | None:
    """Return the priority that the arguments of ionice mean, ``-c3`` or ``-c best-effort -n 7``; None without any.

    :raises ValueError: they mean none, or the kernel's call is not known for this machine.
    """
    if not text or not text.strip():
        return None
    parser = _Parser(prog="ionice", add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-c", "--class", dest="kind", required=True)
    parser.add_argument("-n", "--classdata", dest="level", type=int)
    try:
        found = parser.parse_args(shlex.split(text))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    kind = int(found.kind) if found.kind.isdecimal() else CLASSES.get(found.kind.lower(), -1)
    if kind not in CLASSES.values():
        raise ValueError(f"there is no class {found.kind}, only {', '.join(CLASSES)}")
    levels = kind not in (NONE, IDLE)
    if found.level is not None and not levels:
        raise ValueError(f"the class {found.kind} has no levels")
    level = 0 if not levels else LEVEL if found.level is None else found.level
    if not 0 <= level <= 7:
        raise ValueError(f"the level {level} is not from 0 to 7")
    if platform.machine() not in _NUMBERS:
        raise ValueError(f"how to set it is not known for machines of the kind {platform.machine()}")
    return kind << _CLASS_SHIFT | level


def offloaded(priority: int | None, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a call that blocks in the kernel, see :func:`volmgr.concurrency.offload`, with an I/O priority of its own.

    :param priority: as :func:`parse` returned it; None for that of everything else.
    """
    if priority is None:
        return offload(function, *args, **kwargs)
    return offload(_with, priority, function, *args, **kwargs)


def _with(priority: int, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a call on this thread, which does other work afterwards."""
    setter, getter = _NUMBERS[platform.machine()]
    before = _call(getter, *_THIS_THREAD)
    if before >> _CLASS_SHIFT == NONE:
        before = 0  # its level says nothing, and is refused
    _call(setter, *_THIS_THREAD, priority)
    try:
        return function(*args, **kwargs)
    finally:
        _call(setter, *_THIS_THREAD, before)


def _call(number: int, *arguments: int) -> int:
    result = _libc.syscall(ctypes.c_long(number), *(ctypes.c_int(argument) for argument in arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise exception.BackendDown(
            f"The I/O priority cannot be set: {os.strerror(error)}",
            hint="Take volume_clear_ionice out of the backend's options; the class realtime needs CAP_SYS_ADMIN",
            errno=error,
        )
    return int(result)

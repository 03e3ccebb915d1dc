# SPDX-License-Identifier: Apache-2.0
"""Ends the process at a named step boundary, for the tests that prove that nothing is lost by it.

A point's name is ``verb/step/when``; ``-`` stands for the operation as a whole. The boundaries of operations are the
runner's; a driver names moments inside its verbs with :func:`reach`. Production does not pay for it: without one of the
environment variables there is no hook at all.
"""

from __future__ import annotations

import fnmatch
import os
import signal
from collections.abc import Callable

#: where to end the process: a pattern of points (as of a shell), and ``#n`` for the n-th that fits.
ENVIRONMENT = "VOLMGR_KILL_AT"
#: a file that holds such a pattern, read whenever it is replaced, so that a living process can be aimed at.
FILE_ENVIRONMENT = "VOLMGR_KILL_FILE"
#: a file to which every point that is passed is added, a line each.
RECORD_ENVIRONMENT = "VOLMGR_KILL_RECORD"


class Aim:
    """A pattern and how often it may still fit before it strikes."""

    def __init__(self, text: str) -> None:
        self._pattern, _, count = text.strip().partition("#")
        self._left = int(count or 1)

    def strikes(self, name: str) -> bool:
        """Return whether this point is the one."""
        if not self._pattern or not fnmatch.fnmatchcase(name, self._pattern):
            return False
        self._left -= 1
        return self._left == 0


class _Hook:
    def __init__(self, text: str, path: str | None, record: str | None) -> None:
        self._aim = Aim(text)
        self._path = path
        self._stamp: tuple[int, int] | None = None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._record = os.open(record, flags, 0o600) if record else None

    def __call__(self, name: str) -> None:
        if self._record is not None:
            os.write(self._record, f"{name}\n".encode())
        if self._path is not None:
            self._read(self._path)
        if self._aim.strikes(name):
            os.kill(os.getpid(), signal.SIGKILL)

    def _read(self, path: str) -> None:
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            with open(path, encoding="utf-8") as source:
                self._stamp, self._aim = stamp, Aim(source.read())


def from_environment() -> Callable[[str], None] | None:
    """Return the hook that the environment asks for, None if it asks for none."""
    text, path, record = (
        os.environ.get(name) for name in (ENVIRONMENT, FILE_ENVIRONMENT, RECORD_ENVIRONMENT)
    )
    return _Hook(text or "", path, record) if text or path or record else None


_hook = from_environment()


def arm() -> None:
    """Read the environment again, in a process that has got another one since it was loaded."""
    global _hook
    _hook = from_environment()


def reach(name: str) -> None:
    """End the process if the environment asks for this moment."""
    if _hook is not None:
        _hook(name)

# SPDX-License-Identifier: Apache-2.0
"""A process beside us that lets go on what we make wait, should we die or take too long meanwhile.

See :mod:`volmgr.tools.guardian_main`, its program. What it guards must be resumed before anything else is done to it at
our next start, too: a machine may kill both. This module knows no volumes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from volmgr import exception
from volmgr.tools import guardian_main

#: seconds until it is ready, or has left.
SECONDS = 15.0
_PAUSE = 0.002


@contextlib.contextmanager
def guarded(held: Sequence[str], seconds: float) -> Iterator[None]:
    """Have what is held inside the block guarded; the caller resumes it himself before the block ends.

    :param held: as the guardian's arguments. :param seconds: how long it may be held.
    :raises BackendDown: there is no guardian, nothing may be held. :raises Timeout: it took too long: the guardian let
        it go on meanwhile, and what was done in the block is worth nothing.
    """
    # Plain descriptors: file objects of green threads cannot be used by a call that may block.
    theirs_in, ours_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(guardian_main.__file__)), f"{seconds:g}", *held],
            stdin=theirs_in,
            stdout=theirs_out,
            stderr=theirs_out,
            start_new_session=True,  # the end of our group must not be its end
        )
    finally:
        os.close(theirs_in)
        os.close(theirs_out)
    try:
        said = _first_words(ours_out)
        if said != "ready":
            raise exception.BackendDown(
                f"The guardian could not be started: {said}",
                hint="Nothing was held; see the limit on locked memory: ulimit -l",
            )
        yield
        # A signal, as writing to a pipe whose reader has left never ends under green threads.
        process.send_signal(signal.SIGUSR1)
        _poll(lambda: process.poll() is not None, "the guardian to leave")
    finally:
        os.close(ours_in)  # now at the latest it lets things go on
        os.close(ours_out)
        if process.poll() is None:
            _poll(lambda: process.poll() is not None, "the guardian to leave")
    if process.returncode != 0:
        raise exception.Timeout(
            f"Several volumes could not be copied within {seconds:g} s, the time for which they may wait",
            hint="Use storage that can share blocks (thin LVM, XFS, btrfs), or smaller groups",
            seconds=seconds,
        )


def _first_words(fd: int) -> str:
    """Return what the guardian says first, or at its end."""
    os.set_blocking(fd, False)
    found = b""

    def heard() -> bool:
        nonlocal found
        try:
            more = os.read(fd, 4096)
        except BlockingIOError:
            return False
        found += more
        return not more or found.endswith(b"\n")

    _poll(heard, "the guardian to be ready")
    return found.decode(errors="replace").strip()


def _poll(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise exception.Timeout(f"Waited {SECONDS:g} s in vain for {what}")
        time.sleep(_PAUSE)

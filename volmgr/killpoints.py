# SPDX-License-Identifier: Apache-2.0
"""Ends the process at a named step boundary, for the tests that prove that nothing is lost by it.

The boundaries of operations are the runner's; a driver names moments inside its verbs with :func:`reach`. Production
does not pay for it: without the environment variable there is no hook at all.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

ENVIRONMENT = "VOLMGR_KILL_AT"


def from_environment() -> Callable[[str], None] | None:
    """Return the hook that VOLMGR_KILL_AT asks for (``verb/step/when``, or ``verb/step/when#n`` for the n-th time)."""
    wanted = os.environ.get(ENVIRONMENT)
    if not wanted:
        return None
    point, _, count = wanted.partition("#")
    left = [int(count or 1)]

    def hook(name: str) -> None:
        if name == point:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


_hook = from_environment()


def reach(name: str) -> None:
    """End the process if VOLMGR_KILL_AT asks for this moment."""
    if _hook is not None:
        _hook(name)

# SPDX-License-Identifier: Apache-2.0
"""Time and threads, as things that are given: the daemon gives real ones, a simulation gives its own.

Whatever waits, measures time or runs something later takes a :class:`Clock` and an :class:`Executor` from its caller.
This module knows nothing of volumes.
"""

from __future__ import annotations

import datetime
import logging
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Protocol

LOG = logging.getLogger(__name__)


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime.datetime:
        """Return the time of day in UTC, without a zone, as SQL keeps it."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait until ``event`` is set, at most ``timeout`` seconds; return whether it is."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)

    def monotonic(self) -> float:
        return time.monotonic()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        return event.wait(timeout)


class Executor(Protocol):
    """Where work runs."""

    def submit(self, lane: str, work: Callable[[], None]) -> None:
        """Run ``work`` soon, in the threads of ``lane``; it handles its own errors."""

    def shutdown(self, timeout: float) -> bool:
        """Take no more work, wait for what runs at most ``timeout`` seconds; return whether all has ended."""


class Lanes:
    """Thread pools, one for each lane, so that long work never takes a thread from short work.

    :param sizes: threads by lane.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self._pools = {
            lane: futures.ThreadPoolExecutor(size, thread_name_prefix=f"volmgr-{lane}") for lane, size in sizes.items()
        }
        self._pending: set[futures.Future[None]] = set()

    def submit(self, lane: str, work: Callable[[], None]) -> None:
        future = self._pools[lane].submit(_guarded, work)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)

    def shutdown(self, timeout: float) -> bool:
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        _done, left = futures.wait(set(self._pending), timeout)
        return not left


def _guarded(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        LOG.exception("Work that should handle its own errors raised one")

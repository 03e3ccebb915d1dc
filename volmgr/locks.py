# SPDX-License-Identifier: Apache-2.0
"""Locks by key with a deadline, for whoever changes one resource outside the journal. This module knows no resource."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from volmgr import exception

LOCK_TIMEOUT = 60.0


class KeyedLocks:
    """One lock for each key that is in use, taken with a deadline.

    :param make: makes a lock; a simulation gives its own.
    """

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[Any, list[int]]] = {}
        self._watchers: list[set[str]] = []

    @contextlib.contextmanager
    def hold(self, key: str, timeout: float = LOCK_TIMEOUT, *, about: str | None = None) -> Iterator[None]:
        """Hold the lock of ``key``.

        :param timeout: seconds to wait for it. :param about: the resource that is meant where the key is not its id.
        :raises Timeout: it did not come free.
        """
        with self._guard:
            lock, users = self._locks.setdefault(key, (self._make(), [0]))
            users[0] += 1
            for touched in self._watchers:
                touched.add(key)
        try:
            if not lock.acquire(timeout=timeout):
                meant = about or key
                raise exception.Timeout(
                    f"{key} was busy for {timeout:.0f} s",
                    hint=f"See what holds it: volmgr volume why {meant}",
                    id=meant,
                )
            try:
                yield
            finally:
                lock.release()
        finally:
            with self._guard:
                users[0] -= 1
                if not users[0]:
                    self._locks.pop(key, None)

    def busy(self) -> bool:
        """Return whether anybody in this process holds or waits for any lock now."""
        with self._guard:
            return bool(self._locks)

    def users(self, key: str) -> int:
        """Return how many hold or wait for the lock of ``key`` now."""
        with self._guard:
            return self._locks[key][1][0] if key in self._locks else 0

    @contextlib.contextmanager
    def watching(self) -> Iterator[set[str]]:
        """Collect the keys that anybody holds or waits for between the begin and the end of the ``with``."""
        with self._guard:
            touched = set(self._locks)
            self._watchers.append(touched)
        try:
            yield touched
        finally:
            with self._guard:
                # By identity: two sets with the same keys are equal.
                self._watchers = [item for item in self._watchers if item is not touched]

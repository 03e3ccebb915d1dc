# SPDX-License-Identifier: Apache-2.0
"""What we believe a tgtd has: a copy of its listing, kept up to date by those who change it.

tgtd tells the LUNs and access list of a target only in the listing of all, whose cost grows with their number. So the
listing is read at the start, when an audit asks, and after any surprise. The copy belongs to one life of one tgtd and
is never the truth: tgtd's answers show when it is wrong, and whoever sees that says so with :meth:`Known.forget`.
"""

from __future__ import annotations

import threading

from volmgr.tools.tgt import Target, TgtClient


class Known:
    """The targets of one tgtd by name. Thread-safe; entries are replaced, never changed."""

    def __init__(self, client: TgtClient) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._targets: dict[str, Target] = {}
        self._stamps: dict[str, int] = {}
        self._clock = 0
        self._life: object = None
        self._complete = False

    @property
    def life(self) -> object:
        """Which life of tgtd the copy is of."""
        return self._life

    def of(self, life: object) -> bool:
        """Make the copy one of this life of tgtd, reading the listing if it is of another one.

        :param life: anything that differs between two tgtd processes.
        :returns: whether it was of another one.
        """
        with self._lock:
            same = self._life == life
            if same and self._complete:
                return False
            if not same:
                self._targets.clear()
                self._stamps.clear()
                self._life = life
                self._complete = False
        self.read()
        return not same

    def read(self) -> tuple[Target, ...]:
        """Read the listing and return it; what was changed by us since it was asked for is newer and stays."""
        with self._lock:
            begun, life = self._clock, self._life
        listed = self._client.targets()
        with self._lock:
            if life == self._life:
                newer = {name for name, stamp in self._stamps.items() if stamp > begun}
                kept = {name: target for name, target in self._targets.items() if name in newer}
                fresh = {target.name: target for target in listed if target.name not in newer}
                self._targets = fresh | kept
                self._stamps = {name: self._stamps[name] for name in newer}
                self._complete = True
        return listed

    def get(self, name: str) -> Target | None:
        """Return the target of that name as last known."""
        with self._lock:
            return self._targets.get(name)

    def put(self, name: str, target: Target | None) -> None:
        """Note what was just made of a target; None: it was deleted."""
        with self._lock:
            self._clock += 1
            self._stamps[name] = self._clock
            if target is None:
                self._targets.pop(name, None)
            else:
                self._targets[name] = target

    def forget(self) -> None:
        """Something was not as noted: read the listing before the next use, and believe it."""
        with self._lock:
            self._complete = False
            self._stamps.clear()

    def users_of(self, account: str) -> set[str]:
        """Return the names of the targets that have this account bound, as last known."""
        with self._lock:
            return {name for name, target in self._targets.items() if account in target.accounts}

# SPDX-License-Identifier: Apache-2.0
"""A worker as a member of a cluster: its lease, the locks that members share, and what becomes of a dead one.

A member is whoever has a row in ``members``. The lease is renewed on the database's clock; a timer ends the worker when
it was not renewed in time, counted from before the renewal was sent, so by the time that others may take over there is
nobody left. What bears the id of a life without a row, operations and locks, is anybody's. This module knows no verb,
no driver and no target.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from volmgr import exception
from volmgr.db import members
from volmgr.db.engine import Database, is_duplicate
from volmgr.db.members import Member
from volmgr.locks import LOCK_TIMEOUT, KeyedLocks
from volmgr.runtime import Clock

__all__ = ["ClusterLocks", "Member", "Membership", "Timer", "boot_id", "machine_id"]

LOG = logging.getLogger(__name__)

#: a lease is renewed when a third of it is over; with a sixth left, nothing is begun any more.
RENEWALS = 3
MARGIN = 1 / 6
#: seconds between two looks at the other members, at most.
LOOK_INTERVAL = 2.0
#: how long a member that leaves waits for what is under way.
LEAVE_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2


class Timer(Protocol):
    """What ends this worker at its lease's end, see :mod:`volmgr.deadline`."""

    def now(self) -> float:
        """Return seconds that also go on while the machine sleeps."""

    def set(self, at: float | None) -> None:
        """End the worker at a time of :meth:`now`; None for never."""


class Membership:
    """The lease of one life of a worker.

    :param member: what is written of it. :param lease: seconds. :param timer: ends this worker.
    :param grace: seconds after another one's lease has ended before it is removed.
    :param renewals: the database by connections that nobody else waits for; by default it is ``database``.
    :param fence: makes sure that a member writes no more; returns False if it cannot.
    :ivar draining: whether it is to begin nothing more.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        member: Member,
        *,
        lease: float,
        grace: float,
        timer: Timer,
        fence: Callable[[Member], bool],
        renewals: Database | None = None,
    ) -> None:
        self.database = database
        self._renewals = renewals or database
        self.clock = clock
        self.member = member
        self.lease = lease
        self.grace = grace
        self.draining = False
        self._timer = timer
        self._fence = fence
        self._until = 0.0
        self._guard = threading.Lock()
        self._over = threading.Event()

    # --- the lease ------------------------------------------------------------------------------------------------

    def join(self) -> None:
        """Become a member; earlier lives of the same worker on this machine, which have ended, are none any more.

        The caller holds its incarnation's lock.
        """

        def write() -> float:
            began = self._timer.now()
            with self.database.writer() as conn:
                if not members.renew(conn, self.member.id, self.lease):
                    members.join(conn, self.member, self.lease)  # while an earlier life's row tells whether it drains
                for other in members.namesakes(conn, self.member):
                    if self._is_past(other):
                        members.remove(conn, other)
            return began

        self._extend(self.database.repeating(write))

    def _extend(self, began: float) -> None:
        with self._guard:
            if not self._over.is_set():
                self._timer.set(began + self.lease)
                self._until = began + self.lease

    def holds(self) -> bool:
        """Return whether something may still be begun."""
        return self._timer.now() < self._until - self.lease * MARGIN

    def check(self) -> None:
        """Return if something may still be done.

        :raises LeaseLost: the lease ends.
        """
        if not self.holds():
            raise exception.LeaseLost(
                f"{self.member.name} begins nothing more: its lease ends", hint="Send it again", id=self.member.id
            )

    def may_begin(self) -> bool:
        """Return whether the worker may take up operations."""
        return not self.draining and self.holds()

    def keep(self) -> None:
        """Renew the lease until :meth:`leave`; for a thread of its own."""
        pause = self.lease / RENEWALS
        while not self.clock.wait(self._over, pause):
            pause = self.lease / (RENEWALS if self.renew() else RENEWALS * 4)

    def renew(self) -> bool:
        """Renew the lease once; returns whether it was. A worker that has lost it ends at once."""
        began = self._timer.now()
        try:
            with self._renewals.writer(urgent=True) as conn:
                kept = members.renew(conn, self.member.id, self.lease)
        except exception.VolmgrError as error:
            LOG.error("The lease of %s was not renewed, it ends in %.0f s: %s", self.member.name, self._left(), error)
            return False
        if kept:
            self._extend(began)
        elif not self._over.is_set():
            LOG.critical("%s is a member of %s no more and ends now", self.member.name, self.member.service)
            self._timer.set(self._timer.now())
        return kept

    def _left(self) -> float:
        return max(0.0, self._until - self._timer.now())

    def leave(self, busy: Callable[[], bool]) -> bool:
        """Begin nothing more, and be a member no more once nothing is under way; its work is anybody's then.

        Where that does not come, the others wait for the lease's end as if this worker had died.

        :param busy: tells whether something is under way. :returns: whether it has left.
        """
        with self._guard:
            self._over.set()
            self._until = 0.0
        deadline = self.clock.monotonic() + LEAVE_SECONDS
        while busy():
            if self.clock.monotonic() >= deadline:
                LOG.warning("%s is still at work: the others wait for the end of its lease", self.member.name)
                return False
            self.clock.wait(threading.Event(), LONGEST_PAUSE)

        def write() -> None:
            with self.database.writer() as conn:
                members.remove(conn, self.member)

        try:
            self.database.repeating(write)
        except exception.VolmgrError as error:
            LOG.error("%s could not leave %s: %s", self.member.name, self.member.service, error)
            return False
        self._timer.set(None)
        if self._renewals is not self.database:
            self._renewals.close()
        return True

    # --- the others -----------------------------------------------------------------------------------------------

    def watch(self, adopt: Callable[[], object]) -> None:
        """Look after the others until :meth:`leave`; for a thread of its own.

        :param adopt: takes up operations of nobody.
        """
        while not self.clock.wait(self._over, min(LOOK_INTERVAL, self.lease / RENEWALS)):
            try:
                self.look()
                if self.may_begin():
                    adopt()
            except Exception as error:
                ours = isinstance(error, exception.VolmgrError)
                LOG.error("Looking after the members of %s failed: %s", self.member.service, error, exc_info=not ours)

    def look(self) -> None:
        """Remove members that have died, and park what those were at of which nobody knows whether they have."""
        with self.database.reader() as conn:
            draining = members.is_draining(conn, self.member.id)
            ended = members.ended(conn, self.member.service, self.grace)
        if draining != self.draining:
            LOG.warning("%s %s", self.member.name, "drains" if draining else "begins operations again")
            self.draining = draining
        for other in ended:
            if other.id != self.member.id and self.holds():
                self._end(other)

    def _end(self, other: Member) -> None:
        if self._is_past(other) or self._fence(other):
            with self.database.writer() as conn:
                removed = members.remove(conn, other)
            if removed:
                LOG.warning("The lease of %s has ended, others take over what it was at", other.name)
            return
        with self.database.writer() as conn:
            parked = members.park(conn, other)
        for operation_id in parked:
            LOG.error("Operation %s is parked: %s", operation_id, members.unfenced(other.name))

    def _is_past(self, other: Member) -> bool:
        """Return whether a life has certainly ended: the machine has booted since, or its lock is this one's."""
        mine = self.member
        if other.boot == mine.boot:
            return other.lock_path == mine.lock_path
        return bool(mine.machine) and other.machine == mine.machine


class ClusterLocks(KeyedLocks):
    """Locks by key that the members of a cluster share: beside the lock in this process there is one in SQL.

    :param near: the locks in this process.
    """

    def __init__(self, membership: Membership, near: KeyedLocks) -> None:
        super().__init__()
        self._near = near
        self._of = membership
        #: keys of locks that could not be given back, because the database was away.
        self.owed: set[str] = set()

    @contextlib.contextmanager
    def hold(self, key: str, timeout: float = LOCK_TIMEOUT, *, about: str | None = None) -> Iterator[None]:
        clock = self._of.clock
        deadline = clock.monotonic() + timeout
        with self._near.hold(key, timeout, about=about):
            pause = FIRST_PAUSE
            while not self._take(key):
                if clock.monotonic() >= deadline:
                    raise self._busy(key, timeout, about or key)
                clock.wait(threading.Event(), pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            try:
                yield
            finally:
                self._give(key)

    def _take(self, key: str) -> bool:
        member = self._of.member

        def write() -> bool:
            self._of.check()
            with self._of.database.writer(urgent=True) as conn:
                return members.take(conn, member.service, key, member.id)

        self.owed.discard(key)
        try:
            return self._of.database.repeating(write)
        except Exception as error:
            if not is_duplicate(error):
                raise
            return False  # another member was first

    def _give(self, key: str) -> None:
        """Give a lock back; what was done under it is done, so where the database is away it is given back later."""
        try:
            self._release(key)
        except exception.VolmgrError as error:
            self.owed.add(key)
            LOG.warning("The lock %s is given back later: %s", key, error)

    def _release(self, key: str) -> None:
        member = self._of.member
        with self._of.database.writer(urgent=True) as conn:
            members.give(conn, member.service, key, member.id)

    def give_owed(self) -> None:
        """Give back what could not be; a lock that somebody here has again by now is his to give back.

        :raises VolmgrError: the database is still away.
        """
        for key in sorted(self.owed):
            if self._near.users(key):
                continue
            with self._near.hold(key):
                if key in self.owed:
                    self._release(key)
                    self.owed.discard(key)

    def _busy(self, key: str, timeout: float, meant: str) -> exception.VolmgrError:
        with self._of.database.reader() as conn:
            holder = members.holder(conn, self._of.member.service, key)
        return exception.Timeout(
            f"{key} was busy for {timeout:.0f} s" + (f", {holder} holds it" if holder else ""),
            hint="See who is at work: volmgr-manage member list",
            id=meant,
        )

    def busy(self) -> bool:
        return self._near.busy()

    def users(self, key: str) -> int:
        return self._near.users(key)

    @contextlib.contextmanager
    def watching(self) -> Iterator[set[str]]:
        with self._near.watching() as touched:
            touched |= self._held()
            yield touched
            touched |= self._held()

    def _held(self) -> set[str]:
        with self._of.database.reader() as conn:
            return set(members.held(conn, self._of.member.service))


def machine_id() -> str:
    """Return the id of this machine, see machine-id(5); empty if it has none, then it is never known again."""
    with contextlib.suppress(OSError):
        return Path("/etc/machine-id").read_text().strip()[:64]
    return ""


def boot_id() -> str:
    """Return the id of this start of the machine, see random(4)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

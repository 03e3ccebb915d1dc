# SPDX-License-Identifier: Apache-2.0
"""The real database layer over real SQLite, with yield points round every transaction and faults at its ends.

A transaction is one instant to all other threads, as it is with SQLite's single writer and its readers' snapshots; so
threads change places before and after it, never inside.
"""

from __future__ import annotations

import contextlib
import datetime
from types import TracebackType
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection

from volmgr.db.engine import CommitUnknown, Database, Transaction, utcnow
from volmgr.testing.simulation.scheduler import Scheduler, VirtualClock


class CommitLost(Exception):
    """A strike: the connection breaks at COMMIT."""


class SimDatabase(Database):
    """A database whose scheduler changes with every schedule.

    :param virtual: whether the database's own clock is the schedule's.
    """

    def __init__(self, url: str, *, virtual: bool = False) -> None:
        self.scheduler: Scheduler | None = None
        super().__init__(url)
        self._turns = None  # a transaction is one instant: nobody waits for another's
        # A death is simulated, the machine stays: nothing need reach the disk.
        event.listen(self.engine, "connect", lambda connection, _record: connection.execute("PRAGMA synchronous = OFF"))
        if virtual:
            event.listen(
                self.engine, "connect",
                lambda connection, _record: connection.create_function("strftime", -1, self._strftime),
            )

    def _strftime(self, _format: str, _now: str, later: str = "0 seconds") -> str:
        """Return the schedule's time in place of SQLite's own, in the only form that is asked for."""
        now = self.clock.now() if self.scheduler is not None else utcnow()
        return f"{now + datetime.timedelta(seconds=float(later.split()[0])):%Y-%m-%d %H:%M:%S.%f}"[:-3]

    def attend(self, scheduler: Scheduler | None) -> None:
        """Take part in a scheduler's schedule; None for none."""
        self.scheduler = scheduler
        if scheduler is not None:
            self.clock = VirtualClock(scheduler)

    def writer(self, *, urgent: bool = False) -> Transaction:
        return SimTransaction(self, write=True, urgent=urgent)

    def reader(self) -> Transaction:
        return SimTransaction(self, write=False)


class SimTransaction(Transaction):
    """A transaction with yield points before and behind it."""

    __slots__ = ("_held", "_scheduler")

    def __init__(self, db: SimDatabase, write: bool, urgent: bool = False) -> None:
        super().__init__(db, write, urgent)
        self._scheduler = db.scheduler
        self._held: Any = None

    def __enter__(self) -> Connection:
        scheduler = self._scheduler
        if scheduler is None:
            return super().__enter__()
        scheduler.reach("db:write" if self._write else "db:read")
        self._held = scheduler.together()
        self._held.__enter__()
        try:
            return super().__enter__()
        except BaseException:
            self._held.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        scheduler = self._scheduler
        if scheduler is None:
            super().__exit__(kind, error, traceback)
            return
        try:
            if self._write and error is None:
                try:
                    scheduler.note("db:commit")
                except BaseException as strike:
                    self._break(strike)
            super().__exit__(kind, error, traceback)
        finally:
            self._held.__exit__(None, None, None)
        if self._write and error is None:
            try:
                scheduler.reach("db:committed")
            except CommitLost as strike:
                raise CommitUnknown() from strike

    def _break(self, strike: BaseException) -> None:
        """Roll back, as a database does whose client is gone before COMMIT."""
        with contextlib.suppress(type(strike)):
            super().__exit__(type(strike), strike, None)
        if isinstance(strike, CommitLost):
            raise CommitUnknown() from strike
        raise strike

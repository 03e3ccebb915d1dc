# SPDX-License-Identifier: Apache-2.0
"""Waiting for operations and steering them: cancel, retry, abandon. A part of :class:`volmgr.dispatch.Dispatcher`.

This module starts nothing by itself: it changes the journal and rings its bell.
"""

from __future__ import annotations

import threading

from volmgr import exception, types
from volmgr.db import members, operations
from volmgr.db.engine import Database
from volmgr.runtime import Clock
from volmgr.tasks import Active, Backend


class Steering:
    """What is asked about operations that are in the journal."""

    database: Database
    clock: Clock
    backend: Backend
    incarnation: str
    _active: dict[str, Active]

    def ring(self) -> None:
        """Wake whatever looks for work in the journal."""
        raise NotImplementedError

    def _refuse(self, record: types.OperationRecord, error: exception.VolmgrError, *, final: bool = False) -> bool:
        """End an operation that does not run; with ``final`` it is not tried elsewhere."""
        raise NotImplementedError

    def wait(self, operation_id: str, timeout: float) -> types.OperationRecord:
        """Return an operation as it is once it has ended, or as it is after ``timeout`` seconds.

        :raises OperationNotFound: there is none, or its tombstone was purged.
        """
        deadline = self.clock.monotonic() + timeout
        pause = 0.02
        while True:
            active = self._active.get(operation_id)
            left = max(0.0, deadline - self.clock.monotonic())
            if active is not None and left > 0:
                self.clock.wait(active.done, left)
            record = self.get(operation_id)
            left = deadline - self.clock.monotonic()
            if record.finished or left <= 0:
                return record
            if operation_id not in self._active:
                self.clock.wait(threading.Event(), min(pause, left))
                pause = min(pause * 2, 0.5)

    def running(self) -> list[str]:
        """Return the ids of the operations that run in this process now, from memory."""
        return sorted(self._active)

    def get(self, operation_id: str) -> types.OperationRecord:
        """Return an operation.

        :raises OperationNotFound: there is none.
        """
        with self.database.reader() as conn:
            record = operations.get(conn, operation_id)
        if record is None:
            raise exception.OperationNotFound(id=operation_id)
        return record

    def cancel(self, operation_id: str) -> types.OperationRecord:
        """Ask an operation to stop at its next safe point and to undo what it began.

        :raises Conflict: it has passed its pivot.
        """
        with self.database.writer() as conn:
            asked = operations.request_cancel(conn, operation_id, self.clock.now())
        record = self.get(operation_id)
        if not asked and not record.finished:
            raise exception.Conflict(
                f"The operation {operation_id} has passed its point of no return",
                hint=f"Let it finish: volmgr operation wait {operation_id}",
                resource="operation",
                id=operation_id,
            )
        if (active := self._active.get(operation_id)) is not None:
            active.cancel.set()
        self.ring()
        return record

    def _heed(self) -> None:
        """Let what runs here know that it is to stop, where another member of the cluster was asked for that."""
        if self.backend.membership is None or not self._active:
            return
        with self.database.reader() as conn:
            asked = members.cancelled(conn, self.backend.settings.host, self.incarnation)
        for operation_id in asked:
            if (active := self._active.get(operation_id)) is not None:
                active.cancel.set()

    def retry(self, operation_id: str) -> types.OperationRecord:
        """Let a parked operation be tried again now.

        :raises Conflict: it is not parked.
        """
        with self.database.writer() as conn:
            done = operations.requeue(conn, operation_id, self.clock.now())
        record = self.get(operation_id)
        if not done:
            _check_fenced(record)
        if not done:
            raise exception.Conflict(
                f"The operation {operation_id} is {record.state}, only a parked one can be retried",
                resource="operation", id=operation_id, status=record.state,
            )
        self.ring()
        return record

    def abandon(self, operation_id: str) -> types.OperationRecord:
        """Give a parked operation up: it fails, its claims are released, what it left is for an audit to find.

        :raises Conflict: it is not parked.
        """
        while True:
            record = self.get(operation_id)
            if record.state != "parked":
                raise exception.Conflict(
                    f"The operation {operation_id} is {record.state}, only a parked one can be abandoned",
                    hint=f"volmgr operation cancel {operation_id}",
                    resource="operation", id=operation_id, status=record.state,
                )
            _check_fenced(record)
            why = (record.data or {}).get("why") or record.error or {"code": "", "message": ""}
            reason = f"The operation was abandoned; it was parked because: {exception.from_primitive(why).message}"
            if self._refuse(record, exception.Inconsistent(reason), final=True):
                return self.get(operation_id)
            # It has been looked at again meanwhile: it runs by now, or is parked anew.


def _check_fenced(record: types.OperationRecord) -> None:
    """Return unless an operation waits for a proof that a member of a cluster writes no more.

    :raises Conflict: it does.
    """
    if record.state == "parked" and record.parked_for == "fence":
        why = exception.from_primitive((record.data or {}).get("why") or {"code": "", "message": ""})
        raise exception.Conflict(
            f"The operation {record.id} is parked: {why.message}", hint=why.hint,
            resource="operation", id=record.id, status="parked",
        )

# SPDX-License-Identifier: Apache-2.0
"""One run of an operation's steps, forwards and back: what is done, repeated, taken back, and what interrupts it.

:mod:`volmgr.tasks` decides what follows. This module knows no verb.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from volmgr import exception
from volmgr.db import operations, records
from volmgr.db.closing import Closing
from volmgr.db.faults import CommitUnknown, DatabaseBusy, DatabaseDown, DatabaseFull
from volmgr.drivers.making import making
from volmgr.drivers.progress import reporting
from volmgr.operations.base import Operation, Rerun, Step

if TYPE_CHECKING:
    from volmgr.tasks import Runner, Task

LOG = logging.getLogger(__name__)

#: the journal did not take a note, so the run stops where it is. That is no failure of the operation, which goes on
#: when the journal answers.
INTERRUPTIONS = (exception.LeaseLost, CommitUnknown, DatabaseBusy, DatabaseDown, DatabaseFull)


class Progress:
    """Where a run is among its steps; its methods are what taskflow calls."""

    def __init__(
        self, runner: Runner, operation: Operation[Any], task: Task, steps: list[Step], begun: int, recovering: bool
    ) -> None:
        self.runner = runner
        self.operation = operation
        self.task = task
        self.steps = steps
        self.begun = begun
        self.recovering = recovering
        self.error: exception.VolmgrError | None = None
        self.undo_error: BaseException | None = None
        self.lost: exception.VolmgrError | None = None
        #: how many steps may have begun, now or in an earlier run; the others are not taken back.
        self.reached = begun + 1 if recovering else 0
        self._undoing = False

    @property
    def pivoted(self) -> bool:
        return self.task.pivoted

    def execute(self, index: int) -> None:
        """Do a step, unless an earlier run has."""
        step = self.steps[index]
        if index < self.begun:
            return
        again = self.recovering and index == self.begun
        if not self.pivoted and not (again and step.undo is None):
            # What had begun and cannot be taken back is finished first; a cancellation waits for the next step.
            self.task.check()
        # When it began, for whoever asks later; it is written with the next thing that is written anyway.
        self.task.data.setdefault("times", {}).setdefault(step.name, records.moment(self.task.clock.now()))
        if index > self.begun or index > 0:
            self._note_begin(step)
        point = f"{self.operation.verb}/{step.name}"
        self.runner.killpoint(f"{point}/before")
        try:
            self.reached = index + 1
            self.task.results[step.name] = self._do(step, again=again)
            self.runner.killpoint(f"{point}/after")
            if step.pivot is not None:
                with self._still(step):
                    self._pivot(step.pivot, index)
                if self.pivoted:
                    self.runner.killpoint(f"{point}/pivoted")
        except INTERRUPTIONS as lost:
            self.lost = lost
            raise
        except Exception as error:
            self.error = ours(error, self.operation.verb, self.task.id)
            if untouched(self.error):
                self.reached = index
            raise

    def _do(self, step: Step, *, again: bool) -> Any:
        self.task.backend.check_lease()
        if again and step.rerun is Rerun.REBUILD:
            take_back(step, self.task)
        if again and step.rerun is Rerun.RECOGNISE and step.recognise is not None:
            try:
                return step.recognise()
            except exception.NotFound:
                LOG.info("Step %s of operation %s was not done; it is done again", step.name, self.task.id)
        # Copies deep inside a driver tell how far they are, and stop when the operation is cancelled.
        with reporting(self.task.progress, self.task), making(self.task.id, again=again):
            return step.do()

    def _note_begin(self, step: Step) -> None:
        if self.task.operation.step != step.name:
            self.task.note(step=step.name)

    def _still(self, step: Step) -> contextlib.AbstractContextManager[None]:
        """Let nobody follow the exports that a pivot changes: a sync that has read them is still to write."""
        if step.exports_of is None:
            return contextlib.nullcontext()
        held: contextlib.AbstractContextManager[None] = self.task.backend.exports.locks.hold(step.exports_of)
        return held

    def _pivot(self, switch: Callable[[Closing], bool | None], index: int) -> None:
        """Swap in SQL and pass the point of no return, in one transaction; or neither, if this is not the time."""
        task = self.task
        following = self.steps[min(index + 1, len(self.steps) - 1)].name
        passed = True

        def commit() -> None:
            nonlocal passed
            with task.database.writer() as conn:
                tx = Closing(conn, task.operation, task.epoch, task.clock.now(), task.backend.cipher)
                passed = switch(tx) is not False
                if not passed:
                    return
                operations.note(
                    conn, task.id, task.epoch, task.clock.now(), data=task.data, pivoted=True, step=following
                )

        # An unknown outcome must not pass for a failure: what is undone then would be the new current object.
        self.runner.settle(task, commit, lambda found: found.pivoted or not passed)
        task.pivoted = task.pivoted or passed

    def revert(self, index: int) -> None:
        """Take a step back; an undoing that fails is kept, so that the operation is parked with both causes."""
        step = self.steps[index]
        if self.pivoted or self.lost is not None or self.undo_error is not None or step.undo is None:
            return
        if index >= self.reached:
            return
        try:
            if not self._undoing:
                self._undoing = True
                error = self.error or exception.Cancelled()
                self.task.note(state="undoing", error=exception.to_primitive(error))
            self.runner.killpoint(f"{self.operation.verb}/{step.name}/undo")
            take_back(step, self.task)
            self.runner.killpoint(f"{self.operation.verb}/{step.name}/undone")
        except INTERRUPTIONS as lost:
            self.lost = lost
        except Exception as error:
            LOG.exception("Undoing %s of operation %s failed", step.name, self.task.id)
            self.undo_error = error


def bind(function: Callable[[int], None], index: int) -> Callable[[], None]:
    """Return a call of ``function`` with ``index``."""
    return lambda: function(index)


def untouched(error: BaseException) -> bool:
    """Return whether a step that ended so has changed nothing: what it was to make is there, of others' making."""
    return isinstance(error, exception.ObjectExists)


def take_back(step: Step, task: Task) -> None:
    """Undo a step; it ends no object that is not of the operation's making."""
    if step.undo is not None:
        task.backend.check_lease()
        with making(task.id, again=True, undoing=True):
            step.undo()


def ours(error: Exception, verb: str, operation_id: str) -> exception.VolmgrError:
    """Return a typed error for any; one that is not typed is logged."""
    if isinstance(error, exception.VolmgrError):
        return error
    LOG.error("%s failed in operation %s with an error that is not typed", verb, operation_id, exc_info=error)
    return exception.from_primitive(exception.to_primitive(error))

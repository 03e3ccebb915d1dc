# SPDX-License-Identifier: Apache-2.0
"""Runs operations: admits them into the journal, does their steps, ends them; alive and after a crash by one path.

Nothing else writes a transitional status. A step's outcome is in the journal before the next one begins; what an
operation does to SQL at its end is one transaction. See :mod:`volmgr.operations.base` for what an operation says of
itself. This module knows no RPC.
"""

from __future__ import annotations

import dataclasses
import datetime
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from volmgr import context as ctx
from volmgr import exception, types
from volmgr.backups.stores import Stores
from volmgr.crypto import Cipher
from volmgr.db import claims, operations, records
from volmgr.db.admission import Settings
from volmgr.db.closing import Closing
from volmgr.db.engine import Database
from volmgr.db.faults import CommitUnknown
from volmgr.metrics import Metrics, Unmeasured
from volmgr.notifications import Notifications, Silence
from volmgr.operations import registry
from volmgr.operations.base import Operation, Step
from volmgr.placement import Place, Placement
from volmgr.progress import INTERRUPTIONS, Progress, bind, ours, take_back, untouched
from volmgr.runtime import Clock
from volmgr.types import VolumeType

LOG = logging.getLogger(__name__)

#: a death that follows a death that often is the operation's fault: it is parked for an operator.
MAX_DEATHS = 5
PROGRESS_INTERVAL = 1.0
BACKOFF = (2, 5, 15, 60, 300)
#: after so long an operation that waits for another worker looks by itself whether what it waits for has come.
LOOK_INTERVAL = datetime.timedelta(seconds=5)


def _no_types(name_or_id: str) -> types.VolumeType:
    raise exception.VolumeTypeNotFound(id=name_or_id)


@dataclass
class Backend:
    """What operations work on: the driver, its target, the exports kept on it."""

    driver: Any
    exports: Any
    settings: Settings
    cipher: Cipher
    types: Callable[[str | None], types.VolumeType | None] = lambda _id: None
    find_type: Callable[[str], VolumeType] = _no_types
    placement: Placement | None = None
    #: wakes another worker, given its name.
    ring: Callable[[str], None] = lambda _host: None
    #: tells whoever listens what happens.
    notifications: Notifications | Silence = field(default_factory=Silence)
    metrics: Metrics | Unmeasured = field(default_factory=Unmeasured)
    #: where backups go.
    stores: Stores = field(default_factory=lambda: Stores({}))
    #: whether the backend takes no changes.
    frozen: Callable[[Any], bool] = lambda _conn: False
    #: how volumes of other hosts are attached here, a :class:`volmgr.initiator.writing.Initiators`.
    initiators: Any = None
    #: where images are, a :class:`volmgr.images.access.Images`.
    images: Any = None
    #: the worker's membership of a cluster, a :class:`volmgr.cluster.Membership`; None where it serves alone.
    membership: Any = None
    #: tells that the driver works on other storage, so that what was down may be up.
    moved: Callable[[], None] = lambda: None

    def check_lease(self) -> None:
        """Return if the worker may still touch storage.

        :raises LeaseLost: it is to end.
        """
        if self.membership is not None:
            self.membership.check()


@dataclass
class Active:
    """An operation in this process: how to wait for it and how to stop it."""

    done: threading.Event = field(default_factory=threading.Event)
    cancel: threading.Event = field(default_factory=threading.Event)


class Task:
    """One run of one operation: what its steps are given."""

    def __init__(
        self,
        operation: types.OperationRecord,
        *,
        database: Database,
        backend: Backend,
        clock: Clock,
        active: Active,
        known: dict[str, types.Resource] | None = None,
    ) -> None:
        self.operation = operation
        self.database = database
        self.backend = backend
        self.clock = clock
        self.active = active
        self.context = ctx.RequestContext.from_dict(operation.context)
        self.data: dict[str, Any] = dict(operation.data or {})
        self._known = dict(known or {})
        self._written = clock.monotonic()
        self._progress: float | None = operation.progress
        self.pivoted = operation.pivoted

    @property
    def id(self) -> str:
        return self.operation.id

    @property
    def epoch(self) -> int:
        return self.operation.epoch

    @property
    def driver(self) -> Any:
        return self.backend.driver

    @property
    def abandoned(self) -> bool:
        """Whether an operator gives the operation up: its steps are not undone, what they made may be there."""
        return self.operation.state == "parked"

    @property
    def results(self) -> dict[str, Any]:
        """What the steps that are done returned, by step name."""
        found: dict[str, Any] = self.data.setdefault("results", {})
        return found

    def known(self, resource_id: str) -> types.Resource | None:
        """Return a resource as it was when it was claimed, if it was."""
        return self._known.get(resource_id)

    def volume(self, volume_id: str) -> types.Volume:
        """Return a volume as it was when it was claimed, or as SQL has it now."""
        found = self._known.get(volume_id)
        if found is None:
            found = self._read("volume", volume_id)
        if not isinstance(found, types.Volume):
            raise exception.VolumeNotFound(id=volume_id)
        if found.volume_type_id is not None and found.volume_type is None:
            found = dataclasses.replace(found, volume_type=self.backend.types(found.volume_type_id))
            self._known[volume_id] = found
        return found

    def snapshot(self, snapshot_id: str) -> types.Snapshot:
        """Return a snapshot with its volume, as they were when claimed, or as SQL has them now."""
        found = self._known.get(snapshot_id) or self._read("snapshot", snapshot_id)
        if not isinstance(found, types.Snapshot):
            raise exception.SnapshotNotFound(id=snapshot_id)
        if found.volume is None:
            found = dataclasses.replace(found, volume=self.volume(found.volume_id))
            self._known[snapshot_id] = found
        return found

    def group(self, group_id: str) -> types.Group:
        """Return a group as it was when it was claimed, or as SQL has it now."""
        found = self._known.get(group_id) or self._read("group", group_id)
        if not isinstance(found, types.Group):
            raise exception.GroupNotFound(id=group_id)
        return found

    def cgsnapshot(self, cgsnapshot_id: str) -> types.CgSnapshot:
        """Return a cgsnapshot as it was when it was claimed, or as SQL has it now."""
        found = self._known.get(cgsnapshot_id) or self._read("cgsnapshot", cgsnapshot_id)
        if not isinstance(found, types.CgSnapshot):
            raise exception.CgSnapshotNotFound(id=cgsnapshot_id)
        return found

    def backup(self, backup_id: str) -> types.Backup:
        """Return a backup as it was when it was claimed, or as SQL has it now."""
        found = self._known.get(backup_id) or self._read("backup", backup_id)
        if not isinstance(found, types.Backup):
            raise exception.BackupNotFound(id=backup_id)
        return found

    def _read(self, resource: str, resource_id: str) -> types.Resource | None:
        with self.database.reader() as conn:
            row = claims.row(conn, resource, resource_id)
        if row is None:
            return None
        if resource == "volume":
            found: types.Resource = records.volume(row, self.backend.types(row.volume_type_id))
        else:
            found = records.OF[resource](row)
        self._known[resource_id] = found
        return found

    def check(self) -> None:
        """Return unless the operation is to stop; past its pivot it never is.

        :raises Cancelled: somebody asked for it.
        """
        if self.active.cancel.is_set() and not self.pivoted:
            raise exception.Cancelled(hint=f"volmgr operation show {self.id}")

    def progress(self, fraction: float) -> None:
        """Say how far the work is, 0 to 1; written at most once a second.

        :raises Cancelled: the operation is to stop. :raises LeaseLost: it is not this worker's any more.
        """
        self.check()
        self._progress = max(0.0, min(1.0, fraction))
        if self.clock.monotonic() - self._written >= PROGRESS_INTERVAL:
            self._write()

    def checkpoint(self, **data: Any) -> None:
        """Keep JSON values in the journal now, so that a later run of the step goes on from them.

        :raises Cancelled: the operation is to stop. :raises LeaseLost: it is not this worker's any more.
        """
        self.check()
        self.keep(**data)
        self._write()

    def keep(self, **data: Any) -> None:
        """Keep JSON values with the next write of the progress, which is at most a few seconds away."""
        self.data.setdefault("checkpoint", {}).update(data)

    @property
    def checkpoints(self) -> dict[str, Any]:
        """What :meth:`checkpoint` kept."""
        return dict(self.data.get("checkpoint") or {})

    def _write(self) -> None:
        def write() -> None:
            with self.database.writer() as conn:
                operations.renew(conn, self.id, self.epoch, self.clock.now(), self._progress, self.data)

        self.database.repeating(write)
        self._written = self.clock.monotonic()

    def wait(self, come: Callable[[Any], bool], what: str) -> None:
        """Set the operation aside until another worker wakes it, with no thread that waits; its step is run again.

        :param come: tells, in the transaction that sets it aside, whether there is nothing to wait for any more; then
            this returns. :param what: what it waits for, in words. :raises Waiting: it is set aside.
        """
        self.check()
        self.data["why"] = {"code": "", "message": what}

        def write() -> bool:
            with self.database.writer() as conn:
                # Its row first. Who wakes it has written what is waited for: that is seen here, or that one waits.
                operations.touch(conn, self.id, self.epoch)
                if come(conn):
                    return False
                now = self.clock.now()
                operations.park(
                    conn, self.id, self.epoch, now, reason="worker", data=self.data, error=None,
                    not_before=now + LOOK_INTERVAL,
                )
                return True

        if self.database.repeating(write):
            raise exception.Waiting(id=self.id)

    def note(self, **values: Any) -> None:
        """Write where the operation is, with its data."""

        def write() -> None:
            with self.database.writer() as conn:
                operations.note(conn, self.id, self.epoch, self.clock.now(), data=self.data, **values)

        self.database.repeating(write)


class Runner:
    """Does one operation after another, in the threads that an executor gives.

    :param killpoint: called with ``verb/step/when`` at every step boundary; the chaos tests end the process there.
    """

    def __init__(
        self, database: Database, backend: Backend, clock: Clock, killpoint: Callable[[str], None] | None = None
    ) -> None:
        self.database = database
        self.backend = backend
        self.clock = clock
        self.killpoint = killpoint or (lambda _name: None)

    def run(
        self,
        record: types.OperationRecord,
        active: Active,
        known: dict[str, types.Resource] | None = None,
    ) -> None:
        """Run an operation to its end, or set it aside; it must be this worker's (state running or undoing).

        :param known: the rows that admission read, so that they need not be read again.
        """
        cls = registry.find(record.verb, record.version)
        if cls is None:
            LOG.warning("Operation %s (%s version %d) is left to newer code", record.id, record.verb, record.version)
            return
        task = Task(
            record, database=self.database, backend=self.backend, clock=self.clock, active=active, known=known
        )
        operation = cls(cls.args(**record.args))
        try:
            self._run(operation, task)
        except exception.Waiting:
            self.killpoint(f"{record.verb}/-/waiting")
        except exception.LeaseLost:
            LOG.warning("Operation %s is another worker's now; this one stops", record.id)
        finally:
            active.done.set()

    def refuse(self, record: types.OperationRecord, error: exception.VolmgrError, *, final: bool = False) -> None:
        """End an operation that is this worker's without doing or undoing any step: refused, or abandoned.

        :param final: it is not tried elsewhere.
        """
        cls = registry.find(record.verb, record.version)
        if cls is None:
            raise exception.Unsupported(f"{record.verb} version {record.version} is not known to this worker")
        task = Task(record, database=self.database, backend=self.backend, clock=self.clock, active=Active())
        self._fail(cls(cls.args(**record.args)), task, error, final=final)

    def _tell(self, word: str, task: Task, error: exception.VolmgrError | None = None) -> None:
        """Tell whoever listens and measures."""
        if word != "start" and self.backend.metrics.enabled:
            self.backend.metrics.operation(task.operation, self.clock.now(), error)
        if self.backend.notifications.enabled:
            known = task.known(task.operation.resource_id)
            self.backend.notifications.operation(word, task.operation, known, error)

    def _run(self, operation: Operation[Any], task: Task) -> None:
        steps = list(operation.steps(task))
        begun = next((i for i, step in enumerate(steps) if step.name == task.operation.step), 0)
        recovering = task.operation.epoch > 1
        if task.operation.deaths >= MAX_DEATHS:
            self._park(task, "operator", exception.Inconsistent(
                f"The worker died {task.operation.deaths} times while it ran this operation",
                hint=f"Read the log, then: volmgr operation retry {task.id}, or: volmgr operation abandon {task.id}",
            ), forward=task.operation.error is None)
            return
        if task.operation.error is not None:
            recorded = exception.from_primitive(task.operation.error)
            self._undo(operation, task, steps[: begun + (0 if untouched(recorded) else 1)], recorded)
            return
        if not recovering:
            self._tell("start", task)
        error = self._forward(operation, task, steps, begun, recovering)
        if error is None:
            self._succeed(operation, task)

    def _forward(
        self, operation: Operation[Any], task: Task, steps: list[Step], begun: int, recovering: bool
    ) -> BaseException | None:
        """Do the steps; returns what stopped them, after it has been dealt with."""
        progress = Progress(self, operation, task, steps, begun, recovering)
        try:
            if len(steps) <= 1:
                for index in range(len(steps)):
                    progress.execute(index)
            else:
                from volmgr import flow

                flow.run(operation.verb, [
                    flow.Link(step.name, bind(progress.execute, i), bind(progress.revert, i))
                    for i, step in enumerate(steps)
                ])
        except INTERRUPTIONS:
            raise
        except Exception as error:
            self._failed(operation, task, steps, progress, error)
            return error
        return None

    def _failed(
        self, operation: Operation[Any], task: Task, steps: list[Step], progress: Progress, error: Exception
    ) -> None:
        if progress.lost is not None:
            raise progress.lost
        known = ours(error, operation.verb, task.id)
        if progress.pivoted:
            # From the pivot on there is no way back: it goes on when the backend answers, or an operator decides.
            itself = known.retryable or operation.persistent
            self._park(task, "backend" if itself else "operator", known, forward=True)
        elif operation.persistent and not isinstance(known, exception.Cancelled):
            self._park(task, "backend", known, forward=True)
        elif len(steps) <= 1:
            self._undo(operation, task, steps[: progress.reached], known)
        elif progress.undo_error is not None:
            self._park_undo(task, known, progress.undo_error)
        else:
            self._fail(operation, task, known)

    def _undo(
        self, operation: Operation[Any], task: Task, begun: Sequence[Step], error: exception.VolmgrError
    ) -> None:
        """Take back steps without taskflow: for operations of one step, and when a later run goes on undoing."""
        if any(step.undo for step in begun) and task.operation.error is None:
            task.note(state="undoing", error=exception.to_primitive(error))
        for step in reversed(begun):
            if step.undo is None:
                continue
            self.killpoint(f"{operation.verb}/{step.name}/undo")
            try:
                take_back(step, task)
                self.killpoint(f"{operation.verb}/{step.name}/undone")
            except INTERRUPTIONS:
                raise
            except Exception as undo_error:
                LOG.exception("Undoing %s of operation %s failed", step.name, task.id)
                self._park_undo(task, error, undo_error)
                return
        self._fail(operation, task, error)

    def _succeed(self, operation: Operation[Any], task: Task) -> None:
        self.killpoint(f"{operation.verb}/-/close")

        def close() -> None:
            with self.database.writer() as conn:
                tx = Closing(conn, task.operation, task.epoch, self.clock.now(), self.backend.cipher)
                result = operation.commit(task, tx)
                tx.finish(result=result)

        self.settle(task, close, lambda found: found.finished)
        self.killpoint(f"{operation.verb}/-/closed")
        self._tell("end", task)
        try:
            operation.committed(task)
        except exception.VolmgrError as error:
            LOG.error("After operation %s (%s) its export does not follow yet: %s", task.id, operation.verb, error)

    def _move(self, operation: Operation[Any], task: Task, place: Place) -> None:
        """Hand an operation that has failed here to the worker of another place, with its history."""

        def hand_over() -> None:
            with self.database.writer() as conn:
                tx = Closing(conn, task.operation, task.epoch, self.clock.now(), self.backend.cipher)
                operation.move(task, tx, place)
                data = {"history": task.data["history"]}
                operations.hand_over(conn, task.id, task.epoch, self.clock.now(), host=place.service, data=data)

        self.settle(task, hand_over, lambda found: found.state == "queued" or found.epoch != task.epoch)
        self.backend.ring(place.service)

    def _fail(
        self, operation: Operation[Any], task: Task, error: exception.VolmgrError, *, final: bool = False
    ) -> None:
        if not final and (place := operation.again(task, error)) is not None:
            LOG.warning("Operation %s (%s) failed and is tried again on %s: %s", task.id, operation.verb, place, error)
            self._move(operation, task, place)
            return
        LOG.warning("Operation %s (%s %s) failed: %s", task.id, operation.verb, operation.resource_id, error)
        self.killpoint(f"{operation.verb}/-/fail")

        def close() -> None:
            with self.database.writer() as conn:
                tx = Closing(conn, task.operation, task.epoch, self.clock.now(), self.backend.cipher)
                operation.abort(task, tx, error)
                tx.finish(error=exception.to_primitive(error))

        self.settle(task, close, lambda found: found.finished)
        self.killpoint(f"{operation.verb}/-/failed")
        self._tell("error", task, error)

    def settle(
        self, task: Task, write: Callable[[], None], is_done: Callable[[types.OperationRecord], bool]
    ) -> None:
        """Do a transaction exactly once; when the connection is lost at COMMIT, the journal says whether it was done.

        :param is_done: tells from the operation's row whether the transaction has committed.
        """
        def look() -> types.OperationRecord | None:
            with self.database.reader() as conn:
                return operations.get(conn, task.id)

        while True:
            try:
                self.database.retrying(write)
                return
            except CommitUnknown:
                found = self.database.retrying(look)
                if found is None or is_done(found):
                    return

    def _park_undo(self, task: Task, error: exception.VolmgrError, undo_error: BaseException) -> None:
        both = exception.UndoFailed(
            cause=str(error),
            undo_cause=str(undo_error),
            hint=f"It is undone when the backend answers again, or at once by: volmgr operation retry {task.id}",
        )
        self._park(task, "backend", both)

    def _park(self, task: Task, reason: str, error: exception.VolmgrError, *, forward: bool = False) -> None:
        tries = int(task.data.get("tries", 0))
        task.data["tries"] = tries + 1
        task.data["why"] = exception.to_primitive(error)
        later = self.clock.now() + datetime.timedelta(seconds=BACKOFF[min(tries, len(BACKOFF) - 1)])
        LOG.error("Operation %s (%s) is parked, %s: %s", task.id, task.operation.verb, reason, error)

        def write() -> None:
            with self.database.writer() as conn:
                operations.park(
                    conn,
                    task.id,
                    task.epoch,
                    self.clock.now(),
                    reason=reason,
                    data=task.data,
                    error=None if forward else exception.to_primitive(error),
                    not_before=later if reason == "backend" else None,
                )

        self.database.repeating(write)
        self.killpoint(f"{task.operation.verb}/-/parked")

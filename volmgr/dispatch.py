# SPDX-License-Identifier: Apache-2.0
"""From a request to a journal row, and from a journal row to a run: the worker's side of the journal.

Admission is one transaction; the row is the queue and messages are doorbells. What this process admits for itself it
runs at once; everything else is found by the pump, which the bell wakes and a short poll of an index backs up. This
module knows no RPC and no verb.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from volmgr import exception, logs, names, types
from volmgr.context import RequestContext
from volmgr.db import claims, members, operations, records
from volmgr.db.admission import MISSING, Admitting, Blocked
from volmgr.db.engine import CommitUnknown, Database, is_duplicate
from volmgr.operations import advice, meeting
from volmgr.operations.base import Args, Claim, Lane, Operation, Policy, request_key
from volmgr.operations.registry import find, while_down
from volmgr.outcomes import Outcomes, answer
from volmgr.progress import INTERRUPTIONS
from volmgr.runtime import Clock, Executor
from volmgr.steering import Steering
from volmgr.tasks import Active, Backend, Runner

LOG = logging.getLogger(__name__)
T = TypeVar("T")

POLL_INTERVAL = 1.0
PUMP_LIMIT = 200
#: how often an admission is tried whose obstacle has gone each time that it is looked at.
ADMISSION_TRIES = 10


class Dispatcher(Steering, Outcomes):
    """The journal of one worker.

    :param incarnation: the UUID of this life of the worker. :param bulk_slots: how many long operations run at once.
    """

    def __init__(
        self,
        database: Database,
        backend: Backend,
        *,
        executor: Executor,
        clock: Clock,
        incarnation: str,
        bulk_slots: int = 2,
        killpoint: Callable[[str], None] | None = None,
    ) -> None:
        self.database = database
        self.backend = backend
        self.executor = executor
        self.clock = clock
        self.incarnation = incarnation
        self.bulk_slots = bulk_slots
        #: whether the backend is down: nothing is to run but what may bring it up; requests are admitted all the same.
        self.paused = False
        self.runner = Runner(database, backend, clock, killpoint)
        self._killpoint = killpoint or (lambda _name: None)
        self._active: dict[str, Active] = {}
        self._lanes: dict[str, str] = {}
        #: whether the journal had rows that could not be started: then the end of any operation may let one go on.
        self._backlog = True
        #: what a thread of this process had to leave, and whether that counts as a death of it.
        self._dropped: deque[tuple[str, bool]] = deque()
        self._bell = threading.Event()
        self._stopping = threading.Event()

    # --- admission ------------------------------------------------------------------------------------------------

    def submit(self, context: RequestContext, cls: type[Operation[Any]], arguments: Args) -> dict[str, Any]:
        """Admit a request, or join the one it repeats.

        :returns: ``{"operation_id", "state", "result"}``; whatever becomes of it, a repeat is answered the same.
        :raises Unsupported: the driver cannot. :raises Conflict, NotFound, QuotaExceeded, Moved: nothing was changed.
        """
        operation = cls(arguments)
        try:
            return self._submit(context, operation)
        except exception.VolmgrError as error:
            if error.retryable:
                raise
            if (other := self._refused(context, operation, error)) is None:
                raise
            return other

    def _check_support(self, operation: Operation[Any]) -> None:
        for verb in operation.required():
            if not self.backend.driver.supports(verb):
                raise exception.Unsupported(verb=verb, hint=f"The driver {type(self.backend.driver).__name__} cannot")
            if (why := self.backend.driver.lacks.get(verb)) is not None:
                raise exception.Unsupported(verb=verb, hint=why)

    def _check_thawed(self, operation: Operation[Any], conn: Any = None) -> None:
        if self.backend.frozen(conn) and not operation.while_frozen:
            host = self.backend.settings.host
            raise exception.Conflict(
                f"The backend {host} is frozen: it takes no changes",
                hint=f"volmgr backend thaw {host}", resource="service", id=host, status="frozen",
            )

    def _submit(self, context: RequestContext, operation: Operation[Any]) -> dict[str, Any]:
        cls, arguments = type(operation), operation.a
        key = request_key(context, cls.verb, arguments)
        if operation.asks:
            if (joined := self._joined(key, cls.verb, context)) is not None:
                return joined
            operation.belongs(self.backend, lambda volume_id: self._visible(volume_id, context))
            self._check_support(operation)
        operation_id = str(uuid.uuid4())
        self._killpoint(f"{cls.verb}/-/received")
        prepared = operation.prepare(self.backend, context, lambda volume_id: self._visible(volume_id, context))
        row = self._row(operation, operation_id, key, context, claimed=True)

        def admit() -> Admitting:
            with self.database.writer() as conn:
                tx = self._admitting(conn, operation_id, context, prepared)
                if (blocked := tx.take(operation.claims())) is not None:
                    raise Blocked(blocked)
                operation.admit(tx)
                # Only now is it known that the resource is here, and not with a driver that can do other things.
                if tx.service == self.backend.settings.host:
                    self._check_support(operation)
                    self._check_thawed(operation, conn)
                operation.claimed(tx)
                tx.insert_operation(self._for(tx.service, row))
                tx.settle_quota()
                return tx

        for _ in range(ADMISSION_TRIES):
            try:
                tx = self._commit(admit, operation, operation_id, key, context)
                break
            except Blocked as error:
                told = self._blocked(operation, operation_id, key, context, error.claim, prepared)
                if told is not None:
                    return told
        else:
            raise exception.Busy(resource=cls.resource, id=operation.resource_id, hint=f"Later, or: {advice.AUDIT}")
        if isinstance(tx, dict):
            return tx
        self._killpoint(f"{cls.verb}/-/admitted")
        operation.admitted(self.backend, tx)
        return self._launch(self._for(tx.service, row), tx)

    def _for(self, service: str, row: dict[str, Any]) -> dict[str, Any]:
        """Return an operation's row as it is for the worker that is to run it."""
        if service == self.backend.settings.host:
            return row
        return {**row, "host": service, "state": "queued", "epoch": 0, "incarnation": None, "started_at": None}

    def _commit(
        self, write: Callable[[], T], operation: Operation[Any], operation_id: str, key: str, context: RequestContext
    ) -> T | dict[str, Any]:
        """Do an admission's transaction; what it repeats, or what its lost connection left open, is an answer."""
        try:
            return self.database.retrying(write)
        except Blocked:
            raise
        except CommitUnknown:
            return self._look_up(operation_id)
        except Exception as error:
            if (joined := self._joined(key, operation.verb, context)) is not None:
                return joined
            if not is_duplicate(error):
                raise
            with self.database.reader() as conn:
                obstacle = claims.obstacle(conn, Claim(operation.resource, operation.resource_id, "delete"))
            return self._join(context, operation, meeting.taken(operation, obstacle, context.project_id, context.scope))

    def _look_up(self, operation_id: str) -> dict[str, Any]:
        """Settle an admission whose connection broke at COMMIT: the journal says whether it had committed."""
        try:
            with self.database.reader() as conn:
                found = operations.get(conn, operation_id)
        except INTERRUPTIONS:
            self._drop(operation_id, died=False)  # it may be ours already, and nobody runs it
            raise
        if found is None:
            raise exception.BackendDown("The database lost the request", hint="Send it again")
        if found.state == "running":
            self._enqueue(found)
        return answer(found)

    def _launch(self, values: dict[str, Any], tx: Admitting) -> dict[str, Any]:
        if values["host"] != self.backend.settings.host:
            self.backend.ring(values["host"])
        elif values["state"] == "queued":
            self.ring()
        else:
            known = {**records.NEW_OPERATION, **values, "claims": tx.held, "data": tx.data or None}
            self._enqueue(types.OperationRecord(**known), tx.claimed)
        return {"operation_id": values["id"], "state": values["state"], "result": None}

    def _admitting(
        self, conn: Any, operation_id: str, context: RequestContext, prepared: Any = None
    ) -> Admitting:
        return Admitting(
            conn,
            operation_id=operation_id,
            now=self.clock.now(),
            settings=self.backend.settings,
            project_id=context.project_id,
            user_id=context.user_id,
            scope=context.scope,
            prepared=prepared,
        )

    def _row(
        self, operation: Operation[Any], operation_id: str, key: str, context: RequestContext, *, claimed: bool
    ) -> dict[str, Any]:
        now = self.clock.now()
        lane = operation.lane_on(self.backend.driver)
        at_once = claimed and lane is not Lane.BULK and not self._rests(operation.while_down)
        return {
            "id": operation_id,
            "request_key": key,
            "verb": operation.verb,
            "version": operation.version,
            "resource": operation.resource,
            "resource_id": operation.resource_id,
            "host": self.backend.settings.host,
            "state": "running" if at_once else "queued",
            "lane": str(lane),
            "claimed": claimed,
            "epoch": 1 if at_once else 0,
            "incarnation": self.incarnation if at_once else None,
            "context": context.to_dict(),
            "args": operation.a.to_json(),
            "project_id": context.project_id,
            "created_at": now,
            "started_at": now if at_once else None,
        }

    def _visible(self, volume_id: str, context: RequestContext) -> types.Volume:
        with self.database.reader() as conn:
            return self._admitting(conn, "", context).peek_volume(volume_id)

    def joined(self, context: RequestContext, verb: str) -> dict[str, Any] | None:
        """Return the answer of the operation that a request with a key of its own repeats, or None."""
        return self._joined(context.request_key, verb, context) if context.request_key else None

    def _blocked(
        self,
        operation: Operation[Any],
        operation_id: str,
        key: str,
        context: RequestContext,
        claim: Claim,
        prepared: Any,
    ) -> dict[str, Any] | None:
        """Decide about a request whose resource is held or in another state: join, wait or refuse; None: try again."""
        if (joined := self._joined(key, operation.verb, context)) is not None:
            return joined
        with self.database.reader() as conn:
            obstacle = claims.obstacle(conn, claim)
        if obstacle is None:
            if claim not in operation.claims():
                return None  # a part of the resource that went with the operation in the way
            return self._done_already(context, operation, operation.absent(claim))
        if context.scope is not None and obstacle.project_id != context.scope:
            raise MISSING[claim.resource](id=claim.id)
        if obstacle.host and names.service_of(obstacle.host) != self.backend.settings.host:
            raise exception.Moved(host=obstacle.host)
        self._check_support(operation)
        self._check_thawed(operation)
        if meeting.gone(claim, obstacle):
            return None
        verdict, holder = meeting.judge(operation, claim, obstacle)
        if verdict is Policy.SAME and holder is not None:
            return self._join(context, operation, holder)
        if verdict is not Policy.WAIT or meeting.stands_still(obstacle):
            raise meeting.refusal(operation, claim, obstacle)

        def wait() -> None:
            with self.database.writer() as conn:
                tx = self._admitting(conn, operation_id, context, prepared)
                operation.admit(tx)
                tx.insert_operation(self._row(operation, operation_id, key, context, claimed=False))
                tx.settle_quota()

        told = self._commit(wait, operation, operation_id, key, context)
        self._killpoint(f"{operation.verb}/-/queued")
        self.ring()
        return told or {"operation_id": operation_id, "state": "queued", "result": None}

    # --- running --------------------------------------------------------------------------------------------------

    def _rests(self, while_down: bool = False) -> bool:
        """Return whether nothing is to be begun here: the backend is down, or other members of a cluster are to.

        :param while_down: about what runs on a backend that is down.
        """
        membership = self.backend.membership
        return (self.paused and not while_down) or (membership is not None and not membership.may_begin())

    def ring(self) -> None:
        """Wake the pump: the journal has something new."""
        self._backlog = True
        self._bell.set()

    def _enqueue(
        self, record: types.OperationRecord, known: dict[str, types.Resource] | None = None
    ) -> None:
        active = Active()
        if record.cancel:
            active.cancel.set()
        self._active[record.id] = active
        self._lanes[record.id] = record.lane

        @logs.about(record.context.get("request_id"), record.resource_id, record.id)
        def work() -> None:
            try:
                self.runner.run(record, active, known)
            except INTERRUPTIONS as error:
                LOG.warning("Operation %s (%s) goes on when the journal answers: %s", record.id, record.verb, error)
                self._drop(record.id, died=False)
            except Exception:
                # What it holds is still held, so it is taken up again as after a crash, and parked if that goes on.
                LOG.exception("Operation %s (%s) was left in the middle", record.id, record.verb)
                self._drop(record.id, died=True)
            finally:
                self._active.pop(record.id, None)
                self._lanes.pop(record.id, None)
                if self._backlog:
                    self._bell.set()

        self.executor.submit(record.lane, work)

    def loop(self) -> None:
        """Pump until :meth:`stop`; the worker runs this in a thread of its own."""
        while not self._stopping.is_set():
            self.clock.wait(self._bell, POLL_INTERVAL)
            self._bell.clear()
            if self._stopping.is_set():
                return
            try:
                self.pump()
            except Exception:
                LOG.exception("Looking for queued operations failed; it is tried again in %s s", POLL_INTERVAL)

    def stop(self) -> None:
        """Take no more work from the journal."""
        self._stopping.set()
        self._bell.set()

    def let_go(self) -> int:
        """After the drain: leave what is unfinished to the next life of this worker; returns how many operations."""
        with self.database.writer() as conn:
            return operations.let_go(conn, self.backend.settings.host, self.incarnation)

    def pump(self) -> int:
        """Start what is due and can be started; returns how many were."""
        self._heed()
        verbs = while_down() if self.paused else None
        if self._rests(while_down=bool(verbs)):
            return 0
        now, host = self.clock.now(), self.backend.settings.host
        with self.database.reader() as conn:
            waiting = operations.due(conn, host, now, PUMP_LIMIT, verbs) + operations.retryable(conn, host, now, verbs)
        resumed = self._resume(verbs)
        started = sum(self._try(record) for record in waiting if record.id not in self._active)
        self._backlog = started < len(waiting) or len(waiting) >= PUMP_LIMIT
        return started + resumed

    def _resume(self, verbs: Sequence[str] | None) -> int:
        """Take up what a thread of this process had to leave, because the database was away or by a fault of ours.

        :param verbs: only of these.
        """
        count = 0
        for _ in range(len(self._dropped)):
            operation_id, died = self._dropped[0]
            with self.database.reader() as conn:
                record = operations.get(conn, operation_id)
            if record is not None and verbs is not None and record.verb not in verbs:
                self._dropped.rotate(-1)
                continue
            mine = record is not None and record.incarnation == self.incarnation and operation_id not in self._active
            if record is not None and mine and record.state in ("running", "undoing"):
                count += self._take_over(record if died else dataclasses.replace(record, incarnation=None))
            self._dropped.popleft()
        return count

    def _drop(self, operation_id: str, *, died: bool) -> None:
        self._dropped.append((operation_id, died))
        self.ring()

    def _take_over(self, record: types.OperationRecord) -> bool:
        if find(record.verb, record.version) is None:
            LOG.warning("Operation %s (%s version %d) is left to newer code", record.id, record.verb, record.version)
            return False
        try:
            with self.database.writer() as conn:
                got = operations.take_over(conn, record, incarnation=self.incarnation, now=self.clock.now())
        except CommitUnknown:
            self._drop(record.id, died=False)
            return False
        if got:
            self._killpoint(f"{record.verb}/-/taken")
            self._enqueue(dataclasses.replace(
                record,
                epoch=record.epoch + 1,
                deaths=record.deaths + (1 if record.incarnation else 0),
                incarnation=self.incarnation,
            ))
        return got

    def _try(self, record: types.OperationRecord) -> bool:
        """Start an operation if it can be; one that cannot even be looked at must not stop those behind it."""
        try:
            return self._start(record)
        except CommitUnknown:
            self._drop(record.id, died=False)  # it may be ours already, and nobody runs it
        except exception.LeaseLost:
            return False
        except INTERRUPTIONS:
            raise
        except Exception:
            LOG.exception("Operation %s (%s) cannot be started; it is tried again", record.id, record.verb)
        return False

    def _start(self, record: types.OperationRecord) -> bool:
        if record.lane == Lane.BULK and sum(lane == Lane.BULK for lane in self._lanes.values()) >= self.bulk_slots:
            return False
        cls = find(record.verb, record.version)
        if cls is None:
            return False
        if record.cancel and not record.claimed:
            return self._refuse(record, exception.Cancelled(hint=f"volmgr operation show {record.id}"))
        operation = cls(cls.args(**record.args))
        context = RequestContext.from_dict(record.context)
        data = dict(record.data or {})

        def begin() -> Admitting | None:
            with self.database.writer() as conn:
                tx = self._admitting(conn, record.id, context)
                tx.held = list(record.claims)
                if not record.claimed:
                    if (blocked := tx.take(operation.claims())) is not None:
                        raise Blocked(blocked)
                    operation.claimed(tx)
                    data.update(tx.data)
                if not record.error:
                    operation.arrive(tx)
                got = operations.start(
                    conn, record, incarnation=self.incarnation, now=self.clock.now(), data=data or None, held=tx.held
                )
                tx.settle_quota()
                return tx if got else None

        try:
            tx = self.database.retrying(begin)
        except Blocked as error:
            return self._still_blocked(record, operation, error.claim)
        except INTERRUPTIONS:
            raise
        except exception.VolmgrError as error:
            return self._refuse(record, error)
        if tx is None:
            return False
        self._killpoint(f"{record.verb}/-/started")
        self._enqueue(dataclasses.replace(
            record,
            state="undoing" if record.error else "running",
            claimed=True,
            claims=tx.held,
            epoch=record.epoch + 1,
            incarnation=self.incarnation,
            data=data or None,
            parked_for=None,
        ), tx.claimed)
        return True

    def _still_blocked(self, record: types.OperationRecord, operation: Operation[Any], claim: Claim) -> bool:
        with self.database.reader() as conn:
            obstacle = claims.obstacle(conn, claim)
        if obstacle is None and claim in operation.claims():
            try:
                operation.absent(claim)
            except exception.VolmgrError as error:
                return self._refuse(record, error)
            return self._finish_absent(record)
        if obstacle is None or meeting.gone(claim, obstacle):
            return False  # what was in the way has ended since the claim was tried
        verdict, _holder = meeting.judge(operation, claim, obstacle)
        if verdict is Policy.WAIT and not meeting.stands_still(obstacle):
            return False
        return self._refuse(record, meeting.refusal(operation, claim, obstacle))

    def _finish_absent(self, record: types.OperationRecord) -> bool:
        with self.database.writer() as conn:
            operations.finish(conn, record.id, record.epoch, self.clock.now(), result={"unchanged": True})
        return True

    def _refuse(self, record: types.OperationRecord, error: exception.VolmgrError, *, final: bool = False) -> bool:
        """End an operation that does not run, in one transaction: a crash must not find it running without claims."""
        try:
            self.runner.refuse(record, error, final=final)
        except exception.LeaseLost:
            return False
        return True

    def recover(self, verbs: Sequence[str] | None = None) -> int:
        """Take over what an earlier incarnation of this worker had begun; returns how many operations.

        :param verbs: only of these.

        The caller holds the incarnation's lock: the earlier one and its children are gone. In a cluster it is what any
        life that is no member any more had begun.
        """
        host, count = self.backend.settings.host, 0
        while True:
            unknown = len(self._dropped)
            with self.database.reader() as conn:
                if self.backend.membership is None:
                    found = operations.abandoned(conn, host, self.incarnation, PUMP_LIMIT, verbs)
                else:
                    orphans = [records.operation(row) for row in members.orphans(conn, host, PUMP_LIMIT)]
                    found = [record for record in orphans if verbs is None or record.verb in verbs]
            before = count
            for record in found:
                count += self._take_over(record)
            # What was taken over by a commit whose outcome is unknown may be the earlier life's still: look again.
            if (len(found) < PUMP_LIMIT or count == before) and len(self._dropped) == unknown:
                return count

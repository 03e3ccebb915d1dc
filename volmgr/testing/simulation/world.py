# SPDX-License-Identifier: Apache-2.0
"""One schedule from its beginning to its end: lives of a worker, the clients outside, and what is asked of the result.

The database, the store and the target outlive the worker; messages that were not answered are sent again to its next
life, with the same key. When everything has come to rest, the result is judged: see :meth:`World.run`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from volmgr import exception, types
from volmgr.context import RequestContext
from volmgr.drivers.sim import MemoryStore
from volmgr.images.base import ImageInfo
from volmgr.targets.base import TargetConfig
from volmgr.testing.backups import MemoryStore as BackupMemory
from volmgr.testing.images import MemoryImages, MemoryImageStore
from volmgr.testing.simulation import judge, orphans
from volmgr.testing.simulation.bench import HOST, Beginning, Bench
from volmgr.testing.simulation.database import CommitLost
from volmgr.testing.simulation.plan import Plan, Request, Strike, uuid_of
from volmgr.testing.simulation.randomness import seeded
from volmgr.testing.simulation.rooms import copied
from volmgr.testing.simulation.scheduler import Life, Scheduler, Stuck
from volmgr.testing.simulation.worker import TARGETS, SimWorker

PREFIX = "iqn.2010-10.org.openstack:"
WAIT_TRIES = 200
_UNFINISHED = "SELECT id, verb, state, parked_for FROM operations WHERE state NOT IN ('done', 'failed') ORDER BY id"


@dataclass
class Answer:
    """What a client was told: a result, or an error's code."""

    result: Any = None
    code: str | None = None

    @property
    def operation_id(self) -> str | None:
        found = self.result.get("operation_id") if isinstance(self.result, dict) else None
        return str(found) if found else None


@dataclass
class Outcome:
    """What came of a schedule.

    :param violations: what is wrong, in words; none for a good schedule. :param steps: how long it was.
    :param places: the labels of the yield points that were reached, in order, before the world was judged.
    """

    violations: list[str]
    steps: int
    lives: int
    places: list[str] = field(default_factory=list)
    answers: dict[str, list[Answer]] = field(default_factory=dict)

IMAGE = b"an image"


class _Errors(logging.Handler):
    """Collects what the product logs as errors of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and not isinstance(record.exc_info[1], exception.VolmgrError):
            self.found.append(f"an error that is not typed: {record.getMessage()}: {record.exc_info[1]!r}")


class World:
    """See the module.

    :param driver: another class of the driver than the room's.
    :param trace: called with a line for everything that happens.
    :param places: whether :attr:`Outcome.places` is wanted.
    """

    def __init__(
        self,
        bench: Bench,
        plan: Plan,
        *,
        beginning: Beginning | None = None,
        start: float = 1000.0,
        driver: type[Any] | None = None,
        trace: Callable[[str], None] | None = None,
        places: bool = False,
    ) -> None:
        self.bench = bench
        self.plan = plan
        self.driver_class = driver
        self.store, exports = bench.reset(beginning)
        self.orphans = orphans.place(self.store, plan.orphans)
        self.scheduler = Scheduler(
            plan.order, switch=plan.switch, drift=plan.drift, strike=self._strike, trace=trace, start=start
        )
        config = TargetConfig(PREFIX, (types.Portal("127.0.0.1", 3260),), "/nonexistent")
        self.target = TARGETS[plan.transport](config)
        self.target.scheduler = self.scheduler
        self.target.exports.update(exports)
        self.backups = BackupMemory(lambda method: self.scheduler.reach(f"backup:{method}"))
        self.images = MemoryImageStore(lambda method: self.scheduler.reach(f"image:{method}"))
        for name in ("i0", "i1"):
            self.images.images[name] = ImageInfo(name, "local", "raw", "1", size=len(IMAGE)), IMAGE
        self.backups.objects.update(beginning.backups if beginning is not None else {})
        self.replicas = copied(beginning.replicas) if beginning is not None else MemoryStore("replicas")
        #: what offers were made with, by the offer's id; who asked has been told.
        self.keys = dict(beginning.keys) if beginning is not None else {}
        self.life: Life = Life("none")
        self.life.over = True
        self.worker: SimWorker | None = None
        self.lives = 0
        self.crashes = 0
        self.calm = False
        self.found: list[str] = []
        self.answers: dict[str, list[Answer]] = {}
        self.places: list[str] | None = [] if places else None
        self._strikes: dict[tuple[str, int], list[Strike]] = {}
        for strike in plan.strikes:
            self._strikes.setdefault((strike.at, strike.nth), []).append(strike)

    # --- what goes wrong ------------------------------------------------------------------------------------------

    def _strike(self, label: str, count: int, step: int) -> None:
        if self.calm:
            return
        if self.places is not None:
            self.places.append(label)
        for strike in (*self._strikes.get((label, count), ()), *self._strikes.get(("step", step), ())):
            self.scheduler.say(f"!!! {strike.action} at {label}#{count}")
            if strike.action == "crash":
                self.crash()
            elif strike.action == "stop":
                if (thread := self.scheduler.current) is not None and thread.life is not self.scheduler.outside:
                    self.scheduler.stop(thread.life, strike.seconds)
            elif strike.action == "lost":
                raise CommitLost
            elif strike.action == "delay":
                thread = self.scheduler.current
                if thread is not None and not thread.held:
                    self.scheduler.wait(lambda: False, strike.seconds, "delayed")
            else:
                raise self.bench.room.fault(strike)

    def crash(self) -> None:
        """End the worker's life at once."""
        self.crashes += 1
        self.scheduler.end(self.life)
        self.worker = None
        if self.plan.reboot:
            self.target.wipe()

    # --- lives ----------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Start a life whenever there is none."""
        while True:
            self.scheduler.wait(lambda: self.life.over, None, "keeper")
            self.lives += 1
            life = self.life = Life(f"life{self.lives}")
            self.scheduler.spawn(life, f"{life.name}/start", lambda life=life: self._begin(life))  # type: ignore[misc]

    def _begin(self, life: Life) -> None:
        worker = self._make(life, self.bench.conf, self.bench.options)
        worker.begin()
        self.worker = worker

    def _make(self, life: Life, conf: Any, options: Any) -> SimWorker:
        """Return a worker that has not begun yet."""
        driver = self.bench.room.driver(
            self.driver_class, HOST, self.target, self.store, self.scheduler,
            replica_store=self.replicas, active_backend_id=self._active(),
        )
        return SimWorker(
            conf,
            options,
            scheduler=self.scheduler,
            life=life,
            database=self.bench.database,
            cipher=self.bench.cipher,
            driver=driver,
            retention=self.plan.retention,
            audits=self.plan.audits,
            backups=self.backups,
            images=MemoryImages(self.images),
            caching=self.plan.stage == "pictured",
        )

    def _active(self) -> str | None:
        """Return on which replication target the backend works, as the worker reads it before it makes its driver."""
        rows = self.bench.raw(f"SELECT active_backend_id FROM services WHERE host = '{HOST}'")
        return rows[0][0] if rows else None

    # --- clients --------------------------------------------------------------------------------------------------

    def _client(self, requests: list[Request]) -> None:
        for request in requests:
            answer = self.ask(request)
            if request.wait and answer.operation_id:
                self._wait(request.name, answer.operation_id)

    def ask(self, request: Request) -> Answer:
        """Send a message until it is answered; its further copies arrive when they do."""
        for number, delay in enumerate(request.late):
            self.scheduler.spawn(
                self.scheduler.outside, f"{request.name}-copy{number}", lambda d=delay: self._late(request, d)  # type: ignore[misc]
            )
        box: list[Answer] = []
        while not box:
            life = self._post(request, box)
            self.scheduler.wait(lambda life=life: bool(box) or life.over, None, "answer")  # type: ignore[misc]
        return box[0]

    def _late(self, request: Request, delay: float) -> None:
        self.scheduler.wait(lambda: False, delay, "on its way")
        self._post(request, [])

    def _post(self, request: Request, box: list[Answer]) -> Life:
        """Hand a message to the worker, once there is one; returns its life."""
        self.scheduler.wait(lambda: self.worker is not None, None, "no worker")
        worker, life = self._serving()

        def handle() -> None:
            answer = self._call(worker, request)
            self.scheduler.say(f"answer to {request.name}: {answer.code or answer.result}")
            box.append(answer)
            self.answers.setdefault(request.name, []).append(answer)

        self.scheduler.say(f"message {request.name}: {request.verb} {request.args}")
        self.scheduler.spawn(life, f"{life.name}/{request.name}", handle)
        return life

    def _serving(self) -> tuple[SimWorker, Life]:
        """Return who gets the next message."""
        assert self.worker is not None
        return self.worker, self.life

    def _call(self, worker: SimWorker, request: Request) -> Answer:
        key = uuid_of(f"key of {request.name}")
        project = "q" if request.verb == "transfer_accept" else "p"
        context = RequestContext(
            project_id=project, user_id="u", is_admin=True, request_key=key, request_id=f"req-{key}", overwrite=False
        )
        try:
            arguments = {name: self._resolve(value) for name, value in request.args.items()}
            answer = Answer(getattr(worker.manager, request.verb)(context, **arguments))
            if request.verb == "transfer_create":
                self.keys[answer.result["id"]] = answer.result["auth_key"]
            return answer
        except _Unknown:
            return Answer(code="unknown")
        except exception.VolmgrError as error:
            return Answer(code=error.code)
        except Exception as error:
            self.found.append(f"{request.name} ({request.verb}) was answered with {error!r}")
            return Answer(code=type(error).__name__)

    def _resolve(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolve(item) for item in value]
        if not isinstance(value, str):
            return value
        if value.startswith("@"):
            return uuid_of(value[1:])
        if value.startswith("&"):
            return self.target.connector_of(value[1:])
        if value.startswith("%"):
            return self.keys.get(uuid_of(value[1:]), "no key is known")
        if value.startswith("$"):
            for answer in self.answers.get(value[1:], ()):
                if answer.operation_id:
                    return answer.operation_id
            raise _Unknown
        return value

    def _wait(self, name: str, operation_id: str) -> None:
        for number in range(WAIT_TRIES):
            arguments = {"operation_id": operation_id, "timeout": 5.0}
            answer = self.ask(Request(f"{name}.wait{number}", "wait_operation", arguments))
            view = answer.result
            if not view or view["state"] in ("done", "failed") or view.get("parked_for") == "operator":
                return

    # --- rest -----------------------------------------------------------------------------------------------------

    def unfinished(self) -> list[tuple[str, str, str, str | None]]:
        """Return (id, verb, state, parked for) of the operations that have not ended."""
        return self.bench.raw(_UNFINISHED)

    def _at_rest(self) -> bool:
        return not self.scheduler.busy and all(parked == "operator" for *_, parked in self.unfinished())

    def rest(self) -> None:
        """Let everything run until nothing would change any more.

        :raises Stuck: it does not come to that.
        """
        self.scheduler.run(self._at_rest)

    def do(self, requests: list[Request]) -> None:
        """Ask for something as one more client, and let it come to rest."""
        self.scheduler.spawn(self.scheduler.outside, "judge", lambda: self._client(requests))
        self.rest()

    # --- the whole ------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Run the schedule and judge it."""
        errors = _Errors()
        logger = logging.getLogger("volmgr")
        logger.addHandler(errors)
        try:
            with seeded(f"schedule {self.plan.order}"):
                self.bench.database.attend(self.scheduler)
                try:
                    self.play()
                    self._judge()
                except Stuck as stuck:
                    self.found.append(f"{stuck}; unfinished: {self.unfinished()}")
                finally:
                    self.close()
        finally:
            logger.removeHandler(errors)
        found = [*dict.fromkeys([*self.found, *self.scheduler.accidents, *errors.found])]
        return Outcome(found, self.scheduler.steps, self.lives, self.places or [], self.answers)

    def play(self) -> None:
        """Let the clients ask, and things go wrong, until there is rest."""
        self.scheduler.spawn(self.scheduler.outside, "keeper", self._keep, background=True)
        clients: dict[int, list[Request]] = {}
        for request in self.plan.requests:
            clients.setdefault(request.client, []).append(request)
        for number, requests in clients.items():
            self.scheduler.spawn(
                self.scheduler.outside, f"client{number}", lambda r=requests: self._client(r)  # type: ignore[misc]
            )
        self.rest()
        self.calm = True
        self.scheduler.switch = self.scheduler.drift = 0.0

    def close(self) -> None:
        """End all threads."""
        self.scheduler.end(self.life)
        self.scheduler.end(self.scheduler.outside)
        self.scheduler.run(lambda: True)
        self.bench.database.attend(None)

    def _judge(self) -> None:
        judge.judge(self)


class _Unknown(Exception):
    """The request that another one speaks of had no operation."""


# SPDX-License-Identifier: Apache-2.0
"""Threads that take turns by a seeded draw, and a clock that moves only when all of them wait.

Each piece of work is a greenlet; exactly one runs, until it comes to a yield point (:meth:`Scheduler.reach`) or waits.
A *life* is a set of threads that can be ended at once, wherever they are, as SIGKILL ends a process: what they would
still do, their ``finally`` clauses included, meets an exception at the first thing outside of themselves. This module
knows nothing of volumes.
"""

from __future__ import annotations

import contextlib
import datetime
import heapq
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from greenlet import getcurrent, greenlet

EPOCH = datetime.datetime(2030, 1, 1)
DRIFTS = (0.01, 0.6, 3.0, 20.0, 70.0)


class Crashed(BaseException):
    """The process of this thread is gone; no handler of the product catches it."""


class Stuck(Exception):
    """A schedule does not come to rest."""


class Life:
    """Threads that end together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.over = False
        #: the virtual second until which none of its threads goes on, as SIGSTOP stops a process.
        self.stopped_until = 0.0
        self.threads: list[Thread] = []


class Thread:
    """One thread of the simulation.

    :ivar ready: when it waits: whether it may go on. :ivar deadline: until when at most.
    :ivar background: whether it goes on for ever, so that its waiting is rest.
    :ivar held: above 0 inside of what is one instant to the others.
    """

    __slots__ = ("background", "deadline", "held", "life", "name", "raw", "ready")

    def __init__(self, name: str, life: Life, raw: greenlet, background: bool) -> None:
        self.background = background
        self.name = name
        self.life = life
        self.raw = raw
        self.ready: Callable[[], bool] | None = None
        self.deadline: float | None = None
        self.held = 0


class Lock:
    """A lock whose waiters are the scheduler's; as much of :class:`threading.Lock` as the product uses."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._owner: Thread | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; returns whether it was got within ``timeout`` seconds."""
        self._scheduler.reach("lock")
        if not self._is_free():
            limit = (timeout if timeout >= 0 else None) if blocking else 0.0
            self._scheduler.wait(self._is_free, limit, "lock-wait")
        if not self._is_free():
            return False
        self._owner = self._scheduler.current
        return True

    def release(self) -> None:
        """Let the next one have it."""
        self._owner = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.release()

    def _is_free(self) -> bool:
        return self._owner is None or self._owner.life.over


class Scheduler:
    """See the module.

    :param seed: of every decision. :param switch: the probability of a change of threads at a yield point.
    :param drift: the probability that a thread is slow there.
    :param strike: called with every label and how often it was reached; may raise, or end lives.
    :param trace: called with a line for everything that happens.
    :param start: virtual seconds after :data:`EPOCH` at which it begins.
    """

    def __init__(
        self,
        seed: int,
        *,
        start: float = 0.0,
        switch: float = 0.2,
        drift: float = 0.0,
        strike: Callable[[str, int, int], None] | None = None,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.switch = switch
        self.drift = drift
        self.steps = 0
        self.reached: Counter[str] = Counter()
        self.outside = Life("outside")
        #: threads of the product that an exception ended.
        self.accidents: list[str] = []
        self._strike = strike
        self._trace = trace
        self._elapsed = start
        self._threads: list[Thread] = []
        self._by_raw: dict[greenlet, Thread] = {}
        self._main = getcurrent()

    # --- the clock ------------------------------------------------------------------------------------------------

    def now(self) -> datetime.datetime:
        """Return the virtual time of day."""
        return EPOCH + datetime.timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return virtual seconds since the beginning."""
        return self._elapsed

    # --- what threads call ----------------------------------------------------------------------------------------

    @property
    def current(self) -> Thread | None:
        """The thread that runs now, None outside of all."""
        return self._by_raw.get(getcurrent())

    def reach(self, label: str) -> None:
        """A yield point: something may go wrong here, and another thread may go on instead.

        :raises Crashed: the thread's process is gone.
        """
        thread = self._alive()
        if thread is None:
            return
        self._note(label)
        if thread.life.stopped_until > self._elapsed and not thread.held:
            self._yield(thread)
        if thread.held:
            return  # inside a transaction: to all others it is one instant
        draw = self.random.random()
        if draw < self.drift:
            self.wait(lambda: False, DRIFTS[self.random.randrange(len(DRIFTS))], "slow")
        elif draw < self.drift + self.switch:
            self._yield(thread)

    def note(self, label: str) -> None:
        """A point at which something may go wrong, but nobody else goes on."""
        if self._alive() is not None:
            self._note(label)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """No other thread goes on inside."""
        thread = self._alive()
        if thread is None:
            yield
            return
        thread.held += 1
        try:
            yield
        finally:
            thread.held -= 1

    def wait(self, ready: Callable[[], bool], timeout: float | None, label: str = "wait") -> bool:
        """Wait until ``ready()``, at most ``timeout`` virtual seconds; returns whether it is."""
        thread = self._alive()
        if thread is None:
            raise RuntimeError(f"{label}: nobody waits outside of the simulation's threads")
        if thread.held:
            raise AssertionError(f"{thread.name} waits ({label}) inside a transaction")
        thread.ready = ready
        thread.deadline = None if timeout is None else self._elapsed + max(0.0, timeout)
        self._yield(thread)
        return ready()

    def _alive(self) -> Thread | None:
        thread = self._by_raw.get(getcurrent())
        if thread is not None and thread.life.over:
            raise Crashed
        return thread

    def _note(self, label: str) -> None:
        self.steps += 1
        self.reached[label] += 1
        if self._trace is not None:
            self.say(label)
        if self._strike is not None:
            self._strike(label, self.reached[label], self.steps)
            self._alive()

    def _yield(self, thread: Thread) -> None:
        self._main.switch()
        thread.ready = thread.deadline = None
        if thread.life.over:
            raise Crashed

    def say(self, text: str) -> None:
        """Add a line to the trace."""
        if self._trace is not None:
            thread = self.current
            name = thread.name if thread else "-"
            self._trace(f"{self.steps:5d} {self._elapsed:9.3f} {name:24s} {text}")

    # --- threads and lives ----------------------------------------------------------------------------------------

    def spawn(self, life: Life, name: str, work: Callable[[], None], *, background: bool = False) -> Thread:
        """Let ``work`` run as a thread of ``life``; one in the background goes on for ever."""

        def run() -> None:
            try:
                work()
            except Crashed:
                if not life.over:
                    raise
            except Exception as error:
                if life is self.outside:
                    raise
                self.accidents.append(f"the thread {name.partition('/')[2]} ended with {error!r}")

        raw = greenlet(run, self._main)
        thread = Thread(name, life, raw, background)
        self._threads.append(thread)
        life.threads.append(thread)
        self._by_raw[raw] = thread
        return thread

    def end(self, life: Life) -> None:
        """End a life at once; its threads unwind when :meth:`run` goes on."""
        life.over = True
        self.say(f"*** {life.name} dies")

    def stop(self, life: Life, seconds: float) -> None:
        """Let no thread of a life go on for so many virtual seconds; what is one instant to the others ends first."""
        life.stopped_until = self._elapsed + seconds
        self.say(f"*** {life.name} stops for {seconds:.0f} s")

    def _bury(self) -> None:
        for thread in [item for item in self._threads if item.life.over]:
            for _ in range(100):
                if thread.raw.dead:
                    break
                if not thread.raw:  # never started: there is nothing to unwind
                    break
                thread.raw.throw(Crashed)
            else:
                raise AssertionError(f"{thread.name} does not die: something swallows the end of its process")
            self._forget(thread)

    def _forget(self, thread: Thread) -> None:
        self._threads.remove(thread)
        thread.life.threads.remove(thread)
        del self._by_raw[thread.raw]

    # --- running --------------------------------------------------------------------------------------------------

    def run(self, done: Callable[[], bool], *, steps: int = 20_000, seconds: float = 4_000.0) -> None:
        """Let threads take turns until ``done()``, which is asked whenever all of them wait.

        :raises Stuck: that takes more steps or virtual seconds than it may, or nothing would ever go on.
        """
        last_step, last_second = self.steps + steps, self._elapsed + seconds
        while True:
            if any(thread.life.over for thread in self._threads):
                self._bury()
            able = [item for item in self._threads if self._is_able(item)]
            if not able:
                if done():
                    return
                self._advance()
                continue
            thread = able[0] if len(able) == 1 else able[self.random.randrange(len(able))]
            thread.raw.switch()
            if thread.raw.dead and not thread.life.over:
                self._forget(thread)
            if self.steps > last_step or self._elapsed > last_second:
                raise Stuck(f"no rest after {self.steps} steps and {self._elapsed:.0f} s; {self._picture()}")

    def _is_able(self, thread: Thread) -> bool:
        if thread.life.stopped_until > self._elapsed:
            return False
        if thread.ready is None:
            return True
        return thread.ready() or (thread.deadline is not None and thread.deadline <= self._elapsed)

    def _advance(self) -> None:
        deadlines = [item.deadline for item in self._threads if item.deadline is not None]
        stopped = [item.life.stopped_until for item in self._threads if item.life.stopped_until > self._elapsed]
        deadlines = [at for at in deadlines if at > self._elapsed or not stopped] + stopped
        if not deadlines:
            raise Stuck(f"nothing would ever go on; {self._picture()}")
        self._elapsed = max(self._elapsed, heapq.nsmallest(1, deadlines)[0])

    def _picture(self) -> str:
        return "threads: " + (", ".join(thread.name for thread in self._threads) or "none")

    @property
    def busy(self) -> bool:
        """Whether a thread that is not in the background has not ended."""
        return any(not thread.background for thread in self._threads)


class VirtualClock:
    """The clock of :mod:`volmgr.runtime`, by a scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def now(self) -> datetime.datetime:
        return self._scheduler.now()

    def monotonic(self) -> float:
        return self._scheduler.monotonic()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        if event.is_set():
            return True
        return self._scheduler.wait(event.is_set, timeout, "clock")


class Pools:
    """The executor of :mod:`volmgr.runtime`, by a scheduler: so many threads in each lane.

    :param sizes: threads by lane.
    """

    def __init__(self, scheduler: Scheduler, life: Life, sizes: dict[str, int]) -> None:
        self._scheduler = scheduler
        self._life = life
        self._free = dict(sizes)
        self._count = 0

    def submit(self, lane: str, work: Callable[[], None]) -> None:
        def run() -> None:
            if not self._free[lane]:
                self._scheduler.wait(lambda: self._free[lane] > 0, None, "lane")
            self._free[lane] -= 1
            try:
                work()
            finally:
                self._free[lane] += 1

        self._count += 1
        self._scheduler.spawn(self._life, f"{self._life.name}/{lane}-{self._count}", run)

    def shutdown(self, timeout: float) -> bool:
        return self._scheduler.wait(lambda: not self._life.threads[1:], timeout, "shutdown")

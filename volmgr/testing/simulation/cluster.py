# SPDX-License-Identifier: Apache-2.0
"""Schedules with two workers for one backend: any of them gets a message, each dies, stops and starts by itself.

The clock of the database is the schedule's. What ends a member with its lease is a thread outside of all lives, as the
kernel is; so a life that is stopped for longer than its lease has ended when the stop is over. That nobody takes over
from a life that goes on is asked whenever a member is fenced.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from volmgr import conf as config
from volmgr.cluster import Member
from volmgr.testing.simulation import explore
from volmgr.testing.simulation.bench import Bench
from volmgr.testing.simulation.plan import Plan, Strike
from volmgr.testing.simulation.rooms import Room
from volmgr.testing.simulation.scheduler import Life, Scheduler
from volmgr.testing.simulation.worker import SimWorker
from volmgr.testing.simulation.world import World

NAMES = ("n1", "n2")
_CONFIG = """[DEFAULT]
state_path = {folder}/{name}
host = {name}
cluster = node
transport_url = rabbit://nobody@127.0.0.1:1//
enabled_backends = b
reconcile_interval = 20
[b]
aoe_last_shelf_id = 1
"""
#: seconds until a member that has died is there again.
PAUSES = (0.0, 3.0, 60.0, 300.0)
#: seconds for which a member is stopped; its lease is 30.
STOPS = (5.0, 29.0, 45.0, 200.0)
#: a failover is known to the worker that did it, and refused in a cluster.
_ALONE = ("replicated",)


class Timer:
    """Ends a life at a time."""

    def __init__(self, scheduler: Scheduler, life: Life) -> None:
        self._scheduler = scheduler
        self._life = life
        self._at: float | None = None
        scheduler.spawn(scheduler.outside, f"timer of {life.name}", self._run, background=True)

    def now(self) -> float:
        """Return virtual seconds."""
        return self._scheduler.monotonic()

    def set(self, at: float | None) -> None:
        """See :class:`volmgr.cluster.Timer`."""
        self._at = at

    def _run(self) -> None:
        while not self._life.over:
            at = self._at
            left = None if at is None else at - self.now()
            self._scheduler.wait(lambda at=at: self._life.over or self._at != at, left, "timer")  # type: ignore[misc]
            if not self._life.over and self._at is not None and self._at <= self.now():
                self._scheduler.say(f"!!! the lease of {self._life.name} has ended")
                self._scheduler.end(self._life)


class ClusterWorld(World):
    """See the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._lives = {name: Life("none") for name in NAMES}
        for life in self._lives.values():
            life.over = True
        self._workers: dict[str, SimWorker] = {}
        self._by_id: dict[str, Life] = {}
        self.taken_over = 0
        #: whether all members have been there at once: before that nobody asks, or one of them would serve all.
        self._met = False
        super().__init__(*args, **kwargs)

    # --- who is there ---------------------------------------------------------------------------------------------

    def _there(self) -> list[str]:
        return [name for name in NAMES if name in self._workers and not self._lives[name].over]

    @property
    def worker(self) -> SimWorker | None:
        """Any member that serves."""
        self._met = self._met or len(self._there()) == len(NAMES)
        if not self._met:
            return None
        return next((self._workers[name] for name in self._there()), None)

    @worker.setter
    def worker(self, _worker: SimWorker | None) -> None:
        """Each member is kept by its name."""

    @property
    def life(self) -> Life:
        """The life of :attr:`worker`."""
        return self._lives[next(iter(self._there()), NAMES[0])]

    @life.setter
    def life(self, _life: Life) -> None:
        """Each life is kept by its member's name."""

    def _serving(self) -> tuple[SimWorker, Life]:
        there = self._there()
        name = there[self.scheduler.random.randrange(len(there))]
        return self._workers[name], self._lives[name]

    # --- lives ----------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """End the life in which this happens, or all, once the schedule is judged."""
        self.crashes += 1
        thread = self.scheduler.current
        mine = [] if thread is None or self.calm else [life for life in self._lives.values() if life is thread.life]
        for life in mine or self._lives.values():
            self.scheduler.end(life)
        if self.plan.reboot:
            self.target.wipe()

    def _keep(self) -> None:
        for name in NAMES[1:]:
            self.scheduler.spawn(
                self.scheduler.outside, f"keeper {name}", lambda n=name: self._keep_one(n), background=True  # type: ignore[misc]
            )
        self._keep_one(NAMES[0])

    def _keep_one(self, name: str) -> None:
        pause = 0.0
        while True:
            self.scheduler.wait(lambda: self._lives[name].over, None, "keeper")
            self._workers.pop(name, None)
            if pause and not self.calm:
                self.scheduler.wait(lambda: self.calm, pause, "being started again")
            self.lives += 1
            life = self._lives[name] = Life(f"{name}.{self.lives}")
            self.scheduler.spawn(life, f"{life.name}/start", lambda life=life: self._begin_as(name, life))  # type: ignore[misc]
            pause = PAUSES[self.scheduler.random.randrange(len(PAUSES))]

    def _begin_as(self, name: str, life: Life) -> None:
        bench = self.bench
        assert isinstance(bench, ClusterBench)
        worker = self._make(life, *bench.members[name])
        self._by_id[worker.incarnation.id] = life
        worker.timer, worker.fence = Timer(self.scheduler, life), self._fence
        worker.begin()
        self._workers[name] = worker

    def _fence(self, member: Member) -> bool:
        self.taken_over += 1
        life = self._by_id[member.id]
        if not life.over:
            self.found.append(f"{member.name} has outlived its lease")
            self.scheduler.end(life)
        return True

    def _at_rest(self) -> bool:
        return len(self._there()) == len(NAMES) and super()._at_rest()

    def close(self) -> None:
        for life in self._lives.values():
            self.scheduler.end(life)
        super().close()


class ClusterBench(Bench):
    """A bench whose worlds have two members."""

    world = ClusterWorld
    virtual = True

    def __init__(self, room: Room | None = None) -> None:
        super().__init__(room)
        folder = Path(self._folder.name)
        #: by the member's name: its configuration and its backend.
        self.members: dict[str, tuple[Any, Any]] = {}
        for name in NAMES:
            file = folder / f"{name}.conf"
            file.write_text(_CONFIG.format(folder=folder, name=name) + self.room.furnish(folder))
            conf = config.load(["--config-file", str(file)])
            (options,) = config.backends(conf)
            self.members[name] = conf, options


def plans(first: int, room: Room | None = None) -> Iterator[Plan]:
    """Yield the plans of consecutive seeds, each with members that are stopped for a while, without an end."""
    for plan in explore.seeds(first, room=room):
        if plan.stage in _ALONE:
            continue
        draw = random.Random(plan.order)
        stops = tuple(
            Strike("step", "stop", draw.randrange(20, 600), seconds=draw.choice(STOPS))
            for _ in range(draw.randrange(3))
        )
        yield plan.but(strikes=(*plan.strikes, *stops))

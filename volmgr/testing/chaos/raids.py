# SPDX-License-Identifier: Apache-2.0
"""Random kills under load: who works, when the daemon dies, and what is looked at after each death.

The seed decides what every client asks and where each kill strikes; which of them meet is the machine's affair. A kill
strikes the n-th kill point that any operation passes, or at a moment of its own, or the life that follows, too.
"""

from __future__ import annotations

import contextlib
import logging
import random
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volmgr import exception
from volmgr.testing.chaos.bytes import wrong_bytes
from volmgr.testing.chaos.points import normal
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.chaos.tenants import Actor, Kept, Tenant, Vandal
from volmgr.testing.daemon import free_port
from volmgr.testing.waiting import wait_until

LOG = logging.getLogger(__name__)

TENANTS, VANDALS, SHARED = 3, 2, 3
MOST_POINTS, LONGEST_SECONDS = 60, 0.6
JOIN_SECONDS = 120.0
KINDS = ("point", "point", "point", "moment", "moment", "twice")


@dataclass
class Raid:
    """How a series of kills went."""

    seed: int
    kills: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    requests: int = 0
    written: int = 0
    where: Counter[str] = field(default_factory=Counter)


class Raiders:
    """One series of kills on one stage.

    :param by_target: the target serves real bytes: what is connected is written by way of it.
    :param tenants: how many. :param vandals: how many. :param snapshots: whether snapshots have bytes to be read.
    :param points: how many kill points are passed at most before one strikes.
    """

    def __init__(
        self,
        stage: Stage,
        seed: int,
        *,
        by_target: bool,
        tenants: int = TENANTS,
        vandals: int = VANDALS,
        snapshots: bool = True,
        points: int = MOST_POINTS,
        tell: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.stage = stage
        self.raid = Raid(seed)
        self.random = random.Random(f"{seed}/kills")
        self.path_of = stage.outside.path_of
        self.snapshots = snapshots
        self.points = points
        self.tell = tell
        self.tenants = [Tenant(stage, f"{seed}/tenant {n}", f"tenant{n}", by_target=by_target) for n in range(tenants)]
        shared = ([self._id() for _ in range(SHARED)], [self._id() for _ in range(SHARED)])
        self.shared = shared[0]
        self.vandals = [Vandal(stage, f"{seed}/vandal {n}", f"vandal{n}", shared) for n in range(vandals)]

    @property
    def actors(self) -> list[Actor]:
        return [*self.tenants, *self.vandals]

    def _id(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def run(self, kills: int) -> Raid:
        """Kill so often, unless something is wrong before; the stage's daemon lives before and after it."""
        for number in range(1, kills + 1):
            line = self._kill()
            found = self.look()
            self.raid.kills.append(line)
            self.raid.violations += [f"seed {self.raid.seed}, kill {number}, {line}: {text}" for text in found]
            self.tell(f"seed {self.raid.seed}, kill {number}: {line}: {'; '.join(found) or 'ok'}")
            if found:
                break
        return self.close()

    def close(self) -> Raid:
        """Hang up; returns how it went."""
        self.raid.requests = sum(actor.done for actor in self.actors)
        self.raid.written = sum(tenant.acknowledged for tenant in self.tenants)
        for actor in self.actors:
            actor.close()
        return self.raid

    def _kill(self) -> str:
        kind = self.random.choice(KINDS)
        count, seconds = self.random.randint(1, self.points), self.random.uniform(0, LONGEST_SECONDS)
        again = self.random.randint(1, 4)
        if kind != "moment":
            self.stage.aim("*", count)
        with self.working():
            line = self._strike(kind, count, seconds)
            if kind == "twice":
                line += self._again(again)
            self.stage.aim("")
            doing = sorted(actor.doing.partition(" ")[0] for actor in self.actors)
            self.stage.start()
        return f"{line}, during {' '.join(doing)}"

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Let the clients work; at the end each finishes what it had begun."""
        stop = threading.Event()
        threads = [threading.Thread(target=actor.run, args=(stop,)) for actor in self.actors]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(JOIN_SECONDS)
        if any(thread.is_alive() for thread in threads):
            self.raid.violations.append(f"seed {self.raid.seed}: a client is still not answered")

    def work(self, requests: int) -> None:
        """Wait, inside :meth:`working`, until so many more requests are done.

        :raises WaitTimeout: they are not.
        """
        goal = sum(actor.done for actor in self.actors) + requests
        wait_until(lambda: sum(actor.done for actor in self.actors) >= goal, JOIN_SECONDS, f"{requests} requests")

    def _strike(self, kind: str, count: int, seconds: float) -> str:
        if kind == "moment":
            time.sleep(seconds)  # the moment is what is random here
            self.stage.daemon.kill()
            self.stage.kills += 1
            return f"after {seconds:.3f} s"
        before = len(self.stage.passed())
        try:
            self.stage.wait_killed()
        except subprocess.TimeoutExpired as error:
            passed = len(self.stage.passed()) - before
            doing = "; ".join(f"{actor.project}: {actor.doing}" for actor in self.actors)
            raise AssertionError(
                f"the daemon stands still at {passed} points of {count}; {doing}; {self.stage.stands_at()}"
            ) from error
        return self._where(f"point {count}")

    def _again(self, count: int) -> str:
        """Kill the life that takes over, at one of its first points, if it has so many."""
        self.stage.aim("*", count)
        self.stage.daemon.start(wait=False)
        try:
            self.stage.wait_killed()
        except subprocess.TimeoutExpired:
            return ""  # nothing was left to take over and nobody asked for anything
        return self._where(f" and the next life's point {count}")

    def _where(self, text: str) -> str:
        last = normal(self.stage.passed()[-1])
        self.raid.where[last] += 1
        return f"{text}, {last}"

    # --- afterwards -----------------------------------------------------------------------------------------------

    def look(self) -> list[str]:
        """Wait until nothing runs; returns what is wrong then, down to the bytes."""
        found = self.stage.outside.settle()
        for actor in self.actors:
            found += actor.wrong
            actor.wrong = []
        for tenant in self.tenants:
            for volume in tenant.volumes.values():
                found += self._bytes("volume", volume)
                for snapshot in volume.snapshots.values() if self.snapshots else ():
                    found += self._bytes("snapshot", snapshot)
        for volume_id in self.shared:
            found += self._bytes("volume", Kept(volume_id, 0), may_miss=True)
        return found

    def _bytes(self, kind: str, kept: Kept, *, may_miss: bool = False) -> list[str]:
        try:
            path = self.path_of(self.stage.outside.object_of(kind, kept.id), kind)
        except (LookupError, FileNotFoundError) as error:
            return [] if may_miss else [f"{kind} {kept.id} is gone: {error}"]
        found = [f"{kind} {kept.id}: {text}" for text in wrong_bytes(path, kept.bytes)]
        size = path.stat().st_size if path.is_file() else kept.size << 30
        if kept.size and size != kept.size << 30:
            found.append(f"{kind} {kept.id} has {size} bytes, it should have {kept.size} GiB")
        return found


def backend_of(name: str, port: int) -> dict[str, Any] | None:
    """Return the options of a backend by its name on the command line; None means the stage's own, the simulator.

    :raises Invalid: there is none of that name.
    """
    if name == "sim":
        return None
    if name == "file":
        return {
            "volume_driver": "file",
            "target_helper": "tgtadm",
            "target_ip_address": "127.0.0.1",
            "target_port": port,
        }
    raise exception.Invalid(f"{name} is no backend of this machine's; it is sim or file", field="backend")


def raid(
    folder: Path, seed: int, kills: int, *, backend: str, tell: Callable[[str], None] = lambda _line: None
) -> Raid:
    """Run one series of kills from an empty folder to its end.

    :param backend: sim or file. :raises Exception: the daemon could not even be started.
    """
    # Every other series keeps what is deleted for a moment, so that it can be brought back; in every third the daemon
    # starts as in production, in the others as a fork, which takes a tenth of the time.
    made = Stage(folder, backend=backend_of(backend, free_port()), forked=seed % 3 != 0, trash_retention=seed % 2)
    stage = made.start()
    try:
        return Raiders(stage, seed, by_target=backend == "file", tell=tell).run(kills)
    finally:
        stage.close()


def series(
    folder: Path, seed: int, kills: int, *, backend: str, lanes: int, tell: Callable[[str], None] = lambda _line: None
) -> list[Raid]:
    """Run ``kills`` in all, in several series side by side, with seeds that follow each other."""
    shares = [kills // lanes + (n < kills % lanes) for n in range(lanes)]
    results = [Raid(seed + n) for n in range(lanes)]

    def work(n: int) -> None:
        try:
            results[n] = raid(folder / f"{seed + n}", seed + n, shares[n], backend=backend, tell=tell)
        except Exception as error:
            LOG.exception("seed %s", seed + n)
            results[n].violations.append(f"seed {seed + n}: {error!r}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results

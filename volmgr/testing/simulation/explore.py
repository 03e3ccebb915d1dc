# SPDX-License-Identifier: Apache-2.0
"""Runs many plans and keeps those that are wrong; makes a wrong one smaller."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from volmgr.testing.simulation import generate
from volmgr.testing.simulation.bench import Bench
from volmgr.testing.simulation.plan import Plan
from volmgr.testing.simulation.rooms import Room
from volmgr.testing.simulation.stages import make_world
from volmgr.testing.simulation.world import Outcome


@dataclass
class Report:
    """What many schedules came to.

    :param failures: (plan, what was wrong with it).
    """

    schedules: int = 0
    steps: int = 0
    lives: int = 0
    places: set[str] = field(default_factory=set)
    failures: list[tuple[Plan, list[str]]] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Take in what other schedules came to."""
        self.schedules += other.schedules
        self.steps += other.steps
        self.lives += other.lives
        self.places |= other.places
        self.failures += other.failures


def run(
    bench: Bench,
    plan: Plan,
    *,
    trace: Callable[[str], None] | None = None,
    driver: type[Any] | None = None,
    places: bool = False,
) -> Outcome:
    """Run one plan."""
    return make_world(bench, plan, trace=trace, driver=driver, places=places).run()


def digest(bench: Bench, plan: Plan) -> str:
    """Return what is the same in two runs of a plan only if they were the same to the last step."""
    seen = hashlib.sha256()
    outcome = run(bench, plan, trace=lambda line: seen.update(line.encode()))
    return f"{seen.hexdigest()[:16]} {outcome.steps} {len(outcome.violations)}"


def explore(
    bench: Bench,
    plans: Iterable[Plan],
    *,
    seconds: float | None = None,
    stop_at: int = 10,
    driver: type[Any] | None = None,
) -> Report:
    """Run plans until there are no more, the time is over, or enough of them were wrong."""
    report = Report()
    end = None if seconds is None else time.monotonic() + seconds
    for plan in plans:
        if end is not None and time.monotonic() >= end:
            break
        outcome = run(bench, plan, driver=driver, places=True)
        report.schedules += 1
        report.steps += outcome.steps
        report.lives += outcome.lives
        report.places.update(outcome.places)
        if outcome.violations:
            report.failures.append((plan, outcome.violations))
            if len(report.failures) >= stop_at:
                break
    return report


def seeds(first: int, count: int | None = None, room: Room | None = None) -> Iterator[Plan]:
    """Yield the plans of consecutive seeds, without end if ``count`` is None.

    :param room: leaves out those that mean nothing to it; the simulator knows all.
    """
    number = first
    while count is None or number < first + count:
        plan = generate.random_plan(number)
        if (fitting := plan if room is None else room.fit(plan)) is not None:
            yield fitting
        number += 1


def systematic(bench: Bench, *, every: int = 1, offset: int = 0) -> Iterator[Plan]:
    """Yield every pair of verbs, without a crash and with one at every n-th yield point of its schedule.

    :param offset: draws the order of the pairs, and where among the yield points to begin, so that runs that are cut
        short complement each other.
    """
    pairs = list(generate.pairs())
    random.Random(offset).shuffle(pairs)
    for number, pair in enumerate(pairs):
        plan = bench.room.fit(pair.but(order=number + offset))
        if plan is None:
            continue
        outcome = run(bench, plan, places=True)
        yield plan
        yield from generate.crashes(plan, outcome.places, every, offset + number)


def shrink(bench: Bench, plan: Plan, *, tries: int = 400, driver: type[Any] | None = None) -> Plan:
    """Return a plan that is still wrong and has no request, strike, copy or disorder that it can do without."""
    best, left = plan, tries

    def still(candidate: Plan) -> bool:
        nonlocal left
        left -= 1
        return bool(run(bench, candidate, driver=driver).violations)

    smaller = True
    while smaller and left > 0:
        smaller = False
        for candidate in _simpler(best):
            if left <= 0:
                break
            if still(candidate):
                best, smaller = candidate, True
                break
    return best


def _simpler(plan: Plan) -> Iterator[Plan]:
    for index in range(len(plan.requests)):
        yield plan.but(requests=plan.requests[:index] + plan.requests[index + 1 :])
    for index in range(len(plan.strikes)):
        yield plan.but(strikes=plan.strikes[:index] + plan.strikes[index + 1 :])
    for index, request in enumerate(plan.requests):
        if request.late:
            fewer = type(request)(request.name, request.verb, request.args, request.client, request.wait)
            yield plan.but(requests=(*plan.requests[:index], fewer, *plan.requests[index + 1 :]))
    if plan.drift:
        yield plan.but(drift=0.0)
    if plan.switch:
        yield plan.but(switch=0.0)
    if plan.reboot:
        yield plan.but(reboot=False)
    if plan.retention:
        yield plan.but(retention=0)
    if plan.orphans:
        yield plan.but(orphans=())

# SPDX-License-Identifier: Apache-2.0
"""Two members of a cluster: they die, stop, come back and meet, and what is left is as after one worker's life."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator

import pytest

from volmgr import cluster
from volmgr.db import members
from volmgr.testing.simulation import explore
from volmgr.testing.simulation.cluster import ClusterBench, ClusterWorld, plans
from volmgr.testing.simulation.plan import Plan, Request, Strike
from volmgr.testing.simulation.stages import make_world

COUNT = 100
FIRST = int(os.environ.get("VOLMGR_SIMULATION_SEED") or 60000)
CONNECTS = tuple(
    Request(f"c{number}", "initialize_connection", {"volume_id": "@v1", "connector": f"&{host}"}, client=number)
    for number, host in enumerate("abcdef")
)


@pytest.fixture(scope="module")
def bench() -> Iterator[ClusterBench]:
    logger = logging.getLogger("volmgr")
    propagate, logger.propagate = logger.propagate, False
    made = ClusterBench()
    yield made
    made.close()
    logger.propagate = propagate


def test_random_schedules_of_two_members(bench: ClusterBench) -> None:
    report = explore.explore(bench, itertools.islice(plans(FIRST), COUNT), stop_at=3)
    assert not report.failures, "\n".join(f"{found}: {plan.to_json()}" for plan, found in report.failures)
    assert report.schedules == COUNT
    assert report.lives > 2 * report.schedules


def world_of(bench: ClusterBench, plan: Plan) -> ClusterWorld:
    made = make_world(bench, plan)
    assert isinstance(made, ClusterWorld)
    return made


def overtaken() -> Iterator[Plan]:
    """Yield plans in which who makes the n-th grant is slow to make the target follow."""
    for nth, order in itertools.product(range(1, 7), range(1, 9)):
        slow = Strike("step:connect/-/granted", "delay", nth, seconds=5.0)
        yield Plan(CONNECTS, (slow,), stage="volumes", order=order, switch=0.6)


def creates(count: int) -> tuple[Request, ...]:
    return tuple(
        Request(f"r{number}", "create_volume", {"volume_id": f"@n{number}", "size": 1}, client=number, wait=True)
        for number in range(count)
    )


@pytest.mark.parametrize("action", ["crash", "stop"])
def test_another_member_takes_over(bench: ClusterBench, action: str) -> None:
    """Whoever dies in the middle of a creation, or is stopped for longer than its lease, loses it to the other."""
    taken = 0
    for order in range(4):
        strike = Strike("driver:create_volume/building", action, seconds=1000.0)
        world = world_of(bench, Plan(creates(4), (strike,), order=order))
        outcome = world.run()
        assert not outcome.violations
        taken += world.taken_over
        assert {answer.code for answers in outcome.answers.values() for answer in answers} == {None}
    assert taken, "nobody's lease has ended in any of them"


def test_a_short_stop_costs_nothing(bench: ClusterBench) -> None:
    strike = Strike("driver:create_volume/building", "stop", seconds=10.0)
    world = world_of(bench, Plan(creates(2), (strike,), order=3))
    assert not world.run().violations
    assert not world.taken_over


def test_members_that_connect_one_volume_at_once(bench: ClusterBench) -> None:
    for plan in overtaken():
        assert not explore.run(bench, plan).violations


def test_without_the_shared_locks_that_goes_wrong(bench: ClusterBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that the schedules above would tell."""
    monkeypatch.setattr(cluster.ClusterLocks, "hold", lambda self, *args, **kwargs: self._near.hold(*args, **kwargs))
    found = (text for plan in overtaken() for text in explore.run(bench, plan).violations)
    assert any("served with other grants" in text for text in found)


def test_without_the_grace_that_goes_wrong(bench: ClusterBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that is removed before its lease has ended is found out."""
    ended = members.ended
    monkeypatch.setattr(members, "ended", lambda conn, service, grace: ended(conn, service, grace - 30.0))
    strike = Strike("driver:create_volume/building", "stop", seconds=25.0)
    found: list[str] = []
    for order in range(10):
        found += world_of(bench, Plan(creates(2), (strike,), order=order)).run().violations
        if found:
            break
    assert any("outlived its lease" in text for text in found)

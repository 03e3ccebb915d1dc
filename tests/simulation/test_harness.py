# SPDX-License-Identifier: Apache-2.0
"""The simulation itself: the same plan is the same schedule everywhere, and what is wrong is found and made small."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from volmgr import types
from volmgr.drivers.sim import SimDriver
from volmgr.operations import registry
from volmgr.testing.simulation import explore, generate
from volmgr.testing.simulation.bench import Bench
from volmgr.testing.simulation.plan import Plan, Request, Strike

SEEDS = (3, 17, 40)


def test_a_plan_survives_being_written_down() -> None:
    for seed in range(50):
        plan = generate.random_plan(seed)
        assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_is_the_same_schedule(bench: Bench, seed: int) -> None:
    plan = generate.random_plan(seed)
    assert explore.digest(bench, plan) == explore.digest(bench, plan)
    assert explore.digest(bench, plan) != explore.digest(bench, plan.but(order=seed + 1))


def test_the_same_seed_is_the_same_schedule_in_another_process(bench: Bench) -> None:
    code = (
        "from volmgr import concurrency; concurrency.setup()\n"
        "import logging; logging.getLogger('volmgr').addHandler(logging.NullHandler())\n"
        "logging.getLogger('volmgr').propagate = False\n"
        "from volmgr.testing.simulation import explore, generate\n"
        "from volmgr.testing.simulation.bench import Bench\n"
        "bench = Bench()\n"
        f"for seed in {SEEDS}: print(explore.digest(bench, generate.random_plan(seed)))\n"
        "bench.close()\n"
    )
    said = []
    for hash_seed, backend in (("1", "eventlet"), ("2", "threading")):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "VOLMGR_CONCURRENCY": backend}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
        )
        said.append(done.stdout.split("\n")[: len(SEEDS)])
    assert said[0] == said[1] == [explore.digest(bench, generate.random_plan(seed)) for seed in SEEDS]


class Leaky(SimDriver):
    """Wrong: what a creation made that then failed stays."""

    def delete_volume(self, volume: types.Volume) -> None:
        if volume.status != "creating":
            super().delete_volume(volume)


class Forgetful(SimDriver):
    """Wrong: says that an object is trashed and leaves it where it is."""

    def trash_volume(self, volume: types.Volume) -> None:
        return None


class Short(SimDriver):
    """Wrong: says that an object is extended and does not."""

    def extend_volume(self, volume: types.Volume, new_size: int) -> None:
        return None


def test_every_operation_is_asked_for_and_can_end_well(bench: Bench) -> None:
    """A new verb joins the schedules, or says here why it cannot."""
    done: set[str] = set()
    delete = Request("first", "delete_volume", {"volume_id": "@v0"}, wait=True)
    for stage in generate.STAGE_NAMES:
        for label, verb, arguments in (*generate.own(stage), *(() if stage in generate.ALONE else generate.ASKED)):
            operation = "accept_transfer" if verb == "transfer_accept" else verb
            if operation in done or operation not in registry.verbs():
                continue
            requests = (*((delete,) if verb == "undelete_volume" else ()), Request(label, verb, arguments, wait=True))
            assert explore.run(bench, Plan(requests, stage=stage, switch=0.0, retention=6)).violations == [], label
            done.update(row[0] for row in bench.raw("SELECT verb FROM operations WHERE state = 'done'"))
    assert set(registry.verbs()) - done == set(generate.ELSEWHERE)


@pytest.mark.parametrize(("driver", "within"), [(Leaky, 400), (Forgetful, 60), (Short, 60)])
def test_a_wrong_driver_is_found(bench: Bench, driver: type[SimDriver], within: int) -> None:
    report = explore.explore(bench, explore.seeds(1, within), stop_at=1, driver=driver)
    assert report.failures, f"{report.schedules} schedules found nothing"


def test_a_wrong_plan_is_made_small(bench: Bench) -> None:
    volume: dict[str, Any] = {"volume_id": "@v0"}
    plan = Plan(
        (
            Request("noise", "update_volume", volume | {"name": "x"}, 1, late=(0.0, 2.0)),
            Request("extend", "extend_volume", volume | {"new_size": 2}),
            Request("more", "attach_volume", volume | {"instance_uuid": "@i1"}, 1),
        ),
        (Strike("step", "crash", 11), Strike("driver:extend_volume/after", "delay", seconds=1.0)),
        stage="volume", switch=0.5, drift=0.01, retention=30,
    )
    assert explore.run(bench, plan, driver=Short).violations
    small = explore.shrink(bench, plan, driver=Short)
    assert [request.name for request in small.requests] == ["extend"]
    assert (small.strikes, small.switch, small.drift, small.retention) == ((), 0.0, 0.0, 0)
    assert explore.run(bench, small, driver=Short).violations


def test_a_dead_life_touches_nothing(bench: Bench) -> None:
    """After every crash point of a deletion the storage is either as before or in the trash, and nothing else moves."""
    plan = Plan((Request("delete", "delete_volume", {"volume_id": "@v0"}, wait=True),), stage="unexported")
    places = explore.run(bench, plan, places=True).places
    assert len(places) > 30
    for crashed in generate.crashes(plan, places):
        outcome = explore.run(bench, crashed)
        assert outcome.violations == [], crashed.to_json()
        assert outcome.lives >= 3  # the first, the one after the crash, and the one that was started to be judged

# SPDX-License-Identifier: Apache-2.0
"""``python -m volmgr.testing.simulation``: run schedules, or one of them again with its trace."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from volmgr.testing.simulation.shares import prepared, share

if TYPE_CHECKING:
    from volmgr.testing.simulation.bench import Bench
    from volmgr.testing.simulation.explore import Report
    from volmgr.testing.simulation.plan import Plan


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    made = argparse.ArgumentParser(prog="python -m volmgr.testing.simulation", description=__doc__)
    what = made.add_mutually_exclusive_group()
    what.add_argument("--seed", type=int, help="run the schedule of one seed")
    what.add_argument("--plan", metavar="JSON", help="run one plan, as a failure printed it; - reads it from stdin")
    what.add_argument("--systematic", action="store_true", help="every pair of verbs, a crash at every yield point")
    made.add_argument("--room", choices=("sim", "storpool"), default="sim", help="which driver (default sim)")
    made.add_argument("--first", type=int, default=1, metavar="SEED", help="the first seed of a run (default 1)")
    made.add_argument("--seeds", type=int, metavar="N", help="how many seeds (default: until the time is over)")
    made.add_argument("--minutes", type=float, default=5.0, help="for how long (default 5)")
    made.add_argument("--every", type=int, default=1, metavar="N", help="systematic: a crash at every N-th yield point")
    made.add_argument("--stop-at", type=int, default=5, metavar="N", help="stop after N wrong schedules (default 5)")
    made.add_argument(
        "--jobs", type=int, metavar="N", help="so many processes share the schedules (default: one for each processor)"
    )
    made.add_argument("--shrink", action="store_true", help="make wrong plans smaller before they are printed")
    made.add_argument("-v", "--verbose", action="store_true", help="print the trace, and what the product logs")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns 1 if a schedule was wrong."""
    arguments = parser().parse_args(argv)
    if arguments.plan is None and arguments.seed is None:
        return _explore(arguments)
    from volmgr.testing.simulation import generate
    from volmgr.testing.simulation.plan import Plan

    with prepared(arguments) as bench:
        if arguments.plan is not None:
            text = sys.stdin.read() if arguments.plan == "-" else arguments.plan
            return _one(bench, Plan.from_json(text), arguments)
        plan = bench.room.fit(generate.random_plan(arguments.seed))
        return _one(bench, plan, arguments) if plan is not None else 0


def _explore(arguments: argparse.Namespace) -> int:
    jobs = arguments.jobs or len(os.sched_getaffinity(0))
    shares = [(arguments, index, jobs) for index in range(jobs)]
    began = time.monotonic()
    # The bench comes first: what the other processes send back is made of modules that must be loaded by then.
    with prepared(arguments) as bench:
        if jobs == 1:
            parts = [share(*shares[0])]
        else:
            with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
                parts = list(pool.map(share, *zip(*shares, strict=True)))
        report, processor_seconds = parts[0]
        for other, seconds in parts[1:]:
            report.add(other)
            processor_seconds += seconds
        _tell(bench, report, processor_seconds, time.monotonic() - began, shrink=arguments.shrink)
    return 1 if report.failures else 0


def _one(bench: Bench, plan: Plan, arguments: argparse.Namespace) -> int:
    from volmgr.testing.simulation import explore

    if arguments.shrink:
        plan = explore.shrink(bench, plan)
    print(plan.to_json())
    outcome = explore.run(bench, plan, trace=print if arguments.verbose else None)
    print(f"{outcome.steps} steps, {outcome.lives} lives of the worker")
    for text in outcome.violations:
        print(f"WRONG: {text}")
    return 1 if outcome.violations else 0


def _tell(bench: Bench, report: Report, processor_seconds: float, seconds: float, *, shrink: bool) -> None:
    from volmgr.testing.simulation import explore

    rate = report.schedules / processor_seconds * 60 if processor_seconds else 0.0
    print(
        f"{report.schedules} schedules in {seconds:.0f} s ({rate:.0f} in a minute of processor time), "
        f"{report.steps} steps, "
        f"{report.lives} lives, {len(report.places)} kinds of yield points; {len(report.failures)} wrong"
    )
    for plan, found in report.failures:
        small = explore.shrink(bench, plan) if shrink else plan
        print(f"\nWRONG (order {plan.order}): " + "\n  ".join(found))
        print(f"  again: python -m volmgr.testing.simulation --room {bench.room.name} -v --plan '{small.to_json()}'")


if __name__ == "__main__":
    sys.exit(main())

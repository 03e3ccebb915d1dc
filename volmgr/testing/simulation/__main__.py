# SPDX-License-Identifier: Apache-2.0
"""``python -m volmgr.testing.simulation``: run schedules, or one of them again with its trace."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from volmgr import concurrency

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
    made.add_argument("--shrink", action="store_true", help="make wrong plans smaller before they are printed")
    made.add_argument("-v", "--verbose", action="store_true", help="print the trace, and what the product logs")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns 1 if a schedule was wrong."""
    arguments = parser().parse_args(argv)
    concurrency.setup()
    if arguments.verbose:
        logging.basicConfig(level=logging.WARNING, format="      log: %(message)s", stream=sys.stdout)
    else:
        logging.getLogger("volmgr").addHandler(logging.NullHandler())
        logging.getLogger("volmgr").propagate = False
    from volmgr.testing.simulation import explore, generate
    from volmgr.testing.simulation.bench import Bench
    from volmgr.testing.simulation.plan import Plan
    from volmgr.testing.simulation.storpool import StorPoolRoom

    bench = Bench(StorPoolRoom() if arguments.room == "storpool" else None)
    try:
        if arguments.plan is not None:
            text = sys.stdin.read() if arguments.plan == "-" else arguments.plan
            return _one(bench, Plan.from_json(text), arguments)
        if arguments.seed is not None:
            plan = bench.room.fit(generate.random_plan(arguments.seed))
            return _one(bench, plan, arguments) if plan is not None else 0
        plans: Iterable[Plan]
        if arguments.systematic:
            plans = explore.systematic(bench, every=arguments.every, offset=arguments.first)
        else:
            plans = explore.seeds(arguments.first, arguments.seeds, bench.room)
        began = time.process_time()
        report = explore.explore(bench, plans, seconds=arguments.minutes * 60, stop_at=arguments.stop_at)
        _tell(bench, report, time.process_time() - began, shrink=arguments.shrink)
        return 1 if report.failures else 0
    finally:
        bench.close()


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


def _tell(bench: Bench, report: Report, processor_seconds: float, *, shrink: bool) -> None:
    from volmgr.testing.simulation import explore

    rate = report.schedules / processor_seconds * 60 if processor_seconds else 0.0
    print(
        f"{report.schedules} schedules ({rate:.0f} in a minute of processor time), {report.steps} steps, "
        f"{report.lives} lives, {len(report.places)} kinds of yield points; {len(report.failures)} wrong"
    )
    for plan, found in report.failures:
        small = explore.shrink(bench, plan) if shrink else plan
        print(f"\nWRONG (order {plan.order}): " + "\n  ".join(found))
        print(f"  again: python -m volmgr.testing.simulation --room {bench.room.name} -v --plan '{small.to_json()}'")


if __name__ == "__main__":
    sys.exit(main())

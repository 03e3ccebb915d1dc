# SPDX-License-Identifier: Apache-2.0
"""A process's share of many schedules; a module of its own, as a process that is started for it loads no program."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from volmgr import concurrency

if TYPE_CHECKING:
    from volmgr.testing.simulation.bench import Bench
    from volmgr.testing.simulation.explore import Report
    from volmgr.testing.simulation.plan import Plan


@contextlib.contextmanager
def prepared(arguments: argparse.Namespace) -> Iterator[Bench]:
    """Yield the bench that the command line asks for; this process is fit for schedules then."""
    concurrency.setup()
    if arguments.verbose:
        logging.basicConfig(level=logging.WARNING, format="      log: %(message)s", stream=sys.stdout)
    else:
        logging.getLogger("volmgr").addHandler(logging.NullHandler())
        logging.getLogger("volmgr").propagate = False
    from volmgr.testing.simulation.bench import Bench
    from volmgr.testing.simulation.storpool import StorPoolRoom

    bench = Bench(StorPoolRoom() if arguments.room == "storpool" else None)
    try:
        yield bench
    finally:
        bench.close()


def share(arguments: argparse.Namespace, index: int, jobs: int) -> tuple[Report, float]:
    """Run every ``jobs``-th schedule; returns what they came to, and the seconds of a processor that they took."""
    with prepared(arguments) as bench:
        from volmgr.testing.simulation import explore

        plans: Iterable[Plan]
        if arguments.systematic:
            plans = explore.systematic(bench, every=arguments.every, offset=arguments.first)
        else:
            plans = explore.seeds(arguments.first, arguments.seeds, bench.room)
        began = time.process_time()
        mine = itertools.islice(plans, index, None, jobs)
        report = explore.explore(bench, mine, seconds=arguments.minutes * 60, stop_at=arguments.stop_at)
        return report, time.process_time() - began

# SPDX-License-Identifier: Apache-2.0
"""Some hundred schedules, the same in every run; ``make simulate`` runs others at length.

Their seeds begin at VOLMGR_SIMULATION_SEED, if that is set. A failure prints the plan to run again.
"""

from __future__ import annotations

import itertools
import os

from volmgr.testing.simulation import explore
from volmgr.testing.simulation.bench import Bench

COUNT = 200
FIRST = int(os.environ.get("VOLMGR_SIMULATION_SEED") or 60000)


def told(report: explore.Report) -> str:
    """Return the wrong schedules of a report, with the command that repeats each."""
    return "\n".join(
        f"{'; '.join(found)}\n  again: python -m volmgr.testing.simulation -v --plan '{plan.to_json()}'"
        for plan, found in report.failures
    )


def test_random_schedules(bench: Bench) -> None:
    report = explore.explore(bench, explore.seeds(FIRST, COUNT), stop_at=3)
    assert not report.failures, told(report)
    assert report.schedules == COUNT
    assert report.lives > report.schedules  # some crashed, and all were started once more to be judged


def test_pairs_of_verbs_with_crashes(bench: Bench) -> None:
    plans = explore.systematic(bench, every=37, offset=FIRST)
    report = explore.explore(bench, itertools.islice(plans, COUNT), stop_at=3)
    assert not report.failures, told(report)
    assert report.schedules == COUNT

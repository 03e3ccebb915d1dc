# SPDX-License-Identifier: Apache-2.0
"""New schedules in every run, for a bounded time; ``make simulate`` runs them at length.

The seeds of a run begin at VOLMGR_SIMULATION_SEED, by default at the number of the day, so that runs differ and every
one can be repeated. A failure prints the plan to run again.
"""

from __future__ import annotations

import datetime
import os

from volmgr.testing.simulation import explore
from volmgr.testing.simulation.bench import Bench

SECONDS = 20.0
FIRST = int(os.environ.get("VOLMGR_SIMULATION_SEED") or datetime.date.today().toordinal() * 1000)


def told(report: explore.Report) -> str:
    """Return the wrong schedules of a report, with the command that repeats each."""
    return "\n".join(
        f"{'; '.join(found)}\n  again: python -m volmgr.testing.simulation -v --plan '{plan.to_json()}'"
        for plan, found in report.failures
    )


def test_random_schedules(bench: Bench) -> None:
    report = explore.explore(bench, explore.seeds(FIRST), seconds=SECONDS, stop_at=3)
    assert not report.failures, told(report)
    assert report.schedules > 50
    assert report.lives > report.schedules  # some crashed, and all were started once more to be judged


def test_pairs_of_verbs_with_crashes(bench: Bench) -> None:
    plans = explore.systematic(bench, every=37, offset=FIRST)
    report = explore.explore(bench, plans, seconds=SECONDS, stop_at=3)
    assert not report.failures, told(report)
    assert report.schedules > 50

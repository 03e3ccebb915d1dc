# SPDX-License-Identifier: Apache-2.0
"""An audit that runs all the time, amid everything that a worker does, crashes included, never raises a false alarm.

Only schedules are judged in which nothing but crashes goes wrong: a target that refuses a sync, for one, does differ
from SQL until the next one. What the audit mends by itself is judged by every schedule of the simulation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from volmgr.reconcile import auditor as auditing
from volmgr.reconcile.auditor import Auditor
from volmgr.reconcile.findings import Kind
from volmgr.testing.simulation import explore
from volmgr.testing.simulation.bench import Bench
from volmgr.testing.simulation.plan import Plan

SCHEDULES = 40
FIRST = 700_000
#: seconds of the schedule's own clock between two audits.
INTERVAL = 0.5


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, bench: Bench) -> Iterator[list[Any]]:
    """Return the list in which every finding of every audit will be."""
    found: list[Any] = []
    run = Auditor.run

    def listened(self: Auditor, **arguments: Any) -> auditing.Report:
        report = run(self, **arguments)
        audits.append(report)
        found.extend(item for item in report.findings if item.kind is not Kind.OPERATION_PARKED)
        return report

    audits: list[Any] = []
    monkeypatch.setattr(Auditor, "run", listened)
    bench.conf.set_override("reconcile_interval", INTERVAL)
    yield found
    bench.conf.clear_override("reconcile_interval")
    assert audits, "no audit ran amid a schedule"


def harmless(plan: Plan) -> bool:
    crashes = all(strike.action == "crash" for strike in plan.strikes)
    return crashes and plan.steer != "abandon" and not plan.orphans


def plans(count: int) -> Iterator[Plan]:
    chosen = (plan for plan in explore.seeds(FIRST) if harmless(plan))
    return (plan for _number, plan in zip(range(count), chosen, strict=False))


def test_no_false_alarm_whatever_the_order(seen: list[Any], bench: Bench) -> None:
    for plan in plans(SCHEDULES):
        explore.run(bench, plan)
        assert seen == [], plan


def test_this_would_notice(seen: list[Any], bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is under way not left out, the same schedules are full of findings."""
    diff = auditing.diff
    monkeypatch.setattr(auditing, "diff", lambda recorded, world, _busy: diff(recorded, world))
    for plan in plans(SCHEDULES):
        explore.run(bench, plan)
        if seen:
            return
    pytest.fail("no schedule had an audit amid an operation")

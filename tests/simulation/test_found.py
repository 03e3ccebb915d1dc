# SPDX-License-Identifier: Apache-2.0
"""Schedules that showed a defect, each made as small as it goes, with what it was; they stay good for ever.

The order in which threads take turns depends on the code, so each plan is run in the order that showed the defect and
in some others.
"""

from __future__ import annotations

import pytest

from volmgr.testing.simulation import explore
from volmgr.testing.simulation.bench import Bench
from volmgr.testing.simulation.plan import Plan, Request, Strike

ORDERS = 12
V0 = {"volume_id": "@v0"}

FOUND: dict[str, Plan] = {
    # A sync that came while a volume was being deleted (at a start, at a detachment) found its rows still there and
    # made the export again, with its grants, over storage that was on its way to the trash.
    "an export comes back while its volume is deleted": Plan(
        (Request("delete", "delete_volume", {**V0, "force": True, "cascade": True}),),
        stage="exported", order=2, switch=0.9, drift=0.01,
    ),
    "a detachment brings the export of a deleted volume back": Plan(
        (Request("delete", "delete_volume", {**V0, "force": True}), Request("detach", "detach_volume", {
            **V0, "force": True}, 1, late=(0.0, 0.0))),
        stage="connected", order=161, switch=0.9,
    ),
    # The rows of an export went before the target was told: a death in between left it on the target, unknown to SQL.
    "an export that is removed outlives its rows": Plan(
        (Request("remove", "remove_export", V0),), (Strike("target:sync/before", "crash", 2),), stage="unexported",
    ),
    # The thread that takes over what an earlier life had begun ended with the first error of the database, or with an
    # export that stayed busy: the journal was not looked at any more, or the other exports were not made again.
    "a start survives a database that is away": Plan(
        (Request("create", "create_volume", V0 | {"size": 1}, wait=True),),
        (Strike("db:read", "fail", 2, "volmgr.backend_down.database"),), stage="volumes",
    ),
    "a start survives a busy export": Plan(
        (Request("terminate", "terminate_connection", V0 | {"connector": "&a"}),),
        (Strike("target:sync/before", "delay", seconds=65.0),), stage="attached",
    ),
    # A volume that became read-only was still served for writing, until the next sync.
    "the export follows a volume that becomes read-only": Plan(
        (Request("update", "update_volume", V0 | {"readonly": True}),), stage="unexported",
    ),
    "a volume that somebody may write to does not become read-only": Plan(
        (Request("update", "update_volume", V0 | {"readonly": True}),), stage="connected",
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_stays_away(bench: Bench, name: str) -> None:
    plan = FOUND[name]
    for number in range(ORDERS):
        outcome = explore.run(bench, plan.but(order=plan.order + number))
        assert outcome.violations == [], plan.but(order=plan.order + number).to_json()

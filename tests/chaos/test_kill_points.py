# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at every step boundary of every verb, on the simulator; and the proof that no boundary is left out."""

from __future__ import annotations

import pytest

from volmgr.operations import registry
from volmgr.testing.chaos import points
from volmgr.testing.chaos.scenarios import BY_NAME, SCENARIOS
from volmgr.testing.chaos.strikes import Result, lanes

pytestmark = pytest.mark.timeout(1800)  # the first test waits for all stories
#: daemons that live and die side by side; they wait more than they work.
LANES = 4


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """All stories that this run has tests of, told with all their kills."""
    asked = {str(item.name) for item in request.session.items}
    whole = test_no_step_is_without_a_kill.__name__ in asked
    wanted = [
        item for item in SCENARIOS
        if (whole and not item.extended) or f"{test_a_story.__name__}[{item.name}]" in asked
    ]
    return lanes(tmp_path_factory.mktemp("kills"), wanted, LANES, print)


@pytest.mark.parametrize("name", [
    pytest.param(name, id=name, marks=[pytest.mark.extended] if item.extended else []) for name, item in BY_NAME.items()
])
def test_a_story(results: dict[str, Result], name: str) -> None:
    assert results[name].violations == []
    assert results[name].kills


def test_no_step_is_without_a_kill(results: dict[str, Result]) -> None:
    reached = {point for result in results.values() for point in result.reached}
    assert points.missing(reached) == []
    assert {item.verb for item in SCENARIOS} >= {"create_snapshot", *registry.verbs()}


def test_a_step_that_is_never_reached_is_named() -> None:
    steps = {f"{step.verb or 'any'}/{step.pattern}/{when}" for step in points.source_steps() for when in step.whens}
    whole = {
        f"{verb}/-/{when}"
        for verb in registry.verbs()
        for when in ("received", "admitted", "started", "queued", *points.WHOLE)
    }
    complete = steps | whole
    assert points.missing(complete) == []
    for point in ("revert_to_snapshot/build/pivoted", "create_volume/create/undo", "any/discard-*/before"):
        assert points.missing(complete - {point}), point
    assert points.missing(complete, [*registry.verbs(), "new_verb"])

# SPDX-License-Identifier: Apache-2.0
"""The state machines: every state can be reached and left, and no transitional state is a dead end."""

from __future__ import annotations

import pytest

from volmgr import states
from volmgr.operations import base

MACHINES = pytest.mark.parametrize("machine", states.MACHINES, ids=lambda machine: machine.noun)
#: how a row comes to be without an event: a verb makes it in this state.
BORN = {"volume": {"managing"}, "snapshot": {"managing"}, "replication": {"copying"}}


@MACHINES
def test_automaton_is_whole(machine: states.Machine) -> None:
    automaton = machine.automaton()
    assert automaton.default_start_state == machine.start
    assert set(automaton.states) == set(machine.states)


@MACHINES
def test_every_state_can_be_reached(machine: states.Machine) -> None:
    reached = {machine.start} | BORN.get(machine.noun, set())
    while True:
        more = {target for source, _, target in machine.transitions if source in reached} - reached
        if not more:
            break
        reached |= more
    assert reached == set(machine.states)


@MACHINES
def test_no_transitional_state_is_a_dead_end(machine: states.Machine) -> None:
    for state in machine.transitional:
        after, seen = {state}, {state}
        while after:
            after = {target for source, _, target in machine.transitions if source in after} - seen
            seen |= after
        assert seen & set(machine.stable), f"{machine.noun} cannot leave {state}"


def test_an_event_leads_to_one_state_from_each_source() -> None:
    with pytest.raises(ValueError, match="leads to two states"):
        states.Machine("x", "a", {"a": "", "b": ""}, {}, [("a", "go", "b"), ("a", "go", "a")])
    with pytest.raises(ValueError, match="unknown state"):
        states.Machine("x", "a", {"a": ""}, {}, [("a", "go", "b")])


def test_claims_take_their_statuses_from_the_machine() -> None:
    claim = base.Claim("volume", "x", "extend")
    assert set(claim.sources) == {"available", "in-use"}
    assert claim.status == "extending"
    assert base.Claim("volume", "x", "clone", exclusive=False).status is None


@pytest.mark.parametrize(
    ("attachments", "status"),
    [([], "available"), (["reserved"], "reserved"), (["attaching", "reserved"], "attaching"),
     (["reserved", "attached"], "in-use"), (["detaching"], "detaching")],
)
def test_status_of_an_idle_volume_follows_from_its_attachments(attachments: list[str], status: str) -> None:
    assert states.volume_status_of(attachments) == status

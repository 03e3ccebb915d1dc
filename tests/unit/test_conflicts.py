# SPDX-License-Identifier: Apache-2.0
"""The table of verbs that meet: it is whole, and journalled verbs never make a client poll."""

from __future__ import annotations

from volmgr.operations import conflicts, registry, snapshots, volumes
from volmgr.operations.base import Policy


def test_every_verb_that_claims_has_a_name_in_the_table() -> None:
    assert snapshots.CreateSnapshot.verb and volumes.CreateVolume.verb
    for verb in registry.verbs():
        operation = registry.find(verb, 1)
        assert operation is not None
        if operation.resource in ("object", "service"):
            continue
        name = conflicts.name_in_table(operation.resource, verb, own=True)
        columns = {column for _, column in conflicts.TABLE[operation.resource]}
        assert name in columns, f"{verb} is not in the table of {operation.resource}"


def test_the_seeds_pairs_wait() -> None:
    # Deleting snapshot A while a volume is created from A; deleting volume A while it is cloned.
    assert conflicts.policy("snapshot", "clone", "delete") is Policy.WAIT
    assert conflicts.policy("volume", "clone", "delete") is Policy.WAIT


def test_taking_access_away_never_waits_and_is_never_refused() -> None:
    for resource, table in conflicts.TABLE.items():
        for (holder, comer), policy in table.items():
            if comer in ("disconnect", "detach"):
                assert policy is Policy.BOTH, f"{resource}: {comer} meets {holder}"


def test_answered_verbs_never_wait() -> None:
    for table in conflicts.TABLE.values():
        for (_, comer), policy in table.items():
            if comer in ("connect", "attach"):
                assert policy is not Policy.WAIT


def test_unknown_pairs_are_refused() -> None:
    assert conflicts.policy("volume", "something", "else") is Policy.CONFLICT

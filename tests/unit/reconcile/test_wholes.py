# SPDX-License-Identifier: Apache-2.0
"""Groups, cgsnapshots and offers that contradict others: what is mended unasked, what is not, what is no finding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.unit.reconcile import making_wholes as making
from tests.unit.reconcile.making_wholes import C, G, S, T, V, new_id
from tests.unit.reconcile.test_kinds import Scene
from volmgr.db import models
from volmgr.operations import cgsnapshots, groups, snapshots
from volmgr.operations.volumes import DeleteVolume
from volmgr.reconcile.findings import Kind
from volmgr.testing.invariants import violations


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.rig.close()


def test_what_is_whole_is_no_finding(scene: Scene) -> None:
    group_id, cgsnapshot_id, _parts = making.snapped(scene)
    making.offered(scene, scene.plain)
    assert scene.find() == []
    scene.rig.do(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=cgsnapshot_id)
    scene.rig.do(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=cgsnapshot_id, group_id=group_id)
    assert scene.find() == [], "the snapshots of an earlier one with the same id are missed"
    making.transfers(scene).delete(scene.rig.context, scene.rig.rows(T)[0]["id"])
    assert scene.find() == []
    assert violations(scene.rig.database, scene.rig.driver) == []


def test_what_an_operation_is_at_is_no_finding(scene: Scene) -> None:
    group_id, cgsnapshot_id, _parts = making.snapped(scene)
    other = new_id()
    scene.rig.submit(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=cgsnapshot_id)
    scene.rig.submit(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=other, group_id=group_id)
    assert {row["status"] for row in scene.rig.rows(C)} <= {"deleting", "creating"}
    assert scene.rig.rows(G)[0]["use_count"] > 0
    assert scene.find() == []
    scene.rig.run()
    assert scene.find() == []


@pytest.mark.parametrize("change", [{"host": "host@sim#other"}, {"project_id": "another"}])
def test_a_member_that_disagrees_leaves_only_if_it_is_named(scene: Scene, change: dict[str, str]) -> None:
    """Whether the member or the group is wrong, nobody can see."""
    group_id, ids = making.grouped(scene)
    scene.sql(sa.update(G).where(G.c.id == group_id).values(**change))
    found = scene.auditor.run(fix=True).findings
    assert {(item.kind, item.resource_id, item.safe) for item in found} == {
        (Kind.MEMBER_STRAY, item, False) for item in ids
    }
    assert {row["group_id"] for row in scene.rig.rows(V) if row["id"] in ids} == {group_id}
    assert scene.fix(*found) == {"member-stray": f"taken out of {group_id}"}
    assert {row["group_id"] for row in scene.rig.rows(V)} == {None}
    assert scene.find() == []
    (row, *_more) = scene.rig.rows(models.operations, verb="leave")
    assert row["result"]["from"] == group_id


def test_a_cgsnapshot_whose_group_is_gone_goes_if_it_is_named_and_its_snapshots_stay(scene: Scene) -> None:
    """Deleting it would need the group; without this it could never go, nor any of its snapshots, nor their volumes."""
    group_id, cgsnapshot_id, parts = making.snapped(scene)
    scene.sql(sa.update(V).values(group_id=None))
    scene.sql(sa.delete(G).where(G.c.id == group_id))
    (found,) = scene.auditor.run(fix=True).findings
    assert (found.kind, found.resource_id, found.safe) == (Kind.CGSNAPSHOT_ORPHAN, cgsnapshot_id, False)
    assert len(scene.rig.rows(C)) == 1
    assert scene.fix(found) == {"cgsnapshot-orphan": "forgotten"}
    assert scene.rig.rows(C) == []
    kept = [row for row in scene.rig.rows(S) if row["id"] in parts]
    assert [(row["status"], row["cgsnapshot_id"]) for row in kept] == [("available", None)] * len(parts)
    assert scene.find() == []
    for row in kept:
        scene.rig.do(snapshots.DeleteSnapshot, snapshot_id=row["id"])
        scene.rig.do(DeleteVolume, volume_id=row["volume_id"])
    assert scene.find() == []
    assert violations(scene.rig.database, scene.rig.driver) == []


def test_a_cgsnapshot_that_lacks_a_snapshot_is_not_restored_from(scene: Scene) -> None:
    making.cgsnapshot_with_a_snapshot_less(scene)
    scene.fix()
    (row,) = scene.rig.rows(C)
    assert row["status"] == "error"
    scene.rig.do(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=row["id"])
    assert scene.rig.rows(C) == []
    assert scene.find() == []


def test_what_has_been_mended_meanwhile_is_left_alone(scene: Scene) -> None:
    """Each repair looks again: between the finding and the word of an operator anything may happen."""
    making.offer_of_a_volume_that_is_used(scene)
    making.cgsnapshot_without_snapshots(scene)
    making.member_of_no_group(scene)
    found = scene.auditor.run().findings
    assert len(found) == 3
    scene.sql(sa.update(V).where(V.c.id == scene.plain).values(status="awaiting-transfer", group_id=None))
    scene.sql(sa.update(S).where(S.c.id == scene.snapshot).values(cgsnapshot_id=scene.rig.rows(C)[0]["id"]))
    repairs = scene.auditor._repairs
    assert {repairs.apply(item) for item in found} == {"nothing to be done any more"}
    assert (len(scene.rig.rows(T)), len(scene.rig.rows(C))) == (1, 1)


def test_a_group_that_was_stuck_can_be_deleted_and_its_volumes_kept(scene: Scene) -> None:
    group_id, ids = making.grouped(scene)
    scene.sql(sa.update(G).values(status="creating"))
    scene.fix()
    assert scene.rig.rows(G)[0]["status"] == "error"
    scene.rig.do(groups.DeleteGroup, group_id=group_id, delete_volumes=True)
    assert scene.rig.rows(G) == []
    assert not {row["id"] for row in scene.rig.rows(V)} & set(ids)
    assert scene.find() == []

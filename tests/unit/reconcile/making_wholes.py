# SPDX-License-Identifier: Apache-2.0
"""The hands that break groups, cgsnapshots and offers; each returns the findings that this brings."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from volmgr.db import models
from volmgr.operations import cgsnapshots, groups, volumes
from volmgr.operations.transfers import Transfers
from volmgr.reconcile.findings import Kind

Made = list[tuple[Kind, str]]
V, S, G, C, T = models.volumes, models.snapshots, models.groups, models.cgsnapshots, models.transfers


def new_id() -> str:
    return str(uuid.uuid4())


def grouped(scene: Any, count: int = 2) -> tuple[str, list[str]]:
    """Make a group with members; returns their ids."""
    group_id, ids = new_id(), [new_id() for _ in range(count)]
    scene.rig.do(groups.CreateGroup, group_id=group_id)
    for volume_id in ids:
        scene.rig.do(volumes.CreateVolume, volume_id=volume_id, size=1, group_id=group_id)
    return group_id, ids


def snapped(scene: Any) -> tuple[str, str, list[str]]:
    """Make a group and a cgsnapshot of it; returns their ids and those of the snapshots."""
    (group_id, _ids), cgsnapshot_id = grouped(scene), new_id()
    scene.rig.do(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=cgsnapshot_id, group_id=group_id)
    return group_id, cgsnapshot_id, [row["id"] for row in scene.rig.rows(S, cgsnapshot_id=cgsnapshot_id)]


def transfers(scene: Any) -> Transfers:
    return Transfers(scene.rig.database, scene.rig.clock, lambda *_: {}, lambda _: None)


def offered(scene: Any, volume_id: str) -> str:
    transfer_id = new_id()
    transfers(scene).create(scene.rig.context, transfer_id, volume_id, None, 0)
    return transfer_id


def group_stuck(scene: Any) -> Made:
    group_id, _ids = grouped(scene)
    scene.sql(sa.update(G).values(status="updating"))
    return [(Kind.STATUS_STUCK, group_id)]


def group_held_by_nobody(scene: Any) -> Made:
    group_id, _ids = grouped(scene, 0)
    scene.sql(sa.update(G).values(status="deleting", operation_id=new_id()))
    return [(Kind.HOLD_STALE, group_id)]


def group_used_by_nobody(scene: Any) -> Made:
    group_id, _ids = grouped(scene)
    scene.sql(sa.update(G).values(use_count=1))
    return [(Kind.HOLD_STALE, group_id)]


def cgsnapshot_stuck(scene: Any) -> Made:
    _group_id, cgsnapshot_id, _parts = snapped(scene)
    scene.sql(sa.update(C).values(status="creating"))
    return [(Kind.STATUS_STUCK, cgsnapshot_id)]


def cgsnapshot_held_by_nobody(scene: Any) -> Made:
    _group_id, cgsnapshot_id, _parts = snapped(scene)
    scene.sql(sa.update(C).values(status="deleting", operation_id=new_id()))
    return [(Kind.HOLD_STALE, cgsnapshot_id)]


def member_of_no_group(scene: Any) -> Made:
    scene.sql(sa.update(V).where(V.c.id == scene.plain).values(group_id=new_id()))
    return [(Kind.MEMBER_STRAY, scene.plain)]


def part_of_no_cgsnapshot(scene: Any) -> Made:
    """Nothing could delete it: it has to go with the whole, and that is gone."""
    scene.sql(sa.update(S).where(S.c.id == scene.snapshot).values(cgsnapshot_id=new_id()))
    return [(Kind.MEMBER_STRAY, scene.snapshot)]


def cgsnapshot_without_snapshots(scene: Any) -> Made:
    group_id, _ids = grouped(scene, 0)
    cgsnapshot_id = new_id()
    scene.sql(sa.insert(C).values(
        id=cgsnapshot_id, group_id=group_id, status="available", host="host@sim#pool", project_id="p",
        created_at=scene.rig.clock.now(),
    ))
    return [(Kind.CGSNAPSHOT_ORPHAN, cgsnapshot_id)]


def cgsnapshot_with_a_snapshot_less(scene: Any) -> Made:
    _group_id, cgsnapshot_id, parts = snapped(scene)
    scene.sql(sa.update(S).where(S.c.id == parts[0]).values(cgsnapshot_id=None))
    return [(Kind.CGSNAPSHOT_INCOMPLETE, cgsnapshot_id)]


def offer_of_a_volume_that_is_gone(scene: Any) -> Made:
    transfer_id = offered(scene, scene.plain)
    scene.sql(sa.update(V).where(V.c.id == scene.plain).values(status="available"))
    scene.sql(sa.update(T).values(volume_id=new_id()))
    return [(Kind.TRANSFER_ORPHAN, transfer_id)]


def offer_of_a_volume_that_is_used(scene: Any) -> Made:
    """As after a reset of the status: the owner thinks that he has it back, and whoever knows the key may take it."""
    transfer_id = offered(scene, scene.plain)
    scene.sql(sa.update(V).where(V.c.id == scene.plain).values(status="available"))
    return [(Kind.TRANSFER_ORPHAN, transfer_id)]


def volume_that_nobody_offers(scene: Any) -> Made:
    scene.sql(sa.update(V).where(V.c.id == scene.exported).values(status="awaiting-transfer"))
    return [(Kind.STATUS_WRONG, scene.exported)]


def volume_that_nobody_moves(scene: Any) -> Made:
    scene.sql(sa.update(V).where(V.c.id == scene.plain).values(migration_status="migrating"))
    return [(Kind.STATUS_STUCK, scene.plain)]


MAKERS: list[Callable[[Any], Made]] = [
    group_stuck, group_held_by_nobody, group_used_by_nobody, cgsnapshot_stuck, cgsnapshot_held_by_nobody,
    member_of_no_group, part_of_no_cgsnapshot, cgsnapshot_without_snapshots, cgsnapshot_with_a_snapshot_less,
    offer_of_a_volume_that_is_gone, offer_of_a_volume_that_is_used, volume_that_nobody_offers, volume_that_nobody_moves,
]

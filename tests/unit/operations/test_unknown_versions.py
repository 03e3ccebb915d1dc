# SPDX-License-Identifier: Apache-2.0
"""Operations of newer code: a worker that does not know them leaves them alone, however often it starts."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import exception
from volmgr.db import models
from volmgr.operations import volumes
from volmgr.testing.rig import Rig

NEWER: list[dict[str, Any]] = [{"version": 99}, {"verb": "teleport_volume"}]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def newer(rig: Rig, **values: Any) -> str:
    """Return the id of an operation that newer code has admitted, here with what it holds."""
    answer = rig.submit(volumes.CreateVolume, volume_id=str(uuid.uuid4()), size=1)
    for known in (rig.stepwise.work, rig.dispatcher._active, rig.dispatcher._lanes):
        known.clear()
    with rig.database.writer() as conn:
        table = models.operations
        conn.execute(sa.update(table).where(table.c.id == answer["operation_id"]).values(**values))
    return str(answer["operation_id"])


@pytest.mark.parametrize("what", NEWER, ids=str)
@pytest.mark.parametrize("state", ["queued", "running", "undoing", "parked"])
def test_it_is_left_as_it_is(rig: Rig, state: str, what: dict[str, Any]) -> None:
    others: dict[str, dict[str, Any]] = {
        "queued": {"incarnation": None, "epoch": 0}, "parked": {"incarnation": None, "parked_for": "backend"},
    }  # fmt: skip
    operation_id = newer(rig, **{"state": state, "incarnation": "an-earlier-life", **others.get(state, {}), **what})
    before = rig.rows(models.operations, id=operation_id)
    for _ in range(3):
        assert rig.dispatcher.recover() == 0
        rig.run()
    assert rig.rows(models.operations, id=operation_id) == before
    assert [row["status"] for row in rig.rows(models.volumes)] == ["creating"]


@pytest.mark.parametrize("what", NEWER, ids=str)
def test_what_it_holds_is_held_and_the_others_go_on(rig: Rig, what: dict[str, Any]) -> None:
    operation_id = newer(rig, state="running", incarnation="an-earlier-life", **what)
    (held,) = rig.rows(models.volumes)
    try:
        assert rig.submit(volumes.ExtendVolume, volume_id=held["id"], new_size=2)["state"] == "queued"
    except exception.Conflict as refused:
        assert operation_id in str(refused)
    rig.run()
    (still,) = rig.rows(models.volumes)
    assert still == held
    done = rig.do(volumes.CreateVolume, volume_id=str(uuid.uuid4()), size=1)
    assert done is not None
    assert done.state == "done"

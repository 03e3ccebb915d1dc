# SPDX-License-Identifier: Apache-2.0
"""What an audit reads and mends of groups, cgsnapshots, offers and moves; late copies. The same on every database."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from volmgr import exception
from volmgr.db import answered, models
from volmgr.db.engine import Database
from volmgr.operations import cgsnapshots, groups, snapshots, volumes
from volmgr.operations.transfers import Transfers
from volmgr.reconcile.auditor import Auditor, findings_of
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig

pytestmark = pytest.mark.database
CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
V, S, G, C = models.volumes, models.snapshots, models.groups, models.cgsnapshots


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def rig(tmp_path: Path, database: Database) -> Rig:
    return Rig(tmp_path, database=database)


def test_wholes_and_offers_that_contradict_others_are_found_and_mended(rig: Rig) -> None:
    group, other, copy, empty, offer = (new_id() for _ in range(5))
    stray, freed, unoffered, halfway, part = (new_id() for _ in range(5))
    for group_id in (group, other):
        rig.do(groups.CreateGroup, group_id=group_id)
        for _ in range(2):
            rig.do(volumes.CreateVolume, volume_id=new_id(), size=1, group_id=group_id)
    rig.do(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=copy, group_id=group)
    for volume_id in (stray, freed, unoffered, halfway):
        rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    rig.do(snapshots.CreateSnapshot, volume_id=stray, snapshot_id=part)
    Transfers(rig.database, rig.clock, lambda *_: {}, lambda _: None).create(rig.context, offer, freed, None, 0)
    assert findings_of(rig.dispatcher) == []
    lost = rig.rows(S, cgsnapshot_id=copy)[0]["id"]
    with rig.database.writer() as conn:
        conn.execute(sa.update(G).where(G.c.id == other).values(status="updating"))
        conn.execute(sa.update(S).where(S.c.id == lost).values(cgsnapshot_id=None))
        conn.execute(sa.insert(C).values(
            id=empty, group_id=other, status="available", host="host@sim#pool", project_id="p",
            created_at=rig.clock.now(),
        ))
        conn.execute(sa.update(V).where(V.c.id == stray).values(group_id=new_id()))
        conn.execute(sa.update(S).where(S.c.id == part).values(cgsnapshot_id=new_id()))
        conn.execute(sa.update(V).where(V.c.id == freed).values(status="available"))
        conn.execute(sa.update(V).where(V.c.id == unoffered).values(status="awaiting-transfer"))
        conn.execute(sa.update(V).where(V.c.id == halfway).values(migration_status="migrating"))
    auditor = Auditor(rig.dispatcher, grace=0)
    assert sorted((item.kind.label, item.resource_id) for item in auditor.run().findings) == sorted([
        ("status-stuck", other), ("cgsnapshot-incomplete", copy), ("cgsnapshot-orphan", empty),
        ("member-stray", stray), ("member-stray", part), ("transfer-orphan", offer), ("status-wrong", unoffered),
        ("status-stuck", halfway),
    ])
    assert [item.error for item in auditor.run(fix=True).outcomes] == [""] * 8
    assert findings_of(rig.dispatcher) == []
    assert rig.rows(C, id=copy)[0]["status"] == rig.rows(G, id=other)[0]["status"] == "error"
    rig.do(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=copy)
    rig.do(groups.DeleteGroup, group_id=other, delete_volumes=True)
    assert violations(rig.database, rig.driver) == []


def test_a_late_copy_is_told_from_a_new_request(rig: Rig) -> None:
    volume_id, key = new_id(), new_id()
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    for _ in range(2):
        with answered.arrival(key, "initialize_connection"):
            rig.attachments.initialize("volume", volume_id, CONNECTOR)
    with answered.arrival(new_id(), "terminate_connection"):
        rig.attachments.terminate("volume", volume_id, CONNECTOR, False)
    with answered.arrival(key, "initialize_connection"), pytest.raises(exception.Conflict):
        rig.attachments.initialize("volume", volume_id, CONNECTOR)
    assert rig.rows(models.grants) == []
    with rig.database.writer() as conn:
        assert answered.purge(conn, rig.clock.now().replace(year=2100), 10) == 2

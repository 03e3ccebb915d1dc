# SPDX-License-Identifier: Apache-2.0
"""What an audit reads and mends in SQL, the same on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa

from volmgr.db import audit, models, settling
from volmgr.db.engine import Database
from volmgr.operations import snapshots, volumes
from volmgr.reconcile.auditor import Auditor, findings_of
from volmgr.testing.filling import fill
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig

pytestmark = pytest.mark.database
CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def rig(tmp_path: Path, database: Database) -> Rig:
    return Rig(tmp_path, database=database)


def test_a_worker_with_everything_is_clean_and_what_sql_gets_wrong_is_mended(rig: Rig) -> None:
    volume_id, other, snapshot_id, attachment_id, orphan = (new_id() for _ in range(5))
    for item in (volume_id, other):
        rig.do(volumes.CreateVolume, volume_id=item, size=2, volume_type=None)
    rig.do(snapshots.CreateSnapshot, volume_id=other, snapshot_id=snapshot_id)
    rig.attachments.reserve(attachment_id, volume_id, new_id(), "rw")
    rig.attachments.connect(attachment_id, volume_id, CONNECTOR)
    rig.attachments.complete(attachment_id)
    assert findings_of(rig.dispatcher) == []
    v, a, s = models.volumes, models.attachments, models.snapshots
    with rig.database.writer() as conn:
        conn.execute(sa.update(v).where(v.c.id == volume_id).values(status="available"))
        conn.execute(sa.update(v).where(v.c.id == other).values(status="extending"))
        conn.execute(sa.update(s).values(use_count=3))
        conn.execute(sa.update(models.quotas).values(volumes=9))
        conn.execute(sa.insert(a).values(id=orphan, volume_id=new_id(), status="attached", created_at=rig.clock.now()))
    auditor = Auditor(rig.dispatcher, grace=0)
    assert sorted(item.kind.label for item in auditor.run().findings) == [
        "attachment-orphan", "hold-stale", "quota-wrong", "status-stuck", "status-wrong",
    ]
    assert [item.error for item in auditor.run(fix=True).outcomes] == [""] * 5
    assert findings_of(rig.dispatcher) == []
    assert violations(rig.database, rig.driver) == []
    assert {row["verb"] for row in rig.rows(models.operations)} >= {"settle", "recount"}


def test_pages_miss_nothing(rig: Rig) -> None:
    fill(rig, 25)
    assert findings_of(rig.dispatcher, page=7) == []
    with rig.database.reader() as conn:
        of = audit.hosts(conn, rig.settings.host)
    for page in (1, 5, 25, 26):
        assert len(audit.resources(rig.database, of, page)) == 25
        assert len(audit.objects(rig.database, of, page)) == 25
        assert len(audit.exports(rig.database, rig.settings.host, page)) == 9
        assert sum(map(len, audit.grants(rig.database, rig.settings.host, page).values())) == 9


def test_usage_is_not_counted_anew_while_anything_of_the_project_is_being_changed(rig: Rig) -> None:
    volume_id = new_id()
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    rig.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=5)
    # The growth is charged, the row does not say it yet.
    with rig.database.writer() as conn:
        assert audit.quotas(conn) == []
        assert settling.recount(conn, "p") == []
    rig.run()
    assert rig.rows(models.quotas)[0]["gigabytes"] == 5
    assert findings_of(rig.dispatcher) == []


def test_a_grant_is_known_by_the_names_of_its_protocol(rig: Rig) -> None:
    """A host's connector has the names of all its ports, whatever it connects by."""
    volume_id = new_id()
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    rig.attachments.initialize("volume", volume_id, {**CONNECTOR, "wwpns": ["50014380186b3f65"]})
    g = models.grants
    for key, peers in (
        ("iqn:x", {CONNECTOR["initiator"]}), ("fc:50014380186b3f65", {"50014380186b3f65"}), ("aoe:", {"0015175d0000"}),
    ):
        with rig.database.writer() as conn:
            conn.execute(sa.update(g).values(peer_key=key, macs=["0015175d0000"]))
        ((grant,),) = audit.grants(rig.database, rig.settings.host).values()
        assert grant.peers == peers

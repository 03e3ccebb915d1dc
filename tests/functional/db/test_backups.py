# SPDX-License-Identifier: Apache-2.0
"""Backups on SQLite, PostgreSQL and MariaDB: rows, pages, holds, quota and what an audit asks."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import exception
from volmgr.db import backups as rows
from volmgr.db import listing, models
from volmgr.db.engine import Database
from volmgr.operations import backups, volumes
from volmgr.operations.base import Operation
from volmgr.testing.invariants import violations
from volmgr.testing.rig import NO_LIMITS, Rig

pytestmark = pytest.mark.database


def new_id() -> str:
    return str(uuid.uuid4())


def done(rig: Rig, cls: type[Operation[Any]], **arguments: Any) -> None:
    operation = rig.do(cls, **arguments)
    assert operation is not None
    assert operation.state == "done", operation.error


def test_a_chain_of_backups(tmp_path: Path, database: Database) -> None:
    rig = Rig(tmp_path, database=database, quota={**NO_LIMITS, "backups": 3})
    volume_id, ids = new_id(), [new_id() for _ in range(3)]
    done(rig, volumes.CreateVolume, volume_id=volume_id, size=1)
    for number, backup_id in enumerate(ids):
        done(rig, backups.CreateBackup, backup_id=backup_id, volume_id=volume_id, incremental=number > 0)
    with pytest.raises(exception.QuotaExceeded):
        rig.submit(backups.CreateBackup, backup_id=new_id(), volume_id=volume_id)
    with database.reader() as conn:
        page = listing.Page({"volume_id": volume_id, "store": "default"}, limit=2, sort_dirs=("asc",))
        first = listing.backups(conn, page)
        rest = listing.backups(conn, listing.Page(page.filters, marker=first[-1]["id"], sort_dirs=("asc",)))
        assert [item["id"] for item in (*first, *rest)] == ids
        assert [item["parent_id"] for item in (*first, *rest)] == [None, *ids[:2]]
        assert rows.latest(conn, volume_id, "default", "p") == ids[-1]
        assert rows.dependants(conn, ids[0]) == [ids[1]]
        assert rows.by_store(conn) == {"default": dict.fromkeys(ids, "available")}
        assert rows.unsettled(conn) == []
    with pytest.raises(exception.BackupHasDependants):
        rig.submit(backups.DeleteBackup, backup_id=ids[1])
    held = rig.submit(volumes.CreateVolume, volume_id=new_id(), backup_id=ids[1])
    rig.dispatcher.pump()
    with database.reader() as conn:
        assert rows.unsettled(conn) == [], "an operation that runs holds it"
    rig.run()
    assert rig.dispatcher.get(held["operation_id"]).state == "done"
    done(rig, backups.RestoreBackup, backup_id=ids[0], volume_id=volume_id)
    with database.writer() as conn:
        conn.execute(sa.update(models.backups).where(models.backups.c.id == ids[0]).values(use_count=1))
    with database.reader() as conn:
        assert [(row.id, row.use_count, row.users) for row in rows.unsettled(conn)] == [(ids[0], 1, 0)]
    with database.writer() as conn:
        conn.execute(sa.update(models.backups).values(use_count=0))
    for backup_id in reversed(ids):
        done(rig, backups.DeleteBackup, backup_id=backup_id)
    assert violations(database, rig.driver) == []

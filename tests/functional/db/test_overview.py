# SPDX-License-Identifier: Apache-2.0
"""What the status page reads costs the same statements for ten operations as for a thousand."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import sqlalchemy as sa

from volmgr.db import models, overview, services
from volmgr.db.engine import Database, utcnow

HOST = "node@b"
MOST = 10


def operation(state: str, **values: Any) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()), "request_key": str(uuid.uuid4()), "verb": "create_volume", "version": 1,
        "resource": "volume", "resource_id": str(uuid.uuid4()), "host": HOST, "state": state, "lane": "control",
        "claimed": True, "claims": [], "context": {}, "args": {}, "created_at": utcnow(), "progress": None,
        "parked_for": None,
        "finished_at": utcnow() if state in ("failed", "done") else None,
        "error": {"code": "volmgr.no_space", "message": "full", "hint": "Delete something", "details": {}}
        if state == "failed" else None,
        **values,
    }


def look(database: Database) -> tuple[dict[str, Any], int]:
    with database.counting() as count, database.reader() as conn:
        found = overview.everything(conn, 60, utcnow())
    return found, count.statements


def test_its_cost_and_what_it_says(database: Database) -> None:
    with database.writer() as conn:
        services.register(
            conn, HOST, topic="volume", availability_zone="nova", driver="sim", incarnation=str(uuid.uuid4()),
            rpc_version="1.0", state="up", reason=None,
            capabilities={"pools": [{"pool_name": "p", "total_capacity_gb": 10, "filter_function": "1 < 2"}]},
        )
        old = utcnow() - datetime.timedelta(days=2)
        conn.execute(sa.insert(models.operations), [
            operation("running", progress=0.5), operation("parked", parked_for="operator", host=None),
            operation("failed"), operation("failed", finished_at=old, created_at=old), operation("done"),
        ])
    few, cost = look(database)
    assert few["backends"][0]["pools"] == [{
        "pool_name": "p", "total_capacity_gb": 10, "free_capacity_gb": None, "allocated_capacity_gb": None,
        "provisioned_capacity_gb": None,
    }]
    assert few["counts"] == {"running": 1, "parked": 1}
    assert {(item["state"], item["progress"], item["parked_for"]) for item in few["operations"]} == {
        ("running", 0.5, None), ("parked", None, "operator"),
    }
    assert [(item["message"], item["hint"]) for item in few["errors"]] == [("full", "Delete something")]
    with database.writer() as conn:
        conn.execute(sa.insert(models.operations), [operation("running") for _ in range(300)])
        conn.execute(sa.insert(models.operations), [operation("failed") for _ in range(300)])
    many, cost_of_many = look(database)
    assert cost == cost_of_many <= MOST
    assert many["counts"]["running"] == 301
    assert (len(many["operations"]), len(many["errors"])) == (overview.SHOWN, overview.ERRORS)

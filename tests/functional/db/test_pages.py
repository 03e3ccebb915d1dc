# SPDX-License-Identifier: Apache-2.0
"""A page of a long list costs what one of a short list does: a constant number of statements."""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from volmgr.db import listing, models
from volmgr.db.engine import Database, utcnow

#: their product is more than 100,000.
ROWS = 320
PAGE, MOST = 1000, 3


def test_a_page_of_a_thousand_out_of_a_hundred_thousand(database: Database) -> None:
    """The rows are made by the database, each of the halves of two ids."""
    now, volumes = utcnow(), models.volumes
    base = {"size": 1, "status": "in-use", "created_at": now, "project_id": "p"}
    ids = [str(uuid.uuid4()) for _ in range(ROWS)]
    first, second = volumes.alias("first"), volumes.alias("second")
    joined = sa.func.substr(first.c.id, 1, 18).concat(sa.func.substr(second.c.id, 19))
    columns = [joined if column.name == "id" else first.c[column.name] for column in volumes.c]
    with database.writer() as conn:
        conn.execute(sa.insert(volumes), [{"id": item, **base} for item in ids])
        others = sa.select(*columns).where(first.c.id != second.c.id)
        conn.execute(sa.insert(volumes).from_select([column.name for column in volumes.c], others))
    page = listing.Page({}, limit=PAGE, project_id="p")
    seen: set[str] = set()
    for _ in range(3):
        with database.counting() as count, database.reader() as conn:
            found = listing.volumes(conn, page)
        assert count.statements <= MOST and len(found) == PAGE
        assert not seen.intersection(item["id"] for item in found)
        seen.update(item["id"] for item in found)
        page = listing.Page({}, marker=found[-1]["id"], limit=PAGE, project_id="p")
    with database.reader() as conn:
        total = conn.execute(sa.select(sa.func.count()).select_from(volumes)).scalar_one()
    assert total == ROWS * ROWS

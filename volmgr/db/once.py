# SPDX-License-Identifier: Apache-2.0
"""A row that is made unless it is there: one statement, in the dialect of each database. Knows no table."""

from __future__ import annotations

import functools
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.engine import Connection


def insert_once(conn: Connection, table: sa.Table, values: dict[str, Any]) -> bool:
    """Make a row, unless another transaction was first, whose end is waited for; returns whether it was made."""
    return bool(conn.execute(_statement(conn.dialect.name, table), values).rowcount)


@functools.cache
def _statement(dialect: str, table: sa.Table) -> Any:
    if dialect == "sqlite":
        return sqlite_insert(table).on_conflict_do_nothing()
    if dialect == "postgresql":
        return postgresql_insert(table).on_conflict_do_nothing()
    return mysql_insert(table).prefix_with("IGNORE")

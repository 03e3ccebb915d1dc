# SPDX-License-Identifier: Apache-2.0
"""Alembic's entry. The connection, inside a transaction, comes from the caller; only developers run alembic itself.

A new revision, from the root of the tree, against a scratch database:
``alembic -c volmgr/db/alembic.ini -x url=sqlite:////tmp/scratch.sqlite revision --autogenerate --rev-id 0002 -m text``
"""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy.engine import Connection

from volmgr.db import models
from volmgr.db.engine import Database
from volmgr.db.migrations.comparing import default_differs


def _render(kind: str, item: Any, autogen: Any) -> str | Literal[False]:
    """A revision must not change when the code does: our own type is written as what it is in SQL."""
    if kind == "type" and isinstance(item, models.Json):
        autogen.imports.add("from sqlalchemy.dialects import mysql")
        return "sa.Text().with_variant(mysql.LONGTEXT(), 'mysql', 'mariadb')"
    return False


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=models.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_render,
        compare_type=True,
        compare_server_default=default_differs,
    )
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    with Database(context.get_x_argument(as_dictionary=True)["url"]).writer() as made:
        _run(made)

# SPDX-License-Identifier: Apache-2.0
"""Migrations and models describe the same schema, on every database; upgrades can be repeated and run at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from volmgr.db import models, schema
from volmgr.db.engine import Database
from volmgr.db.migrations.comparing import default_differs
from volmgr.testing import database as testing
from volmgr.testing.servers import ServerUnavailable
from volmgr.testing.servers.pytest_fixtures import unavailable


@pytest.fixture
def empty() -> Iterator[Database]:
    try:
        made = Database(testing.empty_database_url(testing.kind_asked_for()), pool_size=8)
    except ServerUnavailable as error:
        unavailable(str(error))
    yield made
    made.close()


def differences(db: Database) -> list[object]:
    with db.reader() as conn:
        options = {"compare_type": True, "compare_server_default": default_differs}
        return list(compare_metadata(MigrationContext.configure(conn, opts=options), models.metadata))


def test_the_migrations_make_what_the_models_say(empty: Database) -> None:
    assert differences(empty)
    schema.migrate(empty, schema.HEAD)
    assert differences(empty) == []
    assert schema.version(empty) == schema.HEAD


def test_an_upgrade_can_be_repeated(empty: Database) -> None:
    assert schema.upgrade(empty) == schema.HEAD
    assert schema.upgrade(empty) == schema.HEAD
    schema.check(empty)
    assert differences(empty) == []


def test_upgrades_at_the_same_moment_make_one_schema(empty: Database) -> None:
    results: list[str] = []
    url = empty.url.render_as_string(hide_password=False)
    databases = [Database(url, pool_size=2) for _ in range(3)]
    threads = [threading.Thread(target=lambda db=db: results.append(schema.upgrade(db))) for db in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for db in databases:
        db.close()
    assert results == [schema.HEAD] * 3
    assert differences(empty) == []

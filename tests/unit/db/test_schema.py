# SPDX-License-Identifier: Apache-2.0
"""The embedded schema: made at once or by migrations it is the same, and only one process makes it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import exception
from volmgr.db import models, schema
from volmgr.db.engine import Database

PREPARE = """
import sys
from volmgr.db import schema
from volmgr.db.engine import Database
sys.stdin.readline()
db = Database("sqlite:///" + sys.argv[1])
schema.prepare(db, embedded=True)
print(schema.version(db))
"""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], Database]]:
    made: list[Database] = []

    def _make(name: str) -> Database:
        made.append(Database(f"sqlite:///{tmp_path}/{name}.sqlite"))
        return made[-1]

    yield _make
    for db in made:
        db.close()


def _described(db: Database) -> dict[str, Any]:
    with db.reader() as conn:
        look = sa.inspect(conn)
        return {
            table: {
                "columns": [
                    {**column, "type": str(column["type"]), "default": str(column["default"]).strip("()'")}
                    for column in look.get_columns(table)
                ],
                "key": look.get_pk_constraint(table),
                "indexes": sorted(look.get_indexes(table), key=lambda index: str(index["name"])),
                "unique": sorted(look.get_unique_constraints(table), key=lambda unique: str(unique["name"])),
            }
            for table in sorted(look.get_table_names())
        }


def test_made_at_once_or_by_migrations_it_is_the_same(make: Callable[[str], Database]) -> None:
    at_once, step_by_step = make("a"), make("b")
    schema.upgrade(at_once)
    schema.migrate(step_by_step, schema.HEAD)
    assert schema.version(at_once) == schema.version(step_by_step) == schema.HEAD
    described = _described(at_once)
    assert set(described) == {*models.metadata.tables, "alembic_version"}
    assert described == _described(step_by_step)
    for db in (at_once, step_by_step):
        with db.reader() as conn:
            assert conn.execute(sa.select(models.schema_window)).all() == [(1, schema.OLDEST_CODE)]


def test_processes_that_start_at_once_make_one_schema(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "shared.sqlite"
    children = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PREPARE, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [child.communicate(timeout=60) for child in children]
    assert [out.strip() for out, _ in answers] == [schema.HEAD] * 3, answers


def test_an_empty_database_has_no_version(make: Callable[[str], Database]) -> None:
    db = make("empty")
    assert schema.version(db) is None
    with pytest.raises(exception.SchemaMismatch, match="not made yet") as caught:
        schema.check(db)
    assert "volmgr-manage db upgrade" in caught.value.hint


def test_a_start_does_not_change_a_schema_that_is_not_its_own(make: Callable[[str], Database]) -> None:
    db = make("foreign")
    with pytest.raises(exception.SchemaMismatch):
        schema.prepare(db, embedded=False)
    assert schema.version(db) is None


def _set_version(db: Database, version: str, oldest_code: str) -> None:
    with db.writer() as conn:
        conn.exec_driver_sql("UPDATE alembic_version SET version_num = ?", (version,))
        conn.execute(sa.update(models.schema_window).values(oldest_code=oldest_code))


def test_a_newer_schema_is_refused_unless_its_window_lets_us_in(make: Callable[[str], Database]) -> None:
    db = make("newer")
    schema.prepare(db, embedded=True)
    _set_version(db, "9999", "9998")
    for refuse in (lambda: schema.prepare(db, embedded=True), lambda: schema.upgrade(db), lambda: schema.check(db)):
        with pytest.raises(exception.SchemaMismatch) as caught:
            refuse()
        assert caught.value.details == {"found": "9999", "wanted": schema.HEAD}
        assert "upgrade volmgr" in caught.value.hint
    _set_version(db, "9999", schema.HEAD)
    schema.check(db)
    assert schema.upgrade(db) == "9999"


def test_an_older_schema_is_refused(make: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch) -> None:
    db = make("older")
    schema.prepare(db, embedded=True)
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "0777"))
    monkeypatch.setattr(schema, "HEAD", "0777")
    with pytest.raises(exception.SchemaMismatch) as caught:
        schema.prepare(db, embedded=False)
    assert caught.value.details == {"found": schema.REVISIONS[-2], "wanted": "0777"}


def test_an_upgrade_that_does_not_end_is_not_waited_for_for_ever(
    make: Callable[[str], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    db = make("locked")
    monkeypatch.setattr(schema, "LOCK_TIMEOUT_SECONDS", 0.1)
    with schema._alone(db), pytest.raises(exception.Timeout):
        schema.upgrade(db)


def test_the_head_is_the_last_migration() -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert scripts.get_heads() == [schema.HEAD]
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == schema.REVISIONS

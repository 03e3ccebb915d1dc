# SPDX-License-Identifier: Apache-2.0
"""What a support bundle tells of the database, and which secrets lie in it, so that they can be found elsewhere.

A constant number of statements, each with a limit; nothing is changed.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from volmgr import exception, states
from volmgr.db import models, schema
from volmgr.db.engine import Database

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from volmgr.crypto import Cipher

SHOWN = 500
_O = models.operations
_OPERATION = ("id", "verb", "version", "resource", "resource_id", "host", "state", "lane", "step", "epoch", "deaths",
              "progress", "parked_for", "error", "created_at", "started_at", "updated_at", "finished_at")
#: where ciphertext lies: table, column, and the columns that its row is known by.
SEALED: tuple[tuple[sa.Table, str, tuple[str, ...]], ...] = (
    (models.exports, "auth_secret", ("resource_id",)),
    (models.volumes, "provider_auth", ("id",)),
    (models.snapshots, "provider_auth", ("id",)),
    (models.initiator_data, "value", ("initiator", "namespace", "key")),
)


def _opened(conf: Any) -> Database:
    """Return the database; one that is a file is not made.

    :raises NotFound: there is none yet.
    """
    from volmgr.cmd.status import opened

    with opened(conf) as found:
        if found is None:
            raise exception.NotFound("There is no database yet", resource="database")
    return Database.from_config(conf.database, pool_size=1)


def database(conf: Any) -> dict[str, Any]:
    """Return what the database says of schema, workers, resources, operations and findings."""
    made = _opened(conf)
    try:
        with made.reader() as conn:
            return {
                "name": made.name,
                "schema": schema.current(conn),
                "wanted_schema": schema.HEAD,
                "services": _rows(conn, sa.select(models.services).limit(SHOWN)),
                "resources": _counts(conn),
                "operations": _rows(conn, sa.select(_O.c.verb, _O.c.state, sa.func.count().label("count"))
                                    .group_by(_O.c.verb, _O.c.state)),
                "unfinished": _operations(conn, _O.c.state.in_(states.UNFINISHED)),
                "failed": _operations(conn, _O.c.state == "failed"),
                "findings": _rows(conn, sa.select(models.findings).limit(SHOWN)),
            }
    finally:
        made.close()


def _operations(conn: Connection, which: sa.ColumnElement[bool]) -> list[dict[str, Any]]:
    columns = [_O.c[name] for name in _OPERATION]
    return _rows(conn, sa.select(*columns).where(which).order_by(_O.c.created_at.desc()).limit(SHOWN))


def _counts(conn: Connection) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for table in (models.volumes, models.snapshots, models.backups, models.attachments):
        rows = conn.execute(sa.select(table.c.status, sa.func.count()).group_by(table.c.status))
        found[table.name] = {status: count for status, count in rows}
    found["exports"] = conn.execute(sa.select(sa.func.count()).select_from(models.exports)).scalar_one()
    return found


def _rows(conn: Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in conn.execute(query)]


def secret_tokens(conf: Any) -> tuple[set[str], dict[str, str]]:
    """Return the keys and the accounts' secrets of this deployment, and what could not be read, with the reason.

    They are for finding them where they must not be; they go nowhere.
    """
    from volmgr import crypto

    tokens: set[str] = set()
    unread: dict[str, str] = {}
    try:
        cipher = crypto.read_key_file(conf.key_file)
        with open(conf.key_file, encoding="utf-8") as file:
            tokens.update(json.load(file)["keys"].values())
    except (exception.VolmgrError, OSError, ValueError, KeyError) as error:
        return tokens, {"secrets by value": f"the key file: {error}"}
    try:
        made = _opened(conf)
    except exception.VolmgrError as error:
        return tokens, {"secrets by value": f"the database: {error}"}
    try:
        with made.reader() as conn:
            for table, column, keys in SEALED:
                tokens |= _unsealed(conn, cipher, table, column, keys)
    except Exception as error:
        unread["secrets by value"] = f"the database: {type(error).__name__}"
    finally:
        made.close()
    return tokens | {base64.b64encode(token.encode()).decode() for token in tokens}, unread


def _unsealed(conn: Connection, cipher: Cipher, table: sa.Table, column: str, keys: tuple[str, ...]) -> set[str]:
    query = sa.select(*(table.c[key] for key in keys), table.c[column]).where(table.c[column].is_not(None))
    found: set[str] = set()
    for row in conn.execute(query):
        *key, sealed = row
        try:
            text = cipher.decrypt(table.name, column, "/".join(key), sealed).reveal()
        except (exception.KeyMismatch, exception.Inconsistent):
            continue  # what cannot be opened cannot have been written anywhere by this host
        found |= {text, *text.split()[-1:]}
    return found

# SPDX-License-Identifier: Apache-2.0
"""What a driver wants to remember of an initiator from one connection to the next, such as an account of its own there.

Values may be secrets, so they are kept as ciphertext. This module knows no driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception
from volmgr.crypto import Cipher
from volmgr.db import models
from volmgr.types import Secret

_D = models.initiator_data
_KEY_LENGTH = _D.c.key.type.length  # type: ignore[attr-defined]
_SPACE_LENGTH = _D.c.namespace.type.length  # type: ignore[attr-defined]


def get(conn: Connection, cipher: Cipher, initiator: str, backend: str) -> dict[str, str]:
    """Return what a backend's driver remembers of an initiator."""
    space = _space(backend)
    mine = (_D.c.initiator == initiator) & (_D.c.namespace == space)
    return {
        row.key: cipher.decrypt(_D.name, "value", _row(initiator, space, row.key), row.value).reveal()
        for row in conn.execute(sa.select(_D.c.key, _D.c.value).where(mine))
    }


def save(conn: Connection, cipher: Cipher, initiator: str, backend: str, updates: Mapping[str, Any]) -> None:
    """Remember ``set_values`` (a mapping) and forget ``remove_values`` (keys); a repeat changes nothing.

    :raises Inconsistent: the driver wants to remember what is no text, or under too long a name.
    """
    space = _space(backend)
    for key in updates.get("remove_values") or ():
        conn.execute(sa.delete(_D).where(_this(initiator, space, key)))
    for key, value in (updates.get("set_values") or {}).items():
        if not isinstance(key, str) or not isinstance(value, str) or len(key) > _KEY_LENGTH:
            raise exception.Inconsistent("The driver wants to remember of an initiator what is no text, or a long name")
        values = {"value": cipher.encrypt(_D.name, "value", _row(initiator, space, key), Secret(value))}
        if not conn.execute(sa.update(_D).where(_this(initiator, space, key)).values(values)).rowcount:
            conn.execute(sa.insert(_D).values(initiator=initiator, namespace=space, key=key, **values))


def _space(backend: str) -> str:
    return backend if len(backend) <= _SPACE_LENGTH else hashlib.sha256(backend.encode()).hexdigest()


def _this(initiator: str, space: str, key: str) -> sa.ColumnElement[bool]:
    return (_D.c.initiator == initiator) & (_D.c.namespace == space) & (_D.c.key == key)


def _row(initiator: str, space: str, key: str) -> str:
    return f"{initiator}/{space}/{key}"

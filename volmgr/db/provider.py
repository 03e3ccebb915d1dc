# SPDX-License-Identifier: Apache-2.0
"""What a driver says of where a resource is and who may reach it: the columns ``provider_*`` of its row.

The account is a secret, kept as ciphertext and read by nobody but the driver. This module knows no driver.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import types
from volmgr.crypto import Cipher
from volmgr.db import models

R = TypeVar("R", bound=types.Volume | types.Snapshot)
AUTH = "provider_auth"
COLUMNS = frozenset({"provider_location", AUTH, "provider_id"})


def with_accounts(conn: Connection, cipher: Cipher, resources: Sequence[R]) -> list[R]:
    """Return resources of one kind with their accounts; one statement."""
    if not resources:
        return []
    table = _table(resources[0])
    query = sa.select(table.c.id, table.c.provider_auth).where(
        table.c.id.in_([item.id for item in resources]), table.c.provider_auth.is_not(None)
    )
    kept = {row.id: row.provider_auth for row in conn.execute(query)}
    return [
        dataclasses.replace(item, provider_auth=cipher.decrypt(table.name, AUTH, item.id, kept[item.id]))
        if item.id in kept else item
        for item in resources
    ]


def save(
    conn: Connection, cipher: Cipher, resource: types.Volume | types.Snapshot, changed: Mapping[str, Any]
) -> None:
    """Write some of :data:`COLUMNS`; an account is a :class:`volmgr.types.Secret`."""
    table, columns = _table(resource), dict(changed)
    if columns.get(AUTH):
        columns[AUTH] = cipher.encrypt(table.name, AUTH, resource.id, columns[AUTH])
    conn.execute(sa.update(table).where(table.c.id == resource.id).values(columns))


def _table(resource: types.Volume | types.Snapshot) -> sa.Table:
    return models.snapshots if isinstance(resource, types.Snapshot) else models.volumes

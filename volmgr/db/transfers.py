# SPDX-License-Identifier: Apache-2.0
"""Offers of a volume to another project: one row each, with the key as a salted hash that is slow to compute.

``key_hash`` has all that is needed to check a key: the function with its costs, how many wrong keys were tried, and the
hash. This module knows no verb.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import secrets
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import concurrency, exception
from volmgr.db import models, records

_T, _V = models.transfers, models.volumes
#: scrypt's costs (RFC 7914): 16 MiB of memory, some tens of milliseconds.
COSTS = {"n": 2**14, "r": 8, "p": 1}
_MEMORY = 64 * 1024 * 1024
KEY_BYTES, SALT_BYTES = 16, 16
#: so many wrong keys end an offer.
MAX_WRONG = 5


def new_key() -> str:
    """Return a new key: 128 random bits as hexadecimal digits."""
    return secrets.token_hex(KEY_BYTES)


def new_salt() -> str:
    """Return a new salt."""
    return secrets.token_hex(SALT_BYTES)


def hashed(key: str, salt: str) -> str:
    """Return what is kept of a key."""
    return _text(0, _digest(key, salt, **COSTS))


def _digest(key: str, salt: str, n: int, r: int, p: int) -> str:
    found: bytes = concurrency.offload(
        hashlib.scrypt, key.encode(), salt=bytes.fromhex(salt), n=n, r=r, p=p, maxmem=_MEMORY, dklen=32
    )
    return found.hex()


def _text(wrong: int, digest: str) -> str:
    return f"scrypt${COSTS['n']}${COSTS['r']}${COSTS['p']}${wrong}${digest}"


def fits(row: Any, key: str) -> bool:
    """Return whether a key is the one of an offer; that takes as long for any key."""
    _name, n, r, p, _wrong, digest = row.key_hash.split("$")
    return hmac.compare_digest(_digest(key, row.salt, n=int(n), r=int(r), p=int(p)), digest)


def wrong(conn: Connection, row: Any) -> int:
    """Count a wrong key; returns how many more may be tried. Two at once are counted as two.

    After the last one the offer is withdrawn.
    """
    name, n, r, p, count, digest = row.key_hash.split("$")
    left = MAX_WRONG - int(count) - 1
    mine = (_T.c.id == row.id) & (_T.c.key_hash == row.key_hash)
    if left > 0:
        text = "$".join((name, n, r, p, str(int(count) + 1), digest))
        done = conn.execute(sa.update(_T).where(mine).values(key_hash=text)).rowcount
    else:
        done = conn.execute(sa.delete(_T).where(mine)).rowcount
        if done:
            _let_go(conn, _V.c.id == row.volume_id)
    if not done and (again := get(conn, row.id)) is not None:
        return wrong(conn, again)
    return max(left, 0)


def insert(conn: Connection, **values: Any) -> None:
    """Make an offer's row."""
    conn.execute(sa.insert(_T), values)


def get(conn: Connection, transfer_id: str) -> Any:
    """Return an offer's row, or None."""
    return conn.execute(sa.select(_T).where(_T.c.id == transfer_id)).first()


def delete(conn: Connection, transfer_id: str) -> None:
    """Remove an offer's row; the volume is the caller's to change."""
    conn.execute(sa.delete(_T).where(_T.c.id == transfer_id))


def end_of_volume(conn: Connection, volume_id: str) -> None:
    """Remove the offer of a volume, if there is one, as the volume is no more, or has its new owner."""
    conn.execute(sa.delete(_T).where(_T.c.volume_id == volume_id))


def withdraw(conn: Connection, transfer_id: str, volume_id: str) -> None:
    """Take an offer back: the volume can be used again.

    :raises Conflict: it is being accepted at this moment; the caller's transaction must be rolled back.
    """
    held = sa.select(_V.c.operation_id).where(_V.c.id == volume_id).with_for_update()
    if (operation_id := conn.execute(held).scalar()) is not None:
        raise exception.Conflict(
            f"The transfer {transfer_id} is being accepted",
            hint=f"volmgr operation wait {operation_id}", resource="transfer", id=transfer_id,
            operation_id=operation_id,
        )
    delete(conn, transfer_id)
    _let_go(conn, _V.c.id == volume_id)


def _let_go(conn: Connection, where: Any) -> None:
    offered = (_V.c.status == "awaiting-transfer") & _V.c.operation_id.is_(None)
    conn.execute(sa.update(_V).where(where, offered).values(status="available"))


def expire(conn: Connection, now: datetime.datetime) -> int:
    """Withdraw what has expired and is not being accepted; returns how many offers."""
    free = sa.select(_V.c.id).where(_V.c.operation_id.is_(None))
    over = _T.c.expires_at.is_not(None) & (_T.c.expires_at <= now) & _T.c.volume_id.in_(free)
    ids = list(conn.execute(sa.select(_T.c.volume_id).where(over)).scalars())
    if ids:
        conn.execute(sa.delete(_T).where(over))
        _let_go(conn, _V.c.id.in_(ids))
    return len(ids)


def has_expired(conn: Connection, now: datetime.datetime) -> bool:
    """Return whether any offer has."""
    over = _T.c.expires_at.is_not(None) & (_T.c.expires_at <= now)
    return conn.execute(sa.select(_T.c.id).where(over).limit(1)).first() is not None


def view(row: Any) -> dict[str, Any]:
    """Return an offer as clients read it: nothing of its key."""
    return {
        "id": row.id,
        "volume_id": row.volume_id,
        "name": row.display_name,
        "project_id": row.project_id,
        "user_id": row.user_id,
        "created_at": records.moment(row.created_at),
        "expires_at": records.moment(row.expires_at),
    }

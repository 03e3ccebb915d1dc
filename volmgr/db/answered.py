# SPDX-License-Identifier: Apache-2.0
"""The keys of requests that were answered and are no operation: attaching, connecting, offering, and their ends.

A message can arrive once more long after its request was answered, when the world has changed: a copy of a connection
that was ended since would let somebody in again, a copy of a disconnection would cut off who has connected since. So
the transaction that does such a request keeps its key, and a copy finds it there; so does one that finds all as it is
asked for, the connection of who is connected already, say. The keys go with the journal's tombstones. A request without
a key cannot be told from a new one: volmgr's own client gives each a key of its own, and a client that gives none must
not send a message twice. This module knows no verb.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception
from volmgr.db import models
from volmgr.db.once import insert_once

_T = models.answered
_KNOWN = sa.select(_T.c.arrival_id).where(
    *(_T.c[name] == sa.bindparam(name) for name in ("request_key", "verb", "resource_id"))
)


@dataclass(frozen=True)
class Arrival:
    """One arrival of a message; ``id`` tells it from the other copies, ``key`` is the same in all."""

    key: str
    verb: str
    id: str


_arrived: contextvars.ContextVar[Arrival | None] = contextvars.ContextVar("arrived", default=None)


@contextlib.contextmanager
def arrival(key: str | None, verb: str) -> Iterator[None]:
    """Let what is done inside the ``with`` be done for a message.

    :param key: its request's key; None if it has none. :param verb: what is asked for.
    """
    token = _arrived.set(Arrival(key, verb, str(uuid.uuid4())) if key else None)
    try:
        yield
    finally:
        _arrived.reset(token)


def keyed() -> bool:
    """Return whether what is done now is done for a message with a key, which is kept."""
    return _arrived.get() is not None


def first(conn: Connection, resource_id: str, now: datetime.datetime) -> bool:
    """Return whether no other copy of the message was done to a resource; this one is kept as the one that was.

    The caller's transaction must hold the resource's row or lock, and change what the message asks for. Run again,
    after a commit of unknown outcome, it is the same arrival and the first again.
    """
    arrived = _arrived.get()
    if arrived is None:
        return True
    which = {"request_key": arrived.key, "verb": arrived.verb, "resource_id": resource_id}
    if insert_once(conn, _T, {**which, "arrival_id": arrived.id, "answered_at": now}):
        return True
    return bool(conn.execute(_KNOWN, which).scalar_one() == arrived.id)


def keep(conn: Connection, resource_id: str, now: datetime.datetime) -> None:
    """Keep that a message was done to a resource; any copy of it may have been, as they all change nothing."""
    if (arrived := _arrived.get()) is not None:
        which = {"request_key": arrived.key, "verb": arrived.verb, "resource_id": resource_id}
        insert_once(conn, _T, {**which, "arrival_id": arrived.id, "answered_at": now})


def check_first(conn: Connection, resource: str, resource_id: str, now: datetime.datetime) -> None:
    """Return if no other copy of the message was done, see :func:`first`.

    :raises Conflict: one was, and what it had made was ended since.
    """
    if not first(conn, resource_id, now):
        raise exception.Conflict(
            f"This request was done before, and what it made of the {resource} {resource_id} has been ended since",
            hint="This is a late copy of the message; who wants it again asks under a new key",
            resource=resource, id=resource_id,
        )


def purge(conn: Connection, before: datetime.datetime, limit: int) -> int:
    """Forget keys of requests that were answered before a time; returns how many."""
    query = sa.select(_T.c.request_key).where(_T.c.answered_at < before).limit(limit)
    keys: Sequence[str] = conn.execute(query).scalars().all()
    if keys:
        conn.execute(sa.delete(_T).where(_T.c.request_key.in_(keys), _T.c.answered_at < before))
    return len(keys)

# SPDX-License-Identifier: Apache-2.0
"""Volume types: a name, extra specs that the scheduler and the drivers read, and the QoS that they are associated with.

Every create reads its type, and types change seldom, so :class:`Cache` keeps them for a few seconds.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, types
from volmgr.db import models, records, reservations
from volmgr.db.engine import Database, is_duplicate

_T = models.volume_types
_S = models.qos
_JOINED = sa.select(
    _T, *(_S.c[name].label(f"the_{name}") for name in ("id", "name", "consumer", "specs"))
).select_from(_T.outerjoin(_S, _S.c.id == _T.c.qos_id))
CACHE_SECONDS = 5.0
_CHANGEABLE = frozenset({"name", "description", "is_public"})


def create(
    conn: Connection,
    type_id: str,
    name: str,
    *,
    now: datetime.datetime,
    description: str | None = None,
    is_public: bool = True,
    extra_specs: Mapping[str, str] | None = None,
) -> None:
    """Make a volume type; one that is there already just so is left as it is.

    :raises AlreadyExists: its id or name is taken; the caller's transaction must be rolled back.
    """
    values = {
        "id": type_id,
        "name": name,
        "description": description,
        "is_public": is_public,
        "extra_specs": dict(extra_specs or {}),
        "created_at": now,
    }
    row = conn.execute(sa.select(_T).where(_T.c.id == type_id)).first()
    if row is not None and all(getattr(row, key) == value for key, value in values.items() if key != "created_at"):
        return
    try:
        conn.execute(sa.insert(_T), values)
    except Exception as error:
        if is_duplicate(error):
            raise exception.AlreadyExists(resource="volume type", id=name) from error
        raise


def update(conn: Connection, type_id: str, **values: Any) -> None:
    """Change name, description or is_public.

    :raises VolumeTypeNotFound: there is none.
    :raises AlreadyExists: the name is taken; the caller's transaction must be rolled back.
    """
    if unknown := set(values) - _CHANGEABLE:
        field = sorted(unknown)[0]
        raise exception.Invalid(f"A volume type has no {field} that could be changed", field=field)
    try:
        _change(conn, type_id, values)
    except Exception as error:
        if is_duplicate(error):
            raise exception.AlreadyExists(resource="volume type", id=values.get("name")) from error
        raise


def set_specs(conn: Connection, type_id: str, specs: Mapping[str, str | None]) -> dict[str, str]:
    """Merge extra specs into a type's; one that is None is removed. Returns all of them.

    :raises VolumeTypeNotFound: there is none.
    """
    query = sa.select(_T.c.extra_specs).where(_T.c.id == type_id)
    # Locked where the database can: two that merge at once must not lose each other's.
    row = conn.execute(query.with_for_update()).first()
    if row is None:
        raise exception.VolumeTypeNotFound(id=type_id)
    merged = {**(row.extra_specs or {}), **specs}
    kept = {key: str(value) for key, value in merged.items() if value is not None}
    _change(conn, type_id, {"extra_specs": kept})
    return kept


def set_qos(conn: Connection, type_id: str, qos_id: str | None) -> None:
    """Associate a type with a QoS, which the caller has locked; None ends that.

    :raises VolumeTypeNotFound: there is none.
    """
    _change(conn, type_id, {"qos_id": qos_id})


def _change(conn: Connection, type_id: str, values: Mapping[str, Any]) -> None:
    if not values:
        _one(conn, _T.c.id == type_id, type_id)
        return
    if not conn.execute(sa.update(_T).where(_T.c.id == type_id).values(values)).rowcount:
        raise exception.VolumeTypeNotFound(id=type_id)


def delete(conn: Connection, type_id: str) -> bool:
    """Remove a type that no volume has, with its quota limits; returns whether there was one.

    :raises Conflict: volumes have it, or snapshots that were taken when their volumes had it.
    """
    # Locked in a statement of its own: only a later one sees the volumes of whoever held the type until now.
    if conn.execute(sa.select(_T.c.id).where(_T.c.id == type_id).with_for_update()).first() is None:
        return False
    used = [sa.exists().where(table.c.volume_type_id == _T.c.id) for table in (models.volumes, models.snapshots)]
    if not conn.execute(sa.delete(_T).where(_T.c.id == type_id, *(~item for item in used))).rowcount:
        raise exception.Conflict(
            f"Volumes or snapshots have the type {type_id}",
            hint="Retype or delete them first", resource="volume type", id=type_id,
        )
    reservations.end_of_type(conn, type_id)
    conn.execute(sa.delete(models.quotas).where(models.quotas.c.volume_type_id == type_id))
    return True


def hold(conn: Connection, type_id: str) -> bool:
    """Keep a type from being removed until the transaction ends; returns whether it is there."""
    return conn.execute(_HOLD, {"held_id": type_id}).first() is not None


_HOLD = sa.select(_T.c.id).where(_T.c.id == sa.bindparam("held_id")).with_for_update(read=True)


def get(conn: Connection, type_id: str, *, hold: bool = False) -> types.VolumeType:
    """Return a type.

    :param hold: keep it from being removed until the transaction ends. :raises VolumeTypeNotFound: there is none.
    """
    return _record(_one(conn, _T.c.id == type_id, type_id, hold=hold))


def find(conn: Connection, name_or_id: str) -> types.VolumeType:
    """Return a type by its id or else by its name.

    :raises VolumeTypeNotFound: there is none.
    """
    if (row := _found(conn, name_or_id)) is None:
        raise exception.VolumeTypeNotFound(id=name_or_id)
    return _record(row)


def list_types(conn: Connection) -> list[types.VolumeType]:
    """Return all types by name."""
    return [_record(row) for row in conn.execute(_JOINED.order_by(_T.c.name))]


def view(row: Any) -> dict[str, Any]:
    """Return a type as clients read it."""
    return {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "is_public": row.is_public,
        "extra_specs": dict(row.extra_specs or {}),
        "qos_id": row.qos_id,
        "created_at": records.moment(row.created_at),
    }


def shown(conn: Connection, name_or_id: str) -> dict[str, Any]:
    """Return a type as clients read it.

    :raises VolumeTypeNotFound: there is none.
    """
    if (row := _found(conn, name_or_id)) is None:
        raise exception.VolumeTypeNotFound(id=name_or_id)
    return view(row)


def _found(conn: Connection, name_or_id: str) -> Any:
    rows = conn.execute(_JOINED.where((_T.c.id == name_or_id) | (_T.c.name == name_or_id))).all()
    return min(rows, key=lambda row: bool(row.id != name_or_id), default=None)


def _one(conn: Connection, where: sa.ColumnElement[bool], given: str, *, hold: bool = False) -> Any:
    query = _JOINED.where(where)
    row = conn.execute(query.with_for_update(read=True, of=_T) if hold else query).first()
    if row is None:
        raise exception.VolumeTypeNotFound(id=given)
    return row


def _record(row: Any) -> types.VolumeType:
    qos = None
    if row.the_id is not None:
        qos = {"id": row.the_id, "name": row.the_name, "consumer": row.the_consumer, "specs": dict(row.the_specs)}
    return types.VolumeType(row.id, row.name, dict(row.extra_specs or {}), qos, bool(row.is_public))


class Cache:
    """Volume types by id, at most some seconds old.

    :param max_age: seconds. :param clock: monotonic seconds.
    """

    def __init__(self, database: Database, max_age: float = CACHE_SECONDS, clock: Any = time.monotonic) -> None:
        self._database = database
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[float, types.VolumeType | None]] = {}

    def get(self, type_id: str | None) -> types.VolumeType | None:
        """Return a type by its id, or None where there is none."""
        found = self._kept_or_read(type_id) if type_id is not None else None
        return found if found is not None and found.id == type_id else None

    def find(self, name_or_id: str) -> types.VolumeType:
        """Return a type by its id or else by its name.

        :raises VolumeTypeNotFound: there is none.
        """
        if (found := self._kept_or_read(name_or_id)) is None:
            raise exception.VolumeTypeNotFound(id=name_or_id)
        return found

    def _kept_or_read(self, name_or_id: str) -> types.VolumeType | None:
        now = self._clock()
        with self._lock:
            kept = self._kept.get(name_or_id)
        if kept is not None and now - kept[0] < self._max_age:
            return kept[1]
        with self._database.reader() as conn:
            row = _found(conn, name_or_id)
        found = _record(row) if row is not None else None
        with self._lock:
            self._kept = {key: item for key, item in self._kept.items() if now - item[0] < self._max_age}
            self._kept[name_or_id] = (now, found)
        return found

    def forget(self) -> None:
        """Read everything again: called after a change made by this process."""
        with self._lock:
            self._kept.clear()

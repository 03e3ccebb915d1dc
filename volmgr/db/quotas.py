# SPDX-License-Identifier: Apache-2.0
"""Quota: usage and limit in one row, checked and counted by one statement, last in every transaction.

A project has a row for itself (volume type ``''``) and one for each volume type it uses. A limit of -1 is none; a NULL
limit is the configured default in the project's own row and none in a type's row. This module knows no verb.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, names
from volmgr.db import faults, models
from volmgr.db.once import insert_once

NAMES = ("volumes", "snapshots", "gigabytes")
UNLIMITED = -1
_Q = models.quotas


def _limit(name: str) -> sa.ColumnElement[int]:
    configured = sa.bindparam(f"default_{name}", type_=sa.BigInteger)
    default = sa.case((_Q.c.volume_type_id == "", configured), else_=UNLIMITED)
    return sa.func.coalesce(_Q.c[f"max_{name}"], default)


@functools.cache
def _change(names: tuple[str, ...], rows: int, *, back: bool) -> sa.Update:
    """The statement that counts ``names`` in ``rows`` rows, up within the limits, or back down to zero at least."""
    where: list[sa.ColumnElement[bool]] = [_Q.c.project_id == sa.bindparam("project")]
    keys: list[sa.BindParameter[Any]] = [sa.bindparam(f"type_{index}") for index in range(rows)]
    where.append(_Q.c.volume_type_id.in_(keys) if rows > 1 else _Q.c.volume_type_id == keys[0])
    values: dict[str, Any] = {}
    for name in names:
        amount = sa.bindparam(f"amount_{name}", type_=sa.BigInteger)
        if back:
            where.append(_Q.c[name] >= amount)
            values[name] = _Q.c[name] - amount
        else:
            limit = _limit(name)
            where.append((limit < 0) | (_Q.c[name] + amount <= limit))
            values[name] = _Q.c[name] + amount
    return sa.update(_Q).where(*where).values(values)


def _run(
    conn: Connection, project_id: str, types: list[str], amounts: Mapping[str, int], defaults: Mapping[str, int] | None
) -> int:
    back = defaults is None
    values: dict[str, Any] = {"project": project_id}
    values |= {f"type_{index}": key for index, key in enumerate(types)}
    values |= {f"amount_{name}": amount for name, amount in amounts.items()}
    if defaults is not None:
        values |= {f"default_{name}": int(defaults.get(name, UNLIMITED)) for name in amounts}
    return conn.execute(_change(tuple(amounts), len(types), back=back), values).rowcount


def charge(
    conn: Connection,
    project_id: str,
    volume_type_id: str | None = None,
    *,
    volumes: int = 0,
    snapshots: int = 0,
    gigabytes: int = 0,
    defaults: Mapping[str, int],
    of_type_only: bool = False,
) -> None:
    """Count against a project's quota; one statement where nothing is in the way.

    After an error the caller's transaction must be rolled back: one of two rows may have been counted.

    :param of_type_only: count it for the volume type alone, as the project has it counted already.
    :param defaults: limits by name for rows without their own; -1, or a name that is missing, is no limit.
    :raises QuotaExceeded: a limit does not allow it; ``details`` say which, its limit, in_use and requested.
    :raises DatabaseBusy: another transaction came between; the caller's is to be repeated.
    """
    amounts = _amounts(volumes, snapshots, gigabytes)
    if not amounts:
        return
    types = _keys(volume_type_id, of_type_only)
    if not types:
        return
    done = _run(conn, project_id, types, amounts, defaults)
    if done == len(types):
        return
    there = {row.volume_type_id: row for row in conn.execute(_rows(project_id, types))}
    missing = [key for key in types if key not in there]
    if done < len(there):
        raise _refused(conn, project_id, there, amounts, defaults)
    for key in missing:
        _insert(conn, project_id, key)
        if not _run(conn, project_id, [key], amounts, defaults):
            there = {row.volume_type_id: row for row in conn.execute(_rows(project_id, [key]))}
            raise _refused(conn, project_id, there, amounts, defaults)


def release(
    conn: Connection,
    project_id: str,
    volume_type_id: str | None = None,
    *,
    volumes: int = 0,
    snapshots: int = 0,
    gigabytes: int = 0,
    of_type_only: bool = False,
) -> None:
    """Give quota back that was counted with the same project and volume type.

    :param of_type_only: give back what is counted for the volume type alone.
    :raises Inconsistent: less than that is counted; the caller's transaction must be rolled back.
    """
    amounts = _amounts(volumes, snapshots, gigabytes)
    if not amounts:
        return
    types = _keys(volume_type_id, of_type_only)
    if types and _run(conn, project_id, types, amounts, None) != len(types):
        raise exception.Inconsistent(
            f"The project {project_id!r} gives back more quota than is counted for it",
            project_id=project_id,
            volume_type_id=volume_type_id,
            released=amounts,
        )


def _keys(volume_type_id: str | None, of_type_only: bool) -> list[str]:
    own = [volume_type_id] if volume_type_id else []
    return own if of_type_only else ["", *own]


def _amounts(volumes: int, snapshots: int, gigabytes: int) -> dict[str, int]:
    amounts = {"volumes": volumes, "snapshots": snapshots, "gigabytes": gigabytes}
    if any(amount < 0 for amount in amounts.values()):
        raise ValueError(f"quota is counted in positive amounts, not {amounts}")
    return {name: amount for name, amount in amounts.items() if amount}


def _rows(project_id: str, types: list[str]) -> sa.Select[Any]:
    where = (_Q.c.project_id == project_id) & _Q.c.volume_type_id.in_(types)
    return sa.select(_Q).where(where).order_by(_Q.c.volume_type_id)


def _insert(conn: Connection, project_id: str, volume_type_id: str) -> None:
    """Make an empty row, unless another transaction was first."""
    insert_once(conn, _Q, {"project_id": project_id, "volume_type_id": volume_type_id})


def _limits_of(row: Any, defaults: Mapping[str, int]) -> dict[str, int]:
    configured = {name: int(defaults.get(name, UNLIMITED)) if row.volume_type_id == "" else UNLIMITED for name in NAMES}
    own = {name: getattr(row, f"max_{name}") for name in NAMES}
    return {name: int(own[name]) if own[name] is not None else configured[name] for name in NAMES}


def _refused(
    conn: Connection,
    project_id: str,
    rows: Mapping[str, Any],
    amounts: Mapping[str, int],
    defaults: Mapping[str, int],
) -> exception.VolmgrError:
    """Return the error of a charge that did not count: the limit in the way, or that the transaction is to be repeated.

    There is none in the way any more where somebody else made the row, or gave quota back, between two statements.
    """
    found = _exceeded(project_id, rows, amounts, defaults)
    return found or faults.DatabaseBusy(database=conn.engine.url.render_as_string())


def _exceeded(
    project_id: str, rows: Mapping[str, Any], amounts: Mapping[str, int], defaults: Mapping[str, int]
) -> exception.QuotaExceeded | None:
    """Say which limit is in the way. Where both rows are full, the volume type's is named: it is the narrower one."""
    for key in sorted(rows, reverse=True):
        row, limits = rows[key], _limits_of(rows[key], defaults)
        for name, amount in amounts.items():
            in_use, limit = int(getattr(row, name)), limits[name]
            if 0 <= limit < in_use + amount:
                of_type = f" of volume type {key}" if key else ""
                return exception.QuotaExceeded(
                    f"The quota for {name}{of_type} is exceeded: {in_use} of {limit} in use, {amount} more wanted",
                    hint=f"Delete something, or raise it: volmgr quota set {project_id} --{name} <limit>",
                    quota=name,
                    limit=limit,
                    in_use=in_use,
                    requested=amount,
                    project_id=project_id,
                    volume_type_id=key or None,
                )
    return None


def get(
    conn: Connection, project_id: str, *, volume_type_id: str | None = None, defaults: Mapping[str, int]
) -> dict[str, dict[str, int]]:
    """Return ``{name: {"limit", "in_use"}}`` of a project, or of one of its volume types; limit -1 is none."""
    row = conn.execute(_rows(project_id, [volume_type_id or ""])).first()
    if row is None:
        own = not volume_type_id
        return {name: {"limit": int(defaults.get(name, -1)) if own else -1, "in_use": 0} for name in NAMES}
    return _view(row, defaults)


def list_quotas(
    conn: Connection,
    *,
    project_id: str | None = None,
    defaults: Mapping[str, int],
    marker: str | None = None,
    limit: int | None = None,
    descending: bool = False,
) -> list[dict[str, Any]]:
    """Return rows by project and type, ``{"id", "project_id", "volume_type_id", name: {"limit", "in_use"}}``.

    :param marker: the ``id`` behind which the page begins: the project, or ``project/type``.
    """
    keys = (_Q.c.project_id, _Q.c.volume_type_id)
    query = sa.select(_Q).order_by(*(key.desc() if descending else key for key in keys)).limit(limit)
    if project_id is not None:
        query = query.where(_Q.c.project_id == project_id)
    if marker is not None:
        head, _slash, tail = marker.rpartition("/")
        project, kind = (head, tail) if names.is_uuid(tail) else (marker, "")
        here = keys[0] < project if descending else keys[0] > project
        inside = keys[1] < kind if descending else keys[1] > kind
        query = query.where(here | ((keys[0] == project) & inside))
    return [
        {
            "id": f"{row.project_id}/{row.volume_type_id}" if row.volume_type_id else row.project_id,
            "project_id": row.project_id,
            "volume_type_id": row.volume_type_id or None,
            **_view(row, defaults),
        }
        for row in conn.execute(query)
    ]


def _view(row: Any, defaults: Mapping[str, int]) -> dict[str, dict[str, int]]:
    limits = _limits_of(row, defaults)
    return {name: {"limit": limits[name], "in_use": int(getattr(row, name))} for name in NAMES}


def set_limits(
    conn: Connection, project_id: str, limits: Mapping[str, int | None], *, volume_type_id: str | None = None
) -> None:
    """Set limits of a project or of one of its volume types; one below what is in use only stops further use.

    :param limits: by name; -1 is none, None the default again.
    :raises Invalid: a name or a value that a limit cannot have.
    """
    for name, limit in limits.items():
        if name not in NAMES:
            raise exception.Invalid(f"There is no quota {name!r}", hint=f"One of {', '.join(NAMES)}", field=name)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < UNLIMITED):
            raise exception.Invalid(
                f"The limit {limit!r} for {name} is not valid", hint="A number from 0, or -1 for none", field=name
            )
    if not limits:
        return
    key = volume_type_id or ""
    _insert(conn, project_id, key)
    conn.execute(
        sa.update(_Q)
        .where(_Q.c.project_id == project_id, _Q.c.volume_type_id == key)
        .values({f"max_{name}": limit for name, limit in limits.items()})
    )

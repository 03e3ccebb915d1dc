# SPDX-License-Identifier: Apache-2.0
"""What should be exported and who may connect: the rows from which targets are made, and made again."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import names, types
from volmgr.crypto import Cipher
from volmgr.db import claims, faults, luns, models, shelves

_E, _G, _O = models.exports, models.grants, models.objects

_EXPORT_COLUMNS = (_E.c.target_name, _E.c.lun, _E.c.shelf, _E.c.blade, _E.c.auth_username, _E.c.auth_secret)


#: Of an incoming object it is the volume that it becomes, under the object's own id and with nothing of the old place.
_OF_OBJECT = {"id": _O.c.id, "object_id": _O.c.id, "host": _O.c.host}
_OF_OLD_PLACE = ("provider_location", "provider_id", "driver_data")


def _incoming() -> list[sa.ColumnElement[Any]]:
    columns: list[sa.ColumnElement[Any]] = []
    for column in claims.COLUMNS["volume"]:
        if column.name in _OF_OLD_PLACE:
            columns.append(sa.null().label(column.name))
        elif column.name == "readonly":  # for its users it may be, not for who fills it
            columns.append(sa.false().label(column.name))
        else:
            columns.append(_OF_OBJECT.get(column.name, column).label(column.name))
    # Another serial than the volume's: where the volume itself is in use on that host, the two are not one disk.
    return [*columns, sa.func.replace(_O.c.id, "-", "").label("serial")]


def _kind(kind: str) -> tuple[list[sa.ColumnElement[Any]], sa.FromClause, sa.Column[Any]]:
    """Return the columns of what is exported under a kind, where they come from, and the column that is its id."""
    if kind == names.INCOMING:
        volumes = claims.TABLES["volume"]
        return _incoming(), _O.join(volumes, volumes.c.id == _O.c.resource_id), _O.c.id
    table = claims.TABLES[kind]
    return [*claims.COLUMNS[kind], _O.c.serial], table.outerjoin(_O, _O.c.id == table.c.object_id), table.c.id


def _joined(kind: str) -> sa.Select[Any]:
    columns, source, key = _kind(kind)
    joined = source.outerjoin(_E, _E.c.resource_id == key)
    return sa.select(*columns, *_EXPORT_COLUMNS).select_from(joined).where(key == sa.bindparam("export_id"))


#: a grant's columns bear a prefix where they stand beside those of the resource.
_GRANT = "grant_"
_GRANT_COLUMNS = ("id", "mode", "initiator", "wwpns", "macs", "host_name", "ip", "lun", "peer_key", "attachment_id")


def _with_grants(kind: str) -> sa.Select[Any]:
    """Return the statement that gives a resource once for each of its grants, or once with none."""
    columns, source, key = _kind(kind)
    joined = source.outerjoin(_E, _E.c.resource_id == key).outerjoin(_G, _G.c.resource_id == key)
    return (
        sa.select(*columns, *_EXPORT_COLUMNS, *(_G.c[name].label(_GRANT + name) for name in _GRANT_COLUMNS))
        .select_from(joined)
        .where(key == sa.bindparam("export_id"))
        .order_by(_G.c.created_at, _G.c.id)
    )


_SELECT = {kind: _with_grants(kind) for kind in names.EXPORTED}
_LOCKED = {kind: _joined(kind).with_for_update(of=claims.TABLES.get(kind, _O)) for kind in names.EXPORTED}
_GRANTS = sa.select(_G).where(_G.c.resource_id == sa.bindparam("export_id")).order_by(_G.c.created_at, _G.c.id)
_INSERT = sa.insert(_E)
_INSERT_GRANT = sa.insert(_G)
_DELETE_GRANTS = sa.delete(_G).where(_G.c.resource_id == sa.bindparam("export_id"))
_DELETE = sa.delete(_E).where(_E.c.resource_id == sa.bindparam("export_id"))
_NAMED = sa.select(_E.c.resource_id).where(
    _E.c.host == sa.bindparam("export_host"), _E.c.target_name == sa.bindparam("export_name")
)
_EXISTS = sa.select(_E.c.resource_id)


@dataclass(frozen=True)
class ExportRow:
    """The export of a resource as SQL has it; the secret is still ciphertext."""

    target_name: str
    lun: int
    shelf: int | None = None
    blade: int | None = None
    auth_username: str | None = None
    auth_secret: str | None = None

    def chap(self, cipher: Cipher, resource_id: str) -> types.Chap | None:
        """Return the account in the clear."""
        if self.auth_username is None or self.auth_secret is None:
            return None
        return types.Chap(self.auth_username, cipher.decrypt("exports", "auth_secret", resource_id, self.auth_secret))


@dataclass(frozen=True)
class GrantRow:
    """A grant with the key of its peer and, if it belongs to one, its attachment."""

    grant: types.Grant
    peer_key: str
    attachment_id: str


@dataclass(frozen=True)
class Wanted:
    """Everything about one export: the resource, the export if it should be, its grants."""

    resource: types.Volume | types.Snapshot
    export: ExportRow | None
    grants: tuple[GrantRow, ...]


def wanted(conn: Connection, kind: str, resource_id: str, *, lock: bool = False) -> Wanted | None:
    """Return what should be exported of a resource, or None if the resource does not exist.

    :param kind: ``volume``, ``snapshot``, or ``incoming`` for an object that becomes a volume; its id is the object's.
    :param lock: keep the resource's row from changing until the transaction ends. This takes two statements instead of
        one: MariaDB locks every row of a join.
    """
    which = {"export_id": resource_id}
    if not lock:
        rows = [dict(row._mapping) for row in conn.execute(_SELECT[kind], which)]
        given = [{name: row.pop(_GRANT + name) for name in _GRANT_COLUMNS} for row in rows]
        return _wanted(kind, rows[0], tuple(_grant(**each) for each in given if each["id"])) if rows else None
    row = conn.execute(_LOCKED[kind], which).first()
    if row is None:
        return None
    return _wanted(kind, dict(row._mapping), _grants(conn.execute(_GRANTS, which)))


def _wanted(kind: str, values: dict[str, Any], grants: tuple[GrantRow, ...]) -> Wanted:
    export_values = {column.name: values.pop(column.name) for column in _EXPORT_COLUMNS}
    export = ExportRow(**export_values) if export_values["target_name"] is not None else None
    values["metadata"] = values["metadata"] or {}
    resource = types.Snapshot(**values) if kind == "snapshot" else types.Volume(**values)
    return Wanted(resource, export, grants)


def _grants(rows: Iterable[Any]) -> tuple[GrantRow, ...]:
    return tuple(_grant(**{name: getattr(row, name) for name in _GRANT_COLUMNS}) for row in rows)


def _grant(
    peer_key: str, attachment_id: str, wwpns: list[str] | None, macs: list[str] | None, **values: Any
) -> GrantRow:
    grant = types.Grant(wwpns=tuple(wwpns or ()), macs=tuple(macs or ()), **values)
    return GrantRow(grant, peer_key, attachment_id)


def ids(conn: Connection, kind: str, host: str) -> list[str]:
    """Return the ids of all resources of a kind that a worker should export."""
    query = sa.select(_E.c.resource_id).where(_E.c.host == host, _E.c.kind == kind).order_by(_E.c.resource_id)
    return list(conn.execute(query).scalars())


def ids_by_kind(conn: Connection, host: str) -> dict[str, list[str]]:
    """Return the ids of everything that a worker should export, by kind; one statement."""
    found: dict[str, list[str]] = {}
    query = sa.select(_E.c.kind, _E.c.resource_id).where(_E.c.host == host).order_by(_E.c.resource_id)
    for row in conn.execute(query):
        found.setdefault(row.kind, []).append(row.resource_id)
    return found


def names_of(conn: Connection, host: str, *, ungranted: bool = True) -> list[Any]:
    """Return (resource_id, kind, target_name) of everything that a worker should export.

    :param ungranted: also what nobody is let in to.
    """
    query = sa.select(_E.c.resource_id, _E.c.kind, _E.c.target_name).where(_E.c.host == host)
    if not ungranted:
        query = query.where(sa.exists().where(_G.c.resource_id == _E.c.resource_id))
    return list(conn.execute(query))


def many_wanted(conn: Connection, kind: str, resource_ids: Sequence[str]) -> list[Wanted]:
    """Return what should be exported of several resources, in two statements; those without an export are left out."""
    columns, source, key = _kind(kind)
    exported = source.join(_E, _E.c.resource_id == key)
    query = sa.select(*columns, *_EXPORT_COLUMNS).select_from(exported).where(key.in_(resource_ids))
    grants: dict[str, list[Any]] = {}
    chosen = sa.select(_G).where(_G.c.resource_id.in_(resource_ids)).order_by(_G.c.created_at, _G.c.id)
    for item in conn.execute(chosen):
        grants.setdefault(item.resource_id, []).append(item)
    return [_wanted(kind, dict(row._mapping), _grants(grants.get(row.id, ()))) for row in conn.execute(query)]


def insert(
    conn: Connection,
    kind: str,
    resource_id: str,
    *,
    host: str,
    target_name: str,
    now: datetime.datetime,
    lun: int = 1,
    addresses: shelves.Shelves | None = None,
    auth_username: str | None = None,
    auth_secret: str | None = None,
) -> ExportRow:
    """Make a resource's export.

    :param lun: its number in its target, or at the ports that it shares.
    :param addresses: from where its shelf and blade are taken, if it needs them.
    :param auth_secret: ciphertext already.
    :raises NoMoreVolumes: no address is free. :raises DatabaseBusy: another transaction was first; try all of it again.
    """
    shelf, blade = (None, None) if addresses is None else shelves.free(conn, addresses)
    export = ExportRow(target_name, lun, shelf, blade, auth_username, auth_secret)
    values = {"resource_id": resource_id, "kind": kind, "host": host, "created_at": now, **dataclasses.asdict(export)}
    try:
        conn.execute(_INSERT, values)
    except Exception as error:
        if addresses is None or not faults.is_duplicate(error):
            raise
        raise faults.DatabaseBusy(database=str(conn.engine.url.render_as_string())) from error
    return export


def insert_grant(
    conn: Connection, resource_id: str, row: GrantRow, now: datetime.datetime
) -> None:
    """Add a grant."""
    grant = row.grant
    conn.execute(
        _INSERT_GRANT,
        {
            "id": grant.id,
            "resource_id": resource_id,
            "peer_key": row.peer_key,
            "mode": grant.mode,
            "initiator": grant.initiator,
            "wwpns": list(grant.wwpns) or None,
            "macs": list(grant.macs) or None,
            "host_name": grant.host_name,
            "ip": grant.ip,
            "lun": grant.lun,
            "attachment_id": row.attachment_id,
            "created_at": now,
        },
    )


def delete_grants(
    conn: Connection, resource_id: str, *, peer_key: str | None = None, attachment_id: str | None = None
) -> int:
    """Remove a resource's grants: all, those of one peer, or those of one attachment; returns how many."""
    values = {"export_id": resource_id}
    if peer_key is not None:
        values["gone_peer"] = peer_key
    if attachment_id is not None:
        values["gone_attachment"] = attachment_id
    return conn.execute(_delete_grants(peer_key is not None, attachment_id is not None), values).rowcount


@functools.cache
def _delete_grants(of_peer: bool, of_attachment: bool) -> sa.Delete:
    statement = _DELETE_GRANTS
    if of_peer:
        statement = statement.where(_G.c.peer_key == sa.bindparam("gone_peer"))
    if of_attachment:
        statement = statement.where(_G.c.attachment_id == sa.bindparam("gone_attachment"))
    return statement


def delete(conn: Connection, resource_id: str) -> None:
    """Remove a resource's export, its grants and its numbers."""
    luns.give_back(conn, resource_id)
    conn.execute(_DELETE_GRANTS, {"export_id": resource_id})
    conn.execute(_DELETE, {"export_id": resource_id})


def give(conn: Connection, resource_id: str, to: str, cipher: Cipher) -> bool:
    """Let another resource have an export with its name, its grants and its numbers; returns whether there was one.

    The other one must have none.
    """
    row = conn.execute(sa.select(_E).where(_E.c.resource_id == resource_id)).first()
    if row is None:
        return False
    values: dict[str, Any] = {"resource_id": to}
    if row.auth_secret is not None:
        # What is encrypted is bound to its row.
        secret = cipher.decrypt("exports", "auth_secret", resource_id, row.auth_secret)
        values["auth_secret"] = cipher.encrypt("exports", "auth_secret", to, secret)
    conn.execute(sa.update(_E).where(_E.c.resource_id == resource_id).values(values))
    conn.execute(sa.update(_G).where(_G.c.resource_id == resource_id).values(resource_id=to))
    luns.give(conn, resource_id, to)
    return True


def name_taken(conn: Connection, host: str, target_name: str) -> str | None:
    """Return the resource whose export has a name, if one has."""
    return conn.execute(_NAMED, {"export_host": host, "export_name": target_name}).scalar()


def exported(conn: Connection, resource_ids: Sequence[str]) -> list[str]:
    """Return which of these resources have an export."""
    return list(conn.execute(_EXISTS.where(_E.c.resource_id.in_(resource_ids))).scalars())


def exported_and_attached(conn: Connection, resource_ids: Sequence[str]) -> tuple[list[str], bool]:
    """Return which of these resources have an export, and whether any has an attachment, in one statement."""
    attachments = models.attachments
    rows = conn.execute(
        sa.union_all(
            sa.select(_E.c.resource_id, sa.literal(0).label("attached")).where(_E.c.resource_id.in_(resource_ids)),
            sa.select(attachments.c.volume_id, sa.literal(1)).where(attachments.c.volume_id.in_(resource_ids)),
        )
    ).all()
    return [row.resource_id for row in rows if not row.attached], any(row.attached for row in rows)


def granted(conn: Connection, resource_id: str, mode: str | None = None) -> bool:
    """Return whether anybody may connect to a resource, in that mode if one is named."""
    query = sa.select(_G.c.id).where(_G.c.resource_id == resource_id).limit(1)
    if mode is not None:
        query = query.where(_G.c.mode == mode)
    return conn.execute(query).first() is not None

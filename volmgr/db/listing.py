# SPDX-License-Identifier: Apache-2.0
"""Reads for clients: one resource, or a page of them, in one statement plus one for each joined list."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception
from volmgr.db import findings as finding_rows
from volmgr.db import models, records
from volmgr.db import qos as qos_rows
from volmgr.db import transfers as transfer_rows
from volmgr.db import types as volume_types
from volmgr.types import Snapshot, Volume

VOLUME_SORT = ("created_at", "id", "display_name", "size", "status", "host", "updated_at")
DEFAULT_LIMIT = 1000


@dataclass(frozen=True)
class Page:
    """Which part of a list is wanted.

    :param marker: the id of the last item of the page before. :param project_id: None means every project's.
    """

    filters: dict[str, Any]
    marker: str | None = None
    limit: int = DEFAULT_LIMIT
    sort_keys: Sequence[str] = ("created_at",)
    sort_dirs: Sequence[str] = ("desc",)
    project_id: str | None = None


def volume(conn: Connection, volume_id: str, project_id: str | None) -> dict[str, Any]:
    """Return a volume as clients read it.

    :raises VolumeNotFound: there is none, or it is another project's.
    """
    row = conn.execute(_VOLUMES.where(models.volumes.c.id == volume_id)).first()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise exception.VolumeNotFound(id=volume_id)
    return records.volume_view(records.volume(row), _attachments(conn, [volume_id]).get(volume_id))


def volumes(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of volumes."""
    found = [records.volume(row) for row in conn.execute(_paged(_VOLUMES, models.volumes, page))]
    attachments = _attachments(conn, [item.id for item in found])
    return [records.volume_view(item, attachments.get(item.id)) for item in found]


def snapshot(conn: Connection, snapshot_id: str, project_id: str | None) -> dict[str, Any]:
    """Return a snapshot as clients read it.

    :raises SnapshotNotFound: there is none, or it is another project's.
    """
    row = conn.execute(_SNAPSHOTS.where(models.snapshots.c.id == snapshot_id)).first()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise exception.SnapshotNotFound(id=snapshot_id)
    return records.snapshot_view(records.snapshot(row))


def snapshots(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of snapshots."""
    rows = conn.execute(_paged(_SNAPSHOTS, models.snapshots, page))
    return [records.snapshot_view(records.snapshot(row)) for row in rows]


def backup(conn: Connection, backup_id: str, project_id: str | None) -> dict[str, Any]:
    """Return a backup as clients read it.

    :raises BackupNotFound: there is none, or it is another project's.
    """
    row = conn.execute(_BACKUPS.where(models.backups.c.id == backup_id)).first()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise exception.BackupNotFound(id=backup_id)
    return records.backup_view(records.backup(row))


def backups(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of backups."""
    rows = conn.execute(_paged(_BACKUPS, models.backups, page))
    return [records.backup_view(records.backup(row)) for row in rows]


def attachment(conn: Connection, attachment_id: str, project_id: str | None) -> dict[str, Any]:
    """Return an attachment as clients read it.

    :raises AttachmentNotFound: there is none, or its volume is another project's.
    """
    row = conn.execute(_owned(models.attachments, project_id).where(models.attachments.c.id == attachment_id)).first()
    if row is None:
        raise exception.AttachmentNotFound(id=attachment_id)
    return records.attachment_view(records.attachment(row))


def attachments(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of attachments."""
    query = _paged(_owned(models.attachments, page.project_id), models.attachments, page, owned=False)
    return [records.attachment_view(records.attachment(row)) for row in conn.execute(query)]


def operations(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of operations."""
    rows = conn.execute(_paged(sa.select(models.operations), models.operations, page))
    return [records.operation_view(records.operation(row)) for row in rows]


def of_worker(conn: Connection, noun: str, host: str) -> list[Volume] | list[Snapshot]:
    """Return the records of all volumes or snapshots of one worker, for its driver, in one statement.

    :param host: ``host@backend``; its pools count.
    """
    table = models.volumes if noun == "volume" else models.snapshots
    here = (table.c.host == host) | table.c.host.startswith(f"{host}#", autoescape=True)
    if noun == "volume":
        return [records.volume(row) for row in conn.execute(_VOLUMES.where(here))]
    return [records.snapshot(row) for row in conn.execute(_SNAPSHOTS.where(here))]


def replicated(conn: Connection, host: str) -> list[Volume]:
    """Return the volumes of one worker that have a replica, for its driver, in one statement."""
    table = models.volumes
    here = (table.c.host == host) | table.c.host.startswith(f"{host}#", autoescape=True)
    with_one = table.c.replication_status.is_not(None) & (table.c.replication_status != "deleted")
    return [records.volume(row) for row in conn.execute(_VOLUMES.where(here, with_one))]


def transfer(conn: Connection, transfer_id: str, project_id: str | None) -> dict[str, Any]:
    """Return the offer of a volume as clients read it.

    :raises TransferNotFound: there is none, or it is another project's.
    """
    row = transfer_rows.get(conn, transfer_id)
    if row is None or (project_id is not None and row.project_id != project_id):
        raise exception.TransferNotFound(id=transfer_id)
    return transfer_rows.view(row)


def transfers(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of offers."""
    rows = conn.execute(_paged(sa.select(models.transfers), models.transfers, page))
    return [transfer_rows.view(row) for row in rows]


def types(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of volume types."""
    query = _paged(sa.select(models.volume_types), models.volume_types, page, owned=False)
    return [volume_types.view(row) for row in conn.execute(query)]


def qos(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of QoS."""
    query = _paged(sa.select(models.qos), models.qos, page, owned=False)
    return [qos_rows.view(row) for row in conn.execute(query)]


def findings(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of findings; they are nobody's but the operator's."""
    rows = conn.execute(_paged(sa.select(models.findings), models.findings, page, owned=False))
    return [finding_rows.view(row) for row in rows]


def grants(conn: Connection, page: Page) -> list[dict[str, Any]]:
    """Return a page of grants, each with what it lets a host see: target, LUN, serial; they are the operator's."""
    table, exports, objects = models.grants, models.exports, models.objects
    query = (
        sa.select(table, exports.c.kind, exports.c.target_name, exports.c.lun.label("export_lun"), objects.c.serial)
        .join(exports, exports.c.resource_id == table.c.resource_id)
        .outerjoin(
            objects,
            (objects.c.resource_id == table.c.resource_id)
            & (objects.c.kind == exports.c.kind)
            & (objects.c.role == "current"),
        )
    )
    return [records.grant_view(row) for row in conn.execute(_paged(query, table, page, owned=False))]


_VOLUMES = sa.select(*records.VOLUME_COLUMNS, models.objects.c.serial).select_from(
    models.volumes.outerjoin(models.objects, models.objects.c.id == models.volumes.c.object_id)
)
_SNAPSHOTS = sa.select(*records.SNAPSHOT_COLUMNS)
_BACKUPS = sa.select(*records.BACKUP_COLUMNS)


def _owned(table: sa.Table, project_id: str | None) -> sa.Select[Any]:
    query = sa.select(table)
    if project_id is not None:
        query = query.join(models.volumes, models.volumes.c.id == table.c.volume_id).where(
            models.volumes.c.project_id == project_id
        )
    return query


def _attachments(conn: Connection, volume_ids: list[str]) -> dict[str, list[Any]]:
    table = models.attachments
    found: dict[str, list[Any]] = {}
    if volume_ids:
        query = sa.select(table).where(table.c.volume_id.in_(volume_ids)).order_by(table.c.created_at, table.c.id)
        for row in conn.execute(query):
            found.setdefault(row.volume_id, []).append(records.attachment(row))
    return found


def _paged(query: sa.Select[Any], table: sa.Table, page: Page, *, owned: bool = True) -> sa.Select[Any]:
    """Add filters, the order and the place after the marker to a query, all in one statement."""
    if owned and page.project_id is not None:
        query = query.where(table.c.project_id == page.project_id)
    for name, value in page.filters.items():
        column = table.c[name]
        query = query.where(column.in_(value) if isinstance(value, list) else column == value)
    keys = [key for key in page.sort_keys if key != "id"]
    directions = list(page.sort_dirs) + ["asc"] * (len(keys) - len(page.sort_dirs))
    order = [*zip(keys, directions, strict=False), ("id", directions[-1] if directions else "asc")]
    if page.marker is not None:
        query = query.where(_after(table, order, page.marker))
    for name, direction in order:
        filled = _filled(table, name)
        query = query.order_by(filled.desc() if direction == "desc" else filled.asc())
    return query.limit(page.limit)


def _filled(table: sa.Table, name: str) -> sa.ColumnElement[Any]:
    """Return a column in which NULL has a place of its own in the order, the same on every database."""
    column = table.c[name]
    if not column.nullable:
        return column
    empty: Any = datetime.datetime(1970, 1, 1) if isinstance(column.type, sa.DateTime) else ""
    return sa.func.coalesce(column, sa.literal(empty, column.type))


def _after(table: sa.Table, order: list[tuple[str, str]], marker: str) -> sa.ColumnElement[bool]:
    """Return the condition for rows behind the marker's: keyset paging, so that no page costs more than the first."""
    mark = table.alias("mark")

    def at(name: str) -> Any:
        return sa.select(_filled(mark, name)).where(mark.c.id == marker).scalar_subquery()  # type: ignore[arg-type]

    ways = []
    for index, (name, direction) in enumerate(order):
        same = [_filled(table, before) == at(before) for before, _ in order[:index]]
        here = _filled(table, name)
        ways.append(sa.and_(*same, here < at(name) if direction == "desc" else here > at(name)))
    return sa.or_(*ways)


#: for the nouns whose reads are in modules of their own.
paged = _paged

# SPDX-License-Identifier: Apache-2.0
"""The transaction that admits an operation: claims, rows, journal and quota, all or nothing.

Rows are locked in one order everywhere: resource, object, operation, quota last.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, names, types
from volmgr.db import claims, exports, models, operations, quotas, records, reservations
from volmgr.db import types as volume_types
from volmgr.db.image_cache import CacheSettings
from volmgr.db.shelves import Shelves

#: the error for a resource that is not there, or is not the caller's to see.
MISSING: dict[str, type[exception.NotFound]] = {
    "volume": exception.VolumeNotFound,
    "snapshot": exception.SnapshotNotFound,
    "group": exception.GroupNotFound,
    "cgsnapshot": exception.CgSnapshotNotFound,
    "backup": exception.BackupNotFound,
}
_INSERT_VOLUME = sa.insert(models.volumes)
_INSERT_SNAPSHOT = sa.insert(models.snapshots)
_INSERT_OBJECT = sa.insert(models.objects)
_SERIAL = sa.select(models.objects.c.serial).where(models.objects.c.id == sa.bindparam("object_id"))


@dataclass(frozen=True)
class Settings:
    """What admission needs to know of the worker and its configuration.

    :param host: the worker's name, ``host@backend``. :param pool: the pool of new volumes.
    :param max_volume_size: GiB. :param quota: default limits by name, -1 for none.
    :param trash_retention: seconds that a deleted object can be brought back. :param auth: whether exports have CHAP.
    :param chap: the account of every export, instead of one made for each.
    :param grows_in_use: whether the target can show a new size to connected initiators.
    :param placement_attempts: on how many backends a creation is tried.
    :param shelves: the addresses of ATA over Ethernet exports; with them every volume has one from its creation.
    :param image_cache: the limits of the image cache, None without one.
    """

    host: str
    pool: str | None = None
    zone: str = "nova"
    max_volume_size: int = 65536
    quota: Mapping[str, int] = field(default_factory=dict)
    trash_retention: int = 0
    target_prefix: str = "iqn.2010-10.org.openstack:"
    auth: bool = True
    grows_in_use: bool = False
    chap: types.Chap | None = None
    shelves: Shelves | None = None
    placement_attempts: int = 3
    image_cache: CacheSettings | None = None

    @property
    def place(self) -> str:
        """The host of new resources, with the pool."""
        return f"{self.host}#{self.pool}" if self.pool else self.host


class Blocked(Exception):
    """A claim could not be taken; the transaction is to be rolled back.

    :param claim: a :class:`volmgr.operations.base.Claim`.
    """

    def __init__(self, claim: Any) -> None:
        super().__init__(claim.id)
        self.claim = claim


class Admitting:
    """One admission under way.

    :param scope: the only project whose resources the caller may touch, None for an administrator.
    :param prepared: what the operation's ``prepare`` returned.
    :ivar held: the claims taken, as the journal keeps them.
    :ivar service: the worker that is to run the operation.
    :ivar data: what the operation wants kept in its journal row from the beginning.
    """

    def __init__(
        self,
        conn: Connection,
        *,
        operation_id: str,
        now: datetime.datetime,
        settings: Settings,
        project_id: str | None,
        user_id: str | None,
        scope: str | None = None,
        prepared: Any = None,
    ) -> None:
        self.conn = conn
        self.operation_id = operation_id
        self.now = now
        self.settings = settings
        self.project_id = project_id
        self.user_id = user_id
        self.scope = scope
        self.prepared = prepared
        self.service = settings.host
        self.data: dict[str, Any] = {}
        self.held: list[dict[str, Any]] = []
        self._volumes: dict[str, types.Volume] = {}
        self._snapshots: dict[str, types.Snapshot] = {}
        #: what is held and has no storage of its own: groups, cgsnapshots, backups.
        self._others: dict[str, types.Resource] = {}
        self._charges: list[tuple[str | None, str | None, dict[str, Any]]] = []
        self._reserved: list[tuple[Sequence[str], str]] = []

    # --- claims ---------------------------------------------------------------------------------------------------

    def take(self, wanted: Sequence[Any]) -> Any:
        """Take claims in order; returns the first that could not be taken, or None when all are.

        The caller rolls the transaction back, or undoes with :meth:`forget`, when one is missing.
        """
        for claim in wanted:
            row = claims.take(self.conn, claim, self.operation_id, self.now)
            if row is None:
                return claim
            self._own(claim.resource, row)
            if row.host is not None and names.service_of(row.host) != self.settings.host:
                raise exception.Moved(host=row.host)
            self.held.append(claim.to_json())
            if claim.resource == "volume":
                self._volumes[claim.id] = records.volume(row)
            elif claim.resource == "snapshot":
                self._snapshots[claim.id] = records.snapshot(row)
            else:
                self._others[claim.id] = records.OF[claim.resource](row)
        return None

    def share_image(self, volume_id: str) -> bool:
        """Hold a volume of the image cache, which is anybody's to clone; returns whether it could be held."""
        claim = claims.Shared("volume", volume_id)
        row = claims.take(self.conn, claim, self.operation_id, self.now)
        if row is None:
            return False
        self.held.append({"resource": "volume", "id": volume_id, "exclusive": False})
        self._volumes[volume_id] = records.volume(row)
        return True

    def _own(self, resource: str, row: Any) -> None:
        if self.scope is not None and row.project_id != self.scope:
            raise MISSING[resource](id=row.id)

    def volume(self, volume_id: str) -> types.Volume:
        """Return a claimed volume."""
        return self._volumes[volume_id]

    def snapshot(self, snapshot_id: str) -> types.Snapshot:
        """Return a claimed snapshot."""
        return self._snapshots[snapshot_id]

    def group(self, group_id: str) -> types.Group:
        """Return a claimed group, or one that was just made."""
        found = self._others[group_id]
        assert isinstance(found, types.Group)
        return found

    def cgsnapshot(self, cgsnapshot_id: str) -> types.CgSnapshot:
        """Return a claimed cgsnapshot, or one that was just made."""
        found = self._others[cgsnapshot_id]
        assert isinstance(found, types.CgSnapshot)
        return found

    def backup(self, backup_id: str) -> types.Backup:
        """Return a claimed backup, or one that was just made."""
        found = self._others[backup_id]
        assert isinstance(found, types.Backup)
        return found

    def peek(self, resource: str, resource_id: str) -> types.Resource:
        """Return a claimed group, cgsnapshot or backup, or read one that is not claimed yet.

        :raises NotFound: there is none, or it is another project's.
        """
        if (found := self._others.get(resource_id)) is not None:
            return found
        if (row := claims.row(self.conn, resource, resource_id)) is None:
            raise MISSING[resource](id=resource_id)
        self._own(resource, row)
        return records.OF[resource](row)

    def peek_volume(self, volume_id: str) -> types.Volume:
        """Return a claimed volume, or read one that is not claimed yet.

        :raises VolumeNotFound: there is none.
        """
        if volume_id not in self._volumes:
            if (row := claims.row(self.conn, "volume", volume_id)) is None:
                raise exception.VolumeNotFound(id=volume_id)
            self._own("volume", row)
            return records.volume(row)
        return self._volumes[volume_id]

    def peek_snapshot(self, snapshot_id: str) -> types.Snapshot:
        """Return a claimed snapshot, or read one that is not claimed yet.

        :raises SnapshotNotFound: there is none.
        """
        if snapshot_id not in self._snapshots:
            if (row := claims.row(self.conn, "snapshot", snapshot_id)) is None:
                raise exception.SnapshotNotFound(id=snapshot_id)
            self._own("snapshot", row)
            return records.snapshot(row)
        return self._snapshots[snapshot_id]

    def take_children(self, volume_id: str, wanted: Callable[[str], Any]) -> list[types.Snapshot]:
        """Claim all snapshots of a volume for deletion.

        :param wanted: makes the claim on a snapshot, given its id.
        :raises Blocked: one of them is held or in another state.
        """
        sources = wanted(volume_id).sources
        table = models.snapshots
        free = (table.c.operation_id.is_(None)) & (table.c.use_count == 0) & table.c.status.in_(sources)
        of = table.c.volume_id == volume_id
        self.conn.execute(
            sa.update(table).where(of, free).values(status="deleting", operation_id=self.operation_id)
        )
        rows = self.conn.execute(sa.select(*records.SNAPSHOT_COLUMNS).where(of).order_by(table.c.id)).all()
        for row in rows:
            if row.operation_id != self.operation_id:
                raise Blocked(wanted(row.id))
            self.held.append({"resource": "snapshot", "id": row.id, "exclusive": True})
            self._snapshots[row.id] = records.snapshot(row)
        return [self._snapshots[row.id] for row in rows]

    @property
    def claimed(self) -> dict[str, types.Resource]:
        """All claimed records by id, for the run that follows."""
        return {**self._volumes, **self._snapshots, **self._others}

    # --- rows -----------------------------------------------------------------------------------------------------

    def hold_type(self, volume_type: types.VolumeType) -> None:
        """Keep a volume type from being removed until the transaction ends.

        :raises VolumeTypeNotFound: it is gone.
        """
        if not volume_types.hold(self.conn, volume_type.id):
            raise exception.VolumeTypeNotFound(id=volume_type.name)

    def type_of(self, type_id: str) -> types.VolumeType:
        """Return a volume type, and keep it from being removed until the transaction ends.

        :raises VolumeTypeNotFound: there is none.
        """
        return volume_types.get(self.conn, type_id, hold=True)

    def insert_volume(
        self,
        volume_id: str,
        size: int,
        volume_type: types.VolumeType | None = None,
        **columns: Any,
    ) -> None:
        """Make a volume's row and its first object, held by this operation.

        :param columns: with a ``host`` it is made there, by that worker.
        """
        values = {
            "id": volume_id,
            "size": size,
            "status": "creating",
            "host": self.settings.place,
            "availability_zone": self.settings.zone,
            "project_id": self.project_id,
            "user_id": self.user_id,
            "operation_id": self.operation_id,
            "object_id": volume_id,
            "volume_type_id": volume_type.id if volume_type else None,
            "created_at": self.now,
            **columns,
        }
        self.conn.execute(_INSERT_VOLUME, values)
        self.held.append({"resource": "volume", "id": volume_id, "exclusive": True})
        serial = self.insert_object("volume", volume_id, volume_id, size, host=values["host"])
        row = {**_EMPTY_VOLUME, **values, "serial": serial}
        row["metadata"] = row["metadata"] or {}
        self._volumes[volume_id] = types.Volume(**row, volume_type=volume_type)
        self.service = names.service_of(values["host"])
        cache = self.settings.image_cache
        kept = cache is not None and values["project_id"] == cache.project  # nobody ever connects to a cached image
        if self.service == self.settings.host and not kept:
            self.reserve_address(volume_id)

    def reserve_address(self, volume_id: str) -> None:
        """Keep an ATA over Ethernet address for a volume, as one that could never be reached is worth nothing."""
        if self.settings.shelves is None or exports.exported(self.conn, [volume_id]):
            return
        exports.insert(
            self.conn,
            "volume",
            volume_id,
            host=self.settings.host,
            target_name=names.target_name(self.settings.target_prefix, "volume", volume_id),
            now=self.now,
            addresses=self.settings.shelves,
        )

    def insert_snapshot(
        self, snapshot_id: str, of: types.Volume, *, size: int | None = None, **columns: Any
    ) -> None:
        """Make a snapshot's row and its first object, held by this operation.

        :param size: GiB, if it is not the volume's.
        """
        size = size or of.size
        values = {
            "id": snapshot_id,
            "volume_id": of.id,
            "volume_size": size,
            "status": "creating",
            "host": of.host,
            "project_id": of.project_id,
            "user_id": self.user_id,
            "volume_type_id": of.volume_type_id,
            "operation_id": self.operation_id,
            "object_id": snapshot_id,
            "created_at": self.now,
            **columns,
        }
        self.conn.execute(_INSERT_SNAPSHOT, values)
        self.held.append({"resource": "snapshot", "id": snapshot_id, "exclusive": True})
        row = {**_EMPTY_SNAPSHOT, **values, "serial": self.insert_object("snapshot", snapshot_id, snapshot_id, size)}
        row["metadata"] = row["metadata"] or {}
        self._snapshots[snapshot_id] = types.Snapshot(**row, volume=of)

    def insert_held(self, resource: str, resource_id: str, **columns: Any) -> types.Resource:
        """Make the row of a group, a cgsnapshot or a backup, held by this operation; returns its record.

        :param columns: what is not the same for all of them; ``host`` is this worker's unless given.
        """
        values = {
            "id": resource_id,
            "status": "creating",
            "host": self.settings.place,
            "project_id": self.project_id,
            "user_id": self.user_id,
            "operation_id": self.operation_id,
            "created_at": self.now,
            **columns,
        }
        self.conn.execute(sa.insert(claims.TABLES[resource]), values)
        self.held.append({"resource": resource, "id": resource_id, "exclusive": True})
        row = claims.row(self.conn, resource, resource_id)
        self._others[resource_id] = records.OF[resource](row)
        return self._others[resource_id]

    def grow(self, resource: str, resource_id: str, size: int) -> None:
        """Give a resource that waited to be made at least ``size`` GiB, as its source has grown meanwhile."""
        if (resource_id in self._volumes) or (resource_id in self._snapshots):
            return  # it was admitted in this very transaction, from the source as it is
        table, row = claims.TABLES[resource], claims.row(self.conn, resource, resource_id)
        column = table.c.size if resource == "volume" else table.c.volume_size
        before = int(getattr(row, column.name))
        if before >= size:
            return
        self.conn.execute(sa.update(table).where(table.c.id == resource_id).values({column.name: size}))
        of = models.objects.c.id == row.object_id
        self.conn.execute(sa.update(models.objects).where(of).values(size_bytes=size * types.GiB))
        self.charge(row.project_id, row.volume_type_id, gigabytes=size - before)

    def insert_object(
        self,
        kind: str,
        resource_id: str,
        object_id: str,
        size: int,
        *,
        role: str = "current",
        serial: str | None = None,
        host: str | None = None,
    ) -> str:
        """Make an object's row; returns its serial, random unless one moves along.

        :param size: GiB.
        """
        serial = serial or names.new_serial()
        self.conn.execute(
            _INSERT_OBJECT,
            {
                "id": object_id,
                "kind": kind,
                "resource_id": resource_id,
                "role": role,
                "host": host or self.settings.place,
                "serial": serial,
                "size_bytes": size * types.GiB,
                "created_at": self.now,
            },
        )
        return serial

    def serial_of(self, object_id: str) -> str:
        """Return the serial of an object."""
        return str(self.conn.execute(_SERIAL, {"object_id": object_id}).scalar_one())

    def charge(self, project_id: str | None, volume_type_id: str | None, **amounts: int) -> None:
        """Count against a project's quota, last of all.

        :param amounts: ``volumes``, ``snapshots``, ``gigabytes``.
        """
        self._charges.append((project_id, volume_type_id, amounts))

    def charge_type(self, project_id: str | None, volume_type_id: str | None, **amounts: int) -> None:
        """Count for a volume type alone what is counted for the project already."""
        self._charges.append((project_id, volume_type_id, {**amounts, "of_type_only": True}))

    def use_reservations(self, ids: Sequence[str] | None, project_id: str | None) -> None:
        """Take what a project has reserved for this request; what it needs is charged in place of it."""
        if ids:
            self._reserved.append((ids, project_id or ""))

    def settle_quota(self) -> None:
        """Do what :meth:`use_reservations` and :meth:`charge` collected.

        :raises QuotaExceeded: a limit is in the way.
        """
        for ids, owner in self._reserved:
            reservations.take(self.conn, ids, owner)
        self._reserved.clear()
        for project_id, volume_type_id, amounts in self._charges:
            quotas.charge(self.conn, project_id or "", volume_type_id, defaults=self.settings.quota, **amounts)
        self._charges.clear()

    def insert_operation(self, values: dict[str, Any]) -> None:
        """Write the journal's row."""
        operations.insert(self.conn, {**values, "claims": self.held, "data": self.data or None})


_EMPTY_VOLUME: dict[str, Any] = {column.name: None for column in records.VOLUME_COLUMNS} | {
    "bootable": False,
    "readonly": False,
    "multiattach": False,
    "use_count": 0,
}
_EMPTY_SNAPSHOT: dict[str, Any] = {column.name: None for column in records.SNAPSHOT_COLUMNS} | {
    "use_count": 0,
    "progress": "0%",
}

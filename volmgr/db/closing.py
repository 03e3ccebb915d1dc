# SPDX-License-Identifier: Apache-2.0
"""The transaction that ends an operation: result, statuses, claims and quota, all or nothing."""

from __future__ import annotations

import datetime
import functools
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception, types
from volmgr.crypto import Cipher
from volmgr.db import claims, models, operations, quotas, reservations

#: what a driver may tell of a resource, by column; everything else in a model update is refused.
UPDATABLE = frozenset(
    {
        "provider_location",
        "provider_id",
        "provider_auth",
        "replication_status",
        "replication_extended_status",
        "replication_driver_data",
        "driver_data",
        "metadata",
        "bootable",
        "migration_status",
        "size",
    }
)

_DELETE = {resource: sa.delete(table) for resource, table in claims.TABLES.items()}
_TRASH = (
    sa.update(models.objects)
    .where(models.objects.c.id == sa.bindparam("object_id"))
    .values(role="trash", trashed_at=sa.bindparam("now"), former=sa.bindparam("new_former"))
)
_RESIZE = (
    sa.update(models.objects)
    .where(models.objects.c.id == sa.bindparam("object_id"))
    .values(size_bytes=sa.bindparam("new_size"))
)
_LOCK_VOLUME = sa.select(models.volumes.c.id).where(models.volumes.c.id == sa.bindparam("claim_id")).with_for_update()
_ROLE = (
    sa.update(models.objects)
    .where(models.objects.c.id == sa.bindparam("object_id"))
    .values(role=sa.bindparam("new_role"), trashed_at=None, former=None)
)


@functools.cache
def _release(resource: str, settle: bool, columns: tuple[str, ...]) -> sa.sql.dml.Update:
    table = claims.TABLES[resource]
    values: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in columns}
    values |= {
        "status": claims.settled_status() if settle else sa.bindparam("new_status"),
        "operation_id": None,
        "updated_at": sa.bindparam("now"),
    }
    held = (table.c.id == sa.bindparam("claim_id")) & (table.c.operation_id == sa.bindparam("claim_operation"))
    return sa.update(table).where(held).values(values)


class Closing:
    """One ending under way. Whatever it is not the holder of any more raises LeaseLost, and nothing is written."""

    def __init__(
        self, conn: Connection, operation: types.OperationRecord, epoch: int, now: datetime.datetime, cipher: Cipher
    ) -> None:
        self.conn = conn
        self.operation = operation
        self.epoch = epoch
        self.now = now
        self._cipher = cipher
        self._reserved: list[tuple[Sequence[str], str]] = []
        self._returns: list[tuple[str | None, str | None, dict[str, Any]]] = []
        self._held = [(item["resource"], item["id"], item["exclusive"]) for item in operation.claims]

    def release(self, resource: str, resource_id: str, status: str | None = None, **columns: Any) -> None:
        """Give an exclusive claim back with the resource's new status and columns.

        :param status: None for a volume means: what follows from its attachments; for a snapshot: available.
        """
        settle = status is None and resource == "volume"
        values = {f"new_{name}": value for name, value in columns.items()}
        if not settle:
            values["new_status"] = status or "available"
        values |= {"claim_id": resource_id, "claim_operation": self.operation.id, "now": self.now}
        if settle and self.conn.dialect.name != "sqlite":
            # On a server a statement sees the attachments as they were when it began, before it waited for the row:
            # one that is being made at this moment has to be waited for by a statement of its own.
            self.conn.execute(_LOCK_VOLUME, {"claim_id": resource_id})
        statement = _release(resource, settle, tuple(sorted(columns)))
        if not self.conn.execute(statement, values).rowcount:
            raise exception.LeaseLost(id=self.operation.id)
        self._forget(resource, resource_id)

    def model_update(self, resource: str, resource_id: str, update: types.ModelUpdate) -> dict[str, Any]:
        """Return a driver's model update as columns, secrets encrypted.

        :raises Inconsistent: the driver tells of columns that are not its to tell.
        """
        columns = dict(update or {})
        if unknown := set(columns) - UPDATABLE:
            raise exception.Inconsistent(f"The driver returned {', '.join(sorted(unknown))}, which it may not set")
        if columns.get("provider_auth"):
            secret = columns["provider_auth"]
            secret = secret if isinstance(secret, types.Secret) else types.Secret(str(secret))
            columns["provider_auth"] = self._cipher.encrypt(f"{resource}s", "provider_auth", resource_id, secret)
        return columns

    def delete(self, resource: str, resource_id: str) -> None:
        """Remove a resource's row, which this operation holds."""
        table = claims.TABLES[resource]
        held = (table.c.id == resource_id) & (table.c.operation_id == self.operation.id)
        if not self.conn.execute(_DELETE[resource].where(held)).rowcount:
            raise exception.LeaseLost(id=self.operation.id)
        self._forget(resource, resource_id)

    def trash(self, object_id: str, former: dict[str, Any] | None) -> None:
        """Move an object to the trash, with the row that would be needed to bring its resource back."""
        self.conn.execute(_TRASH, {"object_id": object_id, "now": self.now, "new_former": former})

    def forget_object(self, object_id: str) -> None:
        """Remove the row of an object that is no more."""
        self.conn.execute(sa.delete(models.objects).where(models.objects.c.id == object_id))

    def exchange_object(self, resource: str, resource_id: str, object_id: str) -> None:
        """Give a resource that this operation holds an object of a new id, of which the backend has nothing.

        For one that could not be made: whatever bears the name of its object now or later is something else, and is
        not touched, whatever becomes of the resource.
        """
        table, new = claims.TABLES[resource], str(uuid.uuid4())
        held = (table.c.id == resource_id) & (table.c.operation_id == self.operation.id)
        if not self.conn.execute(sa.update(table).where(held).values(object_id=new)).rowcount:
            raise exception.LeaseLost(id=self.operation.id)
        self.conn.execute(sa.update(models.objects).where(models.objects.c.id == object_id).values(id=new))

    def set_role(self, object_id: str, role: str) -> None:
        """Change what an object is: current or building."""
        self.conn.execute(_ROLE, {"object_id": object_id, "new_role": role})

    def resize_object(self, object_id: str, size: int) -> None:
        """Record an object's new size, in GiB."""
        self.conn.execute(_RESIZE, {"object_id": object_id, "new_size": size * types.GiB})

    def uncharge(self, project_id: str | None, volume_type_id: str | None, **amounts: int) -> None:
        """Give quota back, last of all."""
        self._returns.append((project_id, volume_type_id, amounts))

    def uncharge_type(self, project_id: str | None, volume_type_id: str | None, **amounts: int) -> None:
        """Give back what is counted for a volume type alone."""
        self._returns.append((project_id, volume_type_id, {**amounts, "of_type_only": True}))

    def give_reservations_back(self, ids: Sequence[str] | None, project_id: str | None) -> None:
        """Give back what was reserved for a request that never used it."""
        self._reserved += [(ids, project_id or "")] if ids else []

    def give_shared(self, resource: str, resource_id: str) -> None:
        """Give a shared claim back before the end."""
        claims.drop_shared(self.conn, resource, resource_id)
        self._forget(resource, resource_id)

    def settle_quota(self) -> None:
        """Do what :meth:`uncharge` collected, last of all, where the transaction is no operation's end."""
        for project_id, volume_type_id, amounts in self._returns:
            quotas.release(self.conn, project_id or "", volume_type_id, **amounts)
        self._returns.clear()

    def enqueue(self, values: dict[str, Any]) -> None:
        """Write the journal row of an operation that follows from this one."""
        operations.insert(self.conn, values)

    def finish(self, *, result: Any = None, error: dict[str, Any] | None = None) -> None:
        """Release what is still held, end the operation, settle the quota."""
        for resource, resource_id, exclusive in list(self._held):
            if exclusive:
                self.release(resource, resource_id)
            else:
                claims.drop_shared(self.conn, resource, resource_id)
        operations.finish(self.conn, self.operation.id, self.epoch, self.now, result=result, error=error)
        for ids, owner in self._reserved:
            reservations.take(self.conn, ids, owner)
        self.settle_quota()

    def forget_claim(self, resource: str, resource_id: str) -> None:
        """Take note that a claim was given back by a statement of the caller's."""
        self._forget(resource, resource_id)

    def _forget(self, resource: str, resource_id: str) -> None:
        self._held = [item for item in self._held if item[:2] != (resource, resource_id)]

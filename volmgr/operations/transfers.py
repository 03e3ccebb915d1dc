# SPDX-License-Identifier: Apache-2.0
"""Giving a volume to another project: an offer with a key, and the change of owner that follows from it.

Offering and withdrawing are one transaction each and no operation: the key is told once, and must stand in no journal.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from volmgr import exception, states, types, validate
from volmgr.context import RequestContext
from volmgr.db import answered, claims, exports, failovers, models, quotas, transfers
from volmgr.db.admission import Admitting, Blocked
from volmgr.db.closing import Closing
from volmgr.db.engine import Database, is_duplicate
from volmgr.operations import advice, members
from volmgr.operations.base import Args, Claim, Operation, Step, arg
from volmgr.operations.locking import locked_volume_operation
from volmgr.operations.registry import register
from volmgr.runtime import Clock

if TYPE_CHECKING:
    from volmgr.tasks import Task

_V, _S = models.volumes, models.snapshots


class Transfers:
    """The offers of a deployment, as any worker sees them.

    :param submit: admits the change of owner, given the context and the arguments of :class:`AcceptTransfer`.
    :param joined: returns the answer of a request that this one repeats, or None.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        submit: Callable[[RequestContext, dict[str, Any]], dict[str, Any]],
        joined: Callable[[RequestContext], dict[str, Any] | None],
    ) -> None:
        self.database = database
        self.clock = clock
        self._submit = submit
        self._joined = joined

    def create(
        self, context: RequestContext, transfer_id: str, volume_id: str, name: str | None, seconds: float
    ) -> dict[str, Any]:
        """Offer a volume; answers the key, which is never told again.

        :param seconds: for how long the offer stands, 0 for ever.
        :raises Conflict: the volume cannot be offered now. :raises AlreadyExists: the id is taken.
        """
        key, salt = transfers.new_key(), transfers.new_salt()
        kept = transfers.hashed(key, salt)
        now = self.clock.now()

        def write() -> Any:
            with self.database.writer() as conn:
                transfers.expire(conn, now)
                answered.check_first(conn, "volume", volume_id, now)
                row = self._offer(conn, context, volume_id)
                transfers.insert(
                    conn, id=transfer_id, volume_id=volume_id, display_name=name, project_id=row.project_id,
                    user_id=row.user_id, salt=salt, key_hash=kept, created_at=now,
                    expires_at=now + datetime.timedelta(seconds=seconds) if seconds else None,
                )
                return transfers.get(conn, transfer_id)

        try:
            return {**transfers.view(self.database.retrying(write)), "auth_key": key}
        except Exception as error:
            if is_duplicate(error):
                raise exception.AlreadyExists(
                    resource="transfer", id=transfer_id,
                    hint=f"Its key is told only once; withdraw it: volmgr transfer delete {transfer_id}",
                ) from error
            raise

    def _offer(self, conn: Any, context: RequestContext, volume_id: str) -> Any:
        """Take a volume out of use; returns its row."""
        row = claims.row(conn, "volume", volume_id)
        if row is None or context.scope not in (None, row.project_id):
            raise exception.VolumeNotFound(id=volume_id)
        idle = (_V.c.status.in_(states.VOLUME.sources("transfer"))) & _V.c.operation_id.is_(None)
        alone = (_V.c.use_count == 0) & _V.c.group_id.is_(None)
        done = conn.execute(sa.update(_V).where(_V.c.id == volume_id, idle, alone).values(status="awaiting-transfer"))
        if not done.rowcount:
            members.need_alone(row, "which belongs to one project")
            raise exception.Conflict(
                f"The volume {volume_id} is {row.status}",
                hint=advice.refused("volume", volume_id, row.status, failovers.loss(conn, row)),
                resource="volume", id=volume_id,
                status=row.status, operation_id=row.operation_id,
            )
        if exports.granted(conn, volume_id):
            raise exception.Conflict(
                f"Somebody is connected to the volume {volume_id}",
                hint=f"End that first: volmgr volume detach --force {volume_id}",
                resource="volume", id=volume_id, status=row.status,
            )
        return row

    def accept(self, context: RequestContext, transfer_id: str, auth_key: str) -> dict[str, Any]:
        """Give an offered volume to the caller, if the key is right.

        :raises TransferNotFound: there is none, or it has expired. :raises Forbidden: the key is wrong.
        """
        if (found := self._joined(context)) is not None:
            return found
        now = self.clock.now()
        with self.database.reader() as conn:
            row = transfers.get(conn, transfer_id)
        if row is None or (row.expires_at is not None and row.expires_at <= now):
            raise exception.TransferNotFound(f"There is no transfer {transfer_id}, or it has expired", id=transfer_id)
        if not transfers.fits(row, auth_key):
            def count() -> int:
                with self.database.writer() as conn:
                    return transfers.wrong(conn, row)

            left = self.database.retrying(count)
            raise exception.Forbidden(
                "The key is wrong",
                hint=f"{left} more may be tried" if left else "The offer is withdrawn: ask for a new one",
                left=left,
            )
        if not context.project_id:
            raise exception.Invalid("A volume is accepted for a project", field="project_id")
        # The key is the right to this one volume, which is another project's as yet.
        allowed = RequestContext.from_dict({**context.to_dict(), "is_admin": True})
        return self._submit(allowed, {
            "volume_id": row.volume_id, "new_user": context.user_id or "", "new_project": context.project_id,
            "transfer_id": transfer_id, "salt": row.salt,
        })

    def delete(self, context: RequestContext, transfer_id: str) -> dict[str, Any]:
        """Withdraw an offer; one that is gone is success.

        :raises Conflict: it is being accepted.
        """
        def write() -> bool:
            with self.database.writer() as conn:
                row = transfers.get(conn, transfer_id)
                if row is None:
                    return False
                self._visible(context, row)
                transfers.withdraw(conn, transfer_id, row.volume_id)
                return True

        return {"transfer_id": transfer_id, "withdrawn": self.database.retrying(write)}

    @staticmethod
    def _visible(context: RequestContext, row: Any) -> None:
        if context.scope not in (None, row.project_id):
            raise exception.TransferNotFound(id=row.id)


@dataclass(frozen=True)
class AcceptArgs(Args):
    """Arguments of accept_transfer. ``salt`` tells an offer from a later one with the same id; it is no secret."""

    volume_id: str = arg(validate.uuid)
    new_user: str = arg(validate.text(255))
    new_project: str = arg(validate.text(255, 1))
    transfer_id: str | None = arg(validate.optional(validate.uuid), default=None)
    salt: str | None = arg(validate.optional(validate.text(64)), default=None)


@register
@locked_volume_operation("accept")
class AcceptTransfer(Operation[AcceptArgs]):
    """Give a volume with its snapshots, and their quota, to another project."""

    verb = "accept_transfer"
    args = AcceptArgs

    @property
    def resource_id(self) -> str:
        return self.a.volume_id

    def claimed(self, tx: Admitting) -> None:
        volume = tx.volume(self.a.volume_id)
        offer = tx.conn.execute(models.transfers.select().where(models.transfers.c.volume_id == volume.id)).first()
        asked = (self.a.transfer_id, self.a.salt)
        if self.a.transfer_id is not None and (offer is None or (offer.id, offer.salt) != asked):
            raise exception.TransferNotFound(id=self.a.transfer_id)
        members.need_alone(volume, "which belongs to one project")
        if self.a.transfer_id is None and exports.granted(tx.conn, volume.id):
            raise exception.Conflict(
                f"Somebody is connected to the volume {volume.id}",
                hint=f"End that first: volmgr volume detach --force {volume.id}",
                resource="volume", id=volume.id, status=volume.status,
            )
        held = self._take_snapshots(tx)
        tx.data |= {"from": volume.project_id, "user": volume.user_id, "offered": offer is not None}
        tx.data["snapshots"] = [[row.id, row.volume_type_id, row.volume_size] for row in held]

    def _take_snapshots(self, tx: Admitting) -> list[Any]:
        """Hold every snapshot of the volume, in the status that it has.

        :raises Blocked: an operation holds one of them.
        """
        of = _S.c.volume_id == self.a.volume_id
        free = _S.c.operation_id.is_(None) & (_S.c.use_count == 0) & _S.c.status.in_(states.SNAPSHOT.stable)
        tx.conn.execute(sa.update(_S).where(of, free).values(operation_id=tx.operation_id))
        rows = list(tx.conn.execute(sa.select(_S).where(of).order_by(_S.c.id)))
        for row in rows:
            if row.operation_id != tx.operation_id:
                raise Blocked(Claim("snapshot", row.id, "transfer"))
            tx.held.append({"resource": "snapshot", "id": row.id, "exclusive": True})
        return rows

    def steps(self, task: Task) -> Sequence[Step]:
        volume = task.volume(self.a.volume_id)

        def give(user: str | None, project: str | None) -> types.ModelUpdate:
            if not task.driver.supports("accept_transfer"):
                return None
            update = task.driver.accept_transfer(task.context, volume, user or "", project or "")
            return dict(update) if update else None

        def cut() -> None:
            # Exports that the old owner made: he knows their accounts, and may be connected to a snapshot.
            task.backend.exports.withdraw("volume", volume.id)
            for snapshot_id, _type_id, _size in task.data["snapshots"]:
                task.backend.exports.withdraw("snapshot", snapshot_id)

        def undo() -> None:
            give(task.data["user"], task.data["from"])

        return (
            Step(
                "give",
                lambda: give(self.a.new_user, self.a.new_project),
                undo,
                pivot=lambda tx: self._hand_over(task, tx),
            ),
            Step("cut", cut),
        )

    def _hand_over(self, task: Task, tx: Closing) -> None:
        """Write the new owner of all of it, and let its quota count there instead of here.

        :raises QuotaExceeded: the new project's does not allow it.
        """
        volume = task.volume(self.a.volume_id)
        owner = {"project_id": self.a.new_project, "user_id": self.a.new_user or None}
        columns = tx.model_update("volume", volume.id, task.results.get("give"))
        held = (_V.c.id == volume.id) & (_V.c.operation_id == task.id)
        if not tx.conn.execute(sa.update(_V).where(held).values({**columns, **owner})).rowcount:
            raise exception.LeaseLost(id=task.id)
        mine = (_S.c.volume_id == volume.id) & (_S.c.operation_id == task.id)
        tx.conn.execute(sa.update(_S).where(mine).values(owner))
        transfers.end_of_volume(tx.conn, volume.id)
        parts: list[tuple[str | None, dict[str, Any]]] = [
            (volume.volume_type_id, {"volumes": 1, "gigabytes": volume.size}),
            *((type_id, {"snapshots": 1, "gigabytes": size}) for _id, type_id, size in task.data["snapshots"]),
        ]
        for type_id, amounts in parts:
            quotas.charge(
                tx.conn, self.a.new_project, type_id, defaults=task.backend.settings.quota, **amounts
            )
            quotas.release(tx.conn, task.data["from"] or "", type_id, **amounts)

    def commit(self, task: Task, tx: Closing) -> Any:
        self._let_go(task, tx, "available")
        return {
            "volume_id": self.a.volume_id, "project_id": self.a.new_project, "user_id": self.a.new_user or None
        }

    def _let_go(self, task: Task, tx: Closing, status: str) -> None:
        """Give the volume back, and its snapshots in the statuses that they have."""
        tx.release("volume", self.a.volume_id, status)
        for snapshot_id, _type_id, _size in task.data["snapshots"]:
            mine = (_S.c.id == snapshot_id) & (_S.c.operation_id == task.id)
            tx.conn.execute(sa.update(_S).where(mine).values(operation_id=None))
            tx.forget_claim("snapshot", snapshot_id)

    def abort(self, task: Task, tx: Closing, error: exception.VolmgrError) -> None:
        if "from" in task.data:
            offered = task.data["offered"] and not task.pivoted
            self._let_go(task, tx, "awaiting-transfer" if offered else "available")

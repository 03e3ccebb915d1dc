# SPDX-License-Identifier: Apache-2.0
"""What mends a finding: a sync, an ordinary operation, or one small transaction. Each checks again what it mends.

A repair that no longer applies does nothing and says so; one that fails raises, and the finding stays.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import context, exception, names, states
from volmgr.backups import copying
from volmgr.db import attachments, claims, models, operations, settling
from volmgr.operations import repairs, trash, volumes
from volmgr.reconcile.findings import Finding, Kind, Repair

if TYPE_CHECKING:
    from volmgr.dispatch import Dispatcher
    from volmgr.reconcile.world import Process

_UNCHANGED = "nothing to be done any more"
_FORGET: dict[Kind, Callable[[Connection, str], bool]] = {
    Kind.ATTACHMENT_ORPHAN: settling.forget_attachment,
    Kind.OBJECT_ROW_ORPHAN: settling.forget_object,
    Kind.CGSNAPSHOT_ORPHAN: settling.forget_cgsnapshot,
    Kind.TRANSFER_ORPHAN: settling.forget_offer,
}
#: what a project may ask after: the journal says where it went.
_TOLD = frozenset({Kind.CGSNAPSHOT_ORPHAN, Kind.TRANSFER_ORPHAN})


class Repairs:
    """The repairs of one worker.

    :param processes: looks for processes of earlier lives again.
    """

    def __init__(self, dispatcher: Dispatcher, processes: Callable[[], list[Process]]) -> None:
        self.dispatcher = dispatcher
        self.database = dispatcher.database
        self.backend = dispatcher.backend
        self.exports = dispatcher.backend.exports
        self._processes = processes
        self._by_repair: dict[Repair, Callable[[Finding], str]] = {
            Repair.SYNC: self._sync,
            Repair.REVOKE: self._revoke,
            Repair.WITHDRAW: self._withdraw,
            Repair.DISCARD: self._discard,
            Repair.WIPE: self._wipe,
            Repair.RESTORE: self._restore,
            Repair.EXTEND: self._extend,
            Repair.FORGET: self._forget,
            Repair.LEAVE: self._leave,
            Repair.SETTLE: self._settle,
            Repair.RECOUNT: self._recount,
            Repair.PURGE: self._purge,
            Repair.RESUME: self._resume,
            Repair.END: self._end,
        }

    def apply(self, found: Finding) -> str:
        """Mend a finding; returns what was done, in words.

        :raises VolmgrError: it could not be mended. :raises Unsupported: only an operator can.
        """
        repair = self._by_repair.get(found.repair)
        if repair is None:
            raise exception.Unsupported(f"{found.kind.label} is not mended by itself", hint=found.reason)
        return repair(found)

    # --- target ---------------------------------------------------------------------------------------------------

    def _sync(self, found: Finding) -> str:
        if not self.exports.sync(found.resource, found.resource_id):
            return _UNCHANGED
        return "made so from SQL"

    def _revoke(self, found: Finding) -> str:
        def still(conn: Connection, _wanted: Any) -> None:
            if attachments.get(conn, found.name) is not None:
                raise exception.Conflict(f"The attachment {found.name} is there", resource="attachment", id=found.name)

        gone = self.exports.disconnect(
            found.resource, found.resource_id, connector=None, attachment_id=found.name, change=still
        )
        return "revoked" if gone else _UNCHANGED

    def _withdraw(self, found: Finding) -> str:
        ended = self.exports.end_unwanted(found.resource, found.resource_id, found.name)
        return "withdrawn" if ended else _UNCHANGED

    # --- storage --------------------------------------------------------------------------------------------------

    def _submit(self, cls: Any, **arguments: Any) -> str:
        answer = self.dispatcher.submit(context.admin(), cls, cls.args.parse(arguments))
        return f"operation {answer['operation_id']} does it"

    def _discard(self, found: Finding) -> str:
        beside = found.resource_id if found.resource in names.KINDS else None
        kind = found.resource if beside else "volume"
        object_id = found.object_id or found.resource_id
        return self._submit(repairs.Discard, object_id=object_id, name=found.name, kind=kind, resource_id=beside)

    def _wipe(self, found: Finding) -> str:
        objects, journal = models.objects, models.operations
        with self.database.writer() as conn:
            query = sa.select(objects.c.kind).where(objects.c.id == found.resource_id, objects.c.role == "trash")
            kind = conn.execute(query.with_for_update()).scalar()
            at_it = (journal.c.resource_id == found.resource_id) & journal.c.state.in_(states.UNFINISHED)
            if kind is None or conn.execute(sa.select(journal.c.id).where(at_it)).first() is not None:
                return _UNCHANGED
            row = trash.wipe_row_on(self.backend.settings.host, kind, found.resource_id, self.dispatcher.clock.now())
            operations.insert(conn, row)
        self.dispatcher.ring()
        return f"operation {row['id']} does it"

    def _restore(self, found: Finding) -> str:
        return self._submit(repairs.RestoreStorage, kind=found.resource, id=found.resource_id)

    def _extend(self, found: Finding) -> str:
        with self.database.reader() as conn:
            query = sa.select(models.volumes.c.size).where(models.volumes.c.id == found.resource_id)
            size = conn.execute(query).scalar()
        if size is None:
            return _UNCHANGED
        return self._submit(volumes.ExtendVolume, volume_id=found.resource_id, new_size=size)

    def _purge(self, found: Finding) -> str:
        with self.database.reader() as conn:
            if claims.row(conn, "backup", found.resource_id) is not None:
                return _UNCHANGED
        copying.remove(self.backend.stores.get(found.name), found.resource_id)
        return "removed from the store"

    def _resume(self, found: Finding) -> str:
        self.backend.driver.resume(found.name)
        return "resumed"

    # --- SQL ------------------------------------------------------------------------------------------------------

    def _forget(self, found: Finding) -> str:
        with self.database.writer() as conn:
            if not _FORGET[found.kind](conn, found.resource_id):
                return _UNCHANGED
            if found.kind in _TOLD:
                self._record(conn, "forget", found, {"because": found.reason})
        return "forgotten"

    def _leave(self, found: Finding) -> str:
        with self.database.writer() as conn:
            if not settling.leave(conn, found.resource, found.resource_id, found.name):
                return _UNCHANGED
            self._record(conn, "leave", found, {"from": found.name, "because": found.reason})
        return f"taken out of {found.name}"

    def _settle(self, found: Finding) -> str:
        now = self.dispatcher.clock.now()
        status = "error" if found.kind is Kind.CGSNAPSHOT_INCOMPLETE else None
        with self.database.writer() as conn:
            settled = settling.settle(conn, found.resource, found.resource_id, now, status)
            if settled is None:
                return _UNCHANGED
            self._record(conn, "settle", found, {"from": settled[0], "to": settled[1], "because": found.reason})
        return f"{settled[0]} became {settled[1]}"

    def _recount(self, found: Finding) -> str:
        with self.database.writer() as conn:
            mended = settling.recount(conn, found.resource_id)
            if not mended:
                return _UNCHANGED
            self._record(conn, "recount", found, {"mended": mended})
        return "counted anew"

    def _record(self, conn: Connection, verb: str, found: Finding, result: dict[str, Any]) -> None:
        settling.record(
            conn, verb, found.resource, found.resource_id[:36], result,
            host=self.backend.settings.host, context=context.admin().to_dict(), now=self.dispatcher.clock.now(),
        )

    # --- processes ------------------------------------------------------------------------------------------------

    def _end(self, found: Finding) -> str:
        if all(str(process.pid) != found.resource_id for process in self._processes()):
            return _UNCHANGED
        os.kill(int(found.resource_id), signal.SIGKILL)
        return "killed"

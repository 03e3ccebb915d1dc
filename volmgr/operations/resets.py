# SPDX-License-Identifier: Apache-2.0
"""Giving a resource another status by hand: told first what it breaks, recorded in the journal, audited afterwards.

The last resort, in place of SQL. It changes the status and nothing else: neither storage nor access.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Connection

from volmgr import exception, states
from volmgr.context import RequestContext
from volmgr.db import attachments, claims, operations, settling
from volmgr.db import exports as export_rows
from volmgr.db.admission import MISSING
from volmgr.db.engine import Database
from volmgr.operations import advice
from volmgr.runtime import Clock

MACHINES = {
    "volume": states.VOLUME,
    "snapshot": states.SNAPSHOT,
    "group": states.CONSISTENCY_GROUP,
    "cgsnapshot": states.CGSNAPSHOT,
    "backup": states.BACKUP,
}
#: statuses that a reset may lead to: everything that may stand for ever, and is not the end.
ALLOWED = {noun: tuple(name for name in machine.stable if name != "deleted") for noun, machine in MACHINES.items()}


class Resets:
    """Resets of one worker.

    :param host: the worker.
    """

    def __init__(self, database: Database, clock: Clock, host: str) -> None:
        self.database = database
        self.clock = clock
        self.host = host

    def reset(self, context: RequestContext, resource: str, resource_id: str, status: str, dry: bool) -> dict[str, Any]:
        """Set a status; returns ``{"from", "to", "breaks", "operation_id"}``.

        :param dry: change nothing, only say what it would break.
        :raises Invalid: a resource of this noun cannot stand in that status.
        :raises Conflict: an unfinished operation holds it; the hint says how to end that.
        """
        if status not in ALLOWED[resource]:
            raise exception.Invalid(
                f"status must be one of {', '.join(ALLOWED[resource])}, got {status}", field="status"
            )

        def write() -> dict[str, Any]:
            with self.database.writer() as conn:
                row = claims.row(conn, resource, resource_id)
                if row is None:
                    raise MISSING[resource](id=resource_id)
                self._free(conn, resource, row)
                answer = {"from": row.status, "to": status, "breaks": breaks(conn, resource, row, status)}
                if dry:
                    return {**answer, "operation_id": None}
                settling.settle(conn, resource, resource_id, self.clock.now(), status)
                operation_id = settling.record(
                    conn, "reset_status", resource, resource_id, answer,
                    host=self.host, context=context.to_dict(), now=self.clock.now(),
                )
                return {**answer, "operation_id": operation_id}

        return self.database.retrying(write)

    @staticmethod
    def _free(conn: Connection, resource: str, row: Any) -> None:
        held = settling.holder_of(conn, row)
        holder = operations.get(conn, held) if held else None
        if holder is not None:
            raise exception.Conflict(
                f"The {resource} {row.id} is {row.status} because {holder.verb} is at it; end that first",
                hint=f"{advice.hint(holder)}, or: volmgr operation cancel {holder.id}",
                resource=resource, id=row.id, status=row.status, operation_id=holder.id,
            )


def breaks(conn: Connection, resource: str, row: Any, status: str) -> list[str]:
    """Return what stops being true, or may be taken for something that it is not, once a resource has a status."""
    found: list[str] = []
    machine = MACHINES[resource]
    before = row.status
    if before == status:
        return ["nothing: it has that status already"]
    if before in ("creating", "downloading", "managing", "restoring-backup", "error") and status not in _BROKEN:
        found.append(_UNSURE.get(resource, "its bytes may be missing or incomplete: who attaches it may read anything"))
    if before in ("deleting", "unmanaging", "error_deleting") and status not in _BROKEN:
        found.append("its storage may be gone already, or partly")
    if before in machine.transitional:
        found.append(f"whatever {before} had begun is neither ended nor undone")
    if resource == "volume":
        found += _of_volume(conn, row, status)
    if status in _BROKEN:
        found.append("it can only be deleted, until its status is reset again")
    if resource in _UNSURE:
        found.append("its members keep their statuses")
    return found or ["nothing that SQL knows of"]


_BROKEN = ("error", "error_deleting")
_UNSURE = {
    "group": "the backend may not have the group, or not with these members",
    "cgsnapshot": "its snapshots may be missing, or not of one instant",
}


def _of_volume(conn: Connection, row: Any, status: str) -> list[str]:
    found = []
    present = attachments.of_volume(conn, row.id)
    follows = states.volume_status_of(item.status for item in present)
    if present and status not in _BROKEN and status != follows:
        users = ", ".join(item.instance_uuid or item.host_name or item.id for item in present)
        found.append(f"{len(present)} attachments stay, of {users}: they say {follows}, and who is connected may write")
    elif not present and status in states.IDLE and status != follows:
        found.append(f"no attachment says so; the next one that comes or goes makes it {follows}")
    if status == "available" and export_rows.granted(conn, row.id):
        found.append("connectors are still granted access: it can be deleted or attached while they write")
    if status == "awaiting-transfer":
        found.append(f"nothing was offered to anybody: {advice.AUDIT} takes it for a mistake and undoes it")
    return found

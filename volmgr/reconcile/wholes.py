# SPDX-License-Identifier: Apache-2.0
"""The audit of what consists of others: groups and cgsnapshots with their members, and offers and moves of volumes.

They have no storage of their own, so SQL is compared with itself. What is found is read before the journal is looked at
for the last time, so whoever was at it meanwhile is known to the caller, who leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy.engine import Connection

from volmgr.db import audit_wholes, claims, settling
from volmgr.db.audit_wholes import Broken, Offer, Stray
from volmgr.reconcile.findings import Finding, Kind, Repair, finding

NOUNS = ("group", "cgsnapshot")


def look(conn: Connection, of: Sequence[str]) -> list[Finding]:
    """Return what is found of a worker's groups, cgsnapshots and moves, and of all offers.

    :param of: the hosts that are the worker's, see :func:`volmgr.db.audit.hosts`.
    """
    found: list[Finding] = []
    for noun in NOUNS:
        for row in settling.unsettled(conn, noun, claims.TABLES[noun].c.host.in_(of)):
            found.append(_unsettled(noun, row))
    found += (_stray(row) for row in audit_wholes.strays(conn, of))
    found += (_broken(row) for row in audit_wholes.broken(conn, of))
    for moved in audit_wholes.halfway(conn, of):
        reason = f"Its migration_status is {moved.migration_status}, and no operation moves it"
        found.append(finding(Kind.STATUS_STUCK, "volume", moved.id, reason, name="migration_status"))
    found += _offers([*audit_wholes.stale_offers(conn), *audit_wholes.unoffered(conn, of)])
    return found


def _unsettled(noun: str, row: settling.Unsettled) -> Finding:
    if row.operation_id is not None:
        reason = f"It is {row.status}, held by the operation {row.operation_id}, which has ended or never was"
        return finding(Kind.HOLD_STALE, noun, row.id, reason)
    if row.stuck:
        return finding(Kind.STATUS_STUCK, noun, row.id, f"It is {row.status}, and no operation holds it")
    reason = f"{row.use_count} operations are counted as using it, the journal has {row.users}"
    return finding(Kind.HOLD_STALE, noun, row.id, reason)


def _stray(row: Stray) -> Finding:
    whole = "group" if row.kind == "volume" else "cgsnapshot"
    if row.of_host is None:
        reason = f"It belongs to the {whole} {row.of}, which is gone"
        return finding(Kind.MEMBER_STRAY, row.kind, row.id, reason, name=row.of)
    if row.of_host != row.host:
        reason = f"It is on {row.host}, the {whole} {row.of} that it belongs to on {row.of_host}"
    else:
        reason = f"It is the project {row.project_id}'s, the {whole} {row.of} that it belongs to {row.of_project}'s"
    # Which of the two is wrong is not known, so nobody is taken out of anything unasked.
    return finding(Kind.MEMBER_STRAY, row.kind, row.id, reason, name=row.of, safe=False)


def _broken(row: Broken) -> Finding:
    if row.missing:
        reason = (
            f"{len(row.missing)} of the snapshots that it was made with are gone ({row.missing[0]}); as error it can "
            f"only be deleted: volmgr cgsnapshot delete {row.id}"
        )
        return finding(Kind.CGSNAPSHOT_INCOMPLETE, "cgsnapshot", row.id, reason)
    if row.parts:
        reason = f"Its group {row.group_id} is gone; its {row.parts} snapshots stay, each by itself"
        return finding(Kind.CGSNAPSHOT_ORPHAN, "cgsnapshot", row.id, reason, safe=False)
    gone = "All its snapshots are gone" if row.grouped else f"Its group {row.group_id} and its snapshots are gone"
    return finding(Kind.CGSNAPSHOT_ORPHAN, "cgsnapshot", row.id, gone)


def _offers(rows: Sequence[Offer]) -> Iterator[Finding]:
    for row in rows:
        if row.id is None:
            reason = "It is awaiting-transfer, and nobody has offered it"
            yield finding(Kind.STATUS_WRONG, "volume", row.volume_id, reason, repair=Repair.SETTLE)
            continue
        state = "gone" if row.status is None else f"{row.status}, so it may be used by whom it was to leave"
        reason = f"The volume {row.volume_id} that it offers is {state}"
        yield finding(Kind.TRANSFER_ORPHAN, "transfer", row.id, reason, object_id=row.volume_id)

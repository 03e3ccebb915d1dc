# SPDX-License-Identifier: Apache-2.0
"""The audit of backups: what SQL says of them against itself, and against what is in the stores.

A store may be another deployment's too, so what no row knows is only reported, until an operator names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from volmgr import exception, names
from volmgr.backups.stores import Stores
from volmgr.db import backups
from volmgr.db.engine import Database
from volmgr.reconcile.findings import Finding, Kind, finding
from volmgr.states import BACKUP

#: kinds that need a look into the stores.
STORE_KINDS = frozenset({Kind.BACKUP_MISSING, Kind.BACKUP_ORPHAN})


def look(database: Database, stores: Stores, busy: Set[str]) -> tuple[list[Finding], dict[str, str]]:
    """Return what is found, and by name which store could not be looked at and why.

    :param busy: ids that somebody was at.
    """
    unseen: dict[str, str] = {}
    found = [*_rows(database)]
    for name in stores.names():
        with database.reader() as conn:
            before = backups.by_store(conn).get(name, {})
        try:
            there = {item for item in stores.get(name).folders() if names.is_uuid(item)}
            with database.reader() as conn:
                after = backups.by_store(conn).get(name, {})
            # What is being deleted keeps its row until its last object is gone.
            orphans = sorted(item for item in there - after.keys() if next(stores.get(name).list_objects(item), None))
        except exception.VolmgrError as error:
            unseen[f"backup store {name}"] = str(error)
            continue
        for backup_id in orphans:
            reason = f"The store {name} has objects of it, and no row knows it; see: volmgr store list URL"
            found.append(finding(Kind.BACKUP_ORPHAN, "backup", backup_id, reason, name=name, safe=False))
        whole = (item for item, status in after.items() if status == before.get(item) == "available")
        for backup_id in sorted(set(whole) - there):
            reason = f"The store {name} has nothing of it: bring the store back, or: volmgr backup delete {backup_id}"
            found.append(finding(Kind.BACKUP_MISSING, "backup", backup_id, reason))
    order = {kind: index for index, kind in enumerate(Kind)}
    kept = [item for item in found if item.resource_id not in busy]
    return sorted(kept, key=lambda item: (order[item.kind], item.resource_id)), unseen


def _rows(database: Database) -> Iterator[Finding]:
    with database.reader() as conn:
        rows = backups.unsettled(conn)
    for row in rows:
        if row.operation_id is not None:
            reason = f"It is {row.status}, held by the operation {row.operation_id}, which has ended or never was"
            yield finding(Kind.HOLD_STALE, "backup", row.id, reason)
        elif row.status not in BACKUP.stable:
            yield finding(Kind.STATUS_STUCK, "backup", row.id, f"It is {row.status}, and no operation holds it")
        else:
            reason = f"{row.use_count} operations are counted as using it, the journal has {row.users}"
            yield finding(Kind.HOLD_STALE, "backup", row.id, reason)

# SPDX-License-Identifier: Apache-2.0
"""A small model of what is legal: which effects an operation has on rows, by its outcome, and which steps there are.

It reads the history that the database's triggers wrote, so it sees every committed change in the order of the commits,
not only the end. It knows no scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from volmgr import states
from volmgr.outcomes import JOINED, REFUSED

Change = tuple[str, str, str | None, str | None, str | None]

#: the states that may follow a state of an operation; None before is its admission, after it its row's removal.
FOLLOWING: dict[str | None, tuple[str | None, ...]] = {
    None: ("queued", "running", "done", "failed"),
    "queued": ("running", "failed", "done", None),
    "running": ("undoing", "parked", "done", "failed"),
    # Where one pool refused what another may take, it is asked for again.
    "undoing": ("parked", "failed", "queued"),
    "parked": ("running", "undoing", "failed"),
    "done": (),
    "failed": (),
}
#: only the wiper's rows may go, when what it was to wipe is brought back.
REMOVABLE = ("wipe",)
_IDLE = ("available", "in-use", "reserved", "attaching", "detaching")

#: codes that only a fault of ours, or one that was ordered, explains.
NEVER = ("volmgr.error", "volmgr.lease_lost")


@dataclass
class Effects:
    """What one operation did to rows."""

    inserted: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)


def _moves(machine: states.Machine) -> set[tuple[str, str]]:
    known = {(source, target) for source, _event, target in machine.transitions}
    # An operation that ends gives the volume the status that its attachments say.
    settled = {(source, idle) for source, target in known if target in _IDLE for idle in _IDLE}
    busy = {(source, "available") for source, target in known if target in ("available", "error_deleting")}
    return known | settled | busy | {(idle, other) for idle in _IDLE for other in _IDLE}


_MOVES = {
    "volumes": _moves(states.VOLUME),
    "snapshots": _moves(states.SNAPSHOT),
    "groups": _moves(states.CONSISTENCY_GROUP),
    "cgsnapshots": _moves(states.CGSNAPSHOT),
    "backups": _moves(states.BACKUP),
}
#: a claim that is given back unused: the operation was cancelled or was refused by the backend as busy.
_RETURNS = {(status, idle) for status in ("deleting", "unmanaging") for idle in _IDLE}
_RETURNS |= {("reverting", "available"), ("restoring", "available"), ("restoring-backup", "available")}


#: what a failover does to volumes that are not on the other side, and a way back to those that are there again.
_FAILED_OVER = {move for idle in (*_IDLE, "awaiting-transfer") for move in ((idle, "error"), ("error", idle))}


def check(history: Iterable[Change], operations: dict[str, Any]) -> list[str]:
    """Return what is illegal in a history.

    :param operations: the journal's rows at the end, by id.
    """
    found: list[str] = []
    effects: dict[str, Effects] = {}
    holders: dict[tuple[str, str], str | None] = {}
    lawful = _RETURNS | (_FAILED_OVER if any(row.verb == "failover_host" for row in operations.values()) else set())
    for noun, row_id, old, new, operation in history:
        if noun == "findings":
            continue
        if noun == "operations":
            if new not in FOLLOWING[old] and not (new is None and old == "queued"):
                found.append(f"operation {row_id} went from {old} to {new}")
            continue
        mine = effects.setdefault(str(operation), Effects())
        if old is None:
            mine.inserted.append(row_id)
            if (noun, row_id) in holders:
                found.append(f"a second row of {noun} {row_id}")
        elif new is None:
            mine.deleted.append(row_id)
        elif old != new and (old, new) not in _MOVES[noun] | lawful:
            found.append(f"{noun} {row_id} went from {old} to {new}")
    for operation_id, row in operations.items():
        found += _effects(row, effects.pop(operation_id, Effects()))
    for operation_id, mine in effects.items():
        if mine.inserted or mine.deleted:
            found.append(f"{operation_id}, which is in no row, made {mine.inserted} and removed {mine.deleted}")
    return found


def false_findings(history: Iterable[Change]) -> list[str]:
    """Return what an audit found in a schedule in which nothing went wrong."""
    return [
        f"an audit found {new} of {resource}, and nothing was wrong"
        for noun, _row_id, old, new, resource in history
        if noun == "findings" and old is None
    ]


_CREATES = (
    "create_volume", "create_snapshot", "undelete_volume", "create_consistencygroup", "create_cgsnapshot",
    "create_consistencygroup_from_src", "create_backup", "manage_existing", "manage_existing_snapshot",
)
_DELETES = ("delete_volume", "delete_snapshot", "delete_consistencygroup", "delete_cgsnapshot", "delete_backup")


def kept_only(row: Any) -> bool:
    """Return whether a row of the journal is the outcome of a request that never became an operation."""
    data = row.data or {}
    return bool(data.get(REFUSED) or JOINED in data)


def _effects(row: Any, mine: Effects) -> list[str]:
    """Return what an operation did that its outcome does not allow, or did not do that it says."""
    about = f"operation {row.id} ({row.verb}, {row.state})"
    inserted, deleted = mine.inserted.count(row.resource_id), mine.deleted.count(row.resource_id)
    found = []
    if kept_only(row):
        return [f"{about} was never run and made {mine.inserted}, removed {mine.deleted}"] if inserted + deleted else []
    code = (row.error or {}).get("code", "") if row.state == "failed" else ""
    if code in NEVER:
        found.append(f"{about} failed with {code}: {(row.error or {}).get('message')}")
    if row.verb in _CREATES:
        if row.state == "done" and (inserted, deleted) != (1, 0):
            found.append(f"{about} made its row {inserted} times and removed it {deleted} times")
        if row.state == "failed" and (inserted, deleted) not in ((1, 0), (1, 1)):
            found.append(f"{about} made its row {inserted} times and removed it {deleted} times")
    elif row.verb in _DELETES:
        unchanged = isinstance(row.result, dict) and row.result.get("unchanged")
        wanted = 1 if row.state == "done" and not unchanged else 0
        if row.state in ("done", "failed") and (inserted, deleted) != (0, wanted):
            found.append(f"{about} removed its row {deleted} times and made it {inserted} times")
    elif row.verb == "migrate_volume_completion":
        new = row.args["new_volume_id"]
        wanted_gone = [new] if row.state == "done" and not row.args["error"] else []
        abandoned = row.state == "failed" and row.pivoted
        if mine.inserted or (mine.deleted != wanted_gone and not (abandoned and mine.deleted == [new])):
            found.append(f"{about} made {mine.inserted} and removed {mine.deleted}")
    elif mine.inserted or mine.deleted:
        found.append(f"{about} made {mine.inserted} and removed {mine.deleted}")
    return found

# SPDX-License-Identifier: Apache-2.0
"""What to tell who finds a resource held, broken or stuck: who is at it, and the next safe command.

``volmgr why`` and the hints of Conflict say the same, because both ask here. Every status of every machine has a way
out that is a command. This module reads nothing and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from volmgr import states, types
from volmgr.db import records

AUDIT = "volmgr-manage audit --fix"
_MACHINES = {
    "volume": states.VOLUME,
    "snapshot": states.SNAPSHOT,
    "group": states.CONSISTENCY_GROUP,
    "cgsnapshot": states.CGSNAPSHOT,
    "backup": states.BACKUP,
}
_DETACH = "volmgr attachment delete ID, or all of them: volmgr volume detach --force {id}"
#: by noun and status, what leads out of it when no operation holds the resource; {id} is the resource's.
WAYS_OUT: dict[str, dict[str, str]] = {
    "volume": {
        "available": "nothing to be done",
        "in-use": "nothing to be done",
        "reserved": f"the instance connects, or: {_DETACH}",
        "attaching": f"the instance connects, or: {_DETACH}",
        "detaching": f"the instance lets go, or: {_DETACH}",
        "awaiting-transfer": "the other project accepts it, or the offer is withdrawn (volmgr transfer delete), or: "
        "volmgr volume delete --force {id}",
        "error": "volmgr volume delete {id}",
        "error_deleting": "volmgr volume delete {id}",
        "deleted": "nothing, it is gone",
    },
    "snapshot": {
        "available": "nothing to be done",
        "error": "volmgr snapshot delete {id}",
        "error_deleting": "volmgr snapshot delete {id}",
        "deleted": "nothing, it is gone",
    },
    "group": {
        "available": "nothing to be done",
        "error": "volmgr group delete {id}; to keep its volumes: volmgr-manage group reset-status {id} available",
        "deleted": "nothing, it is gone",
    },
    "cgsnapshot": {
        "available": "nothing to be done",
        "error": "volmgr cgsnapshot delete {id}",
        "deleted": "nothing, it is gone",
    },
    "backup": {
        "available": "nothing to be done",
        "error": "volmgr backup delete {id}",
        "deleted": "nothing, it is gone",
    },
}


def way_out(resource: str, resource_id: str, status: str) -> str:
    """Return the command that leads out of a status in which no operation holds the resource."""
    if resource in _MACHINES and status in _MACHINES[resource].transitional:
        return AUDIT
    known = WAYS_OUT.get(resource, {}).get(status, "volmgr operation list --resource {id}")
    return known.format(id=resource_id)


def of_operation(record: types.OperationRecord) -> str:
    """Return the command for whoever waits for an unfinished operation."""
    if record.state != "parked":
        return f"volmgr operation wait {record.id}"
    if record.parked_for == "worker":
        return f"volmgr operation wait {record.id}, or: volmgr operation cancel {record.id}"
    if record.parked_for == "backend":
        return f"it is tried again by itself; at once by: volmgr operation retry {record.id}"
    return f"volmgr operation retry {record.id}, or: volmgr operation abandon {record.id}"


def standing(record: types.OperationRecord) -> str:
    """Return where an unfinished operation is, in words."""
    words = [f"{record.verb} {record.id} is {record.state}"]
    if record.state == "parked":
        words.append(f"for the {record.parked_for}")
        if cause := ((record.data or {}).get("why") or {}).get("message"):
            words.append(f"because: {cause}")
    elif record.step:
        words.append(f"at the step {record.step}")
    if record.progress and record.state == "running":
        words.append(f"({record.progress:.0%})")
    if record.started_at or record.created_at:
        words.append(f"since {records.moment(record.started_at or record.created_at)}")
    if record.deaths:
        words.append(f"and its worker has died {record.deaths} times")
    return " ".join(words)


def hint(record: types.OperationRecord) -> str:
    """Return the hint for a request that an operation is in the way of."""
    return f"{standing(record)}. Next: {of_operation(record)}"


def refused(resource: str, resource_id: str, status: str) -> str:
    """Return the hint for a request that a status without an operation is in the way of."""
    out = way_out(resource, resource_id, status)
    more = f"volmgr {resource} why {resource_id}"
    return more if out.startswith("nothing") else f"{out}. More: {more}"


def next_command(
    resource: str,
    resource_id: str,
    status: str | None,
    unfinished: Sequence[types.OperationRecord],
    findings: Sequence[dict[str, Any]] = (),
) -> str:
    """Return the next safe command about a resource.

    :param status: None if it is gone. :param unfinished: the operations that are at it.
    :param findings: what the last audit knows of it, as clients read findings.
    """
    for record in sorted(unfinished, key=lambda item: item.state != "parked"):
        return of_operation(record)
    for item in findings:
        return AUDIT if item["safe"] else f"{item['kind']}: {item['reason']}"
    if status is None:
        return "nothing, it is gone"
    return way_out(resource, resource_id, status)

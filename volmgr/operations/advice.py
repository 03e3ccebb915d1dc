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
from volmgr.db.failovers import Loss

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


def after_failover(resource_id: str, loss: Loss) -> str:
    """Return what to do about a volume that is in error because its backend has failed over, or has gone back.

    Its bytes are there, where the backend does not work now; deleting it is what must not be done.
    """
    if loss.active is not None:
        return (
            f"do not delete it: its bytes are on the first storage of {loss.host}, which works on {loss.active}; it "
            f"has them and its status again after: volmgr backend failover --back {loss.host}"
        )
    return (
        f"do not delete it: {loss.host} has gone back before its first storage had caught up, so that has the bytes of "
        "before the failover, and the replication target the later ones; to go on with the earlier ones: "
        f"volmgr-manage volume reset-status {resource_id} available"
    )


def way_out(resource: str, resource_id: str, status: str, loss: Loss | None = None) -> str:
    """Return the command that leads out of a status in which no operation holds the resource.

    :param loss: what a failover has to do with it, see :func:`volmgr.db.failovers.loss`.
    """
    if loss is not None:
        return after_failover(resource_id, loss)
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


def refused(resource: str, resource_id: str, status: str, loss: Loss | None = None) -> str:
    """Return the hint for a request that a status without an operation is in the way of.

    :param loss: as for :func:`way_out`.
    """
    out = way_out(resource, resource_id, status, loss)
    more = f"volmgr {resource} why {resource_id}"
    return more if out.startswith("nothing") else f"{out}. More: {more}"


def next_command(
    resource: str,
    resource_id: str,
    status: str | None,
    unfinished: Sequence[types.OperationRecord],
    findings: Sequence[dict[str, Any]] = (),
    loss: Loss | None = None,
) -> str:
    """Return the next safe command about a resource.

    :param status: None if it is gone. :param unfinished: the operations that are at it.
    :param findings: what the last audit knows of it, as clients read findings. :param loss: as for :func:`way_out`.
    """
    for record in sorted(unfinished, key=lambda item: item.state != "parked"):
        return of_operation(record)
    for item in findings:
        return AUDIT if item["safe"] else f"{item['kind']}: {item['reason']}"
    if status is None:
        return "nothing, it is gone"
    return way_out(resource, resource_id, status, loss)

# SPDX-License-Identifier: Apache-2.0
"""What the table of conflicts means for a request that finds its resource held: who decides, and what it is told.

This module writes nothing, and knows no RPC.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.engine import Connection

from volmgr import exception, types
from volmgr.db import claims
from volmgr.operations import advice, conflicts
from volmgr.operations.base import MACHINES, Claim, Operation, Policy


def gone(claim: Claim, obstacle: claims.Obstacle) -> bool:
    """Return whether what was in a claim's way has ended meanwhile, so that the claim can be tried again."""
    if obstacle.holders or (claim.childless and obstacle.snapshots):
        return False
    # A transitional status without a holder was read while the holder ended: statement by statement, on a server.
    return obstacle.status in claim.sources or obstacle.status in MACHINES[claim.resource].transitional


def _own(holder: types.OperationRecord, resource_id: str) -> bool:
    """Return whether an operation is about a resource that it holds: it makes or changes it, and does not only read."""
    exclusive = any(item["id"] == resource_id and item["exclusive"] for item in holder.claims)
    return exclusive or holder.resource_id == resource_id


def judge(
    operation: Operation[Any], claim: Claim, obstacle: claims.Obstacle
) -> tuple[Policy, types.OperationRecord | None]:
    """Return what the table says about a claim that could not be taken, and the holder that decides."""
    comer = conflicts.name_in_table(claim.resource, operation.verb, own=claim.id == operation.resource_id)
    verdicts = {}
    for holder in obstacle.holders:
        name = conflicts.name_in_table(claim.resource, holder.verb, own=_own(holder, claim.id))
        verdict = conflicts.policy(claim.resource, name, comer)
        if verdict is Policy.SAME and claim.id != operation.resource_id:
            verdict = Policy.WAIT  # the holder does a part of this request, not all of it
        verdicts[verdict] = holder
    for verdict in (Policy.CONFLICT, Policy.SAME, Policy.WAIT):
        if verdict in verdicts:
            return verdict, verdicts[verdict]
    if claim.childless and 0 < obstacle.snapshots == obstacle.leaving:
        return Policy.WAIT, None  # they are all on their way out
    return Policy.CONFLICT, None


def stands_still(obstacle: claims.Obstacle) -> bool:
    """Return whether a holder waits for an operator: nobody should wait for it without being told."""
    goes_on = ("backend", "worker")
    return any(holder.state == "parked" and holder.parked_for not in goes_on for holder in obstacle.holders)


def refusal(operation: Operation[Any], claim: Claim, obstacle: claims.Obstacle) -> exception.VolmgrError:
    """Return the error that says why a claim cannot be taken, who is in the way and what to do."""
    if claim.childless and obstacle.snapshots and not obstacle.holders:
        return exception.VolumeHasSnapshots(id=claim.id, count=obstacle.snapshots)
    if obstacle.holders:
        return _in_the_way(operation.verb, obstacle.holders[0], claim.resource, claim.id, obstacle.status)
    if claim.resource == "volume" and obstacle.attachments and claim.event in ("delete", "unmanage", "revert"):
        return exception.VolumeAttached(id=claim.id, status=obstacle.status)
    return exception.Conflict(
        f"The {claim.resource} {claim.id} is {obstacle.status}; {operation.verb} needs it {' or '.join(claim.sources)}",
        hint=advice.refused(claim.resource, claim.id, obstacle.status, obstacle.loss),
        resource=claim.resource, id=claim.id, status=obstacle.status, allowed=list(claim.sources),
    )


def check_beside(conn: Connection, resource: str, resource_id: str, comer: str) -> None:
    """Return if the table lets a verb that never waits go on beside whoever holds a resource.

    :param comer: the verb's name in the table. :raises Conflict: naming the holder.
    """
    obstacle = claims.obstacle(conn, Claim(resource, resource_id, "delete"))
    for holder in obstacle.holders if obstacle else ():
        name = conflicts.name_in_table(resource, holder.verb, own=_own(holder, resource_id))
        if obstacle is not None and conflicts.policy(resource, name, comer) is not Policy.BOTH:
            raise _in_the_way(comer, holder, resource, resource_id, obstacle.status)


def taken(
    operation: Operation[Any], obstacle: claims.Obstacle | None, project_id: str | None, scope: str | None
) -> types.OperationRecord:
    """Return the operation that a creation joins whose id is taken: the same creation, under another request key.

    :param project_id: whose the request is. :param scope: the only project that it may be told of.
    :raises AlreadyExists: it is taken by something else; an operation that holds it is named.
    """
    visible = [item for item in obstacle.holders if scope is None or item.project_id == scope] if obstacle else []
    for holder in visible:
        same = (holder.verb, holder.args, holder.project_id) == (operation.verb, operation.a.to_json(), project_id)
        if same and holder.resource_id == operation.resource_id:
            return holder
    details = {"operation_id": visible[0].id} if visible else {}
    raise exception.AlreadyExists(resource=operation.resource, id=operation.resource_id, **details)


def _in_the_way(
    comer: str, holder: types.OperationRecord, resource: str, resource_id: str, status: str
) -> exception.Conflict:
    return exception.Conflict(
        f"{comer} must not meet {holder.verb}, which holds the {resource} {resource_id}",
        hint=advice.hint(holder),
        resource=resource, id=resource_id, status=status, operation_id=holder.id,
    )

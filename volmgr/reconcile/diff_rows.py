# SPDX-License-Identifier: Apache-2.0
"""SQL against itself: statuses, holds, parked operations, quota. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from volmgr.db.audit_rows import OperationRow, ResourceRow
from volmgr.reconcile.findings import Finding, Kind, finding
from volmgr.reconcile.world import Recorded
from volmgr.states import IDLE, SNAPSHOT, UNFINISHED, VOLUME


def rows(recorded: Recorded) -> Iterator[Finding]:
    """Yield where SQL contradicts itself, and what waits for an operator."""
    unfinished = {item.id for item in recorded.operations if item.state in UNFINISHED}
    shared: Counter[str] = Counter()
    for item in recorded.operations:
        if item.id in unfinished:
            shared.update(item.shared)
        if item.state == "parked" and item.parked_for != "worker":
            yield _parked(item)
    for row in recorded.resources.values():
        yield from _resource(row, unfinished, shared[row.id])
    for attachment in recorded.attachments:
        reason = f"Its volume {attachment.volume_id} is gone"
        yield finding(Kind.ATTACHMENT_ORPHAN, "attachment", attachment.id, reason)
    for quota in recorded.quotas:
        of_type = f" of type {quota.volume_type_id}" if quota.volume_type_id else ""
        reason = f"Volumes, snapshots and GiB{of_type} are counted as {quota.counted}, the rows say {quota.used}"
        yield finding(Kind.QUOTA_WRONG, "project", quota.project_id, reason, name=quota.volume_type_id)


def _parked(item: OperationRow) -> Finding:
    if item.parked_for == "backend":
        does = f"it is tried again by itself; at once by: volmgr operation retry {item.id}"
    else:
        does = f"volmgr operation retry {item.id}, or: volmgr operation abandon {item.id}"
    reason = f"{item.verb} of {item.resource_id} is parked ({item.parked_for}): {item.why}; {does}"
    return finding(Kind.OPERATION_PARKED, "operation", item.id, reason)


def _resource(row: ResourceRow, unfinished: set[str], shared: int) -> Iterator[Finding]:
    machine = VOLUME if row.kind == "volume" else SNAPSHOT
    if row.operation_id is not None:
        if row.operation_id not in unfinished:
            reason = f"It is {row.status}, held by the operation {row.operation_id}, which has ended or never was"
            yield finding(Kind.HOLD_STALE, row.kind, row.id, reason)
        return
    if row.use_count > shared:
        reason = f"{row.use_count} operations are counted as using it, the journal has {shared}"
        yield finding(Kind.HOLD_STALE, row.kind, row.id, reason)
    if row.status not in machine.stable:
        reason = f"It is {row.status}, and no operation holds it"
        yield finding(Kind.STATUS_STUCK, row.kind, row.id, reason)
    elif row.kind == "volume" and row.status in IDLE and row.status != row.settled:
        reason = f"It is {row.status}, its attachments say {row.settled}"
        yield finding(Kind.STATUS_WRONG, row.kind, row.id, reason)

# SPDX-License-Identifier: Apache-2.0
"""From what SQL says and what is there to findings. Pure: the same two sides give the same findings, in the same order.

Whatever an operation or a request was at while the two sides were read may look different for no other reason; it is
left out, and the next audit sees it.
"""

from __future__ import annotations

from collections.abc import Set

from volmgr.reconcile.diff_exports import exports
from volmgr.reconcile.diff_rows import rows
from volmgr.reconcile.diff_storage import storage
from volmgr.reconcile.findings import Finding, Kind, finding
from volmgr.reconcile.world import Recorded, World

#: kinds that no work under way can cause.
_CERTAIN = frozenset({Kind.OPERATION_PARKED, Kind.PROCESS_LEFT, Kind.QUOTA_WRONG})


def diff(recorded: Recorded, world: World, busy: Set[str] = frozenset()) -> list[Finding]:
    """Return the findings, ordered by kind and id.

    :param busy: ids of resources and objects that somebody was at while the two sides were read.
    """
    found = [*storage(recorded, world), *exports(recorded, world), *rows(recorded)]
    for process in world.processes:
        reason = f"{process.command} holds the worker's lock and is none of its children"
        found.append(finding(Kind.PROCESS_LEFT, "process", str(process.pid), reason, name=process.command))
    order = {kind: index for index, kind in enumerate(Kind)}
    kept = [item for item in found if item.kind in _CERTAIN or not {item.resource_id, item.object_id} & busy]
    return sorted(kept, key=lambda item: (order[item.kind], item.resource, item.resource_id, item.name))

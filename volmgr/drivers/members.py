# SPDX-License-Identifier: Apache-2.0
"""What drivers of groups have in common: which volume comes from which source, and ends of members one by one.

It knows no storage.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from volmgr import exception
from volmgr.drivers.interfaces.groups import Updates
from volmgr.types import ModelUpdate, Snapshot, Volume

LOG = logging.getLogger(__name__)
Resource = Volume | Snapshot


def paired(
    volumes: Sequence[Volume], snapshots: Sequence[Snapshot] | None, source_vols: Sequence[Volume] | None
) -> list[tuple[Volume, Resource]]:
    """Return each new volume of a group with what it is made from, the first from the first, and so on.

    :param snapshots: the sources, unless they are ``source_vols``.
    :raises Invalid: there are not as many of each, or a volume is smaller than its source.
    """
    sources: Sequence[Resource] = snapshots or source_vols or ()
    if len(sources) != len(volumes):
        field = "snapshots" if snapshots else "source_vols"
        raise exception.Invalid(f"{len(volumes)} volumes cannot come from {len(sources)} sources", field=field)
    for volume, source in zip(volumes, sources, strict=True):
        if source.size_bytes > volume.size_bytes:
            raise exception.Invalid(f"{volume.id} is smaller than its source", field="size")
    return list(zip(volumes, sources, strict=True))


def end_each(members: Sequence[Any], end: Callable[[Any], Any]) -> tuple[ModelUpdate, Updates]:
    """End members one by one, as far as it goes; returns what a driver tells of that.

    :raises BackendDown: that is no member's failure; whoever repeats goes on where this ended.
    """
    told = []
    for member in members:
        try:
            end(member)
        except exception.BackendDown:
            raise
        except exception.VolmgrError as error:
            LOG.warning("The group's member %s could not be deleted: %s", member.id, error)
            told.append({"id": member.id, "status": "error_deleting"})
        else:
            told.append({"id": member.id, "status": "deleted"})
    failed = any(item["status"] != "deleted" for item in told)
    return {"status": "error_deleting" if failed else "deleted"}, told

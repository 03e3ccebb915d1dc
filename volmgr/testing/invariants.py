# SPDX-License-Identifier: Apache-2.0
"""What must hold whenever nothing runs any more, whatever was asked before: the journal, the rows, the quota and the
storage agree.

For tests that try to break the journal. It reads SQL and the driver's own list, and trusts neither of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import sqlalchemy as sa

from volmgr import states
from volmgr.db import models
from volmgr.db.engine import Database

_MACHINES = (("volume", models.volumes, states.VOLUME), ("snapshot", models.snapshots, states.SNAPSHOT))


def violations(database: Database, driver: Any = None) -> list[str]:
    """Return everything that is wrong, in words; nothing may be running.

    :param driver: with it, the storage is compared with the objects, too.
    """
    with database.reader() as conn:

        def rows(table: sa.Table) -> list[Any]:
            return list(conn.execute(sa.select(table)))

        operations, objects, quotas = rows(models.operations), rows(models.objects), rows(models.quotas)
        reserved = rows(models.reservations)
        resources = {noun: rows(table) for noun, table, _machine in _MACHINES}
        attachments, exports, grants = rows(models.attachments), rows(models.exports), rows(models.grants)
    found = [f"operation {row.verb} {row.id} is {row.state}" for row in operations if row.state in states.UNFINISHED]
    for noun, _table, machine in _MACHINES:
        for row in resources[noun]:
            if row.operation_id is not None or row.use_count:
                found.append(f"{noun} {row.id} is held by {row.operation_id}, shared by {row.use_count}")
            if row.status not in machine.stable:
                found.append(f"{noun} {row.id} is {row.status} and nobody is at it")
    known = {row.id for each in resources.values() for row in each}
    found += [f"an export of {row.resource_id}, which is gone" for row in exports if row.resource_id not in known]
    found += [f"a grant on {row.resource_id}, which is gone" for row in grants if row.resource_id not in known]
    found += [f"an attachment of {row.volume_id}, which is gone" for row in attachments if row.volume_id not in known]
    found += _statuses(resources["volume"], attachments)
    found += _quota(resources, quotas, reserved)
    if driver is not None:
        found += _storage(resources, objects, driver)
    return found


def _statuses(volumes: list[Any], attachments: list[Any]) -> list[str]:
    by_volume: dict[str, list[str]] = {}
    for row in attachments:
        by_volume.setdefault(row.volume_id, []).append(row.status)
    return [
        f"volume {row.id} is {row.status}, its attachments say {wanted}"
        for row in volumes
        if row.status in ("available", "in-use", "reserved", "attaching", "detaching")
        and row.status != (wanted := states.volume_status_of(by_volume.get(row.id, [])))
    ]


def _quota(resources: dict[str, list[Any]], quotas: list[Any], reserved: list[Any]) -> list[str]:
    used: Counter[tuple[str, str, str]] = Counter()
    for row in reserved:
        for key in {"", row.volume_type_id or ""}:
            for name in ("volumes", "snapshots", "gigabytes"):
                used[row.project_id, key, name] += getattr(row, name)
    for noun, size in (("volume", "size"), ("snapshot", "volume_size")):
        for row in resources[noun]:
            for key in {"", row.volume_type_id or ""}:
                used[row.project_id or "", key, f"{noun}s"] += 1
                used[row.project_id or "", key, "gigabytes"] += getattr(row, size)
    counted = Counter(
        {
            (row.project_id, row.volume_type_id, name): getattr(row, name)
            for row in quotas
            for name in ("volumes", "snapshots", "gigabytes")
        }
    )
    return [
        f"quota of {key} is counted as {counted[key]}, the rows say {used[key]}"
        for key in sorted({*used, *counted})
        if counted[key] != used[key]
    ]


def _storage(resources: dict[str, list[Any]], objects: list[Any], driver: Any) -> list[str]:
    recorded = {row.id for row in objects}
    there = {item.object_id for item in driver.observe()}
    embodied = {row.object_id for each in resources.values() for row in each if row.status not in ("error",)}
    found = [f"storage of {item} is in no row" for item in sorted(there - recorded)]
    found += [f"object {item} has no storage" for item in sorted((recorded & embodied) - there)]
    found += [f"a resource's object {item} has no row" for item in sorted(embodied - recorded)]
    orphans = (row for row in objects if row.role != "trash" and row.id not in _embodied_or_broken(resources))
    found += [f"object {row.id} is {row.role} and embodies nothing" for row in orphans]
    return found


def _embodied_or_broken(resources: dict[str, list[Any]]) -> set[str]:
    return {row.object_id for each in resources.values() for row in each}

# SPDX-License-Identifier: Apache-2.0
"""What must hold whenever nothing runs any more, whatever was asked before: the journal, the rows, the quota and the
storage agree.

For tests that try to break the journal. It reads SQL and what a driver or somebody beside it saw in the storage and at
the target, and trusts none of them.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from volmgr import states
from volmgr.db import claims, models
from volmgr.db.engine import Database, utcnow
from volmgr.types import ObservedExport, ObservedObject

_MACHINES = (
    ("volume", models.volumes, states.VOLUME),
    ("snapshot", models.snapshots, states.SNAPSHOT),
    ("group", models.groups, states.CONSISTENCY_GROUP),
    ("cgsnapshot", models.cgsnapshots, states.CGSNAPSHOT),
    ("backup", models.backups, states.BACKUP),
)


def violations(
    database: Database,
    driver: Any = None,
    *,
    storage: Sequence[ObservedObject] | None = None,
    targets: Sequence[ObservedExport] | None = None,
    now: datetime.datetime | None = None,
    ungranted: bool = True,
) -> list[str]:
    """Return everything that is wrong, in words; nothing may be running.

    :param driver: with it, the storage that it sees is compared with the objects, too.
    :param storage: the same as somebody else than the driver saw it.
    :param targets: what the target serves, to be compared with the exports and grants.
    :param ungranted: whether the target has exports that nobody is let in to.
    :param now: the time (UTC) by which an operation that waits for its time has none yet; by default the real one.
    """
    with database.reader() as conn:

        def rows(table: sa.Table) -> list[Any]:
            return list(conn.execute(sa.select(table)))

        operations, objects, quotas = rows(models.operations), rows(models.objects), rows(models.quotas)
        reserved = rows(models.reservations)
        resources = {noun: rows(table) for noun, table, _machine in _MACHINES}
        offered = {row.volume_id for row in rows(models.transfers)}
        attachments, exports, grants = rows(models.attachments), rows(models.exports), rows(models.grants)
        numbers = rows(models.luns)
    waits = now or utcnow()
    found = [
        f"operation {row.verb} {row.id} is {row.state}"
        for row in operations
        if row.state in states.UNFINISHED
        and not (row.state == "queued" and row.not_before is not None and row.not_before > waits)
    ]
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
    waiting = {row.id for row in resources["volume"] if row.status == "awaiting-transfer"}
    # A failover may have left it in error; it is offered again once its storage is there again.
    lost = {row.id for row in resources["volume"] if row.status == "error"}
    apart = (waiting - offered) | (offered - waiting - lost)
    found += [f"the transfer of volume {item} is not what the volume says" for item in sorted(apart)]
    found += [
        f"volume {row.id} is {row.migration_status} and nobody moves it"
        for row in resources["volume"]
        if row.migration_status is not None and row.migration_status not in states.MIGRATION.stable
    ]
    found += _statuses(resources["volume"], attachments)
    found += _quota(resources, quotas, reserved)
    found += _wholes(resources)
    found += _numbers(exports, grants, numbers)
    stored = {noun: resources[noun] for noun in claims.STORED}
    seen = driver.observe() if driver is not None else storage
    if seen is not None:
        found += _storage(stored, objects, seen)
    if targets is not None:
        expected = exports if ungranted else [row for row in exports if any(_is_of(row, each) for each in grants)]
        found += _targets(stored, objects, expected, grants, targets)
    return found


def _wholes(resources: dict[str, list[Any]]) -> list[str]:
    """Return where members and the groups or cgsnapshots that they belong to do not fit together."""
    found = []
    for noun, whole, column in (("volume", "group", "group_id"), ("snapshot", "cgsnapshot", "cgsnapshot_id")):
        known = {row.id: row for row in resources[whole]}
        for row in resources[noun]:
            if (of := getattr(row, column)) is None:
                continue
            if of not in known:
                found.append(f"{noun} {row.id} is of the {whole} {of}, which is gone")
            elif known[of].host != row.host:
                found.append(f"{noun} {row.id} is on {row.host}, its {whole} on {known[of].host}")
            elif noun == "snapshot" and known[of].status == "available" and row.status != "available":
                found.append(f"snapshot {row.id} is {row.status}, its cgsnapshot {of} is available")
    groups = {row.id for row in resources["group"]}
    gone = (row for row in resources["cgsnapshot"] if row.group_id not in groups)
    return [*found, *(f"cgsnapshot {row.id} is of the group {row.group_id}, which is gone" for row in gone)]


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


def _storage(resources: dict[str, list[Any]], objects: list[Any], seen: Sequence[ObservedObject]) -> list[str]:
    recorded = {row.id: row for row in objects}
    there = {item.object_id for item in seen}
    embodied = {row.object_id for noun in claims.STORED for row in resources[noun] if row.status not in ("error",)}
    found = [f"storage of {item} is in no row" for item in sorted(there - recorded.keys())]
    found += [f"object {item} has no storage" for item in sorted((recorded.keys() & embodied) - there)]
    found += [f"a resource's object {item} has no row" for item in sorted(embodied - recorded.keys())]
    orphans = (row for row in objects if row.role != "trash" and row.id not in _embodied_or_broken(resources))
    found += [f"object {row.id} is {row.role} and embodies nothing" for row in orphans]
    for item in seen:
        if (row := recorded.get(item.object_id)) is not None:
            found += _object(row, item)
    return found


def _object(row: Any, item: ObservedObject) -> list[str]:
    if item.state != ("trash" if row.role == "trash" else "current"):
        return [f"{item.name} is in the storage as {item.state}, object {row.id} is {row.role}"]
    if item.state == "current" and item.size_bytes != row.size_bytes:
        return [f"{item.name} has {item.size_bytes} bytes, object {row.id} should have {row.size_bytes}"]
    return []


def _numbers(exports: list[Any], grants: list[Any], numbers: list[Any]) -> list[str]:
    """Return where the unit numbers of exports that share ports, and the grants, do not fit together."""
    exported = {row.resource_id for row in exports}
    found = [
        f"number {row.lun} of {row.resource_id}, which has no export"
        for row in numbers
        if row.resource_id not in exported
    ]
    given = {(row.resource_id, row.initiator, row.lun) for row in numbers}
    let_in = {(row.resource_id, wwpn) for row in grants for wwpn in row.wwpns or ()}
    found += [
        f"{row.initiator} keeps the number {row.lun} of {row.resource_id}, to which it is not let in"
        for row in numbers
        if row.initiator and (row.resource_id, row.initiator) not in let_in
    ]
    met: dict[tuple[str, int], str] = {}
    for row in grants:
        # Whoever has a target of its own for each export may use any number.
        shares = row.peer_key.startswith("fc:") and row.resource_id in exported
        for wwpn in (row.wwpns or ()) if shares else ():
            if (row.resource_id, wwpn, row.lun) not in given:
                found.append(f"{wwpn} has {row.resource_id} under the number {row.lun}, which nobody gave it")
            if met.setdefault((wwpn, row.lun), row.resource_id) != row.resource_id:
                found.append(f"{wwpn} has {row.resource_id} and {met[wwpn, row.lun]} under the number {row.lun}")
    return found


def _targets(
    resources: dict[str, list[Any]],
    objects: list[Any],
    exports: list[Any],
    grants: list[Any],
    targets: Sequence[ObservedExport],
) -> list[str]:
    served = {item.target_name: item for item in targets}
    of = {row.id: row.object_id for noun in claims.STORED for row in resources[noun]}
    serials = {row.id: row.serial for row in objects}
    found = [f"target {name} has no export" for name in sorted(served.keys() - {row.target_name for row in exports})]
    for row in exports:
        item = served.get(row.target_name)
        if item is None:
            found.append(f"the export of {row.resource_id} is not served")
            continue
        allowed = tuple(sorted({peer for each in grants if _is_of(row, each) for peer in _peers(each)}))
        if item.initiators != allowed:
            found.append(f"target {item.target_name} lets {item.initiators} in, the grants say {allowed}")
        wanted = of.get(row.resource_id, "")
        # ATA over Ethernet has no serial that could be shown.
        if row.shelf is None and set(item.serials) != {serials.get(wanted)}:
            found.append(f"target {item.target_name} shows serial {item.serials}, object {wanted} has another")
        if not item.paths or not all(path.endswith(wanted) for path in item.paths):
            found.append(f"target {item.target_name} serves {item.paths}, the volume is in object {wanted}")
    return found


def _is_of(export: Any, grant: Any) -> bool:
    return bool(grant.resource_id == export.resource_id)


def _peers(grant: Any) -> list[str]:
    """Return the names by which a target tells who is let in."""
    if grant.peer_key.startswith("aoe:"):
        return [":".join(mac[at : at + 2] for at in range(0, 12, 2)) for mac in grant.macs]
    if grant.peer_key.startswith("fc:"):
        return list(grant.wwpns)
    return [grant.initiator]


def _embodied_or_broken(resources: dict[str, list[Any]]) -> set[str]:
    return {row.object_id for noun in claims.STORED for row in resources[noun]}

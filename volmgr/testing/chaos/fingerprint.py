# SPDX-License-Identifier: Apache-2.0
"""What stands of one story's resources, without what differs from one telling to the next: ids, serials, times."""

from __future__ import annotations

import re
from typing import Any

from volmgr.db import models
from volmgr.testing.chaos.outside import Outside

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LEFT_OUT = {
    "created_at", "updated_at", "launched_at", "attached_at", "trashed_at", "serial", "project_id", "former",
    "auth_username", "auth_secret", "id", "data_at",
}  # fmt: skip
MARK_BYTES = 16

Fingerprint = dict[str, list[Any]]


def take(outside: Outside, ids: dict[str, str], project: str) -> Fingerprint:
    """Return what SQL and storage have of these ids and this project.

    :param ids: by role. :param project: one that only this story uses.
    """
    roles = {value: role for role, value in ids.items()}

    def plain(value: Any) -> Any:
        if isinstance(value, str):
            return _UUID.sub(lambda match: roles.get(match[0], "@new"), value)
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return value

    def shown(rows: list[Any]) -> list[Any]:
        kept = (
            {"id": plain(row._mapping.get("id") or "") if not _random(row) else "", **{
                name: plain(value) for name, value in row._mapping.items() if name not in _LEFT_OUT
            }}
            for row in rows
        )
        return sorted(kept, key=repr)

    volumes, snapshots = models.volumes, models.snapshots
    of_project = (
        *outside.rows(volumes, volumes.c.project_id == project),
        *outside.rows(snapshots, snapshots.c.project_id == project),
    )
    # Members of groups have ids that nobody chose.
    own = list({*ids.values(), *(row.id for row in of_project)})
    objects = outside.rows(models.objects, models.objects.c.resource_id.in_(own))
    there = {*own, *(row.id for row in objects)}
    found: Fingerprint = {
        "volumes": shown(outside.rows(volumes, volumes.c.project_id == project)),
        "snapshots": shown(outside.rows(snapshots, snapshots.c.project_id == project)),
        "objects": shown(objects),
        "storage": sorted(
            [plain(item.name), item.size_bytes, _mark(outside, item.object_id, item.kind)]
            for item in outside.storage()
            if item.object_id in there
        ),
        "operations": sorted(
            [row.verb, row.state, plain(row.resource_id), (row.error or {}).get("code", "")]
            for row in outside.rows(models.operations, models.operations.c.resource_id.in_(own))
        ),
    }
    for table in (models.groups, models.cgsnapshots):
        found[table.name] = shown(outside.rows(table, table.c.project_id == project))
    for table in (models.exports, models.grants):
        found[table.name] = shown(outside.rows(table, table.c.resource_id.in_(own)))
    backups = outside.rows(models.backups, models.backups.c.project_id == project)
    found["backups"] = shown(backups)
    found["archive"] = [[plain(item), outside.archive(item)] for item in sorted(own) if outside.archive(item)]
    found["attachments"] = shown(outside.rows(models.attachments, models.attachments.c.volume_id.in_(own)))
    found["quotas"] = shown(outside.rows(models.quotas, models.quotas.c.project_id == project))
    return found


def _random(row: Any) -> bool:
    return "peer_key" in row._mapping  # a grant's id is new each time


def _mark(outside: Outside, object_id: str, kind: str) -> str:
    """Return the text at the beginning of an object."""
    if not kind:
        return ""  # what is in the trash may be wiped at any moment
    with outside.path_of(object_id, kind).open("rb") as source:
        return source.read(MARK_BYTES).rstrip(b"\0").decode(errors="replace")


def serials(outside: Outside, ids: dict[str, str]) -> dict[str, str]:
    """Return the serial of each volume of these that there is, by id."""
    volumes, objects = models.volumes, models.objects
    rows = outside.rows(volumes, volumes.c.id.in_(list(ids.values())))
    of = {row.id: row.serial for row in outside.rows(objects, objects.c.id.in_([row.object_id for row in rows]))}
    return {row.id: of.get(row.object_id, "") for row in rows}


def difference(found: Fingerprint, wanted: Fingerprint) -> str:
    """Return in words where two differ."""
    return "; ".join(
        f"{name}: {found[name]} instead of {wanted[name]}" for name in found if found[name] != wanted.get(name)
    )

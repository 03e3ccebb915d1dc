# SPDX-License-Identifier: Apache-2.0
"""Exports and grants against what the target has. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from volmgr import names
from volmgr.db.audit_rows import ExportRow
from volmgr.reconcile.findings import Finding, Kind, finding
from volmgr.reconcile.world import Recorded, World
from volmgr.types import ObservedExport


def exports(recorded: Recorded, world: World) -> Iterator[Finding]:
    """Yield what differs between SQL's exports and the target's."""
    gone = set()
    for row in recorded.exports.values():
        if row.resource_id not in recorded.resources and row.resource_id not in recorded.elsewhere:
            gone.add(row.target_name)
            reason = f"SQL wants an export of the {row.kind} {row.resource_id}, which is gone"
            yield finding(Kind.EXPORT_ROW_ORPHAN, row.kind, row.resource_id, reason, name=row.target_name)
        for grant in recorded.grants.get(row.resource_id, ()):
            if grant.orphan:
                reason = f"{_listed(grant.peers)} may connect for the attachment {grant.attachment_id}, which is gone"
                yield finding(Kind.GRANT_ORPHAN, row.kind, row.resource_id, reason, name=grant.attachment_id)
    if world.exports is None:
        return
    present = {item.target_name: item for item in world.exports}
    with_storage = _stored(recorded, world)
    for row in recorded.exports.values():
        if row.target_name in gone or row.resource_id not in with_storage:
            continue
        found = present.get(row.target_name)
        if found is None:
            if world.ungranted or recorded.grants.get(row.resource_id):
                reason = "SQL wants it exported, and the target has no such export"
                yield finding(Kind.EXPORT_MISSING, row.kind, row.resource_id, reason, name=row.target_name)
        else:
            yield from _compared(recorded, row, found)
    wanted = {row.target_name for row in recorded.exports.values()}
    for item in world.exports:
        if item.target_name not in wanted:
            yield from _unwanted(recorded, item)


def _stored(recorded: Recorded, world: World) -> set[str]:
    """Return the resources whose storage is there: what has none cannot be exported, and that is told already."""
    if world.objects is None:
        return set(recorded.resources)
    there = {item.object_id for item in world.objects if item.state == "current"}
    return {row.id for row in recorded.resources.values() if row.name_id in there}


def _compared(recorded: Recorded, row: ExportRow, found: ObservedExport) -> Iterator[Finding]:
    path = recorded.paths.get(row.resource_id)
    if path is not None and found.paths != (path,):
        reason = f"It should serve {path}, and serves {_listed(found.paths)}"
        yield finding(Kind.EXPORT_WRONG_PATH, row.kind, row.resource_id, reason, name=row.target_name)
    stored = recorded.objects.get(recorded.resources[row.resource_id].name_id)
    # Some protocols have no serial: their targets tell none.
    if stored is not None and found.serials and found.serials != (stored.serial,):
        reason = f"Its serial should be {stored.serial}, and is {_listed(found.serials)}"
        yield finding(Kind.EXPORT_WRONG_SERIAL, row.kind, row.resource_id, reason, name=row.target_name)
    granted = _by_spelling(peer for grant in recorded.grants.get(row.resource_id, ()) for peer in grant.peers)
    present, connected = _by_spelling(found.initiators), _by_spelling(found.sessions)
    if lacking := [granted[key] for key in granted.keys() - present.keys()]:
        reason = f"The target does not let {_listed(lacking)} in, SQL does"
        yield finding(Kind.ACCESS_MISSING, row.kind, row.resource_id, reason, name=row.target_name)
    if others := [name for key, name in (connected | present).items() if key not in granted]:
        reason = f"The target lets {_listed(others)} in, SQL does not"
        yield finding(Kind.ACCESS_TOO_WIDE, row.kind, row.resource_id, reason, name=row.target_name)


def _by_spelling(peers: Iterable[str]) -> dict[str, str]:
    """Return names of initiators or ports by a spelling that two names of the same one share."""
    return {peer.lower().replace(":", ""): peer for peer in peers}


def _unwanted(recorded: Recorded, item: ObservedExport) -> Iterator[Finding]:
    parsed = names.parse_target_name(recorded.prefix, item.target_name)
    if parsed is None:
        return
    kind, resource_id, _ = parsed
    if resource_id in recorded.elsewhere:
        return
    if resource_id in recorded.resources:
        known, said = True, "SQL wants no export of it"
    elif (past := recorded.past.get(resource_id)) is not None:
        known, said = True, f"The {kind} is gone; the last that the journal knows of it is {past.verb}, {past.state}"
    else:
        known, said = False, f"Neither SQL nor the journal knows the {kind}: it may be another program's"
    yield finding(Kind.EXPORT_ORPHAN, kind, resource_id, said, name=item.target_name, safe=known)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(sorted(values)) or "nothing"

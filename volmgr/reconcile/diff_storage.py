# SPDX-License-Identifier: Apache-2.0
"""Objects and their rows against what the backend has. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from volmgr.db.audit_rows import ObjectRow, PastRow, ResourceRow
from volmgr.reconcile.findings import Finding, Kind, Repair, finding
from volmgr.reconcile.world import Recorded, World
from volmgr.states import SNAPSHOT, VOLUME
from volmgr.types import ObservedObject

CURRENT, BUILDING, TRASH = "current", "building", "trash"
#: verbs after which, done, nothing of their resource's storage is anybody's any more.
_ENDING = frozenset({"delete_volume", "delete_snapshot", "wipe", "discard"})
_BROKEN = frozenset({"error", "error_deleting"})

Seen = dict[str, dict[str, ObservedObject]]


def storage(recorded: Recorded, world: World) -> Iterator[Finding]:
    """Yield what differs between SQL's objects and the backend's."""
    for row in recorded.resources.values():
        if row.name_id not in recorded.objects and row.status not in _BROKEN:
            reason = f"SQL has no object {row.name_id}; take a snapshot, or copy it to a new volume"
            yield finding(Kind.OBJECT_ROW_MISSING, row.kind, row.id, reason, object_id=row.name_id)
    if world.objects is None:
        return
    seen: Seen = {}
    for item in world.objects:
        seen.setdefault(item.object_id, {})[item.state] = item
        if item.suspended and item.object_id not in recorded.elsewhere:
            reason = f"{item.name} is suspended, and no operation is at it"
            yield finding(Kind.DEVICE_SUSPENDED, "object", item.object_id, reason, name=item.name, safe=item.marked)
    embodied = {row.name_id: row for row in recorded.resources.values()}
    for row in recorded.resources.values():
        yield from _resource(recorded, row, seen.get(row.name_id, {}))
    for stored in recorded.objects.values():
        if stored.id not in embodied:
            yield from _without_resource(stored, seen.get(stored.id, {}))
    for object_id, states in seen.items():
        if object_id not in recorded.objects and object_id not in embodied and object_id not in recorded.elsewhere:
            yield from _unknown(recorded, object_id, states)


def _settled(row: ResourceRow) -> bool:
    """Return whether a resource should have its storage: it is neither broken nor being changed."""
    machine = VOLUME if row.kind == "volume" else SNAPSHOT
    return row.status in machine.stable and row.status not in _BROKEN


def _missing(recorded: Recorded, row: ResourceRow, rest: str) -> str:
    if recorded.active is not None:
        return (
            f"It is {row.status}, and {recorded.active}, on which the backend works since its failover, has {rest} "
            "under its name. It is on the first storage, do not delete it. It is there again after: "
            f"volmgr backend failover --back {recorded.service}"
        )
    return (
        f"It is {row.status}, and the backend has {rest} under its name. Bring the storage back, or give it up: "
        f"volmgr {row.kind} delete {row.id}"
    )


def _resource(recorded: Recorded, row: ResourceRow, states: Mapping[str, ObservedObject]) -> Iterator[Finding]:
    if not _settled(row):
        return
    current, trash = states.get(CURRENT), states.get(TRASH)
    if current is None and trash is not None:
        reason = f"It is {row.status}, and its storage lies in the trash as {trash.name}"
        yield finding(Kind.STORAGE_IN_TRASH, row.kind, row.id, reason, name=trash.name, object_id=row.name_id)
        return
    if current is None:
        reason = _missing(recorded, row, "only an incomplete object" if BUILDING in states else "nothing")
        yield finding(Kind.STORAGE_MISSING, row.kind, row.id, reason, object_id=row.name_id)
        return
    yield from _size(row, current)
    if (building := states.get(BUILDING)) is not None:
        reason = f"Beside {current.name}, which is whole, there is {building.name}"
        yield _free(Kind.BUILDING_LEFT, row.kind, row.id, reason, building)
    if trash is not None and not trash.held:
        reason = f"Beside {current.name} there is {trash.name}, an earlier object of the same id"
        yield _free(Kind.TRASH_ORPHAN, row.kind, row.id, reason, trash)


def _size(row: ResourceRow, current: ObservedObject) -> Iterator[Finding]:
    wanted = -(-row.size_bytes // current.unit_bytes) * current.unit_bytes
    if current.size_bytes == wanted:
        return
    reason = f"SQL says {row.size_bytes} bytes, {current.name} has {current.size_bytes}"
    if current.size_bytes > wanted:
        mended = "; nothing is made smaller by itself"
        if row.kind == "volume":
            mended = f"; take the larger size over: volmgr volume extend {row.id} {-(-current.size_bytes // 2**30)}"
        yield finding(
            Kind.STORAGE_TOO_LARGE, row.kind, row.id, reason + mended, name=current.name, object_id=row.name_id
        )
    elif row.kind == "volume":
        yield finding(Kind.STORAGE_TOO_SMALL, row.kind, row.id, reason, name=current.name, object_id=row.name_id)
    else:
        lost = f"{reason}; its last bytes are lost, delete it: volmgr snapshot delete {row.id}"
        yield finding(
            Kind.STORAGE_TOO_SMALL, row.kind, row.id, lost, name=current.name, object_id=row.name_id,
            repair=Repair.OPERATOR,
        )


def _without_resource(stored: ObjectRow, states: Mapping[str, ObservedObject]) -> Iterator[Finding]:
    """Yield what is to be said of an object's row that no resource points to."""
    of = f"of the {stored.kind} {stored.resource_id}"
    if not states:
        reason = f"SQL has an object {of} ({stored.role}) that the backend has not"
        yield finding(Kind.OBJECT_ROW_ORPHAN, "object", stored.id, reason)
    for state, item in states.items():
        if state == TRASH and stored.role == TRASH:
            reason = f"{item.name} {of} lies in the trash, and no operation is going to wipe it"
            yield finding(Kind.TRASH_NOT_WIPED, "object", stored.id, reason, name=item.name)
        else:
            kind = {TRASH: Kind.TRASH_ORPHAN, BUILDING: Kind.BUILDING_LEFT}.get(state, Kind.STORAGE_ORPHAN)
            reason = f"{item.name} was an object {of} ({stored.role}) and belongs to nothing any more"
            yield _free(kind, "object", stored.id, reason, item)


def _unknown(recorded: Recorded, object_id: str, states: Mapping[str, ObservedObject]) -> Iterator[Finding]:
    """Yield what is to be said of storage that no row knows; only the journal can prove that it is nobody's."""
    past, through = recorded.past.get(object_id), recorded.helpers.get(object_id)
    for state, item in states.items():
        if state == TRASH and item.held:
            continue
        if through is not None:
            known, said = True, f"It stood between another object and {through}, which is made"
        elif past is not None:
            known = state != CURRENT or _ended(past)
            said = f"The last that the journal knows of it is {past.verb}, {past.state}"
        else:
            known, said = False, "Neither SQL nor the journal knows it"
        kind = {TRASH: Kind.TRASH_ORPHAN, BUILDING: Kind.BUILDING_LEFT}.get(state, Kind.STORAGE_ORPHAN)
        yield _free(kind, "object", object_id, f"{item.name}: {said}", item, safe=known)


def _free(
    kind: Kind, resource: str, resource_id: str, reason: str, item: ObservedObject, *, safe: bool = True
) -> Finding:
    """Return the finding about storage to be freed; what bears no mark of ours is for an operator alone."""
    if item.marked:
        return finding(kind, resource, resource_id, reason, name=item.name, object_id=item.object_id, safe=safe)
    reason += "; it bears no mark of ours, so nothing is done about it"
    return finding(
        kind, resource, resource_id, reason, name=item.name, object_id=item.object_id, repair=Repair.OPERATOR
    )


def _ended(past: PastRow) -> bool:
    if past.verb in _ENDING:
        return past.state == "done"
    return past.verb.startswith("create_") and past.state == "failed"

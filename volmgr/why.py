# SPDX-License-Identifier: Apache-2.0
"""Why a resource is as it is, on one screen: what SQL wants, what storage and target have, who holds it, what was done,
what to do next.

It takes one look at the storage and one at the target, and changes nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from volmgr import exception, names, types
from volmgr.db import claims, failovers, findings, groups, listing, operations, records
from volmgr.db import exports as export_rows
from volmgr.operations import advice

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from volmgr.context import RequestContext
    from volmgr.service import Worker

HISTORY = 10


def why(worker: Worker, context: RequestContext, resource_id: str) -> dict[str, Any]:
    """Return one screen about a volume, snapshot or backup under ``text``, and the same as JSON.

    :raises NotFound: neither SQL nor the journal knows it, or it is another project's.
    """
    with worker.database.reader() as conn:
        kind, view = _find(conn, resource_id, context.scope)
        history = operations.history(conn, resource_id, HISTORY)
        holders = operations.holding(conn, resource_id)
        wanted = export_rows.wanted(conn, kind, resource_id) if view and kind in names.KINDS else None
        known = findings.of_resource(conn, resource_id)
        row = claims.row(conn, "volume", resource_id) if kind == "volume" and view else None
        loss = failovers.loss(conn, row) if row is not None else None
    if context.scope is not None:
        history = [record for record in history if record.project_id == context.scope]
        if view is None:  # of what may be another project's only the caller's own requests are told
            holders, known = [record for record in holders if record.project_id == context.scope], []
    if view is None and not history:
        raise exception.NotFound(resource="resource", id=resource_id)
    storage = _storage(worker, wanted.resource) if wanted is not None else None
    target = _target(worker, wanted) if wanted is not None else None
    unfinished = {record.id: record for record in (*holders, *history) if not record.finished}
    status = view["status"] if view else None
    following = advice.next_command(kind, resource_id, status, list(unfinished.values()), known, loss)
    lines = [
        _headline(kind, resource_id, view),
        *([_wants(wanted)] if wanted is not None else []),
        *([f"storage: {storage}"] if storage is not None else []),
        *([f"target: {target}"] if target is not None else []),
        *(f"held by: {advice.standing(record)}" for record in unfinished.values()),
        *(f"attachment {item['id']}: {item['status']}, {_user(item)}" for item in (view or {}).get("attachments", ())),
        *(f"finding {item['kind']} since {item['created_at']}: {item['reason']}" for item in known),
        *(_story(record) for record in history if record.finished),
        f"next: {following}",
    ]
    return {
        "resource": kind,
        "resource_id": resource_id,
        "view": view,
        "storage": storage,
        "target": target,
        "held_by": [records.operation_view(record) for record in unfinished.values()],
        "operations": [records.operation_view(record) for record in history],
        "findings": known,
        "next": following,
        "text": "\n".join(lines),
    }


def _find(conn: Connection, resource_id: str, project_id: str | None) -> tuple[str, dict[str, Any] | None]:
    for kind, read in _READS:
        try:
            return kind, read(conn, resource_id, project_id)
        except exception.NotFound:
            continue
    return "volume", None


_READS: tuple[tuple[str, Callable[[Connection, str, str | None], dict[str, Any]]], ...] = (
    ("volume", listing.volume),
    ("snapshot", listing.snapshot),
    ("group", groups.group),
    ("cgsnapshot", groups.cgsnapshot),
    ("backup", listing.backup),
)


def _headline(kind: str, resource_id: str, view: dict[str, Any] | None) -> str:
    if view is None:
        return f"{kind} {resource_id}: gone"
    if kind == "group":
        return f"group {resource_id}: {view['status']}, {len(view['volumes'])} volumes on {view['host']}"
    if kind == "cgsnapshot":
        count = len(view["snapshots"])
        return f"cgsnapshot {resource_id}: {view['status']}, {count} snapshots of the group {view['group_id']}"
    where = f"in the store {view['store']}" if kind == "backup" else f"on {view['host']}"
    return f"{kind} {resource_id}: {view['status']}, {view['size']} GiB {where}"


def _wants(wanted: export_rows.Wanted) -> str:
    resource = wanted.resource
    said = f"SQL: {resource.name}, {resource.size_bytes} bytes, serial {resource.serial}"
    if wanted.export is not None:
        peers = ", ".join(f"{row.peer_key} ({row.grant.mode})" for row in wanted.grants) or "nobody"
        address = f" at e{wanted.export.shelf}.{wanted.export.blade}" if wanted.export.shelf is not None else ""
        said += f"; exported as {wanted.export.target_name}{address}, granted to {peers}"
    return said


def _storage(worker: Worker, resource: types.Volume | types.Snapshot) -> str:
    driver = worker.driver
    if resource.host is None or names.service_of(resource.host) != worker.host:
        return f"not looked at, it is {resource.host}'s"
    if not driver.supports("observe"):
        return "not looked at, the driver cannot"
    try:
        found = [item for item in driver.observe() if item.object_id == resource.name_id]
    except exception.VolmgrError as error:
        return f"not known: {error}"
    if not found:
        return "missing"
    return "; ".join(
        f"{item.name}, {item.size_bytes} bytes{', suspended' if item.suspended else ''}"
        + ("" if item.state == "current" else f", {item.state}")
        for item in found
    )


def _target(worker: Worker, wanted: export_rows.Wanted) -> str | None:
    here = wanted.resource.host is not None and names.service_of(wanted.resource.host) == worker.host
    if wanted.export is None or worker.exports.target is None or not here:
        return None
    try:
        observed = worker.exports.target.observe()
    except exception.VolmgrError as error:
        return f"not known: {error}"
    found = next((item for item in observed if item.target_name == wanted.export.target_name), None)
    if found is None:
        idle = not wanted.grants and not worker.exports.target.shows_ungranted
        return "serves nothing, as nobody is let in" if idle else "missing"
    allowed = ", ".join(found.initiators) or "nobody"
    connected = ", ".join(found.sessions) or "nobody"
    return f"serves {', '.join(found.paths) or 'nothing'}, lets in {allowed}, connected is {connected}"


def _user(item: dict[str, Any]) -> str:
    return str(item["instance_uuid"] or item["host_name"] or "nobody yet")


def _story(record: types.OperationRecord) -> str:
    cause = f": {record.error['message']}" if record.error else ""
    took = ""
    if record.started_at is not None and record.finished_at is not None:
        took = f" in {(record.finished_at - record.started_at).total_seconds():.2f} s{_steps(record)}"
    moment = records.moment(record.created_at)
    return f"operation {record.id}: {record.verb} {record.state} at {moment}{took}{cause}"


def _steps(record: types.OperationRecord) -> str:
    """Return how long each step took; a single step's time is the operation's own."""
    times = ((record.data or {}).get("times") or {}).items()
    begun = [(name, datetime.datetime.fromisoformat(text).replace(tzinfo=None)) for name, text in times]
    begun.sort(key=lambda item: item[1])  # the journal keeps no order
    if len(begun) < 2 or record.finished_at is None:
        return ""
    ends = [moment for _name, moment in begun[1:]] + [record.finished_at]
    told = (f"{name} {(end - begin).total_seconds():.2f} s" for (name, begin), end in zip(begun, ends, strict=True))
    return f" ({', '.join(told)})"

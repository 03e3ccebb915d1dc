# SPDX-License-Identifier: Apache-2.0
"""What is asked of a world that has come to rest: is it whole, is every outcome legal, does a start change nothing,
does a repeat change nothing, does an audit find nothing, and is nothing left once everything is deleted.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from volmgr import exception, names, types
from volmgr.db import exports as export_rows
from volmgr.db import models
from volmgr.db.engine import Transaction
from volmgr.outcomes import JOINED, REFUSED
from volmgr.testing.invariants import violations
from volmgr.testing.simulation import model
from volmgr.testing.simulation.orphans import touched
from volmgr.testing.simulation.plan import Request, uuid_of

if TYPE_CHECKING:
    from volmgr.exports import Exports
    from volmgr.reconcile.findings import Finding
    from volmgr.testing.simulation.scheduler import Scheduler
    from volmgr.testing.simulation.worker import SimWorker
    from volmgr.testing.simulation.world import World

_TABLES = {
    "volumes": "id, status, size, object_id, operation_id, use_count",
    "snapshots": "id, volume_id, status, volume_size, object_id, operation_id, use_count",
    "groups": "id, status, operation_id, use_count",
    "cgsnapshots": "id, group_id, status, operation_id, use_count",
    "attachments": "id, volume_id, status",
    "objects": "id, resource_id, role, serial, size_bytes",
    "backups": "id, status, volume_id, parent_id, size, object_count, stored_bytes",
    "exports": "resource_id, target_name, lun, shelf, blade, auth_username",
    "grants": "id, resource_id, peer_key, mode, lun, attachment_id",
    "luns": "port, initiator, lun, resource_id",
    "operations": "id, verb, state, result, error",
    "quotas": "project_id, volume_type_id, volumes, snapshots, gigabytes",
    "transfers": "id, volume_id, project_id",
}
#: how often what is parked for an operator is tried again before it counts as stuck.
ROUNDS = 3
#: what an audit is for, after an operation was abandoned.
_LEFT = ("storage of", "object", "volume-", "_snapshot-", "_trash-", "_building-")
_CREATES = ("create_volume", "create_snapshot")
_NUMBER = "keeps the number"
#: one schedule in so many is also asked whether deleting everything leaves nothing.
EMPTIED_OF = 4
#: tables that are empty when everything was deleted.
_EMPTIED = (
    "volumes", "snapshots", "backups", "groups", "cgsnapshots", "attachments", "objects", "exports", "grants", "luns",
    "transfers",
)


def judge(world: World) -> None:
    """Add what is wrong to the world's findings."""
    abandoned = _steer(world) or world.bench.room.mended(world.plan)
    _go_back(world)
    _whole(world, "at rest", target=not _hurt(world), orphans=abandoned)
    _legal(world)
    world.found += world.bench.room.wrong(world.store)
    if world.found:
        return
    before = dump(world)
    world.crash()
    world.rest()
    if _hurt(world):
        # Numbers are given back once the target has followed, so a sync that failed leaves them to the next start.
        before["luns"] = dump(world)["luns"]
        world.found += [f"after a start: {text}" for text in violations(world.bench.database) if _NUMBER in text]
    _same(world, "a start", before)
    # The rows and the storage are what they were, so only the target need be looked at again.
    world.found += [f"after a start: {text}" for text in _served(world)]
    if world.plan.audits:
        world.found += _audited(world, orphans=abandoned)
    before = dump(world)
    _repeat(world)
    _same(world, "repeating every request", before)
    if abandoned and not world.found:
        _mend(world)
        _whole(world, "after an audit has mended what was left", target=True, orphans=False)
    if not world.found and world.plan.order % EMPTIED_OF == 0:
        _empty(world)


def dump(world: World) -> dict[str, list[Any]]:
    """Return everything that SQL and the storage hold, comparable."""
    found = {name: world.bench.raw(f"SELECT {columns} FROM {name} ORDER BY 1") for name, columns in _TABLES.items()}
    return {"storage": sorted(world.store.entries()), "backup store": sorted(world.backups.objects), **found}


def _same(world: World, what: str, before: dict[str, list[Any]]) -> None:
    after = dump(world)
    for name, rows in before.items():
        if rows != after[name]:
            gone = [row for row in rows if row not in after[name]]
            new = [row for row in after[name] if row not in rows]
            world.found.append(f"{what} changed {name}: {gone} became {new}")


def _hurt(world: World) -> bool:
    """Return whether the target may lag behind SQL until the next start: somebody was told that a sync had failed."""
    return any(strike.at.startswith(("target:", "db:")) for strike in world.plan.strikes)


def _whole(world: World, when: str, *, target: bool, orphans: bool) -> None:
    storage = [item for item in _exports(world).driver.observe() if item.name not in world.orphans]
    found = violations(world.bench.database, storage=storage, now=world.scheduler.now())
    if not target:
        found = [text for text in found if _NUMBER not in text]
    found += touched(world.store, world.orphans)
    found += _archived(world)
    if orphans:
        found = [text for text in found if not text.startswith(_LEFT)]
    if target:
        found += _served(world)
    world.found += [f"{when}: {text}" for text in found]


def _archived(world: World) -> list[str]:
    """Return where the backups of SQL and what is in the backup store differ."""
    rows = dict(world.bench.raw("SELECT id, status FROM backups"))
    there = {name.split("/")[0] for name in world.backups.objects if name.endswith("/manifest.json")}
    left = {name.split("/")[0] for name in world.backups.objects if "/" in name}
    whole = {item for item, status in rows.items() if status == "available"}
    return [
        *(f"storage of the backup {item}, which is in no row" for item in sorted(left - rows.keys())),
        *(f"the backup {item} is available and the store does not have it" for item in sorted(whole - there)),
    ]


def _exports(world: World) -> Exports:
    assert world.worker is not None
    return world.worker.exports


def _served(world: World) -> list[str]:
    """Return where what the target serves differs from what a sync would make of SQL now."""
    exports, there = _exports(world), dict(world.target.exports)
    found: list[str] = []
    if not world.bench.room.exports:
        return found
    for kind in names.EXPORTED:
        with Transaction(world.bench.database, write=False) as conn:
            ids = export_rows.ids(conn, kind, exports.settings.host)
            wanted = export_rows.many_wanted(conn, kind, ids)
        for spec in map(exports.spec, wanted):
            has = there.pop(spec.target_name, None)
            if has is None and not spec.grants and not world.target.shows_ungranted:
                continue
            if has is None:
                found.append(f"the target lacks {spec.target_name}")
            elif (has := _ordered(has)) != (spec := _ordered(spec)):
                fields = types.ExportSpec.__dataclass_fields__
                differs = [name for name in fields if getattr(has, name) != getattr(spec, name)]
                found.append(f"{spec.target_name} is served with other {', '.join(differs)} than SQL says")
    return [*found, *(f"the target has {name}, which SQL does not" for name in there)]


def _ordered(spec: types.ExportSpec) -> types.ExportSpec:
    """Return the same with its grants in one order: those of one virtual moment have none.

    Whose export it is no target shows: a volume that takes over another one's keeps it as it is.
    """
    return dataclasses.replace(spec, resource_id="", grants=tuple(sorted(spec.grants, key=repr)))


def _audited(world: World, *, orphans: bool) -> list[str]:
    """Return what an audit finds that has no reason to: what was abandoned may have left something."""
    assert world.worker is not None
    found = [] if orphans else _unexplained(world)
    return [f"the audit finds {item.kind.label} of {item.resource} {item.resource_id}: {item.reason}" for item in found]


def _unexplained(world: World) -> list[Finding]:
    """Return what an audit finds, apart from what lay there from the beginning."""
    assert world.worker is not None
    there = {parsed.object_id for name in world.orphans if (parsed := names.parse_object_name(name))}
    return [item for item in world.worker.auditor.run().findings if item.resource_id not in there]


def _mend(world: World) -> None:
    """Let an audit mend all that it can, twice, because it waits before what cannot be taken back."""
    for _ in range(2):
        worker, scheduler = world.worker, world.scheduler
        assert worker is not None

        def work(worker: SimWorker = worker, scheduler: Scheduler = scheduler) -> None:
            scheduler.wait(lambda: False, 100.0, "later")
            found = _unexplained(world)
            worker.auditor.run(fix=True, only=[item.id_on(worker.host) for item in found])

        scheduler.spawn(world.life, f"{world.life.name}/audit", work)
        world.rest()


def _steer(world: World) -> bool:
    """Do what an operator does about operations that are parked for him; returns whether any was abandoned."""
    abandoned = False
    for number in range(ROUNDS):
        parked = world.unfinished()
        if not parked:
            break
        action = world.plan.steer if number == 0 else "retry"
        abandoned = abandoned or action == "abandon"
        world.do([
            Request(f"steer{number}.{index}", f"operation_{action}", {"operation_id": row[0]})
            for index, row in enumerate(parked)
        ])
    return abandoned


def _go_back(world: World) -> None:
    """Let a backend that was frozen or has failed over be as it was, so that what the worker sees is all there is."""
    if world.plan.stage == "replicated":
        requests = [Request("back.thaw", "thaw_host", {})]
        if world.bench.raw("SELECT host FROM services WHERE active_backend_id IS NOT NULL"):
            requests.append(Request("back", "failover_host", {"secondary_backend_id": "default"}, wait=True))
        world.do(requests)


def _operations(world: World) -> dict[str, Any]:
    with Transaction(world.bench.database, write=False) as conn:
        return {row.id: row for row in conn.execute(sa.select(models.operations))}


def _legal(world: World) -> None:
    history = world.bench.history()
    rows = _operations(world)
    keys = {row.request_key for row in rows.values()}
    born = {row_id for noun, row_id, old, _new, _operation in history if noun == "operations" and old is None}
    mine = {row_id: row for row_id, row in rows.items() if row_id in born}
    world.found += model.check(history, mine)
    if world.plan.steer != "abandon":
        world.found += _undone(world, rows)
    if not world.plan.strikes and not world.orphans:
        world.found += model.false_findings(history)
    for name, answers in world.answers.items():
        ids = {answer.operation_id for answer in answers if answer.operation_id}
        if len(ids) > 1:
            world.found.append(f"the messages of {name} got the operations {sorted(ids)}")
        refusals = sorted({answer.code for answer in answers if answer.code and _final(answer.code)})
        if refusals and uuid_of(f"key of {name}") in keys and (ids or len(refusals) > 1):
            world.found.append(f"the messages of {name} were refused ({refusals}) and got operations {sorted(ids)}")
        world.found += [f"{name} was answered with {answer.code}" for answer in answers if answer.code in model.NEVER]
        world.found += [
            f"{name} was told of operation {item}, which is in no row" for item in ids if item not in rows
        ]


def _final(code: str) -> bool:
    """Return whether an error's code says that its request is over, not that it may be tried again."""
    return code != "unknown" and not exception.by_code(code).retryable


def _undone(world: World, rows: dict[str, Any]) -> list[str]:
    """Return what creations that failed have left in the storage."""
    run = [row for row in rows.values() if row.verb in _CREATES and not model.kept_only(row)]
    made = {row.resource_id for row in run if row.state == "done"}
    failed = {row.resource_id: row.resource for row in run if row.resource_id not in made}
    there = {name for name, _size in world.store.entries()} - world.orphans
    found = []
    for resource_id, kind in failed.items():
        names_of = {names.object_name(kind, resource_id), names.building_name(resource_id)}
        broken = world.bench.raw(f"SELECT id FROM {kind}s WHERE id = '{resource_id}' AND status = 'error'")
        if broken and names_of & there:
            found.append(f"the {kind} {resource_id} could not be made, and its storage is there")
    return found


def _repeat(world: World) -> None:
    """Send every request again that the journal knows: the answer is what became of it."""
    by_key = {row.request_key: row for row in _operations(world).values()}
    known = {
        request.name: (request, row)
        for request in world.plan.requests
        if (row := by_key.get(uuid_of(f"key of {request.name}"))) is not None
    }
    heard = {name: len(world.answers.get(name, ())) for name in known}
    world.do([Request(request.name, request.verb, request.args) for request, _row in known.values()])
    for name, (_request, row) in known.items():
        for answer in world.answers[name][heard[name]:]:
            told = answer.result if isinstance(answer.result, dict) else {}
            data = row.data or {}
            if data.get(REFUSED) and answer.code == row.error["code"]:
                continue
            if JOINED in data and told.get("operation_id") == data[JOINED]:
                continue
            if (told.get("operation_id"), told.get("state"), told.get("result")) != (row.id, row.state, row.result):
                world.found.append(f"the repeat of {name} was answered {answer}, the journal says {row.id} {row.state}")


def _empty(world: World) -> None:
    """Delete everything; nothing may be left anywhere."""
    snapshots = [row[0] for row in world.bench.raw("SELECT id FROM snapshots WHERE cgsnapshot_id IS NULL ORDER BY id")]
    volumes, groups, sets = (
        [row[0] for row in world.bench.raw(f"SELECT id FROM {table} ORDER BY id")]
        for table in ("volumes", "groups", "cgsnapshots")
    )
    requests = [
        Request(f"end.c{index}", "delete_cgsnapshot", {"cgsnapshot_id": item}, wait=True)
        for index, item in enumerate(sets)
    ]
    requests += [
        Request(f"end.s{index}", "delete_snapshot", {"snapshot_id": item}, wait=True)
        for index, item in enumerate(snapshots)
    ]
    requests += [
        Request(f"end.v{index}", "delete_volume", {"volume_id": item, "force": True}, wait=True)
        for index, item in enumerate(volumes)
    ]
    requests += [
        Request(f"end.g{index}", "delete_consistencygroup", {"group_id": item}, wait=True)
        for index, item in enumerate(groups)
    ]
    backups = [row[0] for row in world.bench.raw("SELECT id FROM backups ORDER BY parent_id IS NULL, created_at DESC")]
    requests += [
        Request(f"end.b{index}", "delete_backup", {"backup_id": item}, wait=True) for index, item in enumerate(backups)
    ]
    world.do(requests)
    for table in _EMPTIED:
        if left := world.bench.raw(f"SELECT {_TABLES[table]} FROM {table}"):
            world.found.append(f"after everything was deleted {table} has {left}")
    used = "volumes <> 0 OR snapshots <> 0 OR gigabytes <> 0"
    if left := world.bench.raw(f"SELECT {_TABLES['quotas']} FROM quotas WHERE {used}"):
        world.found.append(f"after everything was deleted the quota says {left}")
    there = {name for name, _size in world.store.entries()} - world.orphans
    left = sorted(name for name in there if names.parse_unmanaged_name(name) is None)
    world.found += touched(world.store, world.orphans)
    if left:
        world.found.append(f"after everything was deleted the storage has {left}")
    if left := [name for name in world.backups.objects if "/" in name]:
        world.found.append(f"after everything was deleted the backup store has {left}")
    if world.images.parts:
        world.found.append(f"after everything was deleted the image store has {sorted(world.images.parts)}")
    if world.target.exports:
        world.found.append(f"after everything was deleted the target has {sorted(world.target.exports)}")

# SPDX-License-Identifier: Apache-2.0
"""Makes plans: at random from a seed, and all pairs of verbs with a crash at every yield point.

What a seed means changes with this module; a plan that showed a defect is therefore kept as a plan.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from volmgr import names
from volmgr.testing.simulation.plan import Plan, Request, Strike, uuid_of

STAGE_NAMES = (
    "empty", "volume", "volumes", "snapshot", "connected", "unexported", "exported", "attached", "deleted",
    "grouped", "cgsnapped", "archived", "pictured", "offered", "unmanaged", "copied", "replicated",
)
#: stages on which the verbs of groups meet each other and the rest; on others they would find nothing.
GROUP_STAGES = ("grouped", "cgsnapped")
LATE: tuple[tuple[float, ...], ...] = ((0.0,), (0.0, 0.0), (0.3,), (2.0,), (20.0,), (90.0,))
#: those that share nothing but the code below the target differ for it; iSER is iSCSI to it.
TRANSPORTS = ("iscsi", "iscsi", "fibre_channel", "aoe")
BACKEND_ERRORS = ("volmgr.backend_down", "volmgr.no_space", "volmgr.busy.volume", "volmgr.timeout", "volmgr.not_found")
DATABASE_ERRORS = ("volmgr.busy.database", "volmgr.backend_down.database")
#: what the verbs of clients ask of the driver: the work itself, then what undoes or follows it.
_DRIVER_VERBS: dict[str, tuple[str, ...]] = {
    "create_volume": ("create_volume", "delete_volume"),
    "create_volume/source_volid": ("create_cloned_volume", "delete_volume"),
    "create_volume/snapshot_id": ("create_volume_from_snapshot", "delete_volume"),
    "delete_volume": ("trash_volume", "restore_volume", "wipe"),
    "delete_volume/cascade": ("trash_snapshot", "trash_volume", "restore_snapshot"),
    "delete_volume/unmanage_only": ("unmanage",),
    "undelete_volume": ("restore_volume", "trash_volume", "wipe"),
    "extend_volume": ("extend_volume", "recognise"),
    "create_snapshot": ("create_snapshot", "delete_snapshot"),
    "delete_snapshot": ("trash_snapshot", "restore_snapshot", "wipe"),
    "retype": ("retype",),
    "accept_transfer": ("accept_transfer",),
    "revert_to_snapshot": ("create_volume_from_snapshot", "trash_volume", "delete_volume"),
    "create_consistencygroup": ("create_consistencygroup", "delete_consistencygroup"),
    "update_consistencygroup": ("update_consistencygroup",),
    "delete_consistencygroup": ("delete_consistencygroup", "wipe"),
    "create_cgsnapshot": ("create_cgsnapshot", "delete_snapshot"),
    "delete_cgsnapshot": ("delete_cgsnapshot", "wipe"),
    "create_consistencygroup_from_src": ("create_consistencygroup_from_src", "delete_volume"),
    "create_volume/image_id": ("create_cloned_volume", "copy_image_to_volume", "create_volume", "delete_volume"),
    "copy_volume_to_image": ("copy_volume_to_image", "create_cloned_volume", "delete_volume"),
    "create_backup": ("backup_volume", "create_snapshot", "delete_snapshot", "trash_snapshot"),
    "restore_backup": ("restore_backup", "create_volume"),
    "transfer_accept": ("accept_transfer",),
    "manage_existing": ("manage_existing", "unmanage", "manage_existing_get_size"),
    "manage_existing_snapshot": ("manage_existing_snapshot", "unmanage_snapshot"),
    "migrate_volume_completion": ("trash_volume", "wipe"),
    "update_migrated_volume": ("update_migrated_volume",),
    "promote_replica": ("promote_replica",),
    "reenable_replication": ("reenable_replication",),
    "failover_host": ("failover_host",),
}
_KINDS = ("image_id", "source_volid", "snapshot_id", "cascade", "unmanage_only")
_WHEN = ("before", "building", "after")
_TARGET_PLACES = ("target:sync/before", "target:sync/after")
_IMAGE_PLACES = ("image:find", "image:stream", "image:upload", "image:commit", "image:discard")
_STORE_PLACES = ("backup:put", "backup:get", "backup:list", "backup:delete")

#: what clients ask of the stages' resources: (name, verb, arguments), each once in every pair.
ASKED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("create", "create_volume", {"volume_id": "@v0", "size": 1}),
    ("clone", "create_volume", {"volume_id": "@v2", "source_volid": "@v0"}),
    ("restore", "create_volume", {"volume_id": "@v2", "snapshot_id": "@s0"}),
    ("delete", "delete_volume", {"volume_id": "@v0"}),
    ("cascade", "delete_volume", {"volume_id": "@v0", "cascade": True}),
    ("force", "delete_volume", {"volume_id": "@v0", "force": True, "cascade": True}),
    ("unmanage", "delete_volume", {"volume_id": "@v0", "unmanage_only": True}),
    ("undelete", "undelete_volume", {"volume_id": "@v0"}),
    ("extend", "extend_volume", {"volume_id": "@v0", "new_size": 2}),
    ("retype", "retype", {"volume_id": "@v0", "new_type_id": "@t0"}),
    ("give", "accept_transfer", {"volume_id": "@v0", "new_user": "o", "new_project": "q"}),
    ("update", "update_volume", {"volume_id": "@v0", "readonly": True}),
    ("snap", "create_snapshot", {"volume_id": "@v0", "snapshot_id": "@s1"}),
    ("unsnap", "delete_snapshot", {"snapshot_id": "@s0"}),
    ("revert", "revert_to_snapshot", {"volume_id": "@v0", "snapshot_id": "@s0"}),
    ("attach", "attach_volume", {"volume_id": "@v0", "instance_uuid": "@i1", "attachment_id": "@a1"}),
    ("detach", "detach_volume", {"volume_id": "@v0", "attachment_id": "@a0"}),
    ("detach-all", "detach_volume", {"volume_id": "@v0", "force": True}),
    ("reserve", "attachment_create", {"attachment_id": "@a2", "volume_id": "@v0", "instance_uuid": "@i2"}),
    ("connect-attachment", "attachment_update", {"volume_id": "@v0", "attachment_id": "@a2", "connector": "&b"}),
    ("complete", "attachment_complete", {"attachment_id": "@a2"}),
    ("release", "attachment_delete", {"volume_id": "@v0", "attachment_id": "@a2"}),
    ("connect", "initialize_connection", {"volume_id": "@v0", "connector": "&b"}),
    ("disconnect", "terminate_connection", {"volume_id": "@v0", "connector": "&a"}),
    ("disconnect-all", "terminate_connection", {"volume_id": "@v0", "connector": None, "force": True}),
    ("connect-snapshot", "initialize_connection_snapshot", {"snapshot_id": "@s0", "connector": "&b"}),
    ("disconnect-snapshot", "terminate_connection_snapshot", {"snapshot_id": "@s0", "connector": "&a"}),
    ("unexport", "remove_export", {"volume_id": "@v0"}),
    ("unexport-snapshot", "remove_export_snapshot", {"snapshot_id": "@s0"}),
    ("check-export", "check_for_export", {"instance_id": "@i0"}),
)
ASKED_OF_GROUPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("group", "create_consistencygroup", {"group_id": "@g0"}),
    ("join", "create_volume", {"volume_id": "@v2", "size": 1, "group_id": "@g0"}),
    ("regroup", "update_consistencygroup", {"group_id": "@g0", "add_volumes": ["@v1"], "remove_volumes": ["@v0"]}),
    ("ungroup", "delete_consistencygroup", {"group_id": "@g0", "delete_volumes": True}),
    ("set", "create_cgsnapshot", {"cgsnapshot_id": "@c1", "group_id": "@g0"}),
    ("unset", "delete_cgsnapshot", {"cgsnapshot_id": "@c0"}),
    ("group-from-set", "create_consistencygroup_from_src", {"group_id": "@g1", "cgsnapshot_id": "@c0"}),
    ("group-from-group", "create_consistencygroup_from_src", {"group_id": "@g2", "source_group_id": "@g0"}),
)
ASKED_OF_BACKUPS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("backup", "create_backup", {"backup_id": "@b1", "volume_id": "@v0"}),
    ("backup-more", "create_backup", {"backup_id": "@b2", "volume_id": "@v0", "incremental": True}),
    ("backup-snapshot", "create_backup", {"backup_id": "@b3", "volume_id": "@v0", "snapshot_id": "@s0"}),
    ("unbackup", "delete_backup", {"backup_id": "@b0"}),
    ("restore-over", "restore_backup", {"backup_id": "@b0", "volume_id": "@v0"}),
    ("restore-new", "restore_backup", {"backup_id": "@b0", "volume_id": "@v2"}),
)
ASKED_OF_IMAGES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("from-image", "create_volume", {"volume_id": "@v1", "size": 1, "image_id": "i0"}),
    ("from-same-image", "create_volume", {"volume_id": "@v2", "size": 2, "image_id": "i0"}),
    ("from-other-image", "create_volume", {"volume_id": "@v3", "size": 1, "image_id": "i1"}),
    ("from-no-image", "create_volume", {"volume_id": "@v2", "size": 1, "image_id": "i9"}),
    ("upload", "copy_volume_to_image", {"volume_id": "@v0", "image_meta": {"id": "up", "disk_format": "raw"}}),
)
ASKED_OF_OFFERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("offer", "transfer_create", {"transfer_id": "@x1", "volume_id": "@v0"}),
    ("accept", "transfer_accept", {"transfer_id": "@x0", "auth_key": "%x0"}),
    ("accept-new", "transfer_accept", {"transfer_id": "@x1", "auth_key": "%x1"}),
    ("accept-wrong", "transfer_accept", {"transfer_id": "@x0", "auth_key": "wrong"}),
    ("withdraw", "transfer_delete", {"transfer_id": "@x0"}),
    ("withdraw-new", "transfer_delete", {"transfer_id": "@x1"}),
)
ASKED_OF_STORAGE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("manage", "manage_existing", {
        "volume_id": "@v2", "ref": {"source-name": names.unmanaged_name("volume", uuid_of("v1"))},
    }),
    ("manage-again", "manage_existing", {
        "volume_id": "@v1", "ref": {"source-name": names.unmanaged_name("volume", uuid_of("v1"))},
    }),
    ("manage-nothing", "manage_existing", {"volume_id": "@v3", "ref": {"source-name": "nothing-has-this-name"}}),
    ("manage-snapshot", "manage_existing_snapshot", {
        "snapshot_id": "@s1", "volume_id": "@v0",
        "ref": {"source-name": names.unmanaged_name("snapshot", uuid_of("s0"))},
    }),
    ("let-go", "delete_volume", {"volume_id": "@v2", "unmanage_only": True}),
    ("let-snapshot-go", "delete_snapshot", {"snapshot_id": "@s1", "unmanage_only": True}),
)
ASKED_OF_COPIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("complete", "migrate_volume_completion", {"volume_id": "@v0", "new_volume_id": "@v3"}),
    ("complete-back", "migrate_volume_completion", {"volume_id": "@v3", "new_volume_id": "@v0"}),
    ("give-up", "migrate_volume_completion", {"volume_id": "@v0", "new_volume_id": "@v3", "error": True}),
    ("rename", "update_migrated_volume", {"volume_id": "@v0", "new_volume_id": "@v3"}),
    ("detach-copy", "attachment_delete", {"volume_id": "@v3", "attachment_id": "@a3"}),
)
#: a backend that fails over loses what has no replica, snapshots for instance, so nothing else is asked there.
ASKED_OF_REPLICAS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("promote", "promote_replica", {"volume_id": "@v0"}),
    ("follow", "reenable_replication", {"volume_id": "@v0"}),
    ("fail-over", "failover_host", {}),
    ("fail-back", "failover_host", {"secondary_backend_id": "default"}),
    ("freeze", "freeze_host", {}),
    ("thaw", "thaw_host", {}),
    ("connect", "initialize_connection", {"volume_id": "@v0", "connector": "&b"}),
    ("disconnect", "terminate_connection", {"volume_id": "@v0", "connector": "&b"}),
    ("attach", "attach_volume", {"volume_id": "@v0", "instance_uuid": "@i1", "attachment_id": "@a1"}),
    ("detach-all", "detach_volume", {"volume_id": "@v0", "force": True}),
)
#: by stage: what is asked there more than anything else, and nowhere else.
OWN = {
    **dict.fromkeys(GROUP_STAGES, ASKED_OF_GROUPS), "archived": ASKED_OF_BACKUPS, "pictured": ASKED_OF_IMAGES,
    "offered": ASKED_OF_OFFERS, "unmanaged": ASKED_OF_STORAGE, "copied": ASKED_OF_COPIES,
    "replicated": ASKED_OF_REPLICAS,
}
#: stages on which nothing else is asked.
ALONE = ("replicated",)
#: operations that no schedule has, and where they are tried instead, with a death at every point.
ELSEWHERE = {
    "migrate_volume": "needs two workers: tests/unit/operations/test_migration.py, and the pairs of the chaos tests",
    "receive_volume": "the other worker's part of a migration: the same",
    "discard": "a repair that an audit asks for: tests/unit/reconcile, and the chaos tests' stories that mend",
    "restore_storage": "a repair that an audit asks for: the same",
}


def own(stage: str) -> tuple[tuple[str, str, dict[str, Any]], ...]:
    """Return what is asked on a stage more than anything else, as in :data:`ASKED`."""
    return OWN.get(stage, ())


_CHANGING = tuple(name for name, verb, _args in ASKED if verb in (
    "create_volume", "delete_volume", "undelete_volume", "extend_volume", "create_snapshot", "delete_snapshot",
    "revert_to_snapshot", "retype", "accept_transfer",
))
_JOURNALLED = {verb for name, verb, _args in ASKED if name in _CHANGING}
_JOURNALLED |= {verb for own in (ASKED_OF_GROUPS, ASKED_OF_BACKUPS, ASKED_OF_IMAGES) for _name, verb, _args in own}
_JOURNALLED |= {
    "transfer_accept", "manage_existing", "manage_existing_snapshot", "migrate_volume_completion",
    "update_migrated_volume", "promote_replica", "reenable_replication", "failover_host",
}


def _request(rng: random.Random, number: int, client: int, journalled: list[str], stage: str) -> Request:
    late = rng.choice(LATE) if rng.random() < 0.2 else ()
    name = f"r{number}"
    if journalled and rng.random() < 0.12:
        action = rng.choice(("operation_cancel", "operation_cancel", "operation_retry", "operation_abandon"))
        return Request(name, action, {"operation_id": f"${rng.choice(journalled)}"}, client, late=late)
    own = stage in OWN and (stage in ALONE or rng.random() < 0.6)
    _label, verb, arguments = rng.choice(OWN[stage] if own else ASKED)
    arguments = dict(arguments)
    for key, value in arguments.items():
        new = (verb, key) == ("create_volume", "volume_id")
        if value == "@v0" and rng.random() < (0.6 if new else 0.15):
            arguments[key] = rng.choice(("@v1", "@v2"))
        elif value == "@s0" and rng.random() < 0.15:
            arguments[key] = "@s1"
        elif key in ("size", "new_size"):
            arguments[key] = rng.randint(1, 4)
    return Request(name, verb, arguments, client, wait=rng.random() < 0.4, late=late)


def _driver_place(rng: random.Random, requests: list[Request]) -> str:
    asked = [request for request in requests if request.verb in _DRIVER_VERBS]
    if not asked:
        return f"driver:wipe/{rng.choice(_WHEN)}"
    request = rng.choice(asked)
    kind = next((f"{request.verb}/{name}" for name in _KINDS if name in request.args), request.verb)
    work, *others = _DRIVER_VERBS.get(kind, _DRIVER_VERBS[request.verb])
    verb = rng.choice(others) if others and rng.random() < 0.3 else work
    return f"driver:{verb}/{rng.choice(_WHEN)}"


def _strike(rng: random.Random, requests: list[Request]) -> Strike:
    kind = rng.random()
    nth = rng.choice((1, 1, 1, 1, 1, 2, 3))
    if kind < 0.5:
        return Strike(_driver_place(rng, requests), "fail", nth, rng.choice(BACKEND_ERRORS))
    if kind < 0.63:
        archives = any("backup" in request.verb for request in requests)
        pictures = any("image" in request.verb or "image_id" in request.args for request in requests)
        places = _STORE_PLACES if archives else _IMAGE_PLACES if pictures else _TARGET_PLACES
        return Strike(rng.choice(places), "fail", nth)
    if kind < 0.72:
        place = rng.choice((_driver_place(rng, requests), *_TARGET_PLACES))
        return Strike(place, "delay", nth, seconds=rng.choice((1.0, 10.0, 65.0)))
    nth = rng.randint(1, 25)
    if kind < 0.85:
        return Strike(rng.choice(("db:write", "db:write", "db:read")), "fail", nth, rng.choice(DATABASE_ERRORS))
    return Strike(rng.choice(("db:commit", "db:committed")), "lost", nth)


def random_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    rng = random.Random(seed)
    clients = rng.choice((1, 2, 2, 3))
    stage = rng.choice(STAGE_NAMES)
    requests: list[Request] = []
    for number in range(rng.randint(2, 6)):
        journalled = [item.name for item in requests if item.verb in _JOURNALLED]
        requests.append(_request(rng, number, rng.randrange(clients), journalled, stage))
    strikes = [Strike("step", "crash", rng.randint(1, 140)) for _ in range(rng.choice((0, 0, 1, 1, 1, 2, 3)))]
    if rng.random() < 0.5:
        strikes += [_strike(rng, requests) for _ in range(rng.choice((1, 1, 2)))]
    return Plan(
        tuple(requests),
        tuple(strikes),
        stage=stage,
        order=seed,
        switch=rng.choice((0.0, 0.05, 0.2, 0.5, 0.9)),
        drift=rng.choice((0.0, 0.0, 0.0, 0.01, 0.05)),
        reboot=rng.random() < 0.3,
        retention=rng.choice((0, 0, 0, 6)),
        steer=rng.choice(("retry", "retry", "abandon")),
        audits=rng.random() < 0.3,
        orphans=rng.choice(((), (), (), ("v2",), ("s1",), ("v0", "v1", "v2", "s0", "s1"))),
        transport=rng.choice(TRANSPORTS),
    )


def pairs(stages: tuple[str, ...] = ("deleted", "exported", "attached")) -> Iterator[Plan]:
    """Yield one plan for every pair of verbs on every one of these stages; each message comes twice.

    One after the other goes by another transport.
    """
    met = [(stage, one, other) for stage in stages for one in ASKED for other in ASKED]
    for stage, asked in OWN.items():
        beside = asked if stage in ALONE else (*ASKED, *asked)
        met += [(stage, one, other) for one in asked for other in beside]
        met += [(stage, one, other) for one in ASKED for other in asked if stage not in ALONE]
    for number, (stage, (first, verb, arguments), (second, other, others)) in enumerate(met):
        requests = (
            Request(f"1-{first}", verb, arguments, 0, late=(0.0,)),
            Request(f"2-{second}", other, others, 1, late=(0.0,)),
        )
        transport = TRANSPORTS[number % len(TRANSPORTS)]
        yield Plan(requests, stage=stage, retention=6 if stage == "deleted" else 0, transport=transport)


def crashes(plan: Plan, places: list[str], every: int = 1, offset: int = 0) -> Iterator[Plan]:
    """Yield a plan with a crash at every n-th yield point of a schedule that was run without one."""
    for step in range(1 + offset % every, len(places) + 1, every):
        yield plan.but(strikes=(*plan.strikes, Strike("step", "crash", step)))

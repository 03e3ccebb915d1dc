# SPDX-License-Identifier: Apache-2.0
"""What can be there when a schedule begins; made by the real verbs, once in each process, and copied."""

from __future__ import annotations

from collections.abc import Callable

from volmgr import names
from volmgr.testing.simulation.bench import Beginning, Bench
from volmgr.testing.simulation.plan import Plan, Request, uuid_of
from volmgr.testing.simulation.randomness import seeded
from volmgr.testing.simulation.world import World
from volmgr.types import MiB

_VOLUME = Request("stage-v0", "create_volume", {"volume_id": "@v0", "size": 1}, wait=True)
_OTHER = Request("stage-v1", "create_volume", {"volume_id": "@v1", "size": 1, "multiattach": True}, wait=True)
_SNAPSHOT = Request("stage-s0", "create_snapshot", {"volume_id": "@v0", "snapshot_id": "@s0"}, wait=True)
_CONNECTED = Request("stage-c", "initialize_connection", {"volume_id": "@v0", "connector": "&a"})
_DISCONNECTED = Request("stage-d", "terminate_connection", {"volume_id": "@v0", "connector": "&a"})
_SNAPSHOT_CONNECTED = Request(
    "stage-cs", "initialize_connection_snapshot", {"snapshot_id": "@s0", "connector": "&a"}
)
_ATTACHED = Request(
    "stage-a", "attach_volume", {"volume_id": "@v0", "instance_uuid": "@i0", "attachment_id": "@a0"}
)
_BACKUP = Request("stage-b0", "create_backup", {"backup_id": "@b0", "volume_id": "@v0"}, wait=True)
_DELETED = Request("stage-d", "delete_volume", {"volume_id": "@v0"}, wait=True)

_GROUP = Request("stage-g0", "create_consistencygroup", {"group_id": "@g0"}, wait=True)
_MEMBERS = tuple(
    Request(f"stage-{name}", "create_volume", {"volume_id": f"@{name}", "size": 1, "group_id": "@g0"}, wait=True)
    for name in ("v0", "v3")
)
_SET = Request("stage-c0", "create_cgsnapshot", {"cgsnapshot_id": "@c0", "group_id": "@g0"}, wait=True)

#: what a volume can be given as another type.
_TYPE = Request("stage-t0", "type_create", {"type_id": "@t0", "name": "t0"})

_OFFERED = Request("stage-x0", "transfer_create", {"transfer_id": "@x0", "volume_id": "@v0"})
_LET_GO = (
    Request("stage-u1", "delete_volume", {"volume_id": "@v1", "unmanage_only": True}, wait=True),
    Request("stage-us0", "delete_snapshot", {"snapshot_id": "@s0", "unmanage_only": True}, wait=True),
)
_COPY = Request("stage-v3", "create_volume", {"volume_id": "@v3", "size": 1}, wait=True)
_COPY_ATTACHED = (
    Request("stage-a3", "attachment_create", {"attachment_id": "@a3", "volume_id": "@v3", "instance_uuid": "@i0"}),
    Request("stage-a3c", "attachment_update", {"volume_id": "@v3", "attachment_id": "@a3", "connector": "&b"}),
    Request("stage-a3d", "attachment_complete", {"attachment_id": "@a3"}),
)
_REPLICATED = (
    Request("stage-t1", "type_create", {
        "type_id": "@t1", "name": "t1", "extra_specs": {"replication": "<is> True"},
    }),
    Request("stage-v0", "create_volume", {"volume_id": "@v0", "size": 1, "volume_type": "t1"}, wait=True),
)

#: by name: the requests that make it. ``v0``, ``v1`` are volumes, ``s0`` a snapshot and ``b0`` a backup of ``v0``. In
#: a group ``g0`` with a cgsnapshot ``c0`` are ``v0`` and ``v3``. ``x0`` offers ``v0``; let go are ``v1`` and ``s0``;
#: ``v3`` is what a compute service has copied ``v0`` to; ``v0`` has a replica, ``v1`` none.
STAGES: dict[str, tuple[Request, ...]] = {
    "empty": (),
    "volume": (_TYPE, _VOLUME,),
    "volumes": (_VOLUME, _OTHER),
    "snapshot": (_TYPE, _VOLUME, _SNAPSHOT),
    "connected": (_VOLUME, _CONNECTED),
    "unexported": (_VOLUME, _CONNECTED, _DISCONNECTED),
    "exported": (_TYPE, _VOLUME, _SNAPSHOT, _CONNECTED, _SNAPSHOT_CONNECTED),
    "attached": (_TYPE, _VOLUME, _CONNECTED, _ATTACHED),
    "deleted": (_VOLUME, _DELETED),
    "grouped": (_OTHER, _GROUP, *_MEMBERS),
    "cgsnapped": (_OTHER, _GROUP, *_MEMBERS, _SET),
    "archived": (_VOLUME, _SNAPSHOT, _BACKUP),
    "pictured": (_VOLUME, _SNAPSHOT),
    "offered": (_TYPE, _VOLUME, _SNAPSHOT, _OFFERED),
    "unmanaged": (_VOLUME, _OTHER, _SNAPSHOT, *_LET_GO),
    "copied": (_VOLUME, _CONNECTED, _ATTACHED, _COPY, *_COPY_ATTACHED),
    "replicated": (*_REPLICATED, _OTHER),
}


def begin(bench: Bench, stage: str, transport: str = "iscsi") -> Beginning:
    """Return a stage of :data:`STAGES`, for a target of some transport."""
    key = (stage, transport)
    if key not in bench.stages:
        asked = tuple(item for item in map(bench.room.ask, STAGES[stage]) if item is not None)
        *before, last = asked or (None,)
        if last is _BACKUP:
            # What is backed up has bytes.
            ground = make(bench, Plan(tuple(before), order=1, switch=0.0, transport=transport))
            ground.store.write(names.object_name("volume", uuid_of("v0")), MiB, b"some bytes")
            bench.stages[key] = make(bench, Plan((last,), order=1, switch=0.0, transport=transport), ground)
            ground.database.close()
        else:
            bench.stages[key] = make(bench, Plan(asked, order=1, switch=0.0, transport=transport))
    return bench.stages[key]


def make(bench: Bench, plan: Plan, beginning: Beginning | None = None) -> Beginning:
    """Run a plan in which nothing goes wrong, and return what it leaves."""
    world = World(bench, plan, beginning=beginning, start=0.0)
    with seeded("stage" if beginning is None else "what follows"):  # else ids would come twice
        bench.database.attend(world.scheduler)
        try:
            world.play()
        finally:
            world.close()
    bad = [f"{name}: {answer.code}" for name, answers in world.answers.items() for answer in answers if answer.code]
    if bad or world.found:
        raise AssertionError(f"the stage cannot be made: {bad or world.found}")
    return bench.keep(world.store, world.target.exports, world.backups.objects, world.replicas, world.keys)


def make_world(bench: Bench, plan: Plan, **options: object) -> World:
    """Return the world of a plan, on its stage."""
    made: Callable[..., World] = bench.world or World
    return made(bench, plan, beginning=begin(bench, plan.stage, plan.transport), **options)

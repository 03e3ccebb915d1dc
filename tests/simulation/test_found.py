# SPDX-License-Identifier: Apache-2.0
"""Schedules that showed a defect, each made as small as it goes, with what it was; they stay good for ever.

The order in which threads take turns depends on the code, so each plan is run in the order that showed the defect and
in some others.
"""

from __future__ import annotations

import pytest

from volmgr.testing.simulation import explore
from volmgr.testing.simulation.bench import Bench
from volmgr.testing.simulation.plan import Plan, Request, Strike, uuid_of

ORDERS = 6
V0 = {"volume_id": "@v0"}

FOUND: dict[str, Plan] = {
    # A sync that came while a volume was being deleted (at a start, at a detachment) found its rows still there and
    # made the export again, with its grants, over storage that was on its way to the trash.
    "an export comes back while its volume is deleted": Plan(
        (Request("delete", "delete_volume", {**V0, "force": True, "cascade": True}),),
        stage="exported", order=2, switch=0.9, drift=0.01,
    ),
    "a detachment brings the export of a deleted volume back": Plan(
        (Request("delete", "delete_volume", {**V0, "force": True}), Request("detach", "detach_volume", {
            **V0, "force": True}, 1, late=(0.0, 0.0))),
        stage="connected", order=161, switch=0.9,
    ),
    # The rows of an export went before the target was told: a death in between left it on the target, unknown to SQL.
    "an export that is removed outlives its rows": Plan(
        (Request("remove", "remove_export", V0),), (Strike("target:sync/before", "crash", 2),), stage="unexported",
    ),
    # The thread that takes over what an earlier life had begun ended with the first error of the database, or with an
    # export that stayed busy: the journal was not looked at any more, or the other exports were not made again.
    "a start survives a database that is away": Plan(
        (Request("create", "create_volume", V0 | {"size": 1}, wait=True),),
        (Strike("db:read", "fail", 2, "volmgr.backend_down.database"),), stage="volumes",
    ),
    "a start survives a busy export": Plan(
        (Request("terminate", "terminate_connection", V0 | {"connector": "&a"}),),
        (Strike("target:sync/before", "delay", seconds=65.0),), stage="attached",
    ),
    # A volume that became read-only was still served for writing, until the next sync.
    "the export follows a volume that becomes read-only": Plan(
        (Request("update", "update_volume", V0 | {"readonly": True}),), stage="unexported",
    ),
    "a volume that somebody may write to does not become read-only": Plan(
        (Request("update", "update_volume", V0 | {"readonly": True}),), stage="connected",
    ),
    # The connection broke at the COMMIT by which a queued operation became the worker's: it was the worker's, and no
    # thread ran it until the next start. Where it had not committed, the operation was refused for good.
    "an operation whose beginning had an unknown outcome is run": Plan(
        (Request("delete", "delete_volume", V0),), (Strike("db:committed", "lost", 3),), stage="volume", switch=0.0,
    ),
    "an operation whose beginning was not committed is run": Plan(
        (Request("delete", "delete_volume", V0),), (Strike("db:commit", "lost", 3),), stage="volume", switch=0.0,
    ),
    # The start took over what an earlier life had begun; that was not committed, and nobody looked a second time.
    "an operation whose taking over was not committed is run": Plan(
        (Request("create", "create_volume", V0 | {"size": 1}),),
        (Strike("step:create_volume/create/before", "crash"), Strike("db:commit", "lost", 2)), switch=0.0,
    ),
    "an operation that was taken over with an unknown outcome is run": Plan(
        (Request("delete", "delete_volume", V0),),
        (Strike("driver:trash_volume/before", "crash"), Strike("db:committed", "lost", 2)), stage="volume", switch=0.0,
    ),
    # A journal that did not take a note failed the operation, half done as it was.
    "a database that is away fails no operation": Plan(
        (Request("delete", "delete_volume", V0 | {"cascade": True, "force": True}),),
        (Strike("db:committed", "lost", 2),), stage="snapshot", switch=0.0,
    ),
    # A wipe that failed was over: its object stayed in the trash for ever.
    "a wipe that fails is tried again": Plan(
        (Request("delete", "delete_volume", V0, wait=True),),
        (Strike("driver:wipe/after", "fail", error="volmgr.no_space"),), stage="volume",
    ),
    # A cancelled deletion gave its volume back although the storage was in the trash already.
    "a deletion that is cancelled after a crash brings the storage back": Plan(
        (Request("delete", "delete_volume", V0), Request("cancel", "operation_cancel", {"operation_id": "$delete"})),
        (
            Strike("driver:trash_volume/after", "crash"),
            Strike("driver:get_volume_stats/before", "delay", 2, seconds=9.0),
        ),
        stage="volume", switch=0.5,
    ),
    "a cascade that is cancelled brings the snapshots back": Plan(
        (
            Request("delete", "delete_volume", V0 | {"cascade": True, "force": True}),
            Request("cancel", "operation_cancel", {"operation_id": "$delete"}, 1, late=(0.5, 1.0)),
        ),
        (Strike("driver:trash_snapshot/after", "delay", seconds=3.0),), stage="snapshot", switch=0.3,
    ),
    # The id of an attachment of another volume: the database's own error was the answer.
    "an attachment's id is taken": Plan(
        (
            Request("one", "attachment_create", {"attachment_id": "@a2", "volume_id": "@v1"}),
            Request("other", "attachment_create", {"attachment_id": "@a2", "volume_id": "@v0"}),
            Request("attached", "attach_volume", V0 | {"instance_uuid": "@i1", "attachment_id": "@a2"}),
        ),
        stage="volumes",
    ),
    # A deletion by force that failed left attachments, and the plain deletion after it left them without a volume.
    "attachments do not outlive their volume": Plan(
        (
            Request("force", "delete_volume", V0 | {"force": True}, wait=True),
            Request("unmanage", "delete_volume", V0 | {"unmanage_only": True}),
        ),
        (Strike("target:sync/after", "fail", 2),), stage="attached", switch=0.0,
    ),
    # An operation that was given up leaves what an audit finds and mends.
    "what an abandoned wipe leaves is mended": Plan(
        (Request("delete", "delete_volume", V0, wait=True),),
        (Strike("driver:wipe/building", "fail", error="volmgr.not_found"),), stage="volume", steer="abandon",
    ),
    # What had nothing to do, was refused, or joined another request left nothing in the journal by which a copy of its
    # message that arrived late could be known: it was executed, on whatever bore the id by then.
    "a late copy of a deletion that had nothing to do": Plan(
        (Request("delete", "delete_volume", V0, late=(20.0,)),
         Request("create", "create_volume", V0 | {"size": 1}, wait=True)),
        stage="empty", switch=0.0,
    ),
    "a late copy of a deletion that was refused": Plan(
        (Request("delete", "delete_volume", V0, late=(20.0,)),
         Request("unsnap", "delete_snapshot", {"snapshot_id": "@s0"}, wait=True)),
        stage="snapshot", switch=0.0,
    ),
    "a late copy of a deletion that joined another": Plan(
        (Request("one", "delete_volume", V0), Request("other", "delete_volume", V0, late=(20.0,)),
         Request("create", "create_volume", V0 | {"size": 1}, wait=True)),
        stage="volume", switch=0.0,
    ),
    # Storage that another life had left under the name of what was to be made was taken for it, with its bytes.
    "an orphan is not taken": Plan(
        (Request("create", "create_volume", {"volume_id": "@v2", "size": 1}, wait=True),
         Request("snap", "create_snapshot", V0 | {"snapshot_id": "@s1"}, wait=True),
         Request("delete", "delete_volume", {"volume_id": "@v2"}, wait=True)),
        stage="volume", orphans=("v2", "s1"),
    ),
    "an orphan is not taken after a crash either": Plan(
        (Request("create", "create_volume", {"volume_id": "@v2", "source_volid": "@v0"}, wait=True),
         Request("snap", "create_snapshot", V0 | {"snapshot_id": "@s1"}, wait=True)),
        (Strike("step:create_volume/create/before", "crash"), Strike("step:create_snapshot/create/before", "crash")),
        stage="volume", orphans=("v2", "s1"),
    ),
    # A volume that could not be made kept its object's id, and its deletion took what bore that name away.
    "the deletion of what could not be made spares an orphan": Plan(
        (Request("create", "create_volume", {"volume_id": "@v2", "size": 1}, wait=True),
         Request("delete", "delete_volume", {"volume_id": "@v2"}, wait=True),
         Request("snap", "create_snapshot", V0 | {"snapshot_id": "@s1"}, wait=True),
         Request("unsnap", "delete_snapshot", {"snapshot_id": "@s1"}, wait=True)),
        (Strike("driver:create_volume/before", "fail"), Strike("driver:create_snapshot/before", "fail")),
        stage="volume", orphans=("v2", "s1"),
    ),
    # A letting go that failed as busy, but had taken place, gave the volume back without its storage.
    "a letting go that was busy too late": Plan(
        (Request("unmanage", "delete_volume", V0 | {"unmanage_only": True}, wait=True),),
        (Strike("driver:unmanage/after", "fail", error="volmgr.busy.volume"),), stage="volume", switch=0.0,
    ),
    # What waited for an operation that was then parked for an operator waited without being told, for ever.
    "who waits for what stands still is told": Plan(
        (Request("revert", "revert_to_snapshot", V0 | {"snapshot_id": "@s0"}, late=(0.0,)),
         Request("snap", "create_snapshot", V0 | {"snapshot_id": "@s1"})),
        (Strike("step", "crash", 3), Strike("driver:trash_volume/before", "fail", error="volmgr.not_found")),
        stage="snapshot", order=501012, switch=0.05, audits=True,
    ),
    # An extension that failed after its effect left storage that is larger than its row: no snapshot could be taken.
    "an extension that took effect has taken place": Plan(
        (Request("extend", "extend_volume", V0 | {"new_size": 3}),),
        (Strike("driver:extend_volume/after", "fail"),), stage="connected",
    ),
    # Whoever was connected while the volume was extended went on seeing the size of before.
    "a connection that is made during an extension sees it": Plan(
        (Request("extend", "extend_volume", V0 | {"new_size": 4}),
         Request("connect", "initialize_connection", V0 | {"connector": "&b"}, 1, wait=True, late=(1.0,))),
        (Strike("driver:extend_volume/before", "delay", seconds=10.0),), stage="volume",
    ),
    # A creation from an image met storage of others' making and could not undo at once what it had put into the cache:
    # it ended by the error of the undoing, and its volume was left with the strange storage.
    "strange storage stays strange when an undoing fails": Plan(
        (Request("create", "create_volume", {"volume_id": "@v1", "size": 3, "image_id": "i0"}),),
        (Strike("driver:delete_volume/after", "fail", error="volmgr.timeout"),), stage="pictured", orphans=("v1",),
    ),
    # A deletion by force that failed left the offer of a volume that could only be deleted; a cancelled one left it
    # standing beside a volume that could be attached.
    "a deletion by force ends the offer, however it ends itself": Plan(
        (Request("delete", "delete_volume", V0 | {"force": True, "cascade": True}, wait=True),),
        (Strike("driver:trash_snapshot/after", "fail", 1, "volmgr.no_space"),), stage="offered", switch=0.0,
    ),
    # The promotion has nothing that undoes it, so the driver takes its half copy away itself.
    "a promotion that fails half way leaves no half copy": Plan(
        (Request("promote", "promote_replica", V0, wait=True),),
        (Strike("driver:promote_replica/building", "fail"),), stage="replicated", switch=0.0,
    ),
    # The driver worked on the other storage from then on, SQL and the exports on the first.
    "a failover that fails after its effect is undone": Plan(
        (Request("over", "failover_host", {}, wait=True), Request("promote", "promote_replica", V0, wait=True)),
        (Strike("driver:failover_host/after", "fail"),), stage="replicated", switch=0.0,
    ),
    # A volume that could not be taken over had its address from the beginning, and kept it for ever.
    "what is not taken over gives its address back": Plan(
        (Request("r0", "manage_existing",
                 {"volume_id": "@v2", "ref": {"source-name": f"unmanaged-volume-{uuid_of('v1')}"}}),),
        stage="unmanaged", orphans=("v2",), order=9027, switch=0.0, transport="aoe",
    ),
    # The number of a unit is given back once the target has followed; where that was told to have failed it was kept,
    # for a start did not look.
    "a target that failed does not keep the numbers of who was let go": Plan(
        (Request("let-go", "terminate_connection", V0 | {"connector": "&a"}, wait=True),),
        (Strike("target:sync/after", "fail"),), stage="connected", switch=0.0, transport="fibre_channel",
    ),
    # The snapshot of a volume that became another one's storage while the snapshot waited could not even fail: it was
    # tried for ever, and its row was of a volume that was gone.
    "a snapshot whose volume goes while it waits ends": Plan(
        (Request("complete", "migrate_volume_completion", {"volume_id": "@v3", "new_volume_id": "@v0"}),
         Request("snap", "create_snapshot", V0 | {"snapshot_id": "@s1"}, wait=True)),
        stage="copied", order=9102229, switch=0.9,
    ),
    # A managing that failed before it took anything let go of what bore the volume's name already, of others' making;
    # where that could not get a free name it was tried for ever.
    "what is undone of a managing spares strange storage": Plan(
        (Request("manage", "manage_existing",
                 {"volume_id": "@v1", "ref": {"source-name": f"unmanaged-volume-{uuid_of('v1')}"}}),),
        (Strike("driver:manage_existing/before", "fail", error="volmgr.timeout"),),
        stage="unmanaged", order=30289, switch=0.0, orphans=("v1",),
    ),
    # One copy of a restore found its volume missing and was refused as a creation; the other found the volume that
    # had come into being meanwhile, and was told that its key was another request's.
    "copies of a restore that see the volume and do not are answered alike": Plan(
        (Request("restore", "restore_backup", {"volume_id": "@v2", "backup_id": "@b0"}, wait=True, late=(0.0, 0.0)),
         Request("create", "create_volume", {"volume_id": "@v2", "size": 3}, 1, wait=True)),
        stage="archived", order=9282, switch=0.9,
    ),
    # A detachment had read a volume's grants when a migration swapped them; it gave back all numbers of the volume but
    # those that it had read, and with them those that had come with the new storage.
    "numbers that come with a migrated volume survive a detachment": Plan(
        (Request("rename", "update_migrated_volume", V0 | {"new_volume_id": "@v3"}),
         Request("update", "attachment_update", V0 | {"attachment_id": "@a2", "connector": "&b"}),
         Request("complete", "migrate_volume_completion", {"volume_id": "@v3", "new_volume_id": "@v0"}, wait=True),
         Request("detach", "attachment_delete", {"volume_id": "@v3", "attachment_id": "@a3"}, 1)),
        stage="copied", order=70112, switch=0.5, audits=True, transport="fibre_channel",
    ),
    # A driver had extended a volume, said that it had not, and could not be asked at once: the old size stayed in SQL.
    "a volume that has grown is asked twice whether it has": Plan(
        (Request("extend", "extend_volume", V0 | {"new_size": 2}),),
        (Strike("driver:extend_volume/after", "fail", error="volmgr.timeout"),
         Strike("driver:recognise/before", "fail", error="volmgr.busy.volume")),
        stage="archived", order=90203, switch=0.0,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_stays_away(bench: Bench, name: str) -> None:
    plan = FOUND[name]
    for number in range(ORDERS):
        outcome = explore.run(bench, plan.but(order=plan.order + number))
        assert outcome.violations == [], plan.but(order=plan.order + number).to_json()

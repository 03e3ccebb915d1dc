# SPDX-License-Identifier: Apache-2.0
"""Every cell of the table of verbs that meet, over the real journal: what is written there is what happens."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models
from volmgr.operations import backups, cgsnapshots, conflicts, groups, groups_from, snapshots, volumes
from volmgr.operations.base import Policy
from volmgr.operations.properties import Properties
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
LEVEL = ("update", "attach", "connect", "disconnect", "detach")
Answer = dict[str, Any]


def new_id() -> str:
    return str(uuid.uuid4())


class Scene:
    """One volume, one snapshot of it where the cell needs one, and the verbs that meet over them."""

    def __init__(self, folder: Path, rig: Rig | None = None) -> None:
        self.rig = rig or Rig(folder, trash_retention=0)
        self.volume_id = new_id()
        self.snapshot_id = new_id()
        self.group_id = new_id()
        self.cgsnapshot_id = new_id()
        self.backup_id = new_id()

    def make(self, *, volume: bool, snapshot: bool) -> None:
        if volume:
            self.rig.do(volumes.CreateVolume, volume_id=self.volume_id, size=1)
        if snapshot:
            self.rig.do(snapshots.CreateSnapshot, volume_id=self.volume_id, snapshot_id=self.snapshot_id)

    # --- verbs on the volume --------------------------------------------------------------------------------------

    def volume_create(self) -> Answer:
        return self.rig.submit(volumes.CreateVolume, volume_id=self.volume_id, size=1)

    def volume_delete(self) -> Answer:
        return self.rig.submit(volumes.DeleteVolume, volume_id=self.volume_id)

    def volume_extend(self) -> Answer:
        return self.rig.submit(volumes.ExtendVolume, volume_id=self.volume_id, new_size=3)

    def volume_revert(self) -> Answer:
        return self.rig.submit(
            snapshots.RevertToSnapshot, volume_id=self.volume_id, snapshot_id=self.snapshot_id
        )

    def volume_snapshot(self) -> Answer:
        return self.rig.submit(snapshots.CreateSnapshot, volume_id=self.volume_id, snapshot_id=new_id())

    def volume_clone(self) -> Answer:
        return self.rig.submit(volumes.CreateVolume, volume_id=new_id(), source_volid=self.volume_id)

    def volume_update(self) -> Answer:
        changes = {"display_name": "other"}
        properties = Properties(self.rig.database, self.rig.exports, self.rig.clock)
        return properties.update(self.rig.context, self.volume_id, changes)

    def volume_attach(self) -> Answer:
        return self.rig.attachments.attach(self.volume_id, new_id(), None, None, "rw", new_id())

    def volume_connect(self) -> Answer:
        return self.rig.attachments.initialize("volume", self.volume_id, CONNECTOR)

    def volume_disconnect(self) -> Answer:
        return self.rig.attachments.terminate("volume", self.volume_id, CONNECTOR, False)

    def volume_detach(self) -> Answer:
        return self.rig.attachments.detach(self.volume_id, None, True)

    # --- verbs on the snapshot ------------------------------------------------------------------------------------

    def snapshot_create(self) -> Answer:
        return self.rig.submit(snapshots.CreateSnapshot, volume_id=self.volume_id, snapshot_id=self.snapshot_id)

    def snapshot_delete(self) -> Answer:
        return self.rig.submit(snapshots.DeleteSnapshot, snapshot_id=self.snapshot_id)

    snapshot_revert = volume_revert

    def snapshot_clone(self) -> Answer:
        return self.rig.submit(volumes.CreateVolume, volume_id=new_id(), snapshot_id=self.snapshot_id)

    def snapshot_connect(self) -> Answer:
        return self.rig.attachments.initialize("snapshot", self.snapshot_id, CONNECTOR)

    def snapshot_disconnect(self) -> Answer:
        return self.rig.attachments.terminate("snapshot", self.snapshot_id, CONNECTOR, False)

    # --- verbs on the group ---------------------------------------------------------------------------------------

    def make_group(self, *, cgsnapshot: bool) -> None:
        """Make a group of one volume, and a cgsnapshot of it."""
        self.rig.do(groups.CreateGroup, group_id=self.group_id)
        self.rig.do(volumes.CreateVolume, volume_id=self.volume_id, size=1, group_id=self.group_id)
        if cgsnapshot:
            self.rig.do(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=self.cgsnapshot_id, group_id=self.group_id)

    def group_create(self) -> Answer:
        return self.rig.submit(groups.CreateGroup, group_id=self.group_id)

    def group_change(self) -> Answer:
        return self.rig.submit(groups.UpdateGroup, group_id=self.group_id, name="other")

    def group_delete(self) -> Answer:
        return self.rig.submit(groups.DeleteGroup, group_id=self.group_id, delete_volumes=True)

    def group_snapshot(self) -> Answer:
        return self.rig.submit(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=new_id(), group_id=self.group_id)

    def group_unsnapshot(self) -> Answer:
        return self.rig.submit(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=self.cgsnapshot_id)

    def group_clone(self) -> Answer:
        return self.rig.submit(groups_from.CreateGroupFromSource, group_id=new_id(), source_group_id=self.group_id)

    def group_join(self) -> Answer:
        return self.rig.submit(volumes.CreateVolume, volume_id=new_id(), size=1, group_id=self.group_id)

    def cgsnapshot_create(self) -> Answer:
        return self.rig.submit(
            cgsnapshots.CreateCgSnapshot, cgsnapshot_id=self.cgsnapshot_id, group_id=self.group_id
        )

    cgsnapshot_delete = group_unsnapshot

    def cgsnapshot_clone(self) -> Answer:
        return self.rig.submit(groups_from.CreateGroupFromSource, group_id=new_id(), cgsnapshot_id=self.cgsnapshot_id)

    # --- verbs on a backup ----------------------------------------------------------------------------------------

    def backup_create(self) -> Answer:
        return self.rig.submit(backups.CreateBackup, backup_id=self.backup_id, volume_id=self.volume_id)

    def backup_delete(self) -> Answer:
        return self.rig.submit(backups.DeleteBackup, backup_id=self.backup_id)

    def backup_restore(self) -> Answer:
        return self.rig.submit(volumes.CreateVolume, volume_id=new_id(), backup_id=self.backup_id)

    def backup_chain(self) -> Answer:
        # Of a snapshot, so that it is the backup, and not the volume, over which two of them meet.
        return self.rig.submit(
            backups.CreateBackup,
            backup_id=new_id(),
            volume_id=self.volume_id,
            snapshot_id=self.snapshot_id,
            parent_id=self.backup_id,
        )

    def verb(self, resource: str, name: str) -> Callable[[], Answer]:
        found: Callable[[], Answer] = getattr(self, f"{resource}_{name}")
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.rig.close()


OF_GROUPS = ("group", "cgsnapshot")
CELLS = [
    (resource, holder, comer)
    for resource in ("volume", "snapshot")
    for holder, comer in sorted(conflicts.TABLE[resource])
]
GROUP_CELLS = [
    (resource, holder, comer) for resource in OF_GROUPS for holder, comer in sorted(conflicts.TABLE[resource])
    # A new group has no cgsnapshots, and one that has any is not deleted; the same cgsnapshot twice is another cell.
    if comer != "unsnapshot" or holder not in ("create", "delete", "unsnapshot")
]


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One rig for all cells of groups, each of which has ids of its own."""
    made = Rig(tmp_path_factory.mktemp("rig"), trash_retention=0)
    yield made
    made.close()


@pytest.mark.parametrize(("resource", "holder", "comer"), GROUP_CELLS, ids=["-".join(cell) for cell in GROUP_CELLS])
def test_the_cell_of_groups_is_what_happens(
    shared_rig: Rig, tmp_path: Path, resource: str, holder: str, comer: str
) -> None:
    scene = Scene(tmp_path, shared_rig)
    if (resource, holder) != ("group", "create"):
        made = "unsnapshot" in (holder, comer) or (resource == "cgsnapshot" and holder != "create")
        scene.make_group(cgsnapshot=made)
    meet(scene, resource, holder, comer)


@pytest.mark.parametrize(("resource", "holder", "comer"), CELLS, ids=["-".join(cell) for cell in CELLS])
def test_the_cell_is_what_happens(scene: Scene, resource: str, holder: str, comer: str) -> None:
    scene.make(
        volume=(resource, holder) != ("volume", "create"),
        snapshot=(resource == "snapshot" and holder != "create")
        or (resource == "backup" and "chain" in (holder, comer))
        or (resource == "volume" and holder not in ("create", "delete") and "revert" in (holder, comer)),
    )
    if resource == "backup" and holder != "create":
        scene.rig.do(backups.CreateBackup, backup_id=scene.backup_id, volume_id=scene.volume_id)
    meet(scene, resource, holder, comer)


def meet(scene: Scene, resource: str, holder: str, comer: str) -> None:
    """Let the holder hold and the comer come."""
    rig = scene.rig
    held = scene.verb(resource, holder)()
    if held["state"] == "queued":
        rig.dispatcher.pump()  # it is of the bulk lane: begun, and not run yet
    assert held["state"] in ("running", "queued")
    assert rig.dispatcher.get(held["operation_id"]).claimed
    judge_meeting(scene, conflicts.policy(resource, holder, comer), resource, comer, held)


def judge_meeting(scene: Scene, policy: Policy, resource: str, comer: str, held: Answer) -> None:
    """Let the comer come and assert that what follows is what the policy says."""
    rig = scene.rig
    if policy is Policy.CONFLICT:
        with pytest.raises(exception.Conflict) as refused:
            scene.verb(resource, comer)()
        assert refused.value.details.get("operation_id") == held["operation_id"], refused.value.details
        rig.run()
        answer = None
    else:
        answer = scene.verb(resource, comer)()
        judge_answer(scene, policy, comer, held, answer)
    assert rig.dispatcher.get(held["operation_id"]).state == "done"
    assert violations(rig.database, rig.driver) == []


def judge_answer(scene: Scene, policy: Policy, comer: str, held: Answer, answer: Answer) -> None:
    """Assert that the comer was answered as the policy says, then run everything."""
    rig = scene.rig
    if comer in LEVEL:
        assert policy is Policy.BOTH
        assert "operation_id" not in answer or answer.get("id") == scene.volume_id
        rig.run()
        return
    assert answer["operation_id"] is not None
    record = rig.dispatcher.get(answer["operation_id"])
    if policy is Policy.SAME:
        assert answer["operation_id"] == held["operation_id"]
    elif policy is Policy.WAIT:
        assert (answer["state"], record.claimed) == ("queued", False)
    else:
        assert record.claimed, "it should go on beside the holder"
        assert answer["operation_id"] != held["operation_id"]
    rig.run()
    ended = rig.dispatcher.get(answer["operation_id"])
    # A comer that waited finds the resource as the holder left it; the snapshot that a volume still in the making is to
    # go back to does not exist, and a volume with a new snapshot is not deleted without it.
    assert ended.finished
    if ended.state == "failed":
        assert ended.error is not None
        assert ended.error["code"].startswith(("volmgr.not_found", "volmgr.conflict")), ended.error


def test_every_cell_is_whole() -> None:
    for resource, table in conflicts.TABLE.items():
        holders, comers = {pair[0] for pair in table}, {pair[1] for pair in table}
        assert set(table) == {(holder, comer) for holder in holders for comer in comers}, resource


# --- what the table does not show -----------------------------------------------------------------------------------


def test_another_project_cannot_join_a_creation(scene: Scene) -> None:
    from volmgr.context import RequestContext

    scene.volume_create()
    other = RequestContext(project_id="other", user_id="x", request_key=new_id(), overwrite=False)
    arguments = volumes.CreateVolume.args.parse({"volume_id": scene.volume_id, "size": 1})
    with pytest.raises(exception.AlreadyExists) as refused:
        scene.rig.dispatcher.submit(other, volumes.CreateVolume, arguments)
    assert "operation_id" not in refused.value.details
    scene.rig.run()
    assert violations(scene.rig.database, scene.rig.driver) == []


def test_a_creation_with_other_arguments_does_not_join(scene: Scene) -> None:
    scene.volume_create()
    with pytest.raises(exception.AlreadyExists):
        scene.rig.submit(volumes.CreateVolume, volume_id=scene.volume_id, size=2)
    scene.rig.run()
    assert violations(scene.rig.database, scene.rig.driver) == []


def test_a_waiting_creation_of_an_id_that_exists_is_refused(scene: Scene) -> None:
    scene.make(volume=True, snapshot=True)
    taken = new_id()
    scene.rig.do(volumes.CreateVolume, volume_id=taken, size=1)
    scene.volume_extend()
    with pytest.raises(exception.AlreadyExists):
        scene.rig.submit(volumes.CreateVolume, volume_id=taken, source_volid=scene.volume_id)
    scene.rig.run()
    assert violations(scene.rig.database, scene.rig.driver) == []


def test_a_verb_waits_for_a_creation_that_waits_itself(scene: Scene) -> None:
    scene.make(volume=True, snapshot=False)
    scene.volume_extend()
    clone = new_id()
    creation = scene.rig.submit(volumes.CreateVolume, volume_id=clone, source_volid=scene.volume_id)
    deletion = scene.rig.submit(volumes.DeleteVolume, volume_id=clone)
    assert (creation["state"], deletion["state"]) == ("queued", "queued")
    scene.rig.run()
    assert scene.rig.dispatcher.get(creation["operation_id"]).state == "done"
    assert scene.rig.dispatcher.get(deletion["operation_id"]).state == "done"
    assert violations(scene.rig.database, scene.rig.driver) == []


def test_deleting_with_the_snapshots_waits_for_the_volume_made_from_one(scene: Scene) -> None:
    scene.make(volume=True, snapshot=True)
    scene.snapshot_clone()
    deletion = scene.rig.submit(volumes.DeleteVolume, volume_id=scene.volume_id, cascade=True)
    assert deletion["state"] == "queued"
    scene.rig.run()
    assert scene.rig.dispatcher.get(deletion["operation_id"]).state == "done"
    assert violations(scene.rig.database, scene.rig.driver) == []


@pytest.mark.parametrize("waiting", [f"volume_{verb}" for verb in ("delete", "extend", "revert", "snapshot", "clone")])
def test_a_waiting_request_can_be_cancelled(scene: Scene, waiting: str) -> None:
    scene.make(volume=True, snapshot=True)
    scene.volume_extend()
    answer = getattr(scene, waiting)()
    assert answer["state"] == "queued"
    scene.rig.dispatcher.cancel(answer["operation_id"])
    scene.rig.run()
    record = scene.rig.dispatcher.get(answer["operation_id"])
    assert record.state == "failed"
    assert record.error is not None and record.error["code"] == "volmgr.cancelled"
    assert violations(scene.rig.database, scene.rig.driver) == []


def test_an_id_can_be_used_again_and_again(scene: Scene) -> None:
    for _ in range(3):
        scene.make(volume=True, snapshot=True)
        for delete in (scene.snapshot_delete, scene.volume_delete):
            answer = delete()
            scene.rig.run()
            assert scene.rig.dispatcher.get(answer["operation_id"]).state == "done"
        assert violations(scene.rig.database, scene.rig.driver) == []
        assert scene.rig.rows(models.volumes) == []


@pytest.mark.parametrize("copy", ["volume_snapshot", "volume_clone"])
def test_a_copy_that_waited_has_the_size_that_its_source_has_then(scene: Scene, copy: str) -> None:
    scene.make(volume=True, snapshot=False)
    scene.volume_extend()
    answer = getattr(scene, copy)()
    scene.rig.run()
    assert scene.rig.dispatcher.get(answer["operation_id"]).state == "done"
    assert {row["size_bytes"] for row in scene.rig.rows(models.objects)} == {3 * 1024**3}
    assert violations(scene.rig.database, scene.rig.driver) == []


def test_an_operation_that_its_thread_left_is_taken_up_again(scene: Scene) -> None:
    answer = scene.volume_create()
    runner = scene.rig.dispatcher.runner
    known, runner.clock = runner.clock, None  # type: ignore[assignment]
    scene.rig.stepwise.run()
    assert scene.rig.dispatcher.get(answer["operation_id"]).state == "running"
    runner.clock = known
    scene.rig.run()
    assert scene.rig.dispatcher.get(answer["operation_id"]).state == "done"
    assert violations(scene.rig.database, scene.rig.driver) == []

# SPDX-License-Identifier: Apache-2.0
"""Groups and cgsnapshots over the real journal: what drivers answer, partial failures, members that are held."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, types
from volmgr.context import RequestContext
from volmgr.db import models
from volmgr.db import types as volume_types
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import SimDriver
from volmgr.operations import (
    cgsnapshots,
    groups,
    groups_from,
    migration,
    retype,
    snapshots,
    transfers,
    undelete,
    volumes,
)
from volmgr.operations.base import Operation
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig

BROKEN = exception.Inconsistent("ordered")


def new_id() -> str:
    return str(uuid.uuid4())


class Answering(SimDriver):
    """Does what the simulator does and answers what the test wants; ``{n}`` is the n-th member."""

    answers: tuple[Any, ...] | None = None

    def _say(self, verb: str, found: Any, members: Sequence[Any]) -> Any:
        if self.answers is None:
            return found
        whole, told = self.answers
        if told is not None:
            told = [{**item, "id": members[item["id"]].id} for item in told]
        return whole, told

    def create_cgsnapshot(self, context: Any, cgsnapshot: Any, snapshots: Any) -> Any:
        return self._say("", super().create_cgsnapshot(context, cgsnapshot, snapshots), snapshots)

    def delete_cgsnapshot(self, context: Any, cgsnapshot: Any, snapshots: Any) -> Any:
        return self._say("", super().delete_cgsnapshot(context, cgsnapshot, snapshots), snapshots)

    def delete_consistencygroup(self, context: Any, group: Any, volumes: Any) -> Any:
        return self._say("", super().delete_consistencygroup(context, group, volumes), volumes)

    def create_consistencygroup_from_src(self, context: Any, group: Any, volumes: Any, **kwargs: Any) -> Any:
        return self._say("", super().create_consistencygroup_from_src(context, group, volumes, **kwargs), volumes)

    def create_consistencygroup(self, context: Any, group: Any) -> Any:
        return super().create_consistencygroup(context, group) if self.answers is None else self.answers[0]


class Scene:
    """A group of two volumes on a rig."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        def make(host: str, target: Any) -> Answering:
            options = Configuration({"sim_store_path": str(folder / "sim"), "volume_backend_name": "pool"})
            return Answering(configuration=options, host=host, target=target)

        self.rig = Rig(folder, make_driver=make, **settings)
        self.group_id = new_id()
        self.done(groups.CreateGroup, group_id=self.group_id, name="g")
        self.volume_ids = sorted((new_id(), new_id()))
        for volume_id in self.volume_ids:
            self.done(volumes.CreateVolume, volume_id=volume_id, size=1, group_id=self.group_id)

    def ran(self, cls: Any, **arguments: Any) -> types.OperationRecord:
        record = self.rig.do(cls, **arguments)
        assert record is not None
        return record

    def done(self, cls: Any, **arguments: Any) -> types.OperationRecord:
        record = self.ran(cls, **arguments)
        assert record.state == "done", record.error
        return record

    def failed(self, cls: Any, **arguments: Any) -> types.OperationRecord:
        record = self.ran(cls, **arguments)
        assert record.state == "failed" and record.error is not None
        return record

    def snap(self) -> str:
        cgsnapshot_id = new_id()
        self.done(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=cgsnapshot_id, group_id=self.group_id)
        return cgsnapshot_id

    def status(self, table: Any, resource_id: str) -> str | None:
        rows = self.rig.rows(table, id=resource_id)
        return rows[0]["status"] if rows else None

    def volume_statuses(self) -> list[str | None]:
        return [self.status(models.volumes, item) for item in self.volume_ids]

    def snapshot_statuses(self, cgsnapshot_id: str) -> list[str]:
        rows = self.rig.rows(models.snapshots, cgsnapshot_id=cgsnapshot_id)
        return [row["status"] for row in sorted(rows, key=lambda row: row["volume_id"])]

    def quota(self) -> tuple[int, int, int]:
        (row,) = self.rig.rows(models.quotas, project_id="p", volume_type_id="")
        return row["volumes"], row["snapshots"], row["gigabytes"]

    def whole(self) -> None:
        assert violations(self.rig.database, self.rig.driver) == []


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    assert violations(made.rig.database, made.rig.driver) == []
    made.rig.close()


def test_a_set_is_taken_restored_from_and_deleted(scene: Scene) -> None:
    cgsnapshot_id = scene.snap()
    assert scene.snapshot_statuses(cgsnapshot_id) == ["available", "available"]
    assert scene.quota() == (2, 2, 4)
    other = new_id()
    record = scene.done(groups_from.CreateGroupFromSource, group_id=other, cgsnapshot_id=cgsnapshot_id)
    made = record.result["volumes"]  # type: ignore[index]
    sources = {row["id"] for row in scene.rig.rows(models.snapshots, cgsnapshot_id=cgsnapshot_id)}
    assert set(made) == sources
    assert {row["id"] for row in scene.rig.rows(models.volumes, group_id=other)} == set(made.values())
    third = new_id()
    scene.done(groups_from.CreateGroupFromSource, group_id=third, source_group_id=scene.group_id)
    assert scene.quota() == (6, 2, 8)
    scene.done(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=cgsnapshot_id)
    for group_id in (other, third, scene.group_id):
        scene.done(groups.DeleteGroup, group_id=group_id, delete_volumes=True)
    assert scene.quota() == (0, 0, 0)
    assert list(scene.rig.driver.observe()) == []


def test_a_group_is_not_deleted_under_its_members(scene: Scene) -> None:
    with pytest.raises(exception.Conflict) as refused:
        scene.rig.submit(groups.DeleteGroup, group_id=scene.group_id)
    assert "--volumes" in refused.value.hint
    cgsnapshot_id = scene.snap()
    with pytest.raises(exception.Conflict) as refused:
        scene.rig.submit(groups.DeleteGroup, group_id=scene.group_id, delete_volumes=True)
    assert cgsnapshot_id in refused.value.hint
    (row, *_) = scene.rig.rows(models.snapshots, cgsnapshot_id=cgsnapshot_id)
    for cls, arguments in (
        (snapshots.DeleteSnapshot, {"snapshot_id": row["id"]}),
        (volumes.DeleteVolume, {"volume_id": row["volume_id"], "cascade": True}),
    ):
        with pytest.raises(exception.Conflict) as refused:
            scene.rig.submit(cls, **arguments)  # type: ignore[arg-type]
        assert cgsnapshot_id in refused.value.hint
    with pytest.raises(exception.VolumeHasSnapshots):
        scene.rig.submit(volumes.DeleteVolume, volume_id=row["volume_id"])


def test_an_attached_member_keeps_the_group(scene: Scene) -> None:
    scene.rig.attachments.attach(scene.volume_ids[0], new_id(), None, None, "rw", new_id())
    with pytest.raises(exception.VolumeAttached):
        scene.rig.submit(groups.DeleteGroup, group_id=scene.group_id, delete_volumes=True)
    assert scene.volume_statuses() == ["in-use", "available"]
    scene.snap()


def test_volumes_join_and_leave_only_one_group(scene: Scene) -> None:
    alone, other = new_id(), new_id()
    scene.done(volumes.CreateVolume, volume_id=alone, size=1)
    scene.done(groups.CreateGroup, group_id=other)
    add = {"group_id": scene.group_id, "add_volumes": [alone], "name": "new"}
    scene.done(groups.UpdateGroup, **add, remove_volumes=[scene.volume_ids[0]])
    members = {row["id"] for row in scene.rig.rows(models.volumes, group_id=scene.group_id)}
    assert members == {alone, scene.volume_ids[1]}
    assert scene.rig.rows(models.groups, id=scene.group_id)[0]["display_name"] == "new"
    for arguments in (
        {"group_id": other, "add_volumes": [alone]},
        {"group_id": other, "remove_volumes": [alone]},
        {"group_id": scene.group_id, "add_volumes": [scene.volume_ids[0]], "remove_volumes": [scene.volume_ids[0]]},
        {"group_id": scene.group_id, "add_volumes": [alone, alone]},
    ):
        with pytest.raises(exception.Invalid):
            scene.rig.submit(groups.UpdateGroup, **arguments)
    with pytest.raises(exception.VolumeNotFound):
        scene.rig.submit(groups.UpdateGroup, group_id=other, add_volumes=[new_id()])


def test_a_failed_update_puts_group_and_volumes_in_error(scene: Scene) -> None:
    alone = new_id()
    scene.done(volumes.CreateVolume, volume_id=alone, size=1)
    scene.rig.driver.faults.fail("update_consistencygroup", BROKEN, match=scene.group_id)
    scene.failed(
        groups.UpdateGroup, group_id=scene.group_id, add_volumes=[alone], remove_volumes=[scene.volume_ids[0]]
    )
    assert scene.status(models.groups, scene.group_id) == "error"
    assert scene.status(models.volumes, alone) == "error"
    assert scene.volume_statuses() == ["error", "available"]
    assert scene.rig.rows(models.volumes, id=alone)[0]["group_id"] is None


@pytest.mark.parametrize(
    ("answers", "snapshots_are"),
    [
        (({"status": "error"}, None), ["error", "error"]),
        ((None, [{"id": 0, "status": "available"}, {"id": 1, "status": "error"}]), ["available", "error"]),
        (({"status": "error"}, [{"id": 1, "status": "available"}]), ["error", "available"]),
    ],
)
def test_a_driver_says_that_a_set_is_incomplete(
    scene: Scene, answers: tuple[Any, Any], snapshots_are: list[str]
) -> None:
    scene.rig.driver.answers = answers
    cgsnapshot_id = new_id()
    record = scene.failed(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=cgsnapshot_id, group_id=scene.group_id)
    assert record.error is not None and record.error["code"] == "volmgr.inconsistent.group"
    assert scene.status(models.cgsnapshots, cgsnapshot_id) == "error"
    assert scene.snapshot_statuses(cgsnapshot_id) == snapshots_are
    there = [item for item in scene.rig.driver.observe() if item.kind == "snapshot"]
    assert len(there) == snapshots_are.count("available")
    scene.whole()
    scene.rig.driver.answers = None
    scene.done(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=cgsnapshot_id)
    assert scene.quota() == (2, 0, 2)


@pytest.mark.parametrize("answers", [None, (None, None), ({"status": "available"}, [])])
def test_what_counts_as_success(scene: Scene, answers: Any) -> None:
    scene.rig.driver.answers = answers
    cgsnapshot_id = scene.snap()
    assert scene.snapshot_statuses(cgsnapshot_id) == ["available", "available"]
    scene.done(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=cgsnapshot_id)
    assert scene.snapshot_statuses(cgsnapshot_id) == []


def test_a_driver_tells_a_columns_worth_of_each_member(scene: Scene) -> None:
    scene.rig.driver.answers = (None, [{"id": 0, "status": "available", "provider_id": "x"}])
    cgsnapshot_id = scene.snap()
    rows = scene.rig.rows(models.snapshots, cgsnapshot_id=cgsnapshot_id)
    assert sorted(row["provider_id"] or "" for row in rows) == ["", "x"]


def test_a_driver_that_speaks_of_others_is_not_believed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene.rig.driver, "_say", lambda *_: (None, [{"id": new_id(), "status": "available"}]))
    cgsnapshot_id = new_id()
    scene.failed(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=cgsnapshot_id, group_id=scene.group_id)
    assert scene.snapshot_statuses(cgsnapshot_id) == ["error", "error"]


def test_deleting_a_set_in_part(scene: Scene) -> None:
    cgsnapshot_id = scene.snap()
    (second,) = (row["id"] for row in scene.rig.rows(models.snapshots, volume_id=scene.volume_ids[1]))
    scene.rig.driver.faults.fail("delete_cgsnapshot", BROKEN, match=second)
    scene.failed(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=cgsnapshot_id)
    assert scene.status(models.cgsnapshots, cgsnapshot_id) == "error"
    assert scene.snapshot_statuses(cgsnapshot_id) == ["error_deleting"]
    assert scene.quota() == (2, 1, 3)
    scene.whole()
    scene.rig.driver.faults.clear()
    scene.done(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=cgsnapshot_id)
    assert scene.quota() == (2, 0, 2)


def test_deleting_a_group_in_part_and_not_at_all(scene: Scene) -> None:
    first, second = scene.volume_ids
    scene.rig.driver.faults.fail("delete_consistencygroup", BROKEN, match=second)
    scene.failed(groups.DeleteGroup, group_id=scene.group_id, delete_volumes=True)
    assert scene.status(models.groups, scene.group_id) == "error"
    assert scene.volume_statuses() == [None, "error_deleting"]
    assert scene.quota() == (1, 0, 1)
    scene.whole()
    scene.rig.driver.faults.clear()
    scene.rig.driver.faults.fail("delete_consistencygroup", BROKEN, match=scene.group_id)
    scene.failed(groups.DeleteGroup, group_id=scene.group_id, delete_volumes=True)
    assert (scene.status(models.groups, scene.group_id), scene.volume_statuses()) == ("error", [None, "error"])
    scene.rig.driver.faults.clear()
    scene.done(groups.DeleteGroup, group_id=scene.group_id, delete_volumes=True)
    assert first and scene.quota() == (0, 0, 0)


def test_a_cancelled_deletion_changes_no_status(scene: Scene) -> None:
    scene.rig.driver.faults.fail("delete_consistencygroup", BROKEN, match=scene.volume_ids[1])
    scene.failed(groups.DeleteGroup, group_id=scene.group_id, delete_volumes=True)
    answer = scene.rig.submit(groups.DeleteGroup, group_id=scene.group_id, delete_volumes=True)
    scene.rig.dispatcher.cancel(answer["operation_id"])
    scene.rig.run()
    assert scene.rig.dispatcher.get(answer["operation_id"]).state == "failed"
    assert scene.status(models.groups, scene.group_id) == "error"
    assert scene.volume_statuses() == [None, "error_deleting"]


def test_a_group_from_a_source_that_fails_leaves_nothing(scene: Scene) -> None:
    scene.rig.driver.answers = ({"status": "error"}, None)
    other = new_id()
    scene.failed(groups_from.CreateGroupFromSource, group_id=other, source_group_id=scene.group_id)
    scene.rig.driver.answers = None
    assert scene.status(models.groups, other) == "error"
    assert {row["status"] for row in scene.rig.rows(models.volumes, group_id=other)} == {"error"}
    assert len(list(scene.rig.driver.observe())) == 2
    scene.whole()
    scene.done(groups.DeleteGroup, group_id=other, delete_volumes=True)
    assert scene.quota() == (2, 0, 2)


def test_a_group_that_the_driver_does_not_make_is_in_error(scene: Scene) -> None:
    scene.rig.driver.answers = ({"status": "error"}, None)
    other = new_id()
    scene.failed(groups.CreateGroup, group_id=other)
    assert scene.status(models.groups, other) == "error"
    scene.rig.driver.answers = None
    scene.done(groups.DeleteGroup, group_id=other)


def test_the_quota_holds_for_whole_sets(tmp_path: Path) -> None:
    scene = Scene(tmp_path, quota={"volumes": -1, "snapshots": 1, "gigabytes": -1})
    with pytest.raises(exception.QuotaExceeded):
        scene.snap()
    assert scene.rig.rows(models.cgsnapshots) == []
    scene.whole()
    scene.rig.close()


def test_a_set_that_waits_is_refused_as_a_whole(tmp_path: Path) -> None:
    scene = Scene(tmp_path, quota={"volumes": -1, "snapshots": 1, "gigabytes": -1})
    scene.rig.submit(volumes.ExtendVolume, volume_id=scene.volume_ids[1], new_size=2)
    cgsnapshot_id = new_id()
    answer = scene.rig.submit(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=cgsnapshot_id, group_id=scene.group_id)
    assert answer["state"] == "queued"
    scene.rig.run()
    assert scene.rig.dispatcher.get(answer["operation_id"]).state == "failed"
    assert scene.status(models.cgsnapshots, cgsnapshot_id) == "error"
    scene.whole()
    scene.done(cgsnapshots.DeleteCgSnapshot, cgsnapshot_id=cgsnapshot_id)
    scene.rig.close()


def test_a_set_waits_for_a_member_and_has_its_new_size(scene: Scene) -> None:
    scene.rig.submit(volumes.ExtendVolume, volume_id=scene.volume_ids[1], new_size=2)
    cgsnapshot_id = new_id()
    answer = scene.rig.submit(cgsnapshots.CreateCgSnapshot, cgsnapshot_id=cgsnapshot_id, group_id=scene.group_id)
    assert answer["state"] == "queued"
    scene.rig.run()
    assert scene.rig.dispatcher.get(answer["operation_id"]).state == "done"
    assert sorted(row["volume_size"] for row in scene.rig.rows(models.snapshots)) == [1, 2]


def test_other_projects_do_not_see_groups(scene: Scene) -> None:
    requests: list[tuple[type[Operation[Any]], dict[str, Any]]] = [
        (groups.DeleteGroup, {"group_id": scene.group_id}),
        (volumes.CreateVolume, {"volume_id": new_id(), "size": 1, "group_id": scene.group_id}),
        (groups_from.CreateGroupFromSource, {"group_id": new_id(), "source_group_id": scene.group_id}),
    ]
    for cls, arguments in requests:
        other = RequestContext(project_id="other", user_id="x", request_key=new_id(), overwrite=False)
        with pytest.raises(exception.GroupNotFound):
            scene.rig.dispatcher.submit(other, cls, cls.args.parse(arguments))


def test_a_member_that_is_brought_back_comes_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, trash_retention=60)
    scene.done(groups.DeleteGroup, group_id=scene.group_id, delete_volumes=True)
    for volume_id in scene.volume_ids:
        scene.done(undelete.UndeleteVolume, volume_id=volume_id)
    assert [row["group_id"] for row in scene.rig.rows(models.volumes)] == [None, None]
    scene.whole()
    scene.rig.close()


def test_a_volume_goes_where_its_group_is(scene: Scene) -> None:
    with pytest.raises(exception.Invalid) as refused:
        scene.rig.submit(
            volumes.CreateVolume, volume_id=new_id(), size=1, group_id=scene.group_id, host="other@sim#pool"
        )
    assert refused.value.details["field"] == "host"
    with pytest.raises(exception.GroupNotFound):
        scene.rig.submit(volumes.CreateVolume, volume_id=new_id(), size=1, group_id=new_id())


# --- members and verbs of single volumes ------------------------------------------------------------------------------


def refused(scene: Scene, call: Any) -> exception.Conflict:
    """Return what a request about the first member is refused with; it says how to take the member out."""
    before = scene.rig.rows(models.volumes, id=scene.volume_ids[0])
    with pytest.raises(exception.Conflict) as caught:
        call()
    assert scene.group_id in caught.value.message
    assert f"volmgr group update --remove {scene.volume_ids[0]} {scene.group_id}" in caught.value.hint
    assert scene.rig.rows(models.volumes, id=scene.volume_ids[0]) == before
    return caught.value


def test_a_member_does_not_move(scene: Scene) -> None:
    volume_id = scene.volume_ids[0]
    refused(scene, lambda: scene.ran(migration.MigrateVolume, volume_id=volume_id, host="host@other"))


def test_a_member_is_not_given_away(scene: Scene) -> None:
    rig, volume_id, owner = scene.rig, scene.volume_ids[0], RequestContext(project_id=None, is_admin=True)
    offers = transfers.Transfers(rig.database, rig.clock, lambda *_: {}, lambda *_: None)
    refused(scene, lambda: offers.create(owner, new_id(), volume_id, None, 0))
    refused(
        scene,
        lambda: scene.ran(transfers.AcceptTransfer, volume_id=volume_id, new_user="u", new_project="elsewhere"),
    )


def test_a_member_keeps_to_its_groups_types(scene: Scene) -> None:
    def kind(name: str) -> str:
        type_id = new_id()
        with scene.rig.database.writer() as conn:
            volume_types.create(conn, type_id, name, now=scene.rig.clock.now(), extra_specs={})
        return type_id

    gold, volume_id = kind("gold"), scene.volume_ids[0]
    silver = kind("silver")
    # A group without types takes any.
    scene.done(retype.Retype, volume_id=volume_id, new_type_id=gold)
    scene.done(retype.Retype, volume_id=scene.volume_ids[1], new_type_id=gold)
    with scene.rig.database.writer() as conn:
        conn.execute(
            models.groups.update().where(models.groups.c.id == scene.group_id).values(volume_types=[gold])
        )
    assert "types" in refused(scene, lambda: scene.ran(retype.Retype, volume_id=volume_id, new_type_id=silver)).message
    scene.done(groups.UpdateGroup, group_id=scene.group_id, remove_volumes=[volume_id])
    scene.done(retype.Retype, volume_id=volume_id, new_type_id=silver)


def test_who_is_connected_does_not_join_where_members_are_exported_apart(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answering, "exports_members_apart", True)
    volume_id = new_id()
    scene.done(volumes.CreateVolume, volume_id=volume_id, size=1)
    connector = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
    scene.rig.attachments.initialize("volume", volume_id, connector)
    with pytest.raises(exception.Conflict, match="is connected") as caught:
        scene.ran(groups.UpdateGroup, group_id=scene.group_id, add_volumes=[volume_id])
    assert f"volmgr attachment list --volume {volume_id}" in caught.value.hint
    assert scene.rig.rows(models.volumes, id=volume_id)[0]["group_id"] is None
    scene.rig.attachments.terminate("volume", volume_id, connector, False)
    scene.done(groups.UpdateGroup, group_id=scene.group_id, add_volumes=[volume_id])

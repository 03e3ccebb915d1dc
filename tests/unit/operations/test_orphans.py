# SPDX-License-Identifier: Apache-2.0
"""Storage that bears the name of what is to be made: it is never taken, never touched, and named to the operator."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr.db import models
from volmgr.operations import manage_existing, snapshots, undelete, volumes
from volmgr.testing.rig import Rig
from volmgr.types import GiB, OperationRecord

SECRET = b"an earlier tenant's bytes"
REFUSED = "volmgr.conflict.exists.object"


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def new_id() -> str:
    return str(uuid.uuid4())


def orphan(rig: Rig, name: str, mark: str | None = None) -> str:
    rig.driver.store.create(name, GiB)
    rig.driver.store.write(name, 0, SECRET)
    if mark is not None:
        rig.driver.store.mark(name, mark)
    return name


def untouched(rig: Rig, name: str) -> bool:
    return bool(rig.driver.store.size(name) == GiB and rig.driver.store.read(name, 0, len(SECRET)) == SECRET)


def made(rig: Rig, cls: Any, **arguments: Any) -> OperationRecord:
    operation = rig.do(cls, **arguments)
    assert operation is not None
    return operation


def source(rig: Rig) -> tuple[str, str]:
    volume_id, snapshot_id = new_id(), new_id()
    assert made(rig, volumes.CreateVolume, volume_id=volume_id, size=1).state == "done"
    assert made(rig, snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id).state == "done"
    return volume_id, snapshot_id


Way = Callable[[Rig, str], tuple[Any, dict[str, Any]]]
WAYS: dict[str, Way] = {
    "empty": lambda rig, made_id: (volumes.CreateVolume, {"volume_id": made_id, "size": 1}),
    "clone": lambda rig, made_id: (
        volumes.CreateVolume, {"volume_id": made_id, "source_volid": source(rig)[0]}
    ),
    "from snapshot": lambda rig, made_id: (
        volumes.CreateVolume, {"volume_id": made_id, "snapshot_id": source(rig)[1]}
    ),
    "snapshot": lambda rig, made_id: (
        snapshots.CreateSnapshot, {"volume_id": source(rig)[0], "snapshot_id": made_id}
    ),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))


def name_of(cls: Any, object_id: str) -> str:
    return f"_snapshot-{object_id}" if cls is snapshots.CreateSnapshot else f"volume-{object_id}"


@every_way
@pytest.mark.parametrize("mark", [None, "another-operation"])
def test_a_creation_refuses_it_and_so_does_everything_after(rig: Rig, way: Way, mark: str | None) -> None:
    made_id = new_id()
    cls, arguments = way(rig, made_id)
    name = orphan(rig, name_of(cls, made_id), mark)
    operation = made(rig, cls, **arguments)
    assert operation.state == "failed"
    assert operation.error is not None
    assert operation.error["code"] == REFUSED
    assert "volmgr-manage audit" in operation.error["hint"]
    assert untouched(rig, name)
    # What failed can be deleted and made again, and nothing of that touches what is there.
    table = models.snapshots if cls is snapshots.CreateSnapshot else models.volumes
    (row,) = rig.rows(table, id=made_id)
    assert (row["status"], row["operation_id"]) == ("error", None)
    assert row["object_id"] != made_id
    if cls is snapshots.CreateSnapshot:
        assert made(rig, snapshots.DeleteSnapshot, snapshot_id=made_id).state == "done"
    else:
        assert made(rig, volumes.DeleteVolume, volume_id=made_id).state == "done"
    assert rig.rows(table, id=made_id) == []
    assert untouched(rig, name)
    assert made(rig, cls, **arguments).state == "failed"
    assert untouched(rig, name)
    # Once somebody has removed it, the same id is as good as any.
    rig.driver.store.remove(name)
    if cls is not snapshots.CreateSnapshot:
        assert made(rig, volumes.DeleteVolume, volume_id=made_id).state == "done"
        assert made(rig, cls, **arguments).state == "done"
        assert rig.driver.store.read(name, 0, len(SECRET)) != SECRET


@every_way
def test_quota_is_what_the_rows_say_after_a_refusal(rig: Rig, way: Way) -> None:
    made_id = new_id()
    cls, arguments = way(rig, made_id)
    orphan(rig, name_of(cls, made_id))
    made(rig, cls, **arguments)
    (quota,) = rig.rows(models.quotas, project_id="p", volume_type_id="")
    assert (quota["volumes"], quota["snapshots"]) == (len(rig.rows(models.volumes)), len(rig.rows(models.snapshots)))
    assert {row["id"] for row in rig.rows(models.objects)} == {
        row["object_id"] for row in (*rig.rows(models.volumes), *rig.rows(models.snapshots))
    }


PLACES = (("create/before", True), ("-/fail", True), ("create/after", False), ("-/close", False))


@every_way
@pytest.mark.parametrize(("place", "present"), PLACES)
def test_a_death_at_any_moment_of_it_changes_nothing(
    tmp_path: Path, way: Way, place: str, present: bool
) -> None:
    """A worker that died before it had made anything must not take, nor remove, what another has left meanwhile."""
    armed: list[str] = []

    def kill(name: str) -> None:
        if armed and name.endswith(armed[0]):
            armed.clear()
            raise Killed

    rig = Rig(tmp_path, killpoint=kill)
    made_id = new_id()
    cls, arguments = way(rig, made_id)
    name = name_of(cls, made_id)
    if present:
        orphan(rig, name)
    armed.append(place)
    operation_id = rig.submit(cls, **arguments)["operation_id"]
    try:
        rig.run()
    except Killed:
        rig.close()
        rig = Rig(tmp_path)
        rig.dispatcher.recover()
        rig.run()
    operation = rig.dispatcher.get(operation_id)
    assert operation is not None
    if present:
        assert (operation.state, (operation.error or {}).get("code")) == ("failed", REFUSED)
        assert untouched(rig, name)
    else:
        assert operation.state == "done"
        assert rig.driver.store.size(name) == GiB
    rig.close()


def test_a_cancelled_creation_that_never_began_leaves_it(rig: Rig) -> None:
    volume_id = new_id()
    name = orphan(rig, f"volume-{volume_id}")
    operation_id = rig.submit(volumes.CreateVolume, volume_id=volume_id, size=1)["operation_id"]
    rig.dispatcher.cancel(operation_id)
    rig.run()
    operation = rig.dispatcher.get(operation_id)
    assert operation is not None
    assert operation.state == "failed"
    assert untouched(rig, name)


def test_what_is_managed_takes_no_name_that_is_given(rig: Rig) -> None:
    volume_id = new_id()
    name = orphan(rig, f"volume-{volume_id}")
    rig.driver.put_foreign("legacy", GiB, b"data")
    operation = made(rig, manage_existing.ManageExisting, volume_id=volume_id, ref={"source-name": "legacy"})
    assert (operation.state, (operation.error or {}).get("code")) == ("failed", REFUSED)
    assert untouched(rig, name)
    assert rig.driver.store.size("legacy") == GiB
    assert rig.rows(models.volumes) == rig.rows(models.objects) == []


def test_what_is_brought_back_takes_no_name_that_is_given(tmp_path: Path) -> None:
    rig = Rig(tmp_path, trash_retention=1000)
    volume_id = new_id()
    made(rig, volumes.CreateVolume, volume_id=volume_id, size=1)
    made(rig, volumes.DeleteVolume, volume_id=volume_id)
    name = orphan(rig, f"volume-{volume_id}")
    operation = made(rig, undelete.UndeleteVolume, volume_id=volume_id)
    assert (operation.state, (operation.error or {}).get("code")) == ("failed", REFUSED)
    assert untouched(rig, name)
    # It is in the trash as before, and comes back once its name is free.
    rig.driver.store.remove(name)
    assert made(rig, undelete.UndeleteVolume, volume_id=volume_id).state == "done"
    assert rig.driver.store.size(name) == GiB
    rig.close()

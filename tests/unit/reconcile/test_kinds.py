# SPDX-License-Identifier: Apache-2.0
"""Every kind of finding, made by hand on the simulator: found alone, by a look that changes nothing, and mended."""

from __future__ import annotations

import dataclasses
import inspect
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.unit.reconcile import making_wholes
from volmgr import exception, names, types
from volmgr.db import models
from volmgr.operations import backups, snapshots, volumes
from volmgr.reconcile.auditor import Auditor
from volmgr.reconcile.findings import Finding, Kind, Repair
from volmgr.reconcile.world import Process
from volmgr.testing.invariants import violations
from volmgr.testing.rig import PREFIX, Rig

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:A", "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


class Scene:
    """A worker with an exported volume, another one, a snapshot, and the hands that break things."""

    def __init__(self, folder: Path) -> None:
        self.rig = Rig(folder)
        self.exported, self.plain, self.snapshot = new_id(), new_id(), new_id()
        self.attachment = new_id()
        for volume_id in (self.exported, self.plain):
            self.rig.do(volumes.CreateVolume, volume_id=volume_id, size=2)
        self.rig.do(snapshots.CreateSnapshot, volume_id=self.plain, snapshot_id=self.snapshot)
        self.rig.attachments.reserve(self.attachment, self.exported, new_id(), "rw")
        self.rig.attachments.connect(self.attachment, self.exported, CONNECTOR)
        self.rig.attachments.complete(self.attachment)
        self.processes: list[Process] = []
        self.child: subprocess.Popen[bytes] | None = None
        self.auditor = Auditor(self.rig.dispatcher, processes=lambda: list(self.processes), grace=0)

    @property
    def store(self) -> Any:
        return self.rig.driver.store

    @property
    def backups(self) -> Any:
        return self.rig.stores.get("default")

    @property
    def target_name(self) -> str:
        return names.target_name(PREFIX, "volume", self.exported)

    def sql(self, statement: Any) -> None:
        with self.rig.database.writer() as conn:
            conn.execute(statement)

    def change_export(self, **values: Any) -> None:
        self.rig.target.exports[self.target_name] = dataclasses.replace(
            self.rig.target.exports[self.target_name], **values
        )

    def find(self) -> list[tuple[str, str]]:
        return [(item.kind.label, item.resource_id) for item in self.auditor.run().findings]

    def fix(self, *only: Finding) -> dict[str, str]:
        """Mend, and let what was submitted run; returns by kind what was done or the error."""
        report = self.auditor.run(fix=True, only=[item.id_on(self.rig.settings.host) for item in only])
        self.rig.run()
        return {item.finding.kind.label: item.done or item.error for item in report.outcomes}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    assert made.find() == []
    yield made
    made.rig.close()


# --- how each kind is made: returns (kind, resource id) of every finding that it brings ----------------------------

Made = list[tuple[Kind, str]]
V, O, A, E, G = models.volumes, models.objects, models.attachments, models.exports, models.grants  # noqa: E741


def storage_missing(scene: Scene) -> Made:
    scene.store.remove(names.object_name("volume", scene.plain))
    return [(Kind.STORAGE_MISSING, scene.plain)]


def storage_in_trash(scene: Scene) -> Made:
    scene.store.rename(names.object_name("snapshot", scene.snapshot), names.trash_name(scene.snapshot))
    return [(Kind.STORAGE_IN_TRASH, scene.snapshot)]


def storage_too_small(scene: Scene) -> Made:
    scene.store.resize(names.object_name("volume", scene.plain), types.GiB)
    return [(Kind.STORAGE_TOO_SMALL, scene.plain)]


def storage_too_large(scene: Scene) -> Made:
    scene.store.resize(names.object_name("volume", scene.plain), 3 * types.GiB)
    return [(Kind.STORAGE_TOO_LARGE, scene.plain)]


def storage_orphan(scene: Scene) -> Made:
    """A deleted volume whose storage came back, as after a restore of the disks alone."""
    gone = new_id()
    scene.rig.do(volumes.CreateVolume, volume_id=gone, size=1)
    scene.rig.do(volumes.DeleteVolume, volume_id=gone)
    scene.store.create(names.object_name("volume", gone), types.GiB)
    return [(Kind.STORAGE_ORPHAN, gone)]


def object_without_resource(scene: Scene) -> Made:
    """An object of a resource that another one has replaced."""
    old = new_id()
    scene.store.create(names.object_name("volume", old), types.GiB)
    scene.sql(sa.insert(O).values(
        id=old, kind="volume", resource_id=scene.plain, role="current", host="host@sim#pool", serial="5",
        size_bytes=types.GiB, created_at=scene.rig.clock.now(),
    ))
    return [(Kind.STORAGE_ORPHAN, old)]


def helper_left(scene: Scene) -> Made:
    (helper,) = scene.rig.driver.helper_ids(scene.plain)
    scene.store.create(names.object_name("snapshot", helper), types.GiB)
    return [(Kind.STORAGE_ORPHAN, helper)]


def building_left(scene: Scene) -> Made:
    scene.store.create(names.building_name(scene.plain), types.GiB)
    return [(Kind.BUILDING_LEFT, scene.plain)]


def trash_orphan(scene: Scene) -> Made:
    gone = new_id()
    scene.rig.do(volumes.CreateVolume, volume_id=gone, size=1)
    scene.rig.do(volumes.DeleteVolume, volume_id=gone)
    scene.store.create(names.trash_name(gone), types.GiB)
    return [(Kind.TRASH_ORPHAN, gone)]


def trash_not_wiped(scene: Scene) -> Made:
    gone = new_id()
    scene.rig.do(volumes.CreateVolume, volume_id=gone, size=1)
    scene.rig.submit(volumes.DeleteVolume, volume_id=gone)
    scene.rig.stepwise.run()
    scene.sql(sa.delete(models.operations).where(models.operations.c.verb == "wipe"))
    return [(Kind.TRASH_NOT_WIPED, gone)]


def device_suspended(scene: Scene) -> Made:
    scene.rig.driver.suspended.add(names.object_name("volume", scene.plain))
    return [(Kind.DEVICE_SUSPENDED, scene.plain)]


def object_row_missing(scene: Scene) -> Made:
    scene.sql(sa.delete(O).where(O.c.id == scene.plain))
    return [(Kind.OBJECT_ROW_MISSING, scene.plain)]


def object_row_orphan(scene: Scene) -> Made:
    orphan = new_id()
    scene.sql(sa.insert(O).values(
        id=orphan, kind="volume", resource_id=scene.plain, role="building", host="host@sim#pool", serial="5",
        size_bytes=types.GiB, created_at=scene.rig.clock.now(),
    ))
    return [(Kind.OBJECT_ROW_ORPHAN, orphan)]


def export_missing(scene: Scene) -> Made:
    scene.rig.target.wipe()
    return [(Kind.EXPORT_MISSING, scene.exported)]


def export_wrong_path(scene: Scene) -> Made:
    scene.change_export(path="/somewhere/else")
    return [(Kind.EXPORT_WRONG_PATH, scene.exported)]


def export_wrong_serial(scene: Scene) -> Made:
    scene.change_export(serial="0" * 32)
    return [(Kind.EXPORT_WRONG_SERIAL, scene.exported)]


def access_missing(scene: Scene) -> Made:
    scene.change_export(grants=())
    return [(Kind.ACCESS_MISSING, scene.exported)]


def access_too_wide(scene: Scene) -> Made:
    other = types.Grant("x", initiator="iqn.1993-08.org.debian:01:stranger")
    scene.change_export(grants=(*scene.rig.target.exports[scene.target_name].grants, other))
    return [(Kind.ACCESS_TOO_WIDE, scene.exported)]


def export_orphan(scene: Scene) -> Made:
    name = names.target_name(PREFIX, "volume", scene.plain)
    scene.rig.target.sync(types.ExportSpec("volume", scene.plain, name))
    return [(Kind.EXPORT_ORPHAN, scene.plain)]


def export_of_a_deleted_volume(scene: Scene) -> Made:
    gone = new_id()
    scene.rig.do(volumes.CreateVolume, volume_id=gone, size=1)
    scene.rig.do(volumes.DeleteVolume, volume_id=gone)
    scene.rig.target.sync(types.ExportSpec("volume", gone, names.target_name(PREFIX, "volume", gone)))
    return [(Kind.EXPORT_ORPHAN, gone)]


def export_row_orphan(scene: Scene) -> Made:
    gone = new_id()
    name = names.target_name(PREFIX, "volume", gone)
    scene.sql(sa.insert(E).values(
        resource_id=gone, kind="volume", host="host@sim", target_name=name, created_at=scene.rig.clock.now()
    ))
    return [(Kind.EXPORT_ROW_ORPHAN, gone)]


def grant_orphan(scene: Scene) -> Made:
    scene.sql(sa.delete(A).where(A.c.id == scene.attachment))
    scene.sql(sa.update(V).where(V.c.id == scene.exported).values(status="available"))
    return [(Kind.GRANT_ORPHAN, scene.exported)]


def attachment_orphan(scene: Scene) -> Made:
    orphan = new_id()
    scene.sql(sa.insert(A).values(
        id=orphan, volume_id=new_id(), status="attached", created_at=scene.rig.clock.now()
    ))
    return [(Kind.ATTACHMENT_ORPHAN, orphan)]


def status_stuck(scene: Scene) -> Made:
    scene.sql(sa.update(V).where(V.c.id == scene.exported).values(status="extending"))
    return [(Kind.STATUS_STUCK, scene.exported)]


def status_wrong(scene: Scene) -> Made:
    scene.sql(sa.update(V).where(V.c.id == scene.exported).values(status="available"))
    return [(Kind.STATUS_WRONG, scene.exported)]


def hold_stale(scene: Scene) -> Made:
    scene.sql(sa.update(V).where(V.c.id == scene.plain).values(operation_id=new_id(), status="extending"))
    return [(Kind.HOLD_STALE, scene.plain)]


def use_count_stale(scene: Scene) -> Made:
    scene.sql(sa.update(models.snapshots).values(use_count=2))
    return [(Kind.HOLD_STALE, scene.snapshot)]


def quota_wrong(scene: Scene) -> Made:
    scene.sql(sa.update(models.quotas).values(volumes=7, gigabytes=1))
    return [(Kind.QUOTA_WRONG, "p")]


def operation_parked(scene: Scene) -> Made:
    error = exception.UndoFailed(cause="a", undo_cause="b")
    scene.rig.driver.faults.fail("create_volume", exception.NoSpace(), when="after")
    scene.rig.driver.faults.fail("delete_volume", error)
    parked = scene.rig.submit(volumes.CreateVolume, volume_id=new_id(), size=1)
    scene.rig.stepwise.run()
    return [(Kind.OPERATION_PARKED, parked["operation_id"])]


def process_left(scene: Scene) -> Made:
    scene.child = subprocess.Popen(["sleep", "600"])
    scene.processes.append(Process(scene.child.pid, "sleep"))
    return [(Kind.PROCESS_LEFT, str(scene.processes[0].pid))]


def backup_missing(scene: Scene) -> Made:
    backup_id = new_id()
    scene.rig.do(backups.CreateBackup, backup_id=backup_id, volume_id=scene.plain)
    scene.backups.objects.clear()
    return [(Kind.BACKUP_MISSING, backup_id)]


def backup_held_by_nobody(scene: Scene) -> Made:
    backup_id = new_id()
    scene.rig.do(backups.CreateBackup, backup_id=backup_id, volume_id=scene.plain)
    scene.sql(sa.update(models.backups).values(operation_id=new_id(), status="restoring"))
    return [(Kind.HOLD_STALE, backup_id)]


def backup_used_by_nobody(scene: Scene) -> Made:
    backup_id = new_id()
    scene.rig.do(backups.CreateBackup, backup_id=backup_id, volume_id=scene.plain)
    scene.sql(sa.update(models.backups).values(use_count=1))
    return [(Kind.HOLD_STALE, backup_id)]


def backup_stuck(scene: Scene) -> Made:
    backup_id = new_id()
    scene.rig.do(backups.CreateBackup, backup_id=backup_id, volume_id=scene.plain)
    scene.sql(sa.update(models.backups).values(status="deleting"))
    return [(Kind.STATUS_STUCK, backup_id)]


MAKERS: list[Callable[[Scene], Made]] = [
    storage_missing, storage_in_trash, storage_too_small, storage_too_large, storage_orphan,
    object_without_resource, helper_left, building_left, trash_orphan, trash_not_wiped, device_suspended,
    object_row_missing, object_row_orphan, export_missing, export_wrong_path, export_wrong_serial, access_missing,
    access_too_wide, export_orphan, export_of_a_deleted_volume, export_row_orphan, grant_orphan, attachment_orphan,
    status_stuck, status_wrong, hold_stale, use_count_stale, quota_wrong, operation_parked, process_left,
    backup_missing, backup_held_by_nobody, backup_used_by_nobody, backup_stuck, *making_wholes.MAKERS,
]
#: what only an operator can mend, so that it is still there after the repair.
STAYS = {
    Kind.BACKUP_MISSING, Kind.STORAGE_MISSING, Kind.STORAGE_TOO_LARGE, Kind.OBJECT_ROW_MISSING, Kind.OPERATION_PARKED,
}


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_kind_is_found_alone_and_mended(scene: Scene, make: Callable[[Scene], Made]) -> None:
    made = make(scene)
    wanted = [(kind.label, resource_id) for kind, resource_id in made]
    before = (sorted(scene.store.entries()), dict(scene.rig.target.exports))
    assert scene.find() == wanted
    assert scene.find() == wanted, "a second look finds the same"
    assert (sorted(scene.store.entries()), dict(scene.rig.target.exports)) == before, "a dry audit changed something"
    done = scene.fix()
    if made[0][0] in STAYS:
        assert done == {}
        assert scene.find() == wanted
        return
    assert list(done) == [made[0][0].label]
    if scene.child is not None:
        assert scene.child.wait(30) == -signal.SIGKILL
        scene.processes.clear()
    assert scene.find() == []
    assert violations(scene.rig.database, scene.rig.driver) == []


def test_every_kind_is_made_by_hand() -> None:
    makers = (*MAKERS, test_a_backup_that_nobody_knows_is_left_alone_until_it_is_named)
    here = {kind for make in makers for kind in Kind if f"Kind.{kind.name}," in _source(make)}
    assert {kind.name for kind in Kind} - {kind.name for kind in here} == set()


def _source(function: Any) -> str:
    return inspect.getsource(function)


def test_a_backup_that_nobody_knows_is_left_alone_until_it_is_named(scene: Scene) -> None:
    """A store may be another deployment's too."""
    kept, stranger = new_id(), new_id()
    scene.rig.do(backups.CreateBackup, backup_id=kept, volume_id=scene.plain)
    scene.backups.put(f"{stranger}/manifest.json", b"{}")
    scene.backups.put("notes/about-this-store", b"somebody's")
    wanted = (Kind.BACKUP_ORPHAN, stranger)
    (found,) = scene.auditor.run(fix=True).findings
    assert (found.kind, found.resource_id) == wanted
    assert scene.backups.folders() == sorted([kept, stranger, "notes"])
    assert scene.fix(found) == {"backup-orphan": "removed from the store"}
    assert scene.backups.folders() == sorted([kept, "notes"])
    assert scene.find() == []


def test_a_store_that_is_away_hides_nothing_else(scene: Scene) -> None:
    scene.backups.put(f"{new_id()}/manifest.json", b"{}")
    assert len(scene.find()) == 1

    def away(_method: str) -> None:
        raise exception.BackendDown("away")

    scene.backups.reach = away
    storage_missing(scene)
    report = scene.auditor.run()
    assert [item.kind for item in report.findings] == [Kind.STORAGE_MISSING]
    assert list(report.unseen) == ["backup store default"]
    kept = {row["kind"] for row in scene.rig.rows(models.findings)}
    assert kept == {"storage-missing", "backup-orphan"}, "what could not be looked at is known on"


def test_storage_that_nobody_knows_is_left_alone_until_it_is_named(scene: Scene) -> None:
    """As after a restore of an old database: these may be somebody's only bytes."""
    for kind, name in (("volume", "object"), ("volume", "building"), ("volume", "trash")):
        stranger = new_id()
        made = {"object": names.object_name(kind, stranger), "building": names.building_name(stranger),
                "trash": names.trash_name(stranger)}[name]
        scene.store.create(made, types.GiB)
        (found,) = scene.auditor.run().findings
        assert (found.resource_id, found.safe, found.repair) == (stranger, False, Repair.DISCARD)
        assert scene.fix() == {}
        assert scene.store.size(made) == types.GiB
        assert list(scene.fix(found)) == [found.kind.label]
        assert scene.store.size(made) is None
        assert scene.find() == []


def test_a_strangers_target_is_left_alone_until_it_is_named(scene: Scene) -> None:
    name = names.target_name(PREFIX, "volume", new_id())
    scene.rig.target.sync(types.ExportSpec("volume", new_id(), name))
    (found,) = scene.auditor.run().findings
    assert (found.kind, found.safe) == (Kind.EXPORT_ORPHAN, False)
    assert scene.fix() == {}
    assert name in scene.rig.target.exports
    scene.fix(found)
    assert name not in scene.rig.target.exports
    scene.rig.target.sync(types.ExportSpec("volume", new_id(), "iqn.2003-01.org.example:disk"))
    assert scene.find() == [], "a name that is not ours is nobody's business"


def test_what_is_young_is_not_freed(scene: Scene) -> None:
    storage_orphan(scene)
    careful = Auditor(scene.rig.dispatcher, grace=3600)
    (outcome,) = careful.run(fix=True).outcomes
    assert "until it has been seen for 3600 s" in outcome.error
    scene.sql(sa.update(models.findings).values(created_at=scene.rig.clock.now().replace(year=2001)))
    (outcome,) = careful.run(fix=True).outcomes
    assert "does it" in outcome.done


def test_an_unmarked_object_is_not_freed_even_if_it_is_named(scene: Scene) -> None:
    stranger = new_id()
    scene.store.create(names.object_name("volume", stranger), types.GiB)
    observe = scene.rig.driver.observe
    scene.rig.driver.observe = lambda: [  # type: ignore[method-assign]
        dataclasses.replace(item, marked=item.object_id != stranger) for item in observe()
    ]
    (found,) = scene.auditor.run().findings
    assert (found.repair, found.safe) == (Repair.OPERATOR, False)
    assert scene.fix(found) == {}
    assert scene.store.size(names.object_name("volume", stranger)) == types.GiB


def test_a_side_that_does_not_answer_keeps_its_findings(scene: Scene) -> None:
    storage_missing(scene)
    export_missing(scene)
    both = scene.find()
    scene.rig.driver.faults.fail("observe", exception.BackendDown(), times=None)
    report = scene.auditor.run()
    assert list(report.unseen) == ["storage"]
    assert [item.kind for item in report.findings] == [Kind.EXPORT_MISSING]
    assert len(scene.rig.rows(models.findings)) == len(both) == 2
    scene.rig.driver.faults.clear()
    assert scene.find() == both

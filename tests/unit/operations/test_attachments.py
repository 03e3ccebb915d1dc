# SPDX-License-Identifier: Apache-2.0
"""Attachments and connections over real SQLite: what stands in SQL is what the target was told."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models
from volmgr.db.answered import arrival
from volmgr.operations import snapshots, volumes
from volmgr.targets.fake import FakeTarget
from volmgr.testing.rig import Rig
from volmgr.types import GiB

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
OTHER = {"initiator": "iqn.1993-08.org.debian:01:b", "ip": "127.0.0.2", "host": "other"}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def new_id() -> str:
    return str(uuid.uuid4())


def make(rig: Rig, **arguments: Any) -> str:
    volume_id = new_id()
    operation = rig.do(volumes.CreateVolume, volume_id=volume_id, size=1, **arguments)
    assert operation is not None
    assert operation.state == "done"
    return volume_id


def status(rig: Rig, volume_id: str) -> str:
    (row,) = rig.rows(models.volumes, id=volume_id)
    return str(row["status"])


def granted(rig: Rig, volume_id: str) -> list[str | None]:
    """Return who may connect, as the target was told; it must be what SQL says."""
    (export,) = [item for item in rig.target.observe() if volume_id in item.target_name] or [None]
    told = sorted(export.initiators) if export is not None else []
    assert told == sorted({row["initiator"] for row in rig.rows(models.grants, resource_id=volume_id)})
    return list(told)


def test_the_life_of_an_attachment(rig: Rig) -> None:
    volume_id, attachment_id = make(rig), new_id()
    rig.attachments.reserve(attachment_id, volume_id, new_id(), "rw")
    assert status(rig, volume_id) == "reserved"
    info = rig.attachments.connect(attachment_id, volume_id, CONNECTOR)
    assert info["driver_volume_type"] == "iscsi"
    assert info["data"]["volume_id"] == volume_id
    assert info["data"]["access_mode"] == "rw"
    assert status(rig, volume_id) == "attaching"
    assert granted(rig, volume_id) == [CONNECTOR["initiator"]]
    rig.attachments.complete(attachment_id)
    assert status(rig, volume_id) == "in-use"
    rig.attachments.delete(volume_id, attachment_id)
    assert status(rig, volume_id) == "available"
    assert granted(rig, volume_id) == []
    assert rig.attachments.delete(volume_id, attachment_id)["disconnected"] is False


def test_repeats_are_the_same_attachment_and_grant(rig: Rig) -> None:
    volume_id, attachment_id = make(rig), new_id()
    first = rig.attachments.reserve(attachment_id, volume_id, None, "rw")
    assert rig.attachments.reserve(attachment_id, volume_id, None, "rw") == first
    one = rig.attachments.connect(attachment_id, volume_id, CONNECTOR)
    two = rig.attachments.connect(attachment_id, volume_id, CONNECTOR)
    assert one == two
    assert len(rig.rows(models.grants)) == 1


def test_a_second_attachment_needs_multiattach(rig: Rig) -> None:
    single, shared = make(rig), make(rig, multiattach=True)
    for volume_id in (single, shared):
        rig.attachments.reserve(new_id(), volume_id, new_id(), "rw")
    with pytest.raises(exception.VolumeAttached):
        rig.attachments.reserve(new_id(), single, new_id(), "rw")
    rig.attachments.reserve(new_id(), shared, new_id(), "rw")
    assert len(rig.rows(models.attachments, volume_id=shared)) == 2


def test_a_host_keeps_access_until_its_last_attachment_goes(rig: Rig) -> None:
    volume_id, ids = make(rig, multiattach=True), [new_id(), new_id()]
    for attachment_id in ids:
        rig.attachments.reserve(attachment_id, volume_id, new_id(), "rw")
        rig.attachments.connect(attachment_id, volume_id, CONNECTOR)
    rig.attachments.delete(volume_id, ids[0])
    assert granted(rig, volume_id) == [CONNECTOR["initiator"]]
    rig.attachments.delete(volume_id, ids[1])
    assert granted(rig, volume_id) == []


def test_connections_are_level_triggered(rig: Rig) -> None:
    volume_id = make(rig)
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    rig.attachments.initialize("volume", volume_id, OTHER)
    assert len(granted(rig, volume_id)) == 2
    rig.attachments.terminate("volume", volume_id, CONNECTOR, False)
    assert granted(rig, volume_id) == [OTHER["initiator"]]
    with pytest.raises(exception.Invalid, match="connector"):
        rig.attachments.terminate("volume", volume_id, None, False)
    rig.attachments.terminate("volume", volume_id, None, True)
    assert granted(rig, volume_id) == []
    rig.attachments.terminate("volume", volume_id, CONNECTOR, False)


def test_an_export_that_was_lost_comes_back_by_sync(rig: Rig) -> None:
    volume_id = make(rig)
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    second = Rig(rig.folder, database=rig.database)
    assert list(second.target.observe()) == []
    assert second.exports.rebuild() == 1
    assert granted(second, volume_id) == [CONNECTOR["initiator"]]


def test_a_granted_connector_needs_one_transaction(rig: Rig) -> None:
    volume_id = make(rig)
    with rig.database.counting() as new, arrival(new_id(), "initialize_connection"):
        rig.attachments.initialize("volume", volume_id, CONNECTOR)
    with rig.database.counting() as again, arrival(new_id(), "initialize_connection"):
        rig.attachments.initialize("volume", volume_id, CONNECTOR)
    with rig.database.counting() as end, arrival(new_id(), "terminate_connection"):
        rig.attachments.terminate("volume", volume_id, CONNECTOR, False)
    assert (new.transactions, again.transactions, end.transactions) == (1, 1, 1)
    assert new.statements <= 6
    assert again.statements <= 3
    assert end.statements <= 6


def test_attachment_update_keeps_its_budget(rig: Rig) -> None:
    volume_id, attachment_id = make(rig), new_id()
    rig.attachments.reserve(attachment_id, volume_id, None, "rw")
    with rig.database.counting() as count, arrival(new_id(), "attachment_update"):
        rig.attachments.connect(attachment_id, volume_id, CONNECTOR)
    assert count.transactions <= 2
    assert count.statements <= 10


def test_the_secret_is_not_in_the_clear(rig: Rig) -> None:
    volume_id = make(rig)
    info = rig.attachments.initialize("volume", volume_id, CONNECTOR)
    (row,) = rig.rows(models.exports)
    assert row["auth_secret"] not in (None, "", info["data"]["auth_password"])
    assert info["data"]["auth_password"] not in str(rig.rows(models.operations))
    assert info["data"]["auth_username"] == row["auth_username"]


def test_a_snapshot_is_shown_read_only(rig: Rig) -> None:
    volume_id, snapshot_id = make(rig), new_id()
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    info = rig.attachments.initialize("snapshot", snapshot_id, CONNECTOR)
    assert info["data"]["access_mode"] == "ro"
    rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
    assert list(rig.target.observe()) == []
    assert rig.rows(models.exports) == []


def test_who_deletes_meets_who_connects(rig: Rig) -> None:
    volume_id = make(rig)
    rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    with pytest.raises(exception.Conflict) as error:
        rig.attachments.initialize("volume", volume_id, CONNECTOR)
    assert error.value.details["status"] == "deleting"
    with pytest.raises(exception.Conflict):
        rig.attachments.reserve(new_id(), volume_id, None, "rw")
    rig.run()
    with pytest.raises(exception.VolumeNotFound):
        rig.attachments.initialize("volume", volume_id, CONNECTOR)


def test_an_attached_volume_is_not_deleted_but_by_force(rig: Rig) -> None:
    volume_id, attachment_id = make(rig), new_id()
    rig.attachments.attach(volume_id, new_id(), None, "/dev/vdb", "rw", attachment_id)
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    assert status(rig, volume_id) == "in-use"
    with pytest.raises(exception.VolumeAttached):
        rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    operation = rig.do(volumes.DeleteVolume, volume_id=volume_id, force=True)
    assert operation is not None
    assert operation.state == "done"
    assert list(rig.target.observe()) == []
    for table in (models.volumes, models.attachments, models.exports, models.grants):
        assert rig.rows(table) == []


def test_attach_and_detach_are_idempotent(rig: Rig) -> None:
    volume_id, instance, attachment_id = make(rig), new_id(), new_id()
    for _ in range(2):
        rig.attachments.attach(volume_id, instance, None, "/dev/vdb", "rw", attachment_id)
    assert len(rig.rows(models.attachments)) == 1
    for _ in range(2):
        rig.attachments.detach(volume_id, None, False)
    assert status(rig, volume_id) == "available"


def test_a_read_only_volume_is_attached_read_only(rig: Rig) -> None:
    volume_id = make(rig)
    with rig.database.writer() as conn:
        conn.execute(models.volumes.update().values(readonly=True))
    with pytest.raises(exception.Invalid, match="ro"):
        rig.attachments.attach(volume_id, new_id(), None, None, "rw", new_id())
    rig.attachments.attach(volume_id, new_id(), None, None, "ro", new_id())


def test_attached_growth_is_refused_where_the_target_cannot(rig: Rig) -> None:
    volume_id = make(rig)
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    with pytest.raises(exception.Unsupported):
        rig.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=2)
    rig.attachments.terminate("volume", volume_id, CONNECTOR, False)
    operation = rig.do(volumes.ExtendVolume, volume_id=volume_id, new_size=2)
    assert operation is not None
    assert operation.state == "done"


def test_a_new_size_is_shown_before_anybody_is_told_of_the_end(tmp_path: Path) -> None:
    shown = list[int]()

    def look(point: str) -> None:
        if point == "extend_volume/-/close":
            shown.extend(item.size_bytes // GiB for item in served.values())

    made = Rig(tmp_path, killpoint=look, grows_in_use=True)
    target = made.target
    assert isinstance(target, FakeTarget)
    served = target.exports
    volume_id = make(made)
    made.attachments.initialize("volume", volume_id, CONNECTOR)
    before = len(target.calls)
    made.do(volumes.ExtendVolume, volume_id=volume_id, new_size=3)
    assert shown == [3]
    assert [method for method, _name in target.calls[before:]] == ["sync"]  # once is enough
    made.close()


def test_a_new_size_that_cannot_be_shown_is_shown_later(tmp_path: Path) -> None:
    made = Rig(tmp_path, grows_in_use=True)
    target = made.target
    assert isinstance(target, FakeTarget)
    volume_id = make(made)
    made.attachments.initialize("volume", volume_id, CONNECTOR)
    target.failure = exception.BackendDown("away")
    operation = made.do(volumes.ExtendVolume, volume_id=volume_id, new_size=3)
    assert operation is not None
    assert operation.state == "done"
    target.failure = None
    made.exports.rebuild()
    assert [item.size_bytes for item in target.exports.values()] == [3 * GiB]
    made.close()


def test_a_rebuild_reads_many_exports_in_few_statements(rig: Rig) -> None:
    ids = [make(rig) for _ in range(120)]
    for volume_id in ids:
        rig.attachments.initialize("volume", volume_id, CONNECTOR)
    second = Rig(rig.folder, database=rig.database)
    with second.database.counting() as count:
        assert second.exports.rebuild() == 120
    assert count.statements <= 2 + 3 * 2
    assert len(list(second.target.observe())) == 120

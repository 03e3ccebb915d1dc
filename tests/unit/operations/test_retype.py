# SPDX-License-Identifier: Apache-2.0
"""Another type for a volume: where it is, elsewhere, or not at all; and the quota of both types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operations.moving import ONE, TWO, Site, new_id
from volmgr import exception
from volmgr.db import models
from volmgr.db import types as volume_types
from volmgr.operations import retype, snapshots, volumes
from volmgr.types import VolumeType


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    assert made.wrong() == []
    made.one.close()


def test_a_type_that_the_backend_suits_is_changed_where_the_volume_is(site: Site) -> None:
    old, new = site.kind("old"), site.kind("new", replication="<is> True")
    volume_id = site.create(size=2, volume_type="old")
    site.write(volume_id)
    done = site.do(retype.Retype, volume_id=volume_id, new_type_id="new")
    assert (done.state, done.result) == ("done", {"volume_id": volume_id, "moved": False})
    row = site.volume(volume_id)
    assert (row["volume_type_id"], row["status"], row["host"]) == (new, "available", f"{ONE}#pool")
    assert row["replication_status"] == "copying", "the driver was not asked, or not heard"
    assert site.usage(old) == (0, 0, 0)
    assert site.usage(new) == site.usage() == (1, 0, 2)
    assert site.read(volume_id)
    again = site.do(retype.Retype, volume_id=volume_id, new_type_id=new)
    assert again.state == "done" and site.usage(new) == (1, 0, 2)
    back = site.do(retype.Retype, volume_id=volume_id, new_type_id="old")
    assert back.state == "done" and site.volume(volume_id)["replication_status"] == "deleted"


def test_what_does_not_fit_here_is_refused_before_anything_changes(site: Site) -> None:
    site.kind("fast", media="ssd")
    volume_id = site.create()
    before = site.volume(volume_id)
    with pytest.raises(exception.Conflict) as caught:
        site.do(retype.Retype, volume_id=volume_id, new_type_id="fast")
    assert "media" in caught.value.message and "on-demand" in caught.value.hint
    assert site.volume(volume_id) == before
    assert [row["state"] for row in site.one.rows(models.operations, verb="retype")] == ["failed"]
    with pytest.raises(exception.NoValidBackend):
        site.do(retype.Retype, volume_id=volume_id, new_type_id="fast", migration_policy="on-demand")
    assert site.volume(volume_id) == before


def test_on_demand_it_moves_to_where_the_type_is_at_home(site: Site) -> None:
    fast = site.kind("fast", media="ssd")
    site.report(two={"media": "ssd"})
    volume_id = site.create(size=2)
    site.write(volume_id)
    serial = site.serial(volume_id)
    done = site.do(retype.Retype, volume_id=volume_id, new_type_id="fast", migration_policy="on-demand")
    assert done.state == "done" and done.result["moved"]
    row = site.volume(volume_id)
    assert (row["host"], row["volume_type_id"], row["migration_status"]) == (f"{TWO}#pool", fast, "success")
    assert site.serial(volume_id) == serial and site.read(volume_id)
    assert site.usage(fast) == (1, 0, 2)


def test_a_limit_of_the_new_type_refuses_it(site: Site) -> None:
    new = site.kind("new")
    volume_id = site.create()
    with site.one.database.writer() as conn:
        conn.execute(models.quotas.insert().values(project_id="p", volume_type_id=new, max_volumes=0))
    with pytest.raises(exception.QuotaExceeded):
        site.do(retype.Retype, volume_id=volume_id, new_type_id="new")
    assert site.volume(volume_id)["volume_type_id"] is None


@pytest.mark.parametrize("limit", ["volumes", "gigabytes"])
def test_a_project_at_its_limit_can_retype(site: Site, limit: str) -> None:
    new = site.kind("new")
    volume_id = site.create()
    with site.one.database.writer() as conn:
        conn.execute(models.quotas.update().where(models.quotas.c.project_id == "p").values({f"max_{limit}": 1}))
    assert site.do(retype.Retype, volume_id=volume_id, new_type_id="new").state == "done"
    assert site.usage(new) == (1, 0, 1)


def test_a_driver_that_fails_leaves_the_old_type_and_the_old_quota(site: Site) -> None:
    old, new = site.kind("old"), site.kind("new")
    volume_id = site.create(volume_type="old")
    site.one.driver.faults.fail("retype", exception.Inconsistent("no"))
    done = site.do(retype.Retype, volume_id=volume_id, new_type_id="new")
    assert done.state == "failed"
    row = site.volume(volume_id)
    assert (row["volume_type_id"], row["status"]) == (old, "available")
    assert (site.usage(old), site.usage(new)) == ((1, 0, 1), (0, 0, 0))


def test_a_snapshot_keeps_its_type_and_holds_it(site: Site) -> None:
    old, new = site.kind("old"), site.kind("new")
    volume_id, snapshot_id = site.create(volume_type="old"), new_id()
    site.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    assert site.do(retype.Retype, volume_id=volume_id, new_type_id="new").state == "done"
    assert (site.usage(old), site.usage(new)) == ((0, 1, 1), (1, 0, 1))
    with pytest.raises(exception.Conflict), site.one.database.writer() as conn:
        volume_types.delete(conn, old)
    site.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
    with site.one.database.writer() as conn:
        assert volume_types.delete(conn, old)


def test_it_waits_behind_what_changes_the_volume(site: Site) -> None:
    new = site.kind("new")
    volume_id = site.create()
    extend = site.one.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=3)
    done = site.do(retype.Retype, volume_id=volume_id, new_type_id="new")
    assert site.one.dispatcher.get(extend["operation_id"]).state == done.state == "done"
    assert site.usage(new) == (1, 0, 3)


def kind(qos: Any = None, **specs: str) -> VolumeType:
    return VolumeType("id", "name", specs, qos)


def test_what_differs_between_two_types() -> None:
    limits = {"id": "q", "name": "q", "consumer": "front-end", "specs": {"total_iops_sec": "5"}}
    found = retype.difference(kind(a="1", b="2"), kind(qos=limits, b="3", c="4"))
    assert found == {
        "encryption": {},
        "qos_specs": {"consumer": (None, "front-end"), "total_iops_sec": (None, "5")},
        "extra_specs": {"a": ("1", None), "b": ("2", "3"), "c": (None, "4")},
    }
    assert retype.difference(None, None) == {"encryption": {}, "qos_specs": {}, "extra_specs": {}}


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        (kind(media="ssd"), kind(media="disk"), False),
        (kind(), kind(replication="<is> True"), True),
        (kind(), kind(**{"provisioning:type": "thick"}), True),
        (kind(), kind(qos={"id": "q", "name": "q", "consumer": "front-end", "specs": {"x": "1"}}), False),
        (kind(), kind(qos={"id": "q", "name": "q", "consumer": "both", "specs": {"x": "1"}}), True),
    ],
)
def test_what_changes_storage(old: VolumeType, new: VolumeType, changes: bool) -> None:
    assert retype.changes_storage(retype.difference(old, new), old, new) is changes

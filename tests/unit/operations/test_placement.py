# SPDX-License-Identifier: Apache-2.0
"""Placing over the real journal: two workers with a store each and one database; failures go from one to the other."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models, services
from volmgr.db.shelves import Shelves
from volmgr.exception import NoValidBackend
from volmgr.operations import snapshots, undelete, volumes
from volmgr.operations.catalogue import Catalogue
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig

ONE, TWO = "one@sim", "two@sim"


def new_id() -> str:
    return str(uuid.uuid4())


class Site:
    """Two workers; ``one`` is asked."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        (folder / "one").mkdir()
        self.one = Rig(folder / "one", host=ONE)
        (folder / "two").mkdir()
        shutil.copy(folder / "one" / "keys.json", folder / "two")
        self.two = Rig(folder / "two", database=self.one.database, host=TWO, **settings)
        for rig, room in ((self.one, 100), (self.two, 200)):
            self.report(rig, free_capacity_gb=float(room), total_capacity_gb=float(room))

    def report(self, rig: Rig, **figures: Any) -> None:
        """Let a worker measure these figures, and everybody know of them."""
        stats = rig.driver.get_volume_stats(refresh=True)
        stats["pools"] = [{**stats["pools"][0], "thin_provisioning_support": False, **figures}]
        state = {"topic": "volume", "rpc_version": "1.0", "incarnation": "i", "availability_zone": rig.settings.zone}
        with self.one.database.writer() as conn:
            services.register(conn, rig.settings.host, capabilities=stats, **state)
        rig.placement.measured(stats)
        for each in (self.one, self.two):
            each.placement.refresh()

    def run(self) -> None:
        while any(rig.stepwise.run() or rig.dispatcher.pump() for rig in (self.one, self.two)):
            continue

    def create(self, **values: Any) -> Any:
        """Ask the first worker for a volume and let both work; returns the operation."""
        answer = self.one.submit(volumes.CreateVolume, **{"volume_id": new_id(), "size": 1, **values})
        self.run()
        return self.one.dispatcher.get(answer["operation_id"])

    def host(self, volume_id: str) -> str:
        (row,) = self.one.rows(models.volumes, id=volume_id)
        return str(row["host"]).partition("#")[0]

    def has(self, rig: Rig, volume_id: str) -> bool:
        return any(item.object_id == volume_id for item in rig.driver.observe())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    assert violations(made.one.database) == []
    stored = [item.object_id for rig in (made.one, made.two) for item in rig.driver.observe()]
    rows = [row["id"] for row in made.one.rows(models.objects) if row["role"] != "trash"]
    broken = {row["object_id"] for row in made.one.rows(models.volumes) if row["status"] == "error"}
    assert sorted(set(rows) - broken) == sorted(stored)
    made.one.close()


def test_the_better_backend_takes_it_whoever_was_asked(site: Site) -> None:
    volume_id = new_id()
    answer = site.one.submit(volumes.CreateVolume, volume_id=volume_id, size=1)
    assert (answer["state"], site.one.rung) == ("queued", [TWO])
    assert site.host(volume_id) == TWO
    site.one.run()
    assert site.one.dispatcher.get(answer["operation_id"]).state == "queued"
    site.two.run()
    record = site.one.dispatcher.get(answer["operation_id"])
    assert (record.state, record.host) == ("done", TWO)
    assert site.has(site.two, volume_id) and not site.has(site.one, volume_id)
    with pytest.raises(exception.Moved):
        site.one.submit(volumes.DeleteVolume, volume_id=volume_id)


def test_on_itself_it_costs_what_it_did(site: Site) -> None:
    site.create(host=ONE)
    with site.one.database.counting() as count:
        site.one.submit(volumes.CreateVolume, volume_id=new_id(), size=1, host=ONE)
        site.one.stepwise.run()
    assert (count.transactions, count.statements) == (2, 6)
    assert site.one.rung == []


def test_a_failed_creation_is_placed_again_with_its_history(site: Site) -> None:
    site.two.driver.faults.fail("create_volume", exception.NoSpace("no extents left"))
    done = site.create()
    assert (done.state, done.host, site.host(done.resource_id)) == ("done", ONE, ONE)
    (failure,) = done.data["history"]
    assert (failure["host"], failure["error"]["message"]) == (f"{TWO}#pool", "no extents left")
    assert site.two.rung == [ONE]
    assert site.has(site.one, done.resource_id) and not site.has(site.two, done.resource_id)
    (quota,) = site.one.rows(models.quotas)
    assert (quota["volumes"], quota["gigabytes"]) == (1, 1)


def test_one_that_fails_everywhere_tells_the_whole_story(site: Site) -> None:
    for rig in (site.one, site.two):
        rig.driver.faults.fail("create_volume", exception.BackendDown(f"{rig.settings.host} is away"))
    failed = site.create()
    assert failed.state == "failed"
    told = [(item["host"], item["message"]) for item in failed.error["details"]["history"]]
    assert told == [(f"{TWO}#pool", f"{TWO} is away"), (f"{ONE}#pool", f"{ONE} is away")]
    (row,) = site.one.rows(models.volumes)
    assert row["status"] == "error"


@pytest.mark.parametrize("error", [exception.Invalid("bad", field="size"), exception.VolumeNotFound(id="x")])
def test_what_would_fail_everywhere_fails_at_once(site: Site, error: exception.VolmgrError) -> None:
    site.two.driver.faults.fail("create_volume", error)
    assert site.create().state == "failed"
    assert site.two.rung == []


def test_one_that_was_cancelled_is_not_tried_elsewhere(site: Site) -> None:
    answer = site.one.submit(volumes.CreateVolume, volume_id=new_id(), size=1)
    site.two.dispatcher.pump()
    site.two.dispatcher.cancel(answer["operation_id"])
    site.run()
    assert site.one.dispatcher.get(answer["operation_id"]).error["code"] == "volmgr.cancelled"
    assert site.one.rows(models.volumes) == []


def test_while_its_undoing_fails_it_waits_then_goes_elsewhere(site: Site) -> None:
    site.two.driver.faults.fail("create_volume", exception.BackendDown("gone"))
    site.two.driver.faults.fail("delete_volume", exception.BackendDown("gone"))
    parked = site.create()
    assert (parked.state, parked.host) == ("parked", TWO)
    site.two.dispatcher.retry(parked.id)
    site.run()
    done = site.one.dispatcher.get(parked.id)
    assert (done.state, done.host) == ("done", ONE)


def test_one_that_is_abandoned_is_not_tried_elsewhere(site: Site) -> None:
    site.two.driver.faults.fail("create_volume", exception.BackendDown("gone"))
    site.two.driver.faults.fail("delete_volume", exception.BackendDown("gone"))
    parked = site.create()
    assert site.two.dispatcher.abandon(parked.id).state == "failed"
    assert site.two.rung == []


def test_one_that_fits_nowhere_is_refused_and_nothing_is_written(site: Site) -> None:
    with pytest.raises(NoValidBackend) as refused:
        site.create(size=500)
    assert set(refused.value.details["rejected"]) == {f"{ONE}#pool", f"{TWO}#pool"}
    assert "volmgr backend explain --size 500" in refused.value.hint
    for values in ({"availability_zone": "moon"}, {"host": "three@sim"}):
        with pytest.raises(NoValidBackend):
            site.create(**values)
    assert site.one.rows(models.volumes) == []
    assert {row["state"] for row in site.one.rows(models.operations)} == {"failed"}


def test_what_was_placed_counts_before_it_is_measured(site: Site) -> None:
    hosts = [site.host(site.create(size=60).resource_id) for _ in range(4)]
    # 200 and 100 GiB: after two of 60 there is less room on the second than on the first.
    assert hosts == [TWO, TWO, ONE, TWO]
    with pytest.raises(NoValidBackend):
        site.create(size=60)
    site.report(site.two, free_capacity_gb=60.0, total_capacity_gb=200.0)
    assert site.host(site.create(size=60).resource_id) == TWO


def test_a_frozen_or_disabled_backend_takes_nothing(site: Site) -> None:
    with site.one.database.writer() as conn:
        services.freeze(conn, TWO)
    site.one.placement.refresh()
    source = site.create()
    assert site.host(source.resource_id) == ONE
    with site.one.database.writer() as conn:
        services.disable(conn, ONE, "new disks")
    site.one.placement.refresh()
    for values in ({}, {"host": ONE}, {"source_volid": source.resource_id}):
        with pytest.raises(NoValidBackend) as refused:
            site.create(**values)
        assert "new disks" in str(refused.value)


def test_while_only_this_backend_is_down_it_waits_for_it(site: Site) -> None:
    with site.one.database.writer() as conn:
        services.beat(conn, TWO, state="down", reason="no disk")
    site.one.placement.refresh()
    site.one.placement.measured(site.one.driver.get_volume_stats(), "no disk either")
    site.one.dispatcher.paused = True
    answer = site.one.submit(volumes.CreateVolume, volume_id=new_id(), size=1)
    assert answer["state"] == "queued"
    site.one.dispatcher.paused = False
    site.run()
    assert site.one.dispatcher.get(answer["operation_id"]).state == "done"


def test_a_copy_is_made_beside_its_source_with_its_type(site: Site) -> None:
    catalogue = Catalogue(site.one.database, site.one.types, site.one.clock, {})
    type_id = new_id()
    catalogue.type_create(site.one.context, type_id, "gold", extra_specs={"multiattach": "<is> True"})
    source = site.create(host=ONE, volume_type="gold").resource_id
    (row,) = site.one.rows(models.volumes)
    assert row["multiattach"]
    snapshot_id = new_id()
    site.one.do(snapshots.CreateSnapshot, volume_id=source, snapshot_id=snapshot_id)
    for values in ({"source_volid": source}, {"snapshot_id": snapshot_id}):
        made = site.create(**values)
        assert made.state == "done"
        (row,) = site.one.rows(models.volumes, id=made.resource_id)
        assert (row["host"], row["volume_type_id"]) == (f"{ONE}#pool", type_id)
    catalogue.type_create(site.one.context, new_id(), "fast", extra_specs={"tier": ">= 9"})
    with pytest.raises(NoValidBackend) as refused:
        site.create(source_volid=source, volume_type="fast")
    assert "tier" in str(refused.value)


def test_affinity(site: Site) -> None:
    here, there = site.create(host=ONE).resource_id, site.create(host=TWO).resource_id
    for hints, host in (
        ({"same_host": here}, ONE),
        ({"same_host": [there]}, TWO),
        ({"different_host": [there]}, ONE),
        ({"same_host": [here, there], "different_host": there}, ONE),
    ):
        assert site.host(site.create(scheduler_hints=hints).resource_id) == host
    with pytest.raises(NoValidBackend):
        site.create(scheduler_hints={"different_host": [here, there]})
    for wrong in ({"same_host": new_id()}, {"group": "x"}, {"same_host": "x"}):
        with pytest.raises(exception.Invalid) as refused:
            site.create(scheduler_hints=wrong)
        assert refused.value.details["field"].startswith("scheduler_hints")


def test_what_only_the_other_worker_can_give_is_given_there(tmp_path: Path) -> None:
    site = Site(tmp_path, shelves=Shelves(0, 1, 1))
    first = site.create()
    assert first.state == "done"
    (export,) = site.one.rows(models.exports)
    assert (export["resource_id"], export["host"]) == (first.resource_id, TWO)
    site.two.driver.faults.fail("create_volume", exception.NoSpace("full"))
    moved = site.create()
    assert (moved.state, moved.host) == ("done", ONE)
    assert len(site.one.rows(models.exports)) == 1
    assert site.create().state == "done"
    # No address is left there; the next one finds its place here.
    last = site.create()
    assert (last.state, last.host) == ("done", ONE)
    assert last.data["history"][0]["error"]["code"] == "volmgr.no_space.shelves"
    assert violations(site.one.database) == []
    site.one.close()


def test_a_deleted_volume_comes_back_where_it_was(tmp_path: Path) -> None:
    site = Site(tmp_path, trash_retention=60)
    volume_id = site.create().resource_id
    site.two.do(volumes.DeleteVolume, volume_id=volume_id)
    with pytest.raises(exception.Moved):
        site.one.submit(undelete.UndeleteVolume, volume_id=volume_id)
    assert site.two.do(undelete.UndeleteVolume, volume_id=volume_id).state == "done"  # type: ignore[union-attr]
    site.one.close()

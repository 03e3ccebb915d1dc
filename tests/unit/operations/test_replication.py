# SPDX-License-Identifier: Apache-2.0
"""Replicas of volumes, a backend that fails over and back, and one that is frozen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from tests.unit.operations.moving import ONE, Site, new_id, points_of
from volmgr import exception, why
from volmgr.db import models
from volmgr.operations import replication, resets, retype, snapshots, volumes
from volmgr.operations.transfers import Transfers
from volmgr.reconcile.auditor import findings_of
from volmgr.reconcile.findings import Kind
from volmgr.replicas import Replicas

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
OLD, NEW = b"the first bytes", b"the later bytes"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    made.kind("replicated", replication="<is> True")
    yield made
    made.one.close()


def replicas(site: Site) -> Replicas:
    return Replicas(site.one.database, site.one.driver, ONE)


def bytes_of(site: Site, volume_id: str, length: int = len(OLD)) -> bytes:
    """Return what a client reads of a volume on the storage that its backend works on."""
    found: bytes = site.one.driver.store.read(f"volume-{site.volume(volume_id)['object_id']}", 0, length)
    return found


def write(site: Site, volume_id: str, text: bytes) -> None:
    site.one.driver.store.write(f"volume-{site.volume(volume_id)['object_id']}", 0, text)


def served(site: Site, volume_id: str) -> str:
    (found,) = [item for item in site.one.target.observe() if volume_id in item.target_name]
    return str(found.paths[0])


def test_a_replica_follows_and_its_status_is_told(site: Site) -> None:
    volume_id = site.create(volume_type="replicated")
    assert site.volume(volume_id)["replication_status"] == "copying"
    assert replicas(site).look() == 1
    assert site.volume(volume_id)["replication_status"] == "active"
    assert replicas(site).look() == 0, "what has not changed is written again"
    assert site.wrong() == []


def test_a_driver_that_tells_of_one_replica_only_is_asked_for_each(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume_id, plain = site.create(volume_type="replicated"), site.create()
    cls = type(site.one.driver)
    monkeypatch.setattr(cls, "_supported", cls._supported - {"get_replication_updates"})
    assert replicas(site).look() == 1
    assert (site.volume(volume_id)["replication_status"], site.volume(plain)["replication_status"]) == ("active", None)
    assert site.one.driver.faults.calls["get_replication_status"] == 1
    assert replicas(site).look() == 0, "what has not changed is written again"
    assert site.wrong() == []


def test_a_promoted_replica_takes_the_volumes_place(site: Site) -> None:
    volume_id = site.create(volume_type="replicated")
    write(site, volume_id, OLD)
    replicas(site).look()
    site.one.driver.replication.hold(volume_id)
    write(site, volume_id, NEW)
    done = site.do(replication.PromoteReplica, volume_id=volume_id)
    site.one.driver.replication.release(volume_id)
    assert done.state == "done" and done.result["replication_status"] == "inactive"
    row = site.volume(volume_id)
    assert (row["status"], row["replication_status"]) == ("available", "inactive")
    assert bytes_of(site, volume_id) == OLD, "the replica that lagged behind is not the volume"
    again = site.do(replication.ReenableReplication, volume_id=volume_id)
    assert again.state == "done" and site.volume(volume_id)["replication_status"] == "copying"
    replicas(site).look()
    assert site.volume(volume_id)["replication_status"] == "active" and site.wrong() == []


def test_a_volume_is_made_from_the_replica_of_another(site: Site) -> None:
    volume_id = site.create(volume_type="replicated")
    write(site, volume_id, OLD)
    replicas(site).look()
    site.one.driver.replication.hold(volume_id)
    write(site, volume_id, NEW)
    copy = new_id()
    assert site.do(volumes.CreateVolume, volume_id=copy, source_replica=volume_id).state == "done"
    assert bytes_of(site, copy) == OLD, "it has what the volume has, not its replica"
    assert site.volume(copy)["size"] == 1
    site.one.driver.replication.release(volume_id)
    replicas(site).look()
    for point in ("create_volume/create/before", "create_volume/create/after"):
        copy, since = new_id(), site.deaths
        site.aims = [[ONE, point, 1]]
        assert site.do(volumes.CreateVolume, volume_id=copy, source_replica=volume_id).state == "done"
        assert (site.deaths - since, bytes_of(site, copy)) == (1, NEW), point
    plain = site.create()
    with pytest.raises(exception.Conflict):
        site.do(volumes.CreateVolume, volume_id=new_id(), source_replica=plain)
    with pytest.raises(exception.Invalid):
        site.do(volumes.CreateVolume, volume_id=new_id(), source_replica=volume_id, source_volid=plain)
    assert site.wrong() == []


def test_a_volume_without_a_replica_is_refused(site: Site) -> None:
    volume_id = site.create()
    for verb in (replication.PromoteReplica, replication.ReenableReplication):
        with pytest.raises(exception.Conflict):
            site.do(verb, volume_id=volume_id)
    site.do(retype.Retype, volume_id=volume_id, new_type_id="replicated")
    assert site.do(replication.ReenableReplication, volume_id=volume_id).state == "done"


def test_a_promotion_that_fails_leaves_the_volume(site: Site) -> None:
    volume_id = site.create(volume_type="replicated")
    replicas(site).look()
    site.one.driver.faults.fail("promote_replica", exception.Inconsistent("no"))
    assert site.do(replication.PromoteReplica, volume_id=volume_id).state == "failed"
    assert (site.volume(volume_id)["status"], site.wrong()) == ("available", [])


def test_a_promotion_that_fails_half_way_leaves_no_half_copy(site: Site) -> None:
    volume_id = site.create(volume_type="replicated")
    replicas(site).look()
    site.one.driver.faults.fail("promote_replica", exception.Inconsistent("no"), when="building")
    assert site.do(replication.PromoteReplica, volume_id=volume_id).state == "failed"
    assert (site.volume(volume_id)["status"], site.wrong()) == ("available", [])
    assert findings_of(site.one.dispatcher) == []


def test_an_attached_volume_is_not_promoted(site: Site) -> None:
    volume_id = site.create(volume_type="replicated")
    site.one.attachments.attach(volume_id, new_id(), None, None, "rw", new_id())
    with pytest.raises(exception.Conflict):
        site.do(replication.PromoteReplica, volume_id=volume_id)


def fail_over(site: Site, to: str | None = None) -> Any:
    arguments = {} if to is None else {"secondary_backend_id": to}
    return site.do(replication.FailoverHost, **arguments)


def test_a_backend_fails_over_and_back(site: Site) -> None:
    kept, lost = site.create(volume_type="replicated"), site.create()
    write(site, kept, OLD)
    site.one.attachments.initialize("volume", kept, CONNECTOR)
    before = served(site, kept)
    done = fail_over(site)
    assert (done.state, done.result) == ("done", {"active_backend_id": "secondary", "lost": [lost]})
    assert replicas(site).active_backend_id == "secondary"
    (service,) = site.one.rows(models.services, host=ONE)
    assert (service["disabled"], service["disabled_reason"]) == (True, "failed-over")
    assert (site.volume(lost)["status"], site.volume(kept)["status"]) == ("error", "available")
    assert bytes_of(site, kept) == OLD
    # The same target, the same grants; what it serves lies elsewhere.
    assert served(site, kept) != before and ".replica/" in served(site, kept)
    assert site.one.attachments.initialize("volume", kept, CONNECTOR)["data"]["serial"] == site.serial(kept)
    write(site, kept, NEW)
    with pytest.raises(exception.NoValidBackend):
        site.do(volumes.CreateVolume, volume_id=new_id(), size=1, host=ONE)
    assert site.do(replication.ReenableReplication, volume_id=kept).state == "done"
    replicas(site).look()
    done = fail_over(site, "default")
    assert (done.state, done.result) == ("done", {"active_backend_id": "default", "lost": []})
    (service,) = site.one.rows(models.services, host=ONE)
    assert (service["disabled"], service["active_backend_id"]) == (False, None)
    assert (site.volume(lost)["status"], site.volume(kept)["status"]) == ("available", "available")
    assert served(site, kept) == before and bytes_of(site, kept) == NEW, "what was written meanwhile is lost"
    assert site.wrong() == []


def test_who_goes_back_too_early_is_told_which_volumes_are_behind(site: Site) -> None:
    kept, lost = site.create(volume_type="replicated"), site.create()
    fail_over(site)
    # The replication has not gone the other way yet.
    assert fail_over(site, "default").result["lost"] == [kept]
    assert [site.volume(item)["status"] for item in (kept, lost)] == ["error", "available"]


def hint_of(site: Site, volume_id: str) -> str:
    """Return what is told to whoever wants to change a volume in error; whoever wants to attach it is told the same."""
    with pytest.raises(exception.Conflict) as refused:
        site.do(volumes.ExtendVolume, volume_id=volume_id, new_size=2)
    with pytest.raises(exception.Conflict) as attach:
        site.one.attachments.reserve(new_id(), volume_id, None, "rw")
    assert attach.value.hint == refused.value.hint
    return refused.value.hint


def test_nobody_is_told_to_delete_what_a_failover_left_behind(site: Site) -> None:
    """It has status and bytes again once the backend is back; what was broken before stays deletable."""
    kept, lost, broken = site.create(volume_type="replicated"), site.create(), new_id()
    write(site, lost, OLD)
    snapshot_id = new_id()
    site.do(snapshots.CreateSnapshot, volume_id=lost, snapshot_id=snapshot_id)
    site.one.driver.faults.fail("create_volume", exception.Invalid("no"))
    site.do(volumes.CreateVolume, volume_id=broken, size=1, host=ONE)
    assert hint_of(site, broken).startswith(f"volmgr volume delete {broken}")
    fail_over(site)
    for told in (hint_of(site, lost), why.why(worker(site), site.one.context, lost)["next"]):
        assert told.startswith("do not delete it") and f"volmgr backend failover --back {ONE}" in told
        assert "volume delete" not in told
    assert hint_of(site, broken).startswith(f"volmgr volume delete {broken}")
    (found,) = findings_of(site.one.dispatcher)
    assert (found.kind, found.resource_id) == (Kind.STORAGE_MISSING, snapshot_id)
    assert "do not delete it" in found.reason and f"--back {ONE}" in found.reason
    with site.one.database.writer() as conn:
        conn.execute(sa.delete(models.operations).where(models.operations.c.verb == "failover_host"))
    assert hint_of(site, lost).startswith("do not delete it"), "the journal's row is gone after some days"
    assert kept in fail_over(site, "default").result["lost"]
    assert bytes_of(site, lost) == OLD and findings_of(site.one.dispatcher) == []
    told = hint_of(site, kept)
    assert told.startswith("do not delete it") and f"reset-status {kept} available" in told
    by_hand = resets.Resets(site.one.database, site.one.clock, ONE)
    by_hand.reset(site.one.context, "volume", kept, "available", dry=False)
    assert site.do(replication.ReenableReplication, volume_id=kept).state == "done"
    replicas(site).look()
    assert site.volume(kept)["replication_status"] == "active"


def worker(site: Site) -> Any:
    """Return as much of a worker as a look at one resource needs."""
    rig = site.one
    return SimpleNamespace(database=rig.database, driver=rig.driver, exports=rig.exports, host=ONE)


def test_an_offer_outlives_a_failover(site: Site) -> None:
    volume_id = site.create()
    offers = Transfers(site.one.database, site.one.clock, lambda *_: {}, lambda _: None)
    offers.create(site.one.context, new_id(), volume_id, None, 0)
    fail_over(site)
    assert site.volume(volume_id)["status"] == "error"
    fail_over(site, "default")
    assert site.volume(volume_id)["status"] == "awaiting-transfer", "it can be attached and taken away"
    assert site.wrong() == []


def test_a_target_that_there_is_not_changes_nothing(site: Site) -> None:
    volume_id = site.create(volume_type="replicated")
    done = fail_over(site, "nowhere")
    assert (done.state, done.error["code"]) == ("failed", "volmgr.invalid")
    assert replicas(site).active_backend_id is None and site.volume(volume_id)["status"] == "available"
    assert site.wrong() == []


@pytest.mark.parametrize("back", [False, True])
def test_a_failover_that_fails_leaves_the_driver_where_sql_says(site: Site, back: bool) -> None:
    """It had gone over before it failed: what came next would have been made on the other storage."""
    volume_id = site.create()
    if back:
        fail_over(site)
    before = site.one.driver.store
    site.one.driver.faults.fail("failover_host", exception.Inconsistent("no"), when="after")
    assert fail_over(site, "default" if back else None).state == "failed"
    assert site.one.driver.store is before
    assert site.one.driver.active_backend_id == replicas(site).active_backend_id == ("secondary" if back else None)
    if not back:
        assert site.volume(volume_id)["status"] == "available"
        assert site.do(volumes.ExtendVolume, volume_id=volume_id, new_size=2).state == "done"
        assert site.wrong() == []


def test_a_volume_whose_creation_had_failed_stays_broken(site: Site) -> None:
    broken = new_id()
    site.one.driver.faults.fail("create_volume", exception.Invalid("no"))
    site.do(volumes.CreateVolume, volume_id=broken, size=1, host=ONE)
    fail_over(site)
    fail_over(site, "default")
    assert site.volume(broken)["status"] == "error"


def test_a_frozen_backend_takes_no_change_and_lets_attach(site: Site) -> None:
    volume_id, snapshot_id = site.create(), new_id()
    site.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    frozen = replicas(site)
    backend = site.one.dispatcher.backend
    site.one.dispatcher.backend = dataclasses.replace(backend, frozen=frozen.is_frozen)
    assert frozen.freeze() and site.one.driver.frozen
    site.one.placement.refresh()
    refused: list[tuple[Any, dict[str, Any]]] = [
        (volumes.DeleteVolume, {"volume_id": volume_id, "cascade": True}),
        (volumes.ExtendVolume, {"volume_id": volume_id, "new_size": 2}),
        (snapshots.CreateSnapshot, {"volume_id": volume_id, "snapshot_id": new_id()}),
        (snapshots.DeleteSnapshot, {"snapshot_id": snapshot_id}),
        (retype.Retype, {"volume_id": volume_id, "new_type_id": "replicated"}),
    ]
    for verb, arguments in refused:
        with pytest.raises(exception.Conflict) as caught:
            site.one.submit(verb, **arguments)
        assert caught.value.details["status"] == "frozen" and "thaw" in caught.value.hint
    with pytest.raises(exception.NoValidBackend):
        site.one.submit(volumes.CreateVolume, volume_id=new_id(), size=1, host=ONE)
    instance, attachment = new_id(), new_id()
    site.one.attachments.attach(volume_id, instance, None, None, "rw", attachment)
    site.one.attachments.initialize("volume", volume_id, CONNECTOR)
    site.one.attachments.terminate("volume", volume_id, CONNECTOR, False)
    site.one.attachments.detach(volume_id, attachment, False)
    assert Replicas(site.one.database, site.one.driver, ONE).frozen, "a restart thaws it"
    site.one.driver.faults.fail("thaw_backend", exception.BackendDown("not now"))
    assert not frozen.thaw() and frozen.frozen
    assert frozen.thaw() and not frozen.frozen
    site.one.placement.refresh()
    assert site.do(volumes.ExtendVolume, volume_id=volume_id, new_size=2).state == "done"


VERBS = ("promote_replica", "reenable_replication", "failover_host")


@pytest.mark.parametrize("verb", VERBS)
def test_a_death_at_any_point_changes_nothing(site: Site, verb: str) -> None:
    def told(kill: tuple[str, str, int] | None) -> list[tuple[str, str, int]]:
        volume_id = site.create(volume_type="replicated")
        write(site, volume_id, OLD)
        replicas(site).look()
        since = len(site.passed)
        site.aims = [list(kill)] if kill else []
        if verb == "failover_host":
            assert fail_over(site).state == "done", kill
            site.aims = []
            assert site.do(replication.ReenableReplication, volume_id=volume_id).state == "done"
            replicas(site).look()
            assert site.one.driver.active_backend_id == "secondary" and bytes_of(site, volume_id) == OLD, kill
            points = points_of(site, since, lambda point: point.startswith(f"{verb}/"))
            assert fail_over(site, "default").result["lost"] == [], kill
        else:
            cls = replication.PromoteReplica if verb == "promote_replica" else replication.ReenableReplication
            assert site.do(cls, volume_id=volume_id).state == "done", kill
            points = points_of(site, since, lambda point: point.startswith(f"{verb}/"))
        assert bytes_of(site, volume_id) == OLD, kill
        site.do(volumes.DeleteVolume, volume_id=volume_id)
        assert site.wrong() == [], kill
        return points

    found = told(None)
    for kill in found:
        if not kill[1].endswith(("/received", "/admitted")):
            told(kill)
    assert site.deaths == len(found) - 2

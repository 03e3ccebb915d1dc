# SPDX-License-Identifier: Apache-2.0
"""Types, QoS, quotas and reservations where they meet the verbs, over the real journal."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.context import RequestContext
from volmgr.db import listing, models
from volmgr.operations import volumes
from volmgr.operations.catalogue import Catalogue
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
DEFAULTS = {"volumes": 3, "snapshots": -1, "gigabytes": 100}


def new_id() -> str:
    return str(uuid.uuid4())


class Site:
    """A worker with a catalogue."""

    def __init__(self, folder: Path) -> None:
        self.rig = Rig(folder, quota=DEFAULTS)
        self.catalogue = Catalogue(self.rig.database, self.rig.types, self.rig.clock, DEFAULTS)
        self.admin = self.rig.context
        self.member = RequestContext(project_id="p", user_id="u", overwrite=False)

    def type(self, name: str = "gold", **values: Any) -> str:
        type_id = new_id()
        self.catalogue.type_create(self.admin, type_id, name, **values)
        return type_id

    def create(self, size: int = 1, **values: Any) -> Any:
        return self.rig.do(volumes.CreateVolume, volume_id=new_id(), size=size, **values)

    def used(self, kind: str | None = None) -> tuple[int, int]:
        found = self.catalogue.get_quota(self.admin, "p", kind)
        return found["volumes"]["in_use"], found["gigabytes"]["in_use"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    assert violations(made.rig.database, made.rig.driver) == []
    made.rig.close()


def test_the_driver_and_the_host_get_the_type_and_its_qos(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    type_id, qos_id = site.type(extra_specs={"sim:tier": "1"}), new_id()
    site.catalogue.qos_create(site.admin, qos_id, "fast", "both", {"total_iops_sec_per_gb": "10"})
    site.catalogue.qos_associate(site.admin, qos_id, type_id)
    seen = []
    make = site.rig.driver._made
    monkeypatch.setattr(site.rig.driver, "_made", lambda volume: (seen.append(volume), make(volume))[1])
    done = site.create(4, volume_type="gold")
    assert done.state == "done"
    assert [(item.volume_type.name, dict(item.volume_type.extra_specs)) for item in seen] == [
        ("gold", {"sim:tier": "1"})
    ]
    data = site.rig.attachments.initialize("volume", done.resource_id, CONNECTOR)["data"]
    assert data["qos_specs"] == {"total_iops_sec": "40"}
    site.catalogue.qos_update(site.admin, qos_id, consumer="back-end")
    data = site.rig.attachments.initialize("volume", done.resource_id, CONNECTOR)["data"]
    assert data["qos_specs"] is None


def test_a_type_is_counted_beside_the_project(site: Site) -> None:
    type_id = site.type()
    site.catalogue.quota_set(site.admin, "p", {"volumes": 1}, "gold")
    done = site.create(2, volume_type=type_id)
    assert site.used() == site.used("gold") == (1, 2)
    with pytest.raises(exception.QuotaExceeded) as refused:
        site.create(volume_type="gold")
    assert refused.value.details["volume_type_id"] == type_id
    assert site.create().state == "done"
    assert (site.used(), site.used("gold")) == ((2, 3), (1, 2))
    with pytest.raises(exception.Conflict):
        site.catalogue.type_delete(site.admin, type_id)
    site.rig.do(volumes.DeleteVolume, volume_id=done.resource_id)
    assert site.catalogue.type_delete(site.admin, type_id) == {"type_id": type_id, "unchanged": False}
    assert site.catalogue.type_delete(site.admin, type_id)["unchanged"]


def test_a_typed_creation_costs_one_statement_more(site: Site) -> None:
    site.type()
    site.create(volume_type="gold")
    with site.rig.database.counting() as count:
        site.rig.submit(volumes.CreateVolume, volume_id=new_id(), size=1, volume_type="gold")
        site.rig.stepwise.run()
    assert (count.transactions, count.statements) == (2, 7)


def test_an_unknown_or_private_type_is_refused_before_anything_changes(site: Site) -> None:
    with pytest.raises(exception.NotFound) as missing:
        site.create(volume_type="gold")
    assert missing.value.code == "volmgr.not_found.volume_type"
    private = site.type("secret", is_public=False)
    with pytest.raises(exception.NotFound):
        site.catalogue.get_type(site.member, private)
    arguments = volumes.CreateArgs.parse({"volume_id": new_id(), "size": 1, "volume_type": "secret"})
    with pytest.raises(exception.NotFound):
        site.rig.dispatcher.submit(site.member, volumes.CreateVolume, arguments)
    assert site.rig.rows(models.volumes) == []
    public = site.type("plain", extra_specs={"a": "b"})
    assert "extra_specs" not in site.catalogue.get_type(site.member, public)
    page = {"sort_keys": ["name"], "sort_dirs": ["asc"]}
    assert [row["name"] for row in site.catalogue.list_types(site.member, listing.Page(filters={}, **page))] == [
        "plain"
    ]


def test_a_type_that_was_removed_meanwhile_is_not_used(site: Site) -> None:
    type_id = site.type()
    assert site.rig.types.find("gold").id == type_id  # from now on it is in the cache
    with site.rig.database.writer() as conn:
        conn.execute(models.volume_types.delete())
    with pytest.raises(exception.NotFound):
        site.create(volume_type="gold")
    assert site.used() == (0, 0)


def test_a_member_sees_no_other_project_s_quota(site: Site) -> None:
    with pytest.raises(exception.Forbidden):
        site.catalogue.get_quota(site.member, "another", None)


# --- reservations ---------------------------------------------------------------------------------------------------


def reserved(site: Site, kind: str | None = None, expire: float = 60, **amounts: int) -> list[str]:
    answer = site.catalogue.quota_reserve(site.admin, new_id(), amounts, "p", kind, expire)
    found: list[str] = answer["reservations"]
    return found


def test_a_creation_takes_its_reservation(site: Site) -> None:
    site.type()
    ids = reserved(site, "gold", volumes=1, gigabytes=5)
    assert site.used() == site.used("gold") == (1, 5)
    key = new_id()
    volume_id = new_id()
    for _ in range(2):  # a repeat joins, and takes nothing again
        done = site.rig.do(
            volumes.CreateVolume, key=key, volume_id=volume_id, size=5, volume_type="gold", reservations=ids
        )
        assert done is not None and done.state == "done"
    assert site.used() == site.used("gold") == (1, 5)
    assert site.rig.rows(models.reservations) == []


def test_where_the_quota_is_full_only_the_reservation_makes_room(site: Site) -> None:
    ids = reserved(site, volumes=3)
    with pytest.raises(exception.QuotaExceeded):
        site.create()
    assert site.create(reservations=ids).state == "done"
    assert site.used() == (1, 1)


def test_a_refused_request_gives_its_reservation_back(site: Site) -> None:
    ids = reserved(site, volumes=1, gigabytes=5)
    with pytest.raises(exception.QuotaExceeded):
        site.create(101, reservations=ids)
    assert site.used() == (0, 0)
    ids = reserved(site, gigabytes=5)
    with pytest.raises(exception.VolumeNotFound):
        site.rig.submit(volumes.ExtendVolume, volume_id=new_id(), new_size=2, reservations=ids)
    assert site.used() == (0, 0)


def test_an_extension_takes_its_reservation_or_gives_it_back(site: Site) -> None:
    volume_id = site.create(1).resource_id
    ids = reserved(site, gigabytes=4)
    assert site.used() == (1, 5)
    site.rig.do(volumes.ExtendVolume, volume_id=volume_id, new_size=5, reservations=ids)
    assert site.used() == (1, 5)
    ids = reserved(site, gigabytes=4)
    site.rig.driver.faults.fail("extend_volume", exception.NoSpace("full"))
    failed = site.rig.do(volumes.ExtendVolume, volume_id=volume_id, new_size=9, reservations=ids)
    assert failed is not None and failed.state == "failed"
    assert site.used() == (1, 5)


def test_one_that_waits_and_is_then_refused_gives_it_back_too(site: Site) -> None:
    volume_id = site.create(1).resource_id
    site.rig.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=9)
    ids = reserved(site, gigabytes=4)
    late = site.rig.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=5, reservations=ids)
    assert late["state"] == "queued"
    site.rig.run()
    assert site.rig.dispatcher.get(late["operation_id"]).state == "failed"
    assert site.used() == (1, 9)


def test_one_that_has_expired_is_as_good_as_none(site: Site) -> None:
    ids = reserved(site, expire=0, volumes=1)
    assert site.catalogue.quota_rollback(site.admin, ids, "p") == {"released": 1}
    assert site.create(reservations=ids).state == "done"
    assert site.used() == (1, 1)

# SPDX-License-Identifier: Apache-2.0
"""What a backend tells of itself, and what its driver tells of rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import reporting
from volmgr.db import models
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import SimDriver
from volmgr.operations import snapshots, volumes
from volmgr.scheduler import Request, pools_of, rank
from volmgr.testing.rig import HOST, Rig
from volmgr.types import Snapshot, Volume

OPTIONS = {"volume_backend_name": "pool", "extra_capabilities": {"media": "disk"}, "filter_function": "volume.size < 5"}


class Vendor(SimDriver):
    """A driver with properties, defaults and renamed storage of its own."""

    def _init_vendor_properties(self) -> tuple[dict[str, Any], str | None]:
        tier = {"title": "Tier", "description": "How fast", "type": "integer", "minimum": 1}
        return {"acme:tier": tier, "other:tier": tier}, "acme"

    def get_default_filter_function(self) -> str | None:
        return "volume.size < 3"

    def get_default_goodness_function(self) -> str | None:
        return "50"

    def update_provider_info(
        self, volumes: Sequence[Volume], snapshots: Sequence[Snapshot]
    ) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]] | None]:
        told = [{"id": item.id, "provider_id": f"p-{item.id[:8]}"} for item in volumes]
        return [*told, {"id": "another's", "provider_id": "x"}], None


class OnePool(SimDriver):
    """A driver of old, which reports its space itself."""

    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        return {"volume_backend_name": "old", "total_capacity_gb": 10, "free_capacity_gb": 5, "reserved_percentage": 0}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def test_properties_and_what_operators_add() -> None:
    driver = Vendor(configuration=Configuration(OPTIONS), host=HOST)
    found = reporting.measure(driver)
    assert "acme:tier" in found["properties"] and "thin_provisioning" in found["properties"]
    assert "other:tier" not in found["properties"]
    assert (driver.get_prefixed_property("tier"), driver.get_prefixed_property("")) == ("acme:tier", None)
    (pool,) = found["pools"]
    # The option goes before the driver's own default.
    assert (pool["filter_function"], pool["goodness_function"], pool["media"]) == ("volume.size < 5", "50", "disk")
    plain = Vendor(configuration=Configuration({"volume_backend_name": "pool"}), host=HOST)
    assert reporting.measure(plain)["pools"][0]["filter_function"] == "volume.size < 3"
    asked = driver.faults.calls["get_volume_stats"]
    again = reporting.measure(driver)
    assert again["properties"] == found["properties"]
    assert driver.faults.calls["get_volume_stats"] == asked + 1


def test_a_driver_without_pools_is_one() -> None:
    found = reporting.measure(OnePool(configuration=Configuration(OPTIONS), host=HOST))
    assert found["pools"][0]["pool_name"] == "pool"
    pools = pools_of({"host": HOST, "capabilities": found})
    assert [item.pool.host for item in rank(Request(4), pools)] == [f"{HOST}#pool"]
    assert rank(Request(5), pools) == rank(Request(6), pools) == []


def test_a_driver_is_asked_about_the_rows_of_its_worker_alone(rig: Rig) -> None:
    volume_id, snapshot_id, other = (str(uuid.uuid4()) for _ in range(3))
    for each in (volume_id, other):
        rig.do(volumes.CreateVolume, volume_id=each, size=1)
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    table = models.volumes
    with rig.database.writer() as conn:
        conn.execute(sa.update(table).where(table.c.id == volume_id).values(host=HOST))
        conn.execute(sa.update(table).where(table.c.id == other).values(host="elsewhere@sim"))
    driver = Vendor(configuration=Configuration(OPTIONS), host=HOST)
    assert reporting.tell_rows(rig.database, driver, HOST) == 2
    rows = {row["id"]: (row["host"], row["provider_id"]) for row in rig.rows(models.volumes)}
    assert rows == {volume_id: (f"{HOST}#pool", f"p-{volume_id[:8]}"), other: ("elsewhere@sim", None)}


def test_where_there_is_nothing_to_tell_it_costs_one_statement(rig: Rig) -> None:
    rig.do(volumes.CreateVolume, volume_id=str(uuid.uuid4()), size=1)
    with rig.database.counting() as count:
        assert reporting.tell_rows(rig.database, rig.driver, HOST) == 0
    assert (count.statements, count.transactions) == (1, 1)

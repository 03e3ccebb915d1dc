# SPDX-License-Identifier: Apache-2.0
"""The StorPool driver in the simulation: crashes, copies of messages, and what can go wrong with a call of the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from volmgr import types
from volmgr.drivers.storpool import StorPoolDriver
from volmgr.testing.simulation import explore
from volmgr.testing.simulation.bench import Bench
from volmgr.testing.simulation.plan import Plan, Request, Strike
from volmgr.testing.simulation.storpool import StorPoolRoom

from .test_schedules import FIRST, told

SEEDS = 80
V0, V2 = {"volume_id": "@v0"}, {"volume_id": "@v2"}
#: what is asked on a stage, and the calls of the API that it leads to.
ASKED: dict[str, tuple[Request, str, tuple[str, ...]]] = {
    "create": (Request("r", "create_volume", {**V2, "size": 1}), "volume", ("VolumeCreate",)),
    "clone": (Request("r", "create_volume", {**V2, "source_volid": "@v0"}), "volume", ("Volume", "VolumeCreate")),
    "restore": (
        Request("r", "create_volume", {**V2, "snapshot_id": "@s0"}), "snapshot", ("VolumeCreate", "Volume")
    ),
    "extend": (Request("r", "extend_volume", {**V0, "new_size": 2}), "volume", ("VolumeUpdate",)),
    "retype": (Request("r", "retype", {**V0, "new_type_id": "@t0"}), "volume", ("VolumeUpdate",)),
    "snapshot": (Request("r", "create_snapshot", {**V0, "snapshot_id": "@s1"}), "volume", ("VolumeSnapshot",)),
    "unsnap": (
        Request("r", "delete_snapshot", {"snapshot_id": "@s0"}), "snapshot", ("VolumesReassign", "SnapshotDelete")
    ),
    "delete": (Request("r", "delete_volume", V0), "volume", ("VolumesReassign", "VolumeDelete")),
    "unmanage": (Request("r", "delete_volume", {**V0, "unmanage_only": True}), "volume", ("VolumeUpdate",)),
    "revert": (
        Request("r", "revert_to_snapshot", {**V0, "snapshot_id": "@s0"}), "snapshot", ("VolumeCreate", "VolumeDelete")
    ),
    "set": (
        Request("r", "create_cgsnapshot", {"cgsnapshot_id": "@c1", "group_id": "@g0"}), "grouped",
        ("VolumesGroupSnapshot",),
    ),
    "unset": (Request("r", "delete_cgsnapshot", {"cgsnapshot_id": "@c0"}), "cgsnapped", ("SnapshotDelete",)),
    "group-from-set": (
        Request("r", "create_consistencygroup_from_src", {"group_id": "@g1", "cgsnapshot_id": "@c0"}), "cgsnapped",
        ("VolumeCreate",),
    ),
    "group-from-group": (
        Request("r", "create_consistencygroup_from_src", {"group_id": "@g1", "source_group_id": "@g0"}), "grouped",
        ("VolumesGroupSnapshot", "VolumeCreate", "SnapshotDelete"),
    ),
    "ungroup": (
        Request("r", "delete_consistencygroup", {"group_id": "@g0", "delete_volumes": True}), "grouped",
        ("VolumeDelete",),
    ),
}


#: of each kind that the driver tells apart one; the random schedules have them all.
WAYS = {"before": ("reset", "transient", "late", "full"), "after": ("reset", "garbage")}


@pytest.fixture(scope="module")
def storpool(bench: Bench) -> Iterator[Bench]:
    """A bench of its own; that of the session keeps the logs quiet."""
    made = Bench(StorPoolRoom())
    yield made
    made.close()


def test_random_schedules(storpool: Bench) -> None:
    report = explore.explore(storpool, explore.seeds(FIRST, SEEDS, storpool.room), stop_at=3)
    assert not report.failures, told(report)
    assert report.schedules > SEEDS // 2
    assert report.lives > report.schedules
    assert "storpool:VolumeCreate/before" in report.places


def test_a_seed_is_the_same_schedule_again(storpool: Bench) -> None:
    for _number, plan in zip(range(2), explore.seeds(3, room=storpool.room), strict=False):
        assert Plan.from_json(plan.to_json()) == plan
        assert explore.digest(storpool, plan) == explore.digest(storpool, plan)


@pytest.mark.parametrize("name", sorted(ASKED))
def test_every_call_fails_in_every_way_and_its_worker_dies(storpool: Bench, name: str) -> None:
    request, stage, calls = ASKED[name]
    plain = Plan((request,), stage=stage, order=1)
    assert {f"storpool:{call}/after" for call in calls} <= set(explore.run(storpool, plain, places=True).places)
    for call in calls:
        for when, kinds in WAYS.items():
            at = f"storpool:{call}/{when}"
            strikes = [Strike(at, "fail", error=kind, seconds=40.0) for kind in kinds]
            for strike in (*strikes, Strike(at, "crash")):
                plan = plain.but(strikes=(strike,))
                assert explore.run(storpool, plan).violations == [], plan.to_json()


class Trusting(StorPoolDriver):
    """Wrong: takes what bears the name of its volume for its own."""

    def _create(self, volume: types.Volume, source: Any) -> None:
        if self.api.volume(self.storpool_name(volume)) is None:
            super()._create(volume, source)


class Short(StorPoolDriver):
    """Wrong: says that a volume is extended and does not."""

    def extend_volume(self, volume: types.Volume, new_size: int) -> None:
        return None


@pytest.mark.parametrize("driver", [Trusting, Short])
def test_a_wrong_driver_is_found(storpool: Bench, driver: type[StorPoolDriver]) -> None:
    plans = explore.seeds(1, 400, room=storpool.room)
    report = explore.explore(storpool, plans, stop_at=1, driver=driver)
    assert report.failures, f"{report.schedules} schedules found nothing"


class ByName(StorPoolDriver):
    """Wrong: names what it deletes by its name, which may be another's by the time that the request arrives."""

    def delete_volume(self, volume: types.Volume) -> None:
        name = self.storpool_name(volume)
        if self.api.volume(name) is not None:
            self.api.change(f"VolumeDelete {name}", lambda client: client.volume_delete(name))


def test_a_deletion_that_is_late_spares_what_was_made_again(storpool: Bench) -> None:
    plan = Plan(
        (Request("delete", "delete_volume", V0, wait=True), Request("again", "create_volume", {**V0, "size": 1})),
        (Strike("storpool:VolumeDelete/before", "fail", error="late", seconds=40.0),),
        stage="volume", order=1, switch=0.0,
    )
    assert explore.run(storpool, plan).violations == []
    assert explore.run(storpool, plan, driver=ByName).violations


def test_a_cascade_that_fails_has_lost_the_snapshots_that_it_came_past(storpool: Bench) -> None:
    """They were said to be there still, without storage: where there is no trash they cannot come back."""
    plan = Plan(
        (Request("delete", "delete_volume", {**V0, "cascade": True, "force": True}),),
        (Strike("storpool:VolumesReassign/before", "fail", 2, "full"),),
        stage="exported", switch=0.0,
    )
    assert explore.run(storpool, plan).violations == []

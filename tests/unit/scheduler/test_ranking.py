# SPDX-License-Identifier: Apache-2.0
"""Which pools pass, in which order, and that the explanation says the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volmgr.scheduler import Pool, Request, explain, pools_of, rank

ROOM = {"free_capacity_gb": 100.0, "total_capacity_gb": 100.0}


def pool(name: str = "a", **values: Any) -> Pool:
    capabilities = {**ROOM, **values.pop("capabilities", {})}
    return Pool(f"host@{name}#pool", zone=values.pop("zone", "nova"), capabilities=capabilities, **values)


def refused(request: Request, one: Pool) -> str | None:
    """Return the check that refuses, asserting that ranking and explanation agree."""
    (judged,) = explain(request, [one])
    assert bool(rank(request, [one])) is judged.passed
    failed = [item.check for item in judged.verdicts if not item.passed]
    assert len(failed) <= 1
    assert all(item.why for item in judged.verdicts if not item.passed)
    return failed[0] if failed else None


@pytest.mark.parametrize(
    ("request_", "pool_", "check"),
    [
        ({}, {}, None),
        ({}, {"up": False}, "service"),
        ({}, {"state": "down", "reason": "no disk"}, "service"),
        ({}, {"disabled": True}, "service"),
        ({}, {"frozen": True}, "service"),
        ({"patient": "host@a"}, {"state": "down"}, None),
        ({"patient": "host@a"}, {"up": False}, None),
        ({"patient": "host@a"}, {"state": "down", "frozen": True}, "service"),
        ({"patient": "host@b"}, {"state": "down"}, "service"),
        ({"tried": frozenset({"host@a#pool"})}, {}, "tried"),
        ({"host": "host@a"}, {}, None),
        ({"host": "host@a#pool"}, {}, None),
        ({"host": "host@a#other"}, {}, "host"),
        ({"zone": "nova"}, {}, None),
        ({"zone": "other"}, {}, "zone"),
        ({"same": frozenset({"host@a"})}, {}, None),
        ({"same": frozenset({"host@b#pool"})}, {}, "affinity"),
        ({"same": frozenset()}, {}, "affinity"),
        ({"different": frozenset({"host@a#pool"})}, {}, "affinity"),
        ({"different": frozenset({"host@b"})}, {}, None),
        ({}, {"capabilities": {"reserved_for": {"kind": "fast"}}}, "capabilities"),
        ({"extra_specs": {"kind": "slow"}}, {"capabilities": {"kind": "slow", "reserved_for": {"kind": "fast"}}},
         "capabilities"),
        ({"extra_specs": {"kind": "fast"}}, {"capabilities": {"kind": "fast", "reserved_for": {"kind": "fast"}}}, None),
        ({"size": 100}, {}, None),
        ({"size": 101}, {}, "capacity"),
        ({"size": 91}, {"capabilities": {"reserved_percentage": 10}}, "capacity"),
        ({"size": 90}, {"capabilities": {"reserved_percentage": 10}}, None),
        ({"size": 60}, {"promised_gb": 50}, "capacity"),
        ({"size": 10**6}, {"capabilities": {"free_capacity_gb": "infinite"}}, None),
        ({"size": 10**6}, {"capabilities": {"total_capacity_gb": "unknown"}}, None),
        ({}, {"capabilities": {"free_capacity_gb": None}}, "capacity"),
        ({"extra_specs": {"tier": ">= 2"}}, {"capabilities": {"tier": 2}}, None),
        ({"extra_specs": {"tier": ">= 2"}}, {}, "capabilities"),
        ({"extra_specs": {"provisioning:type": "thin"}}, {}, "capacity"),
        ({}, {"capabilities": {"filter_function": "volume.size < 5"}}, None),
        ({"size": 5}, {"capabilities": {"filter_function": "volume.size < 5"}}, "filter_function"),
        ({}, {"capabilities": {"filter_function": "stats.missing < 5"}}, "filter_function"),
        ({}, {"capabilities": {"filter_function": "1 +"}}, "filter_function"),
    ],
)
def test_each_check(request_: dict[str, Any], pool_: dict[str, Any], check: str | None) -> None:
    assert refused(Request(**{"size": 1, **request_}), pool(**pool_)) == check


THIN = {"thin_provisioning_support": True, "max_over_subscription_ratio": 2.0}


@pytest.mark.parametrize(
    ("size", "capabilities", "promised", "check"),
    [
        (200, {"provisioned_capacity_gb": 0}, 0, None),
        (201, {"provisioned_capacity_gb": 0}, 0, "capacity"),
        (51, {"provisioned_capacity_gb": 150}, 0, "capacity"),
        (50, {"provisioned_capacity_gb": 150}, 0, None),
        (50, {"provisioned_capacity_gb": 150}, 1, "capacity"),
        # Promises are kept by real space: what is nearly full takes no large volume.
        (20, {"provisioned_capacity_gb": 0, "free_capacity_gb": 10.0}, 0, None),
        (21, {"provisioned_capacity_gb": 0, "free_capacity_gb": 10.0}, 0, "capacity"),
        (160, {"provisioned_capacity_gb": 0, "reserved_percentage": 20}, 0, None),
        (161, {"provisioned_capacity_gb": 0, "reserved_percentage": 20}, 0, "capacity"),
    ],
)
def test_thin_pools(size: int, capabilities: dict[str, Any], promised: float, check: str | None) -> None:
    made = pool(capabilities=THIN | capabilities, promised_gb=promised)
    assert refused(Request(size), made) == check


def test_a_thick_volume_takes_its_whole_size_of_a_pool_that_has_both() -> None:
    both = THIN | {"thick_provisioning_support": True, "provisioned_capacity_gb": 0}
    assert refused(Request(150), pool(capabilities=both)) is None
    assert refused(Request(150, extra_specs={"provisioning:type": "thick"}), pool(capabilities=both)) == "capacity"


def hosts(request: Request, *pools: Pool) -> list[str]:
    return [item.pool.host.partition("@")[2].partition("#")[0] for item in rank(request, pools)]


def test_the_best_goodness_wins_and_none_scores_lowest() -> None:
    def with_goodness(name: str, text: str | None) -> Pool:
        return pool(name, capabilities={"goodness_function": text})

    ordered = hosts(
        Request(1),
        with_goodness("none", None),
        with_goodness("half", "50"),
        with_goodness("size", "volume.size == 1 ? 90 : 10"),
        with_goodness("toomuch", "101"),
        with_goodness("wrong", "stats.nothing"),
        with_goodness("word", "'good'"),
        with_goodness("true", "true"),
    )
    assert ordered == ["size", "half", "true", "none", "toomuch", "word", "wrong"]


def test_among_equals_the_most_room_wins() -> None:
    more, less = pool("more"), pool("less", capabilities={"free_capacity_gb": 50.0})
    assert hosts(Request(1), less, more) == ["more", "less"]
    assert hosts(Request(1), less, dataclasses.replace(more, promised_gb=60)) == ["less", "more"]


SCALARS = st.sampled_from([0.0, 10.0, 50.0, 100.0, "infinite", None])
POOLS = st.builds(
    lambda number, free, up, frozen, zone, good, promised: pool(
        f"b{number}", zone=zone, up=up, frozen=frozen, promised_gb=promised,
        capabilities={
            "reserved": promised, "free_capacity_gb": free, "goodness_function": good,
            "filter_function": "stats.reserved < 40",
        },
    ),
    st.integers(0, 9), SCALARS, st.booleans(), st.booleans(), st.sampled_from(["nova", "other"]),
    st.sampled_from([None, "10", "volume.size", "1 / 0"]), st.sampled_from([0.0, 40.0]),
)
REQUESTS = st.builds(
    Request, size=st.integers(1, 120), zone=st.sampled_from([None, "nova"]),
    host=st.sampled_from([None, "host@b1"]), tried=st.frozensets(st.just("host@b2#pool")),
)


@given(REQUESTS, st.lists(POOLS, max_size=8, unique_by=lambda item: item.host))
def test_the_explanation_is_the_ranking(request_: Request, pools: list[Pool]) -> None:
    ranked, told = rank(request_, pools), explain(request_, pools)
    assert [(item.pool.host, item.rank, item.goodness) for item in ranked] == [
        (item.pool.host, item.rank, item.goodness) for item in told if item.passed
    ]
    assert [item.rank for item in ranked] == list(range(1, len(ranked) + 1))
    assert {item.pool.host for item in told} == {item.host for item in pools}
    for item in told:
        assert item.passed is (item.rank is not None)
        assert item.to_json()["passed"] is item.passed
    # The order does not depend on the order in which they are known.
    assert [item.pool.host for item in rank(request_, pools[::-1])] == [item.pool.host for item in ranked]


def test_a_workers_row_becomes_its_pools() -> None:
    row = {
        "host": "h@b", "up": True, "state": "up", "reason": None, "disabled": False, "disabled_reason": None,
        "frozen": True, "availability_zone": "nova",
        "capabilities": {"vendor_name": "v", "tier": 1, "pools": [{"pool_name": "p", "tier": 2}, {"pool_name": "q"}]},
    }
    first, second = pools_of(row)
    assert (first.host, first.service, first.zone, first.frozen) == ("h@b#p", "h@b", "nova", True)
    assert (first.capabilities["tier"], second.capabilities["tier"]) == (2, 1)
    assert first.capabilities["vendor_name"] == "v"
    (only,) = pools_of({**row, "capabilities": {"volume_backend_name": "x"}})
    assert only.host == "h@b#x"
    (bare,) = pools_of({**row, "capabilities": None})
    assert bare.host == "h@b"

# SPDX-License-Identifier: Apache-2.0
"""Limits that grow with the volume, and who gets them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volmgr import exception, qos, types

NUMBERS = st.integers(0, 2**40)


def volume(consumer: str, specs: dict[str, str], size: int = 10) -> types.Volume:
    kind = types.VolumeType("t", "gold", {}, {"id": "q", "name": "fast", "consumer": consumer, "specs": specs})
    return types.Volume("v", size, volume_type=kind)


@pytest.mark.parametrize(
    ("consumer", "front", "back"), [("front-end", True, False), ("back-end", False, True), ("both", True, True)]
)
def test_each_consumer_gets_its_own(consumer: str, front: bool, back: bool) -> None:
    found = volume(consumer, {"total_iops_sec": "5"})
    assert (qos.front_end(found) == {"total_iops_sec": "5"}, qos.back_end(found) == {"total_iops_sec": "5"}) == (
        front,
        back,
    )
    assert (qos.front_end(found) is None) is not front


def test_a_volume_without_has_none() -> None:
    assert qos.front_end(types.Volume("v", 1)) is None
    assert qos.front_end(types.Volume("v", 1, volume_type=types.VolumeType("t", "gold"))) is None
    assert qos.front_end(types.Snapshot("s", "v", 1)) is None


@given(size=st.integers(1, 2**16), per=NUMBERS, least=st.none() | NUMBERS, most=st.none() | NUMBERS)
def test_a_limit_for_each_gib_stays_within_its_bounds(
    size: int, per: int, least: int | None, most: int | None
) -> None:
    specs = {"read_iops_sec_per_gb": str(per), "vendor": "x"}
    specs |= {"read_iops_sec_per_gb_min": str(least)} if least is not None else {}
    specs |= {"read_iops_sec_max": str(most)} if most is not None else {}
    found = qos.sized(specs, size)
    assert set(found) == {"read_iops_sec", "vendor"}
    value = int(found["read_iops_sec"])
    assert most is None or value <= most
    assert value in (per * size, least, most)
    if most is None or most >= max(per * size, least or 0):
        assert value == max(per * size, least or 0)


@pytest.mark.parametrize("value", ["fast", "-1", "1.5", "", "9" * 20, "٣", None])
def test_a_limit_is_a_whole_number(value: Any) -> None:
    if value is None:
        assert qos.check_specs("specs", {"total_iops_sec": None}) == {"total_iops_sec": None}
        return
    with pytest.raises(exception.Invalid) as refused:
        qos.check_specs("specs", {"total_iops_sec": value})
    assert "total_iops_sec" in refused.value.details["field"]
    good = qos.check_specs("specs", {"vendor": "fast", "total_iops_sec": 5})
    assert good == {"vendor": "fast", "total_iops_sec": "5"}

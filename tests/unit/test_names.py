# SPDX-License-Identifier: Apache-2.0
"""Every name has a parser that gives back what it was made from, and takes nothing else."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volmgr import names

UUIDS = st.uuids().map(str)
PREFIX = "iqn.2010-10.org.openstack:"


@given(st.sampled_from(names.KINDS), UUIDS)
def test_object_names_round_trip(kind: str, object_id: str) -> None:
    assert names.parse_object_name(names.object_name(kind, object_id)) == names.ObjectName(kind, object_id)


@given(UUIDS)
def test_trash_and_building_names_round_trip_and_differ(object_id: str) -> None:
    trash, building = names.trash_name(object_id), names.building_name(object_id)
    assert names.parse_trash_name(trash) == object_id
    assert names.parse_building_name(building) == object_id
    for name in (trash, building):
        assert names.parse_object_name(name) is None
    assert names.parse_trash_name(building) is None
    assert names.parse_building_name(trash) is None


@given(st.sampled_from(names.KINDS), UUIDS)
def test_an_unmanaged_name_round_trips_and_is_not_ours(kind: str, object_id: str) -> None:
    name = names.unmanaged_name(kind, object_id)
    assert names.parse_unmanaged_name(name) == names.ObjectName(kind, object_id)
    for parse in (
        names.parse_object_name, names.parse_trash_name, names.parse_building_name, names.parse_replica_mark,
        names.parse_point_name,
    ):
        assert parse(name) is None
    assert not name.startswith("snapshot")
    assert names.parse_unmanaged_name(names.object_name(kind, object_id)) is None


@given(st.sampled_from(["active", "active-stopped", "error"]), UUIDS, UUIDS)
def test_replica_marks_round_trip_and_are_no_objects(state: str, volume_id: str, object_id: str) -> None:
    name = names.replica_mark(state, volume_id, object_id)
    assert names.parse_replica_mark(name) == (state, volume_id, object_id)
    assert names.parse_object_name(name) is None


@given(UUIDS, st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1))
def test_point_names_round_trip_and_sort_by_their_moment(object_id: str, first: int, second: int) -> None:
    one, two = names.point_name(object_id, first), names.point_name(object_id, second)
    assert names.parse_point_name(one) == (object_id, first)
    assert (one < two) == (first < second)
    assert names.parse_object_name(one) is None and names.parse_building_name(one) is None
    for number in (0, 2**32):
        with pytest.raises(ValueError, match="no point name"):
            names.point_name(object_id, number)


@given(st.sampled_from(names.KINDS), UUIDS, st.booleans())
def test_target_names_round_trip(kind: str, resource_id: str, read_only: bool) -> None:
    name = names.target_name(PREFIX, kind, resource_id, read_only=read_only)
    assert names.parse_target_name(PREFIX, name) == (kind, resource_id, read_only)
    assert names.parse_target_name("iqn.2020-01.org.other:", name) is None


@given(st.text(max_size=80))
def test_foreign_names_are_never_ours(text: str) -> None:
    found = names.parse_object_name(text)
    if found is not None:
        assert names.object_name(found.kind, found.object_id) == text
    parsed = names.parse_trash_name(text)
    assert parsed is None or names.trash_name(parsed) == text


@pytest.mark.parametrize("bad", ["", "x", str(uuid.uuid4()).upper(), f"{uuid.uuid4()}\n", "../etc"])
def test_no_name_is_made_from_what_is_no_uuid(bad: str) -> None:
    for make in (names.trash_name, names.building_name):
        with pytest.raises(ValueError, match="name"):
            make(bad)
    for make_kind in (names.object_name, names.unmanaged_name):
        with pytest.raises(ValueError, match="name"):
            make_kind("volume", bad)
    with pytest.raises(ValueError, match="name"):
        names.replica_mark("active", bad, bad)


def test_serials_differ_in_what_lio_makes_the_naa_of() -> None:
    serials = {names.new_serial()[:25] for _ in range(1000)}
    assert len(serials) == 1000


@pytest.mark.parametrize(
    ("text", "parts"),
    [("h", ("h", None, None)), ("h@b", ("h", "b", None)), ("h@b#p", ("h", "b", "p")), ("h#p", ("h", None, "p"))],
)
def test_host_names_round_trip(text: str, parts: tuple[str, str | None, str | None]) -> None:
    found = names.parse_host(text)
    assert (found.host, found.backend, found.pool) == parts
    assert str(found) == text


@pytest.mark.parametrize("bad", ["", "@b", "h@", "h b", "h@b#", "h@b@c"])
def test_bad_host_names_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="form"):
        names.parse_host(bad)

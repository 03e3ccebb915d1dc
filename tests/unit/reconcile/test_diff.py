# SPDX-License-Identifier: Apache-2.0
"""The comparison by itself, over two sides that hypothesis makes: equal sides are silent, a difference is named once,
whatever is busy is left out, and nothing is ever freed that a resource stands on.
"""

from __future__ import annotations

import dataclasses
import random
import uuid
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from volmgr import names
from volmgr.db.audit_rows import ExportRow, GrantRow, ObjectRow, PastRow, ResourceRow
from volmgr.reconcile.diff import diff
from volmgr.reconcile.findings import Kind, Repair
from volmgr.reconcile.world import Recorded, World
from volmgr.types import GiB, ObservedExport, ObservedObject

PREFIX = "iqn.2010-10.org.openstack:"
STATUSES = ("available", "in-use", "reserved")


def an_id(seed: int) -> str:
    return str(uuid.UUID(int=random.Random(seed).getrandbits(128), version=4))


def sides(count: int) -> tuple[Recorded, World]:
    """Return two sides that agree: volumes, every second one exported and granted, every third one in the trash."""
    resources, objects, exports, grants = {}, {}, {}, {}
    there, served = [], []
    for number in range(count):
        one = an_id(number)
        status = STATUSES[number % 3]
        resources[one] = ResourceRow("volume", one, status, status, one, None, 0, 1, "p")
        objects[one] = ObjectRow(one, "volume", one, "current", f"serial{number}", GiB)
        there.append(ObservedObject(names.object_name("volume", one), one, "volume", "current", GiB))
        if number % 2:
            name = names.target_name(PREFIX, "volume", one)
            exports[name] = ExportRow(one, "volume", name)
            grants[one] = [GrantRow(an_id(-number), one, frozenset({f"iqn.1993-08.org.debian:{number}"}), "", False)]
            peers = (f"IQN.1993-08.org.debian:{number}",)
            served.append(ObservedExport(name, (f"/{one}",), (f"serial{number}",), peers))
    paths = {row.resource_id: f"/{row.resource_id}" for row in exports.values()}
    recorded = Recorded("h@b", PREFIX, resources, objects, exports, grants, paths=paths)
    return recorded, World(tuple(there), tuple(served))


def test_what_nobody_is_let_in_to_is_missed_only_where_it_would_be_there() -> None:
    """With ATA over Ethernet nothing runs for it."""
    recorded, world = sides(4)
    row = next(iter(recorded.exports.values()))
    nothing = dataclasses.replace(world, exports=without(world.exports, 0))
    assert [item.kind for item in diff(recorded, nothing)] == [Kind.EXPORT_MISSING]
    idle = dataclasses.replace(nothing, ungranted=False)
    assert [item.kind for item in diff(recorded, idle)] == [Kind.EXPORT_MISSING], "somebody is let in to it"
    grants = {key: value for key, value in recorded.grants.items() if key != row.resource_id}
    assert diff(dataclasses.replace(recorded, grants=grants), idle) == []


def without(values: Any, index: int) -> Any:
    return tuple(value for place, value in enumerate(values) if place != index)


@given(st.integers(0, 12))
def test_two_sides_that_agree_are_silent(count: int) -> None:
    recorded, world = sides(count)
    assert diff(recorded, world) == []


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_one_difference_is_one_finding(data: st.DataObject) -> None:
    recorded, world = sides(data.draw(st.integers(2, 10)))
    assert world.objects is not None
    assert world.exports is not None
    place = data.draw(st.integers(0, len(world.objects) - 1))
    item = world.objects[place]
    change = data.draw(st.sampled_from(["gone", "larger", "smaller", "trash", "building", "export", "serial"]))
    if change in ("export", "serial"):
        place = data.draw(st.integers(0, len(world.exports) - 1))
        export = world.exports[place]
        kept = without(world.exports, place)
        if change == "export":
            world, kind = dataclasses.replace(world, exports=kept), Kind.EXPORT_MISSING
        else:
            other = dataclasses.replace(export, serials=("other",))
            world, kind = dataclasses.replace(world, exports=(*kept, other)), Kind.EXPORT_WRONG_SERIAL
        (about,) = [row.resource_id for row in recorded.exports.values() if row.target_name == export.target_name]
    else:
        about = item.object_id
        changed, kind = {
            "gone": (None, Kind.STORAGE_MISSING),
            "larger": (dataclasses.replace(item, size_bytes=GiB + 1), Kind.STORAGE_TOO_LARGE),
            "smaller": (dataclasses.replace(item, size_bytes=GiB - 1), Kind.STORAGE_TOO_SMALL),
            "trash": (dataclasses.replace(item, state="trash", name=names.trash_name(about)), Kind.STORAGE_IN_TRASH),
            "building": (
                dataclasses.replace(item, state="building", name=names.building_name(about)), Kind.STORAGE_MISSING
            ),
        }[change]
        rest = without(world.objects, place)
        world = dataclasses.replace(world, objects=rest if changed is None else (*rest, changed))
    assert [(found.kind, found.resource_id) for found in diff(recorded, world)] == [(kind, about)]
    assert diff(recorded, world, {about}) == []


_KINDS = st.sampled_from(["volume", "snapshot"])
_STATES = st.sampled_from(["current", "building", "trash"])


@st.composite
def messes(draw: st.DrawFn) -> tuple[Recorded, World]:
    """Two sides that have nothing to do with each other but their ids."""
    ids = [an_id(number) for number in range(6)]
    resources = {
        one: ResourceRow(
            draw(_KINDS), one, draw(st.sampled_from(["available", "error", "extending", "in-use"])), "available",
            draw(st.sampled_from([one, *ids])), draw(st.sampled_from([None, "x"])), draw(st.integers(0, 2)), 1, "p",
        )
        for one in draw(st.sets(st.sampled_from(ids)))
    }
    objects = {
        one: ObjectRow(one, draw(_KINDS), draw(st.sampled_from(ids)), draw(_STATES), "s", GiB)
        for one in draw(st.sets(st.sampled_from(ids)))
    }
    there = []
    for one, state in draw(st.sets(st.tuples(st.sampled_from(ids), _STATES))):
        name = {"current": names.object_name("volume", one), "trash": names.trash_name(one)}.get(
            state, names.building_name(one)
        )
        there.append(ObservedObject(
            name, one, "volume", state, draw(st.sampled_from([GiB, 2 * GiB])), marked=draw(st.booleans())
        ))
    served = [
        ObservedExport(names.target_name(PREFIX, "volume", one), ("/x",), ("s",))
        for one in draw(st.sets(st.sampled_from(ids)))
    ]
    exports = {
        names.target_name(PREFIX, "volume", one): ExportRow(one, "volume", names.target_name(PREFIX, "volume", one))
        for one in draw(st.sets(st.sampled_from(ids)))
    }
    past = {one: PastRow("delete_volume", "done") for one in draw(st.sets(st.sampled_from(ids)))}
    here = {*resources, *objects, *(row.name_id for row in resources.values())}
    elsewhere = draw(st.frozensets(st.sampled_from(ids))) - here
    recorded = Recorded("h@b", PREFIX, resources, objects, exports, past=past, elsewhere=elsewhere)
    return recorded, World(tuple(there), tuple(served))


@given(messes())
@settings(max_examples=150, deadline=None)
def test_nothing_that_is_needed_or_not_ours_is_freed(mess: tuple[Recorded, World]) -> None:
    recorded, world = mess
    found = diff(recorded, world)
    marked = {item.name for item in world.objects or () if item.marked}
    embodied = {row.name_id for row in recorded.resources.values()}
    for item in found:
        about = item.object_id or item.resource_id
        if item.repair is Repair.DISCARD:
            assert item.name in marked, "it bears no mark of ours"
            whole = names.parse_object_name(item.name)
            assert whole is None or whole.object_id not in embodied, "a resource stands on it"
            if item.safe:
                assert about in recorded.objects or about in embodied or about in recorded.past, "nothing proves it"
        if item.safe and item.kind is Kind.EXPORT_ORPHAN:
            assert item.resource_id in recorded.resources or item.resource_id in recorded.past
        assert about not in recorded.elsewhere, "it is another worker's"
    assert len({item.id_on("h@b") for item in found}) == len(found), "two findings have one id"
    assert diff(recorded, world, {*embodied, *recorded.objects, *(o.object_id for o in world.objects or ()),
                                  *(row.resource_id for row in recorded.exports.values()),
                                  *(an_id(number) for number in range(6))}) == []

# SPDX-License-Identifier: Apache-2.0
"""Conformance: what bears the name of an object that is to be made is never taken for it. Knows no driver.

Such an orphan is left by an earlier life whose database was lost or restored, or by another program. It has the right
name and the right size, and an earlier tenant's bytes.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.drivers.making import making
from volmgr.testing.conformance.bench import Bench, does_not_apply
from volmgr.testing.conformance.suite.test_volumes import DATA
from volmgr.types import GiB, Snapshot, Volume

SECRET = b"an earlier tenant's bytes"
Resource = Volume | Snapshot
Way = Callable[[Bench], tuple[Resource, Callable[[], Any]]]


def _empty(bench: Bench) -> tuple[Resource, Callable[[], Any]]:
    made = bench.volume()
    return made, lambda: bench.driver.create_volume(made)


def _snapshot(bench: Bench) -> tuple[Resource, Callable[[], Any]]:
    bench.need("create_snapshot")
    made = bench.snapshot(bench.created(data=DATA))
    return made, lambda: bench.driver.create_snapshot(made)


def _from_snapshot(bench: Bench) -> tuple[Resource, Callable[[], Any]]:
    bench.need("create_snapshot", "create_volume_from_snapshot")
    made, source = bench.volume(), bench.snapped(bench.created(data=DATA))
    return made, lambda: bench.driver.create_volume_from_snapshot(made, source)


def _clone(bench: Bench) -> tuple[Resource, Callable[[], Any]]:
    bench.need("create_cloned_volume")
    made, source = bench.volume(), bench.created(data=DATA)
    return made, lambda: bench.driver.create_cloned_volume(made, source)


every_way = pytest.mark.parametrize("way", [_empty, _snapshot, _from_snapshot, _clone], ids=lambda way: way.__name__)


def _orphan(bench: Bench, resource: Resource) -> Any:
    """Leave an object that another work has made under the resource's name; returns what reads it."""
    with making("another-work", again=False):
        if isinstance(resource, Snapshot):
            volume = bench.created(data=SECRET)
            left = Snapshot(id=resource.id, volume_id=volume.id, volume_size=1, volume=volume)
            bench.driver.create_snapshot(left)
            return left
        bench.driver.create_volume(resource)
    bench.write(resource, 0, SECRET)
    return resource


class TestOrphans:
    @every_way
    @pytest.mark.parametrize("again", [False, True], ids=["first run", "repeat"])
    def test_it_is_refused_and_left_as_it_is(self, bench: Bench, way: Way, again: bool) -> None:
        resource, create = way(bench)
        left = _orphan(bench, resource)
        with making("this-work", again=again), pytest.raises(exception.ObjectExists) as refused:
            create()
        assert "volmgr-manage audit" in refused.value.hint
        assert bench.read(left, 0, len(SECRET)) == SECRET
        assert bench.seen("building") == {}

    @every_way
    def test_what_the_work_has_made_itself_is_gone_on_with(self, bench: Bench, way: Way) -> None:
        resource, create = way(bench)
        with making("this-work", again=False):
            create()
        with making("this-work", again=True):
            create()
        assert bench.seen()[resource.name_id].size_bytes == GiB

    @every_way
    def test_without_a_work_nothing_is_taken(self, bench: Bench, way: Way) -> None:
        resource, create = way(bench)
        left = _orphan(bench, resource)
        with pytest.raises(exception.ObjectExists):
            contextvars.Context().run(create)
        assert bench.read(left, 0, len(SECRET)) == SECRET

    @every_way
    def test_who_takes_back_takes_only_what_is_its_own(self, bench: Bench, way: Way) -> None:
        resource, create = way(bench)
        delete = bench.driver.delete_snapshot if isinstance(resource, Snapshot) else bench.driver.delete_volume
        left = _orphan(bench, resource)
        with making("this-work", again=True, undoing=True):
            delete(resource)
        assert bench.read(left, 0, len(SECRET)) == SECRET
        delete(resource)
        with making("this-work", again=True):
            create()
        with making("this-work", again=True, undoing=True):
            delete(resource)
        assert resource.name_id not in bench.seen()

    def test_nothing_is_managed_over_it(self, bench: Bench) -> None:
        bench.need("manage_existing")
        volume = bench.volume()
        left = _orphan(bench, volume)
        if not bench.factory.foreign(bench.driver, "legacy", GiB, DATA):
            does_not_apply(f"{bench.factory.name} has no objects of others")
        for reference in ("legacy", "not-there"):
            with making("this-work", again=False), pytest.raises(exception.VolmgrError):
                bench.driver.manage_existing(volume, {"source-name": reference})
        assert bench.read(left, 0, len(SECRET)) == SECRET

    def test_nothing_is_brought_back_over_it(self, bench: Bench) -> None:
        bench.need("trash_volume", "restore_volume")
        volume = bench.created(data=DATA)
        bench.driver.trash_volume(volume)
        left = _orphan(bench, volume)
        with making("this-work", again=False), pytest.raises(exception.ObjectExists):
            bench.driver.restore_volume(volume)
        assert bench.read(left, 0, len(SECRET)) == SECRET
        assert names.trash_name(volume.name_id) in {item.name for item in bench.driver.observe()}

# SPDX-License-Identifier: Apache-2.0
"""Conformance: groups of volumes, whose copies are of one instant and whose members are answered for one by one.

Knows no driver. A group is an object with an ``id``; who belongs to it is told with each call.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import uuid
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from volmgr import exception
from volmgr.testing.conformance.bench import Bench
from volmgr.testing.conformance.suite.test_copies import LATER
from volmgr.testing.conformance.suite.test_volumes import DATA
from volmgr.testing.waiting import wait_until
from volmgr.types import Snapshot, Volume

ROUNDS = 5
WIDTH = 8
DEADLINE = 30.0
GOOD = (None, "available", "deleted")


def group() -> Any:
    """Return a group, or a group snapshot, as a driver sees it."""
    return SimpleNamespace(id=str(uuid.uuid4()))


def succeeded(ids: set[str], model_update: dict[str, Any] | None, updates: Sequence[dict[str, Any]] | None) -> bool:
    """Return whether an answer is well formed and says that all went well."""
    assert model_update is None or isinstance(model_update, dict)
    for item in updates or ():
        assert item["id"] in ids
    statuses = [item.get("status") for item in (model_update or {}, *(updates or ()))]
    return all(status in GOOD for status in statuses)


def _members(bench: Bench, count: int = 3) -> list[Volume]:
    return [bench.created(data=DATA + bytes([index])) for index in range(count)]


def _ids(members: Sequence[Volume | Snapshot]) -> set[str]:
    return {member.id for member in members}


class TestGroups:
    def _snapped(self, bench: Bench, volumes: Sequence[Volume]) -> list[Snapshot]:
        snapshots = [bench.snapshot(volume) for volume in volumes]
        assert succeeded(_ids(snapshots), *bench.driver.create_cgsnapshot(None, group(), snapshots))
        return snapshots

    def _marks(self, bench: Bench, snapshots: Sequence[Snapshot]) -> list[bytes]:
        found = []
        for snapshot in snapshots:
            made = bench.volume()
            bench.driver.create_volume_from_snapshot(made, snapshot)
            found.append(bench.read(made, 0, len(DATA) + 1))
            bench.driver.delete_volume(made)
        return found

    def test_a_group_is_made_changed_and_deleted_with_its_volumes(self, bench: Bench) -> None:
        bench.need("create_consistencygroup", "delete_consistencygroup")
        made, volumes, other = group(), _members(bench), bench.created(data=DATA)
        assert succeeded(set(), bench.driver.create_consistencygroup(None, made), None)
        for _ in range(2):
            assert succeeded(_ids(volumes), *bench.driver.delete_consistencygroup(None, made, volumes))
            assert set(bench.seen("current")) == {other.name_id}
        assert bench.read(other, 0, len(DATA)) == DATA

    def test_volumes_join_and_leave(self, bench: Bench) -> None:
        bench.need("create_consistencygroup", "update_consistencygroup")
        made, volumes = group(), _members(bench)
        bench.driver.create_consistencygroup(None, made)
        model, added, removed = bench.driver.update_consistencygroup(None, made, volumes[:2], volumes[2:])
        assert succeeded(_ids(volumes), model, [*(added or ()), *(removed or ())])
        model, added, removed = bench.driver.update_consistencygroup(None, made, add_volumes=None, remove_volumes=None)
        assert succeeded(set(), model, added)
        assert set(bench.seen()) == {volume.name_id for volume in volumes}

    def test_a_group_snapshot_has_the_bytes_of_each_member(self, bench: Bench) -> None:
        bench.need("create_cgsnapshot", "delete_cgsnapshot", "create_volume_from_snapshot")
        volumes = _members(bench)
        snapshots = self._snapped(bench, volumes)
        for volume in volumes:
            bench.write(volume, 0, LATER)
        assert self._marks(bench, snapshots) == [DATA + bytes([index]) for index in range(3)]
        for _ in range(2):
            assert succeeded(_ids(snapshots), *bench.driver.delete_cgsnapshot(None, group(), snapshots))
            assert set(bench.seen("current")) == {volume.name_id for volume in volumes}

    def test_a_group_snapshot_made_again_keeps_the_first_moment(self, bench: Bench) -> None:
        bench.need("create_cgsnapshot", "create_volume_from_snapshot")
        volumes = _members(bench)
        snapshots = self._snapped(bench, volumes)
        bench.write(volumes[1], 0, LATER)
        assert succeeded(_ids(snapshots), *bench.driver.create_cgsnapshot(None, group(), snapshots))
        assert self._marks(bench, snapshots)[1] == DATA + b"\x01"

    def test_without_one_of_its_volumes_no_snapshot_is_made(self, bench: Bench) -> None:
        bench.need("create_cgsnapshot")
        volumes = _members(bench, 2)
        snapshots = [bench.snapshot(volume) for volume in (*volumes, bench.volume())]
        # Either way is allowed to a driver: an error, or an answer that says so.
        with contextlib.suppress(exception.NotFound):
            assert not succeeded(_ids(snapshots), *bench.driver.create_cgsnapshot(None, group(), snapshots))
        assert set(bench.seen()) == {volume.name_id for volume in volumes}

    def test_half_made_snapshots_are_made_anew(self, bench: Bench) -> None:
        bench.need("create_cgsnapshot", "create_volume_from_snapshot")
        volumes = _members(bench)
        snapshots = [bench.snapshot(volume) for volume in volumes]
        for snapshot in snapshots[:2]:
            bench.half_build(snapshot, LATER * 10)
        assert succeeded(_ids(snapshots), *bench.driver.create_cgsnapshot(None, group(), snapshots))
        assert self._marks(bench, snapshots) == [DATA + bytes([index]) for index in range(3)]
        assert bench.seen("building") == {}

    def test_the_snapshots_of_a_group_are_of_one_instant(self, bench: Bench) -> None:
        """One client counts in two volumes in turn, so at no instant are they more than one apart, the first ahead."""
        bench.need("create_cgsnapshot", "create_volume_from_snapshot")
        made = group()
        first, second = (dataclasses.replace(bench.created(), group_id=made.id) for _ in range(2))
        count, ended, errors = [0], threading.Event(), []

        def client() -> None:
            try:
                while not ended.wait(0.0002):
                    count[0] += 1
                    for volume in (first, second):
                        bench.write(volume, 0, count[0].to_bytes(WIDTH, "big"))
            except Exception as error:  # told in the test's own thread
                errors.append(error)

        thread = threading.Thread(target=client, daemon=True)
        thread.start()
        found = []
        try:
            for _ in range(ROUNDS):
                before = count[0]
                wait_until(lambda before=before: errors or count[0] > before + 1, DEADLINE, "the client writes")  # type: ignore[misc]
                # The second is copied first: without one instant it would be behind by more than one.
                found.append(self._snapped(bench, [second, first]))
        finally:
            ended.set()
            thread.join(DEADLINE)
        assert errors == []
        assert not thread.is_alive()
        for snapshots in found:
            behind, ahead = (int.from_bytes(mark[:WIDTH], "big") for mark in self._marks(bench, snapshots))
            assert 0 <= ahead - behind <= 1

    @pytest.mark.parametrize("way", ["snapshot", "volumes"])
    def test_a_group_comes_from_another_one(self, bench: Bench, way: str) -> None:
        bench.need("create_consistencygroup_from_src", "create_cgsnapshot")
        sources = _members(bench)
        made = [bench.volume(), bench.volume(), bench.volume(2)]
        if way == "snapshot":
            snapshots = self._snapped(bench, sources)
            bench.write(sources[0], 0, LATER)
            made = [
                dataclasses.replace(volume, snapshot_id=snapshot.id)
                for volume, snapshot in zip(made, snapshots, strict=True)
            ]
            arguments: dict[str, Any] = {"cgsnapshot": group(), "snapshots": snapshots}
        else:
            made = [
                dataclasses.replace(volume, source_volid=source.id)
                for volume, source in zip(made, sources, strict=True)
            ]
            arguments = {"source_cg": group(), "source_vols": sources}
        for _ in range(2):
            answer = bench.driver.create_consistencygroup_from_src(None, group(), made, **arguments)
            assert succeeded(_ids(made), *answer)
        assert [bench.read(volume, 0, len(DATA) + 1) for volume in made] == [DATA + bytes([i]) for i in range(3)]
        bench.write(made[1], 0, LATER)
        assert bench.read(sources[1], 0, len(DATA)) == DATA
        assert bench.seen("building") == {}

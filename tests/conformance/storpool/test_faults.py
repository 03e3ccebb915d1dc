# SPDX-License-Identifier: Apache-2.0
"""Answers that are late, lost, broken or "not now": what was to be done is done once, or the backend is down.

Each verb is run once to learn which calls it makes; then again and again, with a fault at each of them in turn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.testing.storpool.contract import contract
from volmgr.testing.storpool.process import StorPoolServer
from volmgr.types import GiB, Snapshot, Volume

from .conftest import PAUSES, Bench

DATA, LATER = b"bytes of one moment", b"bytes of a later one"


@dataclass
class Scene:
    """A volume with a snapshot, and a record of a volume that is to be made."""

    bench: Bench
    volume: Volume = field(init=False)
    snapshot: Snapshot = field(init=False)
    made: Volume = field(init=False)
    other: Volume = field(init=False)
    twin: Volume = field(init=False)
    beside: Snapshot = field(init=False)

    def known(self) -> set[str]:
        """Return StorPool's names of everything that may be there at the end."""
        items = (self.volume, self.snapshot, self.made, self.other, self.twin, self.beside)
        return {self.bench.name(item) for item in items}

    def __post_init__(self) -> None:
        self.volume = self.bench.created(1, "fast", DATA)
        self.snapshot = self.bench.snapped(self.volume)
        self.made = self.bench.volume(2, "fast")
        self.other, self.twin, self.beside = self.volume, self.made, self.snapshot

    def has(self, resource: Volume | Snapshot, size: int, data: bytes = DATA) -> bool:
        bench = self.bench
        return bench.shown(resource)["size"] == size * GiB and bench.read(resource, len(data)) == data


@dataclass(frozen=True)
class Verb:
    """What is done in a scene, and whether it is done then."""

    do: Callable[[Scene], Any]
    done: Callable[[Scene], bool]
    prepare: Callable[[Scene], Any] = lambda scene: None


def _across(scene: Scene) -> None:
    scene.made = scene.bench.volume(2, "hybrid")


def _other_snapshot(scene: Scene) -> None:
    scene.snapshot = scene.bench.snapshot(scene.volume)


def _exchange(scene: Scene) -> Any:
    return scene.bench.driver.update_migrated_volume(None, scene.volume, scene.made, "available")


def _set_of_two(scene: Scene) -> None:
    """Make a record of a snapshot of a second volume, beside one of the first."""
    scene.other = scene.bench.created(1, "fast", DATA)
    scene.snapshot, scene.beside = scene.bench.snapshot(scene.volume), scene.bench.snapshot(scene.other)


def _group_of_two(scene: Scene) -> None:
    """Make records of two volumes that are to come from two that are there; one goes to another template."""
    scene.other = scene.bench.created(1, "fast", DATA)
    scene.made, scene.twin = scene.bench.volume(1, "hybrid"), scene.bench.volume(1, "fast")


def _take(scene: Scene) -> None:
    scene.bench.driver.manage_existing(scene.made, {"source-name": FOREIGN})


def _foreign(scene: Scene) -> None:
    scene.bench.server.request_change("VolumeCreate", "", {"name": FOREIGN, "size": GiB, "template": "fast"})
    scene.bench.server.write(FOREIGN, 0, DATA)


def _foreign_snapshot(scene: Scene) -> None:
    scene.bench.server.request_change("VolumeSnapshot", scene.bench.name(scene.volume), {"name": FOREIGN})
    scene.snapshot = scene.bench.snapshot(scene.volume)


FOREIGN = "somebody-s"
_DIFF = {"extra_specs": {"storpool_template": ("fast", "hybrid")}}
VERBS: dict[str, Verb] = {
    "create": Verb(
        lambda scene: scene.bench.driver.create_volume(scene.made), lambda scene: scene.has(scene.made, 2, bytes(9))
    ),
    "delete": Verb(
        lambda scene: scene.bench.driver.delete_volume(scene.volume),
        lambda scene: scene.bench.server.names() == {scene.bench.name(scene.snapshot)},
    ),
    "extend": Verb(
        lambda scene: scene.bench.driver.extend_volume(scene.volume, 3), lambda scene: scene.has(scene.volume, 3)
    ),
    "snapshot": Verb(
        lambda scene: scene.bench.driver.create_snapshot(scene.snapshot),
        lambda scene: scene.has(scene.snapshot, 1),
        _other_snapshot,
    ),
    "delete_snapshot": Verb(
        lambda scene: scene.bench.driver.delete_snapshot(scene.snapshot),
        lambda scene: scene.bench.name(scene.snapshot) not in scene.bench.server.names(),
    ),
    "from_snapshot": Verb(
        lambda scene: scene.bench.driver.create_volume_from_snapshot(scene.made, scene.snapshot),
        lambda scene: scene.has(scene.made, 2) and scene.bench.shown(scene.made)["templateName"] == "hybrid",
        _across,
    ),
    "clone": Verb(
        lambda scene: scene.bench.driver.create_cloned_volume(scene.made, scene.volume),
        lambda scene: scene.has(scene.made, 2),
    ),
    "clone_across": Verb(
        lambda scene: scene.bench.driver.create_cloned_volume(scene.made, scene.volume),
        lambda scene: scene.has(scene.made, 2) and scene.bench.shown(scene.made)["templateName"] == "hybrid",
        _across,
    ),
    "revert": Verb(
        lambda scene: scene.bench.driver.revert_to_snapshot(None, scene.volume, scene.snapshot),
        lambda scene: scene.has(scene.volume, 1),
        lambda scene: scene.bench.write(scene.volume, LATER),
    ),
    "retype": Verb(
        lambda scene: scene.bench.driver.retype(None, scene.volume, {}, _DIFF, {}),
        lambda scene: scene.bench.shown(scene.volume)["templateName"] == "hybrid",
    ),
    "cgsnapshot": Verb(
        lambda scene: scene.bench.driver.create_cgsnapshot(None, None, [scene.snapshot, scene.beside]),
        lambda scene: scene.has(scene.snapshot, 1) and scene.has(scene.beside, 1),
        _set_of_two,
    ),
    "group_from_group": Verb(
        lambda scene: scene.bench.driver.create_consistencygroup_from_src(
            None, None, [scene.made, scene.twin], source_vols=[scene.volume, scene.other]
        ),
        lambda scene: scene.has(scene.made, 1)
        and scene.has(scene.twin, 1)
        and scene.bench.shown(scene.made)["templateName"] == "hybrid",
        _group_of_two,
    ),
    "delete_group": Verb(
        lambda scene: scene.bench.driver.delete_consistencygroup(None, None, [scene.volume, scene.other]),
        lambda scene: not scene.bench.server.names() - {scene.bench.name(scene.snapshot)},
        lambda scene: setattr(scene, "other", scene.bench.created()),
    ),
    "delete_cgsnapshot": Verb(
        lambda scene: scene.bench.driver.delete_cgsnapshot(None, None, [scene.snapshot]),
        lambda scene: scene.bench.name(scene.snapshot) not in scene.bench.server.names(),
    ),
    "manage": Verb(_take, lambda scene: scene.has(scene.made, 2), _foreign),
    "manage_snapshot": Verb(
        lambda scene: scene.bench.driver.manage_existing_snapshot(scene.snapshot, {"source-name": FOREIGN}),
        lambda scene: scene.has(scene.snapshot, 1),
        _foreign_snapshot,
    ),
    "unmanage": Verb(
        lambda scene: scene.bench.driver.unmanage(scene.volume),
        lambda scene: names.unmanaged_name("volume", scene.volume.id) in scene.bench.server.names()
        and scene.bench.name(scene.volume) not in scene.bench.server.names(),
    ),
    "unmanage_snapshot": Verb(
        lambda scene: scene.bench.driver.unmanage_snapshot(scene.snapshot),
        lambda scene: names.unmanaged_name("snapshot", scene.snapshot.id) in scene.bench.server.names(),
    ),
    "manageable": Verb(
        lambda scene: scene.bench.driver.get_manageable_snapshots([], None, None, None, None, None),
        lambda scene: len(scene.bench.driver.get_manageable_volumes([], None, None, None, None, None)) == 1,
    ),
    "exchange": Verb(
        _exchange,
        lambda scene: scene.has(scene.made, 1) and scene.has(scene.volume, 2, bytes(9)),
        lambda scene: scene.bench.driver.create_volume(scene.made),
    ),
}
#: One of each way in which an answer can be lost or useless, with and without the work done.
FAULTS = (
    {"kind": "transient"},
    {"kind": "reset"},
    {"kind": "reset", "when": "after"},
    {"kind": "garbage", "when": "after"},
)


def _calls_of(bench: Bench, verb: Verb) -> list[str]:
    scene = Scene(bench)
    verb.prepare(scene)
    bench.server.forget_calls()
    verb.do(scene)
    found = bench.calls()
    assert verb.done(scene)
    bench.server.reset()
    return found


@pytest.mark.parametrize("name", sorted(VERBS))
def test_a_lost_answer_anywhere_is_settled(bench: Bench, name: str) -> None:
    verb = VERBS[name]
    calls = _calls_of(bench, verb)
    for place in range(len(calls)):
        # A look changes nothing, so it does not matter how its answer is lost.
        for fault in FAULTS if contract().calls[calls[place]].method == "POST" else FAULTS[1:2]:
            scene = Scene(bench)
            verb.prepare(scene)
            others = bench.server.names() - scene.known()
            bench.server.faults({"call": "*", "skip": place, **fault})
            verb.do(scene)
            told = f"{name}: {fault} at call {place}, {calls[place]}"
            assert bench.server.faults_left() == 0, told
            assert verb.done(scene), told
            visible = {item for item in bench.server.names() - others if not item.startswith("*")}
            let_go = {item for item in visible if names.parse_unmanaged_name(item)}
            assert visible - let_go <= scene.known(), f"{told} leaves {visible - scene.known()}"
            assert bool(let_go) == name.startswith("unmanage")
            assert bench.server.refused() == []
            bench.server.reset()


@pytest.mark.parametrize("name", sorted(VERBS))
@pytest.mark.parametrize("kind", ["reset", "transient"])
def test_tries_are_bounded_then_the_backend_is_down(bench: Bench, name: str, kind: str) -> None:
    verb = VERBS[name]
    scene = Scene(bench)
    verb.prepare(scene)
    before = bench.server.names()
    bench.server.forget_calls()
    bench.server.faults({"call": "*", "kind": kind, "times": 1000})
    with pytest.raises(exception.BackendDown) as caught:
        verb.do(scene)
    assert caught.value.retryable
    assert caught.value.hint
    tried = len(bench.calls())
    # The call itself once, and then the look at whether it was done, as often as there are tries.
    assert tried <= 3 * (len(PAUSES) + 1)
    bench.server.faults()
    assert bench.server.names() == before
    verb.do(scene)
    assert verb.done(scene)


@pytest.mark.parametrize("kind", ["garbage", "empty", "hangup"])
@pytest.mark.parametrize("name", ["create", "delete", "snapshot"])
def test_answers_that_make_no_sense_are_no_answers(bench: Bench, name: str, kind: str) -> None:
    verb = VERBS[name]
    scene = Scene(bench)
    verb.prepare(scene)
    bench.server.faults({"call": "*", "kind": kind, "when": "after", "times": 2})
    verb.do(scene)
    assert verb.done(scene)


@pytest.mark.parametrize("name", ["create", "extend", "snapshot", "clone"])
def test_a_work_that_was_done_is_found_whatever_the_error_is_called(bench: Bench, name: str) -> None:
    """The names of StorPool's errors are not all public: what counts is what is there."""
    verb = VERBS[name]
    scene = Scene(bench)
    verb.prepare(scene)
    call = {"create": "VolumeCreate", "extend": "VolumeUpdate", "snapshot": "VolumeSnapshot", "clone": "VolumeCreate"}
    bench.server.faults({"call": call[name], "kind": "error", "when": "after", "name": "whoKnows", "status": 418})
    verb.do(scene)
    assert verb.done(scene)


def test_an_answer_that_does_not_come_in_time_is_looked_up(bench: Bench) -> None:
    bench.driver = bench.make(timeout=0.3)
    volume = bench.volume()
    bench.server.faults({"call": "VolumeCreate", "kind": "slow", "when": "after", "seconds": 5})
    bench.driver.create_volume(volume)
    assert bench.server.names() == {bench.name(volume)}
    bench.server.faults({"call": "*", "kind": "slow", "seconds": 5, "times": 100})
    bench.server.forget_calls()
    with pytest.raises(exception.BackendDown, match="timed out"):
        bench.driver.extend_volume(volume, 2)
    # One try, then the look at what came of it: that one ends once the time of two tries has passed.
    assert bench.calls() == ["VolumeUpdate", "Volume", "Volume"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_answer_that_drips_is_late_as_a_whole(bench: Bench, when: str) -> None:
    """No byte of it is waited for as long as a try may take; without an end to the whole it would never be over."""
    bench.driver = bench.make(timeout=0.5)
    volume = bench.volume()
    bench.server.faults({"call": "VolumeCreate", "kind": "drip", "when": when, "seconds": 0.05})
    bench.server.forget_calls()
    bench.driver.create_volume(volume)
    assert bench.server.names() == {bench.name(volume)}
    tried = [call for call in bench.calls() if call == "VolumeCreate"]
    assert len(tried) == (2 if when == "before" else 1)


def test_a_request_that_is_late_cannot_hit_what_bears_the_name_by_then(bench: Bench) -> None:
    bench.driver = bench.make(timeout=0.3)
    volume = bench.created(data=DATA)
    bench.server.faults({"call": "VolumeDelete", "kind": "slow", "seconds": 1})
    bench.driver.delete_volume(volume)
    bench.driver.create_volume(volume)
    bench.write(volume, LATER)
    bench.server.wait_for("VolumeDelete", error="objectDoesNotExist")
    assert bench.read(volume, len(LATER)) == LATER


def test_a_cluster_that_is_gone_is_down_and_comes_back(running: StorPoolServer, bench: Bench) -> None:
    volume = bench.created(data=DATA)
    running.stop()
    try:
        with pytest.raises(exception.BackendDown, match="ConnectionRefusedError") as caught:
            bench.driver.create_snapshot(bench.snapshot(volume))
        assert "storpool" in caught.value.hint
    finally:
        running.start()
    bench.snapped(volume)
    assert bench.read(volume, len(DATA)) == DATA


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"name": "insufficientResources"}, exception.NoSpace),
        ({"name": "busy"}, exception.Busy),
        ({"name": "invalidParam"}, exception.Invalid),
        ({"name": "invalidParam", "descr": "volume is open at client 7"}, exception.Busy),
        ({"name": "whatever", "status": 403}, exception.BackendDown),
        ({"name": "whatever", "status": 500}, exception.BackendDown),
    ],
)
def test_refusals_are_typed_and_not_tried_again(
    bench: Bench, error: dict[str, Any], expected: type[exception.VolmgrError]
) -> None:
    bench.server.forget_calls()
    bench.server.faults({"call": "VolumeCreate", "kind": "error", **error})
    volume = bench.volume()
    with pytest.raises(expected, match=error["name"]):
        bench.driver.create_volume(volume)
    assert bench.calls() == ["VolumeCreate", "Volume"]
    assert bench.server.names() == set()


def test_what_has_vanished_is_not_found_and_deleted_already(bench: Bench) -> None:
    volume, other = bench.volume(), bench.created()
    snapshot = bench.snapshot(volume)
    for verb in (
        functools.partial(bench.driver.extend_volume, volume, 2),
        functools.partial(bench.driver.create_snapshot, snapshot),
        functools.partial(bench.driver.create_cloned_volume, bench.volume(), volume),
        functools.partial(bench.driver.revert_to_snapshot, None, volume, snapshot),
        functools.partial(bench.driver.retype, None, volume, {}, _DIFF, {}),
        functools.partial(bench.driver.migrate_volume, None, volume, _here(bench)),
    ):
        with pytest.raises(exception.VolumeNotFound):
            verb()
    with pytest.raises(exception.SnapshotNotFound):
        bench.driver.create_volume_from_snapshot(bench.volume(), snapshot)
    with pytest.raises(exception.SnapshotNotFound):
        bench.driver.revert_to_snapshot(None, other, snapshot)
    bench.driver.delete_volume(volume)
    bench.driver.delete_snapshot(snapshot)
    assert bench.server.names() == {bench.name(other)}


def _here(bench: Bench) -> dict[str, Any]:
    return {"host": "other@storpool#default", "capabilities": bench.driver.get_volume_stats(refresh=True)}

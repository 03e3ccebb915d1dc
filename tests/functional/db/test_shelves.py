# SPDX-License-Identifier: Apache-2.0
"""ATA over Ethernet addresses: whoever asks at the same time gets another one, none is lost, none is given twice."""

from __future__ import annotations

import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models
from volmgr.db.engine import Database
from volmgr.db.shelves import Shelves
from volmgr.operations.snapshots import CreateSnapshot
from volmgr.operations.volumes import CreateVolume, DeleteVolume
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig

WAIT = 120.0
WORKERS, VOLUMES = 4, 64


@pytest.fixture
def workers(database: Database, tmp_path: Path) -> Iterator[Callable[[Shelves], list[Rig]]]:
    """Make workers that share nothing but the database's server or file."""
    made: list[Rig] = []

    def make(shelves: Shelves, count: int = WORKERS) -> list[Rig]:
        for number in range(count):
            folder = tmp_path / str(number)
            folder.mkdir()
            if made:
                shutil.copy(made[0].folder / "keys.json", folder)
            own = Database(database.url)
            made.append(Rig(folder, database=own, host=f"node{number}@sim", shelves=shelves))
        return made

    yield make
    for rig in made:
        rig.close()


def addresses(rig: Rig) -> list[tuple[int, int]]:
    return sorted((row["shelf"], row["blade"]) for row in rig.rows(models.exports))


def together(work: Callable[[int], Any], count: int) -> list[Any]:
    """Call ``work`` in as many threads at once; returns what each returned or raised."""
    results: list[Any] = [None] * count
    begin = threading.Event()

    def run(index: int) -> None:
        begin.wait(WAIT)
        try:
            results[index] = work(index)
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    begin.set()
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads)
    return results


def new_id() -> str:
    return str(uuid.uuid4())


def test_concurrent_creates_get_different_addresses(workers: Callable[[Shelves], list[Rig]]) -> None:
    """As many as there are addresses, through four workers: the last ones fight for what is left."""
    rigs = workers(Shelves(0, 3, 16))
    answers = together(lambda index: rigs[index % WORKERS].submit(CreateVolume, volume_id=new_id(), size=1), VOLUMES)
    assert [answer for answer in answers if isinstance(answer, Exception)] == []
    assert addresses(rigs[0]) == [(shelf, blade) for shelf in range(4) for blade in range(16)]
    with pytest.raises(exception.NoMoreVolumes) as caught:
        rigs[0].submit(CreateVolume, volume_id=new_id(), size=1)
    assert "aoe_last_shelf_id" in caught.value.hint
    for rig in rigs:
        rig.run()
    assert violations(rigs[0].database) == []


def test_more_creates_than_addresses(workers: Callable[[Shelves], list[Rig]]) -> None:
    """Who finds none left has changed nothing: no volume, no quota."""
    rigs = workers(Shelves(7, 7, 10))
    answers = together(lambda index: rigs[index % WORKERS].submit(CreateVolume, volume_id=new_id(), size=1), 24)
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert len(refused) == 14
    assert {type(error) for error in refused} == {exception.NoMoreVolumes}
    assert addresses(rigs[0]) == [(7, blade) for blade in range(10)]
    assert len(rigs[0].rows(models.volumes)) == 10
    for rig in rigs:
        rig.run()
    assert violations(rigs[0].database) == []


def test_holes_are_used_again(workers: Callable[..., list[Rig]]) -> None:
    (rig,) = workers(Shelves(1, 2, 2), 1)
    ids = [new_id() for _ in range(4)]
    for volume_id in ids:
        rig.do(CreateVolume, volume_id=volume_id, size=1)
    (hole,) = [(row["shelf"], row["blade"]) for row in rig.rows(models.exports, resource_id=ids[1])]
    rig.do(DeleteVolume, volume_id=ids[1])
    assert hole not in addresses(rig)
    heir = new_id()
    rig.do(CreateVolume, volume_id=heir, size=1)
    assert [(row["shelf"], row["blade"]) for row in rig.rows(models.exports, resource_id=heir)] == [hole]


def test_an_address_freed_a_moment_ago_is_not_the_next(workers: Callable[..., list[Rig]]) -> None:
    """A host that was cut off may still have the device open: it must not become another volume under its hands."""
    (rig,) = workers(Shelves(0, 9999, 16), 1)
    given = set()
    for _ in range(8):
        volume_id = new_id()
        rig.do(CreateVolume, volume_id=volume_id, size=1)
        given |= set(addresses(rig))
        rig.do(DeleteVolume, volume_id=volume_id)
    assert len(given) == 8


def test_a_snapshot_gets_its_address_when_it_is_connected(workers: Callable[..., list[Rig]]) -> None:
    (rig,) = workers(Shelves(0, 0, 2), 1)
    volume_id, snapshot_id = new_id(), new_id()
    rig.do(CreateVolume, volume_id=volume_id, size=1)
    rig.do(CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    assert len(addresses(rig)) == 1
    connector = {"initiator": "iqn.1993-08.org.debian:01:a", "host": "compute"}
    rig.attachments.initialize("snapshot", snapshot_id, connector)
    assert addresses(rig) == [(0, 0), (0, 1)]
    other = new_id()
    with pytest.raises(exception.NoMoreVolumes):
        rig.submit(CreateVolume, volume_id=other, size=1)


def test_a_volume_without_an_address_says_so_when_it_is_connected(workers: Callable[..., list[Rig]]) -> None:
    """An export that was removed has given its address back."""
    (rig,) = workers(Shelves(0, 0, 1), 1)
    first, second = new_id(), new_id()
    rig.do(CreateVolume, volume_id=first, size=1)
    assert rig.exports.remove("volume", first)
    rig.do(CreateVolume, volume_id=second, size=1)
    with pytest.raises(exception.NoMoreVolumes):
        rig.attachments.initialize("volume", first, {"initiator": "iqn.1993-08.org.debian:01:a"})
    assert rig.rows(models.grants) == []


@pytest.mark.parametrize("bad", [(1, 0, 16), (-1, 0, 16), (0, 65535, 1), (0, 0, 0), (0, 0, 256)])
def test_impossible_shelves_are_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(exception.InvalidConfiguration) as caught:
        Shelves(*bad)
    assert "aoe_slots_per_shelf" in caught.value.hint

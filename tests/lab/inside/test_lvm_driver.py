# SPDX-License-Identifier: Apache-2.0
"""One test in which every verb of the LVM driver has its turn, thin, thick and mirrored, on real device-mapper devices.

The whole suite is in the folder ``conformance`` beside it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from volmgr import exception
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.making import making
from volmgr.testing.conformance.bench import Bench
from volmgr.testing.lab.lvm_factories import LvmMirrored, LvmThick, LvmThin
from volmgr.types import GiB

DATA = b"first tenant's bytes"
CLASSES: tuple[type[LvmThick], ...] = (LvmThin, LvmThick, LvmMirrored)


@pytest.fixture(scope="module", params=CLASSES, ids=lambda factory: str(factory.name))
def factory(request: pytest.FixtureRequest) -> LvmThick:
    made: LvmThick = request.param()
    return made


@pytest.fixture(scope="module")
def made_driver(
    nothing_left: None, factory: LvmThick, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LVMVolumeDriver, pathlib.Path]]:
    with factory.world(tmp_path_factory.mktemp(factory.name), neighbour=False) as folder:
        yield factory.make(folder), folder


@pytest.fixture
def bench(one_work: None, factory: LvmThick, made_driver: tuple[LVMVolumeDriver, pathlib.Path]) -> Iterator[Bench]:
    driver, folder = made_driver
    try:
        yield Bench(driver, factory, folder)
    finally:
        factory.end(driver, folder)


class TestLife:
    def test_a_life_from_create_to_wipe(self, bench: Bench) -> None:
        """Every verb once over, with the bytes looked at: what the whole suite does in small steps."""
        driver, source, made = bench.driver, bench.created(data=DATA, offset=GiB - len(DATA)), bench.volume(2)
        driver.create_volume(source)
        with making("another-work", again=True), pytest.raises(exception.ObjectExists):
            driver.create_volume(source)
        assert bench.read(source, GiB - len(DATA), len(DATA)) == DATA
        bench.half_build(made, b"left by a create that died" * 100)
        driver.create_cloned_volume(made, source)
        bench.write(source, 0, DATA)
        assert bench.read(made, 0, len(DATA)) == bytes(len(DATA))
        assert bench.read(made, GiB - len(DATA), 2 * len(DATA)) == DATA + bytes(len(DATA))
        driver.extend_volume(made, 3)
        assert bench.read(made, 3 * GiB - 512, 1024) == bytes(512)
        seen = {item.object_id: (item.state, item.size_bytes) for item in driver.observe()}
        assert seen == {source.name_id: ("current", GiB), made.name_id: ("current", 3 * GiB)}
        driver.trash_volume(source)
        driver.restore_volume(source)
        assert bench.read(source, 0, len(DATA)) == DATA
        driver.trash_volume(source)
        with pytest.raises(exception.Cancelled):
            driver.wipe("volume", source.name_id, _cancel)
        with pytest.raises(exception.NotFound):
            driver.restore_volume(source)
        driver.wipe("volume", source.name_id, bench.progress.append)
        assert bench.progress == sorted(bench.progress)
        driver.delete_volume(made)
        assert driver.observe() == []


def _cancel(_fraction: float) -> None:
    raise exception.Cancelled

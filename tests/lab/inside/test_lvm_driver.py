# SPDX-License-Identifier: Apache-2.0
"""The driver conformance suite over LVM, thin and thick, on real device-mapper devices.

Named on the command line this module runs the whole suite, for a quarter of an hour; as a part of its folder it runs
one test in which every verb has its turn.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from volmgr import exception, names
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.options import Configuration
from volmgr.testing.conformance import suite
from volmgr.testing.conformance.bench import Bench
from volmgr.testing.conformance.factories import DriverFactory
from volmgr.testing.lab.commands import run
from volmgr.types import GiB, Snapshot, Volume

GROUP = "conformance"
DATA = b"first tenant's bytes"


class LvmThick(DriverFactory):
    """Linear volumes in a group whose free space is full of other people's bytes, for all that volmgr knows."""

    name = "lvm-thick"
    lvm_type: ClassVar[str] = "default"

    def make(self, folder: pathlib.Path) -> LVMVolumeDriver:
        options = {"volume_group": GROUP, "lvm_type": self.lvm_type}
        driver = LVMVolumeDriver(configuration=Configuration(options), host=f"host@{self.name}")
        driver.do_setup(None)
        driver.check_for_setup_error()
        return driver

    @contextlib.contextmanager
    def world(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
        image = folder / "group.img"
        image.touch()
        os.truncate(image, 40 << 30)  # sparse: only what is written takes memory
        with contextlib.ExitStack() as undo:
            device = run("losetup", "--find", "--show", str(image)).strip()
            undo.callback(image.unlink)
            undo.callback(run, "losetup", "--detach", device)
            run("vgcreate", "-q", "-y", GROUP, device)
            undo.callback(run, "vgremove", "-q", "-f", "-y", GROUP)
            yield folder
            run("udevadm", "settle")

    def end(self, driver: Any, folder: pathlib.Path) -> None:
        left = [item.name for item in driver.vg.report().volumes.values() if item.name != driver.pool]
        if left:
            run("udevadm", "settle")
            run("lvremove", "-q", "-f", "-y", *(f"{GROUP}/{name}" for name in left))

    def half_build(self, driver: Any, resource: Volume | Snapshot, data: bytes) -> bool:
        building = names.building_name(resource.name_id)
        run("lvcreate", "-q", "-y", "-Wn", "-n", building, "-L", "8m", GROUP)
        with open(f"/dev/{GROUP}/{building}", "r+b") as device:
            device.write(data)
        return True


class LvmThin(LvmThick):
    """Thin volumes in a pool that the driver made."""

    name = "lvm-thin"
    lvm_type = "thin"

    def half_build(self, driver: Any, resource: Volume | Snapshot, data: bytes) -> bool:
        building = names.building_name(resource.name_id)
        pool = f"{GROUP}/{driver.pool}"
        run("lvcreate", "-q", "-y", "-n", building, "-V", "8m", "--thinpool", pool)
        with open(f"/dev/{GROUP}/{building}", "r+b") as device:
            device.write(data)
        return True


@pytest.fixture(scope="module", params=[LvmThin, LvmThick], ids=lambda factory: str(factory.name))
def factory(request: pytest.FixtureRequest) -> DriverFactory:
    made: DriverFactory = request.param()
    return made


@pytest.fixture(scope="module")
def made_driver(
    nothing_left: None, factory: DriverFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LVMVolumeDriver, pathlib.Path]]:
    with factory.world(tmp_path_factory.mktemp(factory.name)) as folder:
        yield factory.make(folder), folder


@pytest.fixture
def bench(factory: DriverFactory, made_driver: tuple[LVMVolumeDriver, pathlib.Path]) -> Iterator[Bench]:
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


if any(pathlib.Path(__file__).name in word for word in sys.argv):
    TestClones = suite.TestClones
    TestContract = suite.TestContract
    TestExtending = suite.TestExtending
    TestObserving = suite.TestObserving
    TestReverts = suite.TestReverts
    TestSnapshots = suite.TestSnapshots
    TestTrash = suite.TestTrash
    TestVolumes = suite.TestVolumes

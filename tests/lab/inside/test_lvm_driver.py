# SPDX-License-Identifier: Apache-2.0
"""The driver conformance suite over LVM, thin and thick, on real device-mapper devices.

Named on the command line this module runs the whole suite, for several minutes; as a part of its folder it runs those
tests in which LVM differs most from a folder of files.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from volmgr import names
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.options import Configuration
from volmgr.testing.conformance import suite
from volmgr.testing.conformance.bench import Bench
from volmgr.testing.conformance.factories import DriverFactory
from volmgr.testing.lab.commands import run
from volmgr.types import Snapshot, Volume

GROUP = "conformance"


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


_WHOLE = any(pathlib.Path(__file__).name in word for word in sys.argv)


def _chosen(cls: type, *tests: str) -> type:
    """Return a class of the suite, with these tests only unless the whole suite is asked for."""
    return cls if _WHOLE else type(cls.__name__, (), {name: vars(cls)[name] for name in tests})


TestVolumes = _chosen(suite.TestVolumes, "test_creating_again_is_success_and_changes_nothing")
TestExtending = _chosen(suite.TestExtending, "test_bytes_stay_and_what_is_new_reads_as_zeros")
TestClones = _chosen(suite.TestClones, "test_a_copy_has_the_bytes_and_zeros_behind_them")
TestTrash = _chosen(suite.TestTrash, "test_a_wipe_can_be_broken_off_and_run_again")
TestObserving = _chosen(suite.TestObserving, "test_everything_is_seen_as_what_it_is")
if _WHOLE:
    TestContract = suite.TestContract
    TestSnapshots = suite.TestSnapshots
    TestReverts = suite.TestReverts

# SPDX-License-Identifier: Apache-2.0
"""How the conformance suite gets a driver, and how it reads and writes what the driver stores.

This module knows the drivers that need nothing but a folder; others come by entry point.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import importlib.metadata
import pathlib
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

from volmgr import names
from volmgr.drivers.file import FileDriver
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import SimDriver
from volmgr.drivers.sim.store import forget_store
from volmgr.drivers.storpool import StorPoolDriver
from volmgr.targets.base import TargetConfig
from volmgr.targets.fake import FakeTarget
from volmgr.testing.storpool.process import StorPoolServer
from volmgr.types import GiB, MiB, Snapshot, Volume

GROUP = "volmgr.conformance"
COMMAND_TIMEOUT = 60.0


class DriverFactory(abc.ABC):
    """Makes drivers for tests.

    :cvar name: how reports and ``--driver-factory`` call it.
    """

    name: ClassVar[str]

    def unavailable(self) -> str | None:
        """Return why this machine cannot test the driver, None if it can."""
        return None

    @contextlib.contextmanager
    def world(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
        """Hold what all tests of a session share, a mounted file system for example.

        :param folder: a private folder. :returns: where the folders of the single tests are to be.
        """
        yield folder

    @abc.abstractmethod
    def make(self, folder: pathlib.Path) -> Any:
        """Return a driver that is set up over nothing yet; a repeat with the same folder finds the same objects."""

    def end(self, driver: Any, folder: pathlib.Path) -> None:  # noqa: B027 - most have nothing to let go of
        """Let go of a driver and of what it stored."""

    def read(self, driver: Any, resource: Volume | Snapshot, offset: int, length: int) -> bytes:
        """Return bytes as a client of ``resource`` would read them."""
        with open(driver.local_path(resource), "rb") as device:
            device.seek(offset)
            return device.read(length)

    def write(self, driver: Any, resource: Volume | Snapshot, offset: int, data: bytes) -> None:
        """Write bytes as a client of ``resource`` would."""
        with open(driver.local_path(resource), "r+b") as device:
            device.seek(offset)
            device.write(data)

    def half_build(self, driver: Any, resource: Volume | Snapshot, data: bytes) -> bool:
        """Leave what a create that died half-way leaves: a building object with ``data`` and a wrong size.

        :returns: False if the driver builds nothing under a building name.
        """
        return False

    def foreign(self, driver: Any, name: str, size_bytes: int, data: bytes) -> bool:
        """Put an object that is not ours where the driver stores, with ``data`` at its beginning.

        :returns: False if there is no such thing for this driver.
        """
        return False

    def image_location(self, driver: Any, data: bytes) -> Any:
        """Return where a raw image of 1 GiB lies that begins with ``data`` and that the driver can clone, or None."""
        return None

    def neighbour(self, driver: Any, folder: pathlib.Path) -> Any:
        """Return a driver of another backend, to which this one can move volumes by itself, or None."""
        return None


class _Sim(DriverFactory):
    def _options(self, folder: pathlib.Path) -> dict[str, Any]:
        return {"sim_store": str(folder)}

    def make(self, folder: pathlib.Path) -> SimDriver:
        return self._made(folder, f"host@{self.name}")

    def _made(self, folder: pathlib.Path, host: str) -> SimDriver:
        driver = SimDriver(configuration=Configuration(self._options(folder)), host=host)
        driver.do_setup(None)
        driver.check_for_setup_error()
        return driver

    def end(self, driver: Any, folder: pathlib.Path) -> None:
        forget_store(str(folder))

    def read(self, driver: Any, resource: Volume | Snapshot, offset: int, length: int) -> bytes:
        found: bytes = driver.read_bytes(resource, offset, length)
        return found

    def write(self, driver: Any, resource: Volume | Snapshot, offset: int, data: bytes) -> None:
        driver.write_bytes(resource, offset, data)

    def half_build(self, driver: Any, resource: Volume | Snapshot, data: bytes) -> bool:
        building = names.building_name(resource.name_id)
        driver.store.create(building, 5 * MiB)
        driver.store.write(building, 0, data)
        return True

    def foreign(self, driver: Any, name: str, size_bytes: int, data: bytes) -> bool:
        driver.put_foreign(name, size_bytes, data)
        return True

    def image_location(self, driver: Any, data: bytes) -> Any:
        driver.put_foreign("image", GiB, data)
        return "sim://image"

    def neighbour(self, driver: Any, folder: pathlib.Path) -> Any:
        return self._made(folder, "other@neighbour")


class SimMemory(_Sim):
    """The simulator in memory."""

    name = "sim-memory"


class SimFolder(_Sim):
    """The simulator in a folder."""

    name = "sim-folder"

    def _options(self, folder: pathlib.Path) -> dict[str, Any]:
        return {"sim_store_path": str(folder / "sim")}


class Gate(FakeTarget):
    """A target through which the suite's clients write, so that they wait while it is held."""

    def __init__(self) -> None:
        super().__init__(TargetConfig("iqn.2010-10.org.openstack:", (), "/nonexistent"))
        self.open = threading.Lock()

    @contextlib.contextmanager
    def hold(self, seconds: float) -> Iterator[None]:
        """Let clients wait."""
        with self.open:
            yield


class File(DriverFactory):
    """The file driver over whatever file system temporary folders are on."""

    name = "file"
    reflink: ClassVar[str] = "auto"

    def make(self, folder: pathlib.Path) -> FileDriver:
        options = {"file_store_path": str(folder), "file_reflink": self.reflink}
        driver = FileDriver(configuration=Configuration(options), host=f"host@{self.name}", target=Gate())
        driver.do_setup(None)
        driver.check_for_setup_error()
        return driver

    def write(self, driver: Any, resource: Volume | Snapshot, offset: int, data: bytes) -> None:
        with driver.target_driver.open:
            super().write(driver, resource, offset, data)

    def half_build(self, driver: Any, resource: Volume | Snapshot, data: bytes) -> bool:
        building = pathlib.Path(driver.local_path(resource)).parent / names.building_name(resource.name_id)
        building.write_bytes(data.ljust(5 * MiB, b"\xff"))
        return True


class FileCopies(File):
    """The file driver made to copy."""

    name = "file-copies"
    reflink = "never"


class FileXfs(File):
    """The file driver over XFS on a loop device, which must share blocks."""

    name = "file-xfs"
    reflink = "require"
    mkfs: ClassVar[tuple[str, ...]] = ("mkfs.xfs", "-q", "-m", "reflink=1")
    image_bytes: ClassVar[int] = 512 * MiB

    def unavailable(self) -> str | None:
        if shutil.which(self.mkfs[0]) is None:
            return f"{self.mkfs[0]} is not installed"
        done = subprocess.run(["losetup", "--find"], capture_output=True, timeout=COMMAND_TIMEOUT, check=False)
        return None if done.returncode == 0 else "there is no free loop device"

    @contextlib.contextmanager
    def world(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
        image, mounted = folder / "image", folder / "mounted"
        mounted.mkdir()
        with image.open("wb") as file:
            file.truncate(self.image_bytes)
        _run(*self.mkfs, str(image))
        _run("mount", "-o", "loop", str(image), str(mounted))
        try:
            yield mounted
        finally:
            # Lazily: a driver that a failed test still refers to keeps its folders open.
            _run("umount", "--lazy", str(mounted))


class FileBtrfs(FileXfs):
    """The same over btrfs."""

    name = "file-btrfs"
    mkfs = ("mkfs.btrfs", "-q")


class StorPool(DriverFactory):
    """The StorPool driver over the contract server."""

    name = "storpool"

    @contextlib.contextmanager
    def world(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
        with StorPoolServer(folder / "server") as self._server:
            yield folder

    def make(self, folder: pathlib.Path) -> StorPoolDriver:
        return self._made(folder, f"host@{self.name}")

    def _made(self, folder: pathlib.Path, host: str) -> StorPoolDriver:
        conf = self._server.write_conf(folder / "storpool.conf", hosts={"compute": 2})
        driver = StorPoolDriver(configuration=Configuration({"storpool_config_file": str(conf)}), host=host)
        driver.do_setup(None)
        driver.check_for_setup_error()
        return driver

    def end(self, driver: Any, folder: pathlib.Path) -> None:
        refused = self._server.refused()
        self._server.reset()
        if refused:
            raise AssertionError(f"the driver sent what the API does not take: {refused}")

    def read(self, driver: Any, resource: Volume | Snapshot, offset: int, length: int) -> bytes:
        with self._server.file(driver.storpool_name(resource)).open("rb") as device:
            device.seek(offset)
            return device.read(length)

    def write(self, driver: Any, resource: Volume | Snapshot, offset: int, data: bytes) -> None:
        kind = "snapshot" if isinstance(resource, Snapshot) else "volume"
        self._server.write(driver.storpool_name(resource), offset, data, kind=kind)

    def foreign(self, driver: Any, name: str, size_bytes: int, data: bytes) -> bool:
        self._server.request_change("VolumeCreate", "", {"name": name, "size": size_bytes, "replication": 1})
        self._server.write(name, 0, data)
        return True

    def neighbour(self, driver: Any, folder: pathlib.Path) -> Any:
        return self._made(folder, "other@neighbour")


BUILT_IN: tuple[type[DriverFactory], ...] = (SimMemory, SimFolder, File, FileCopies, FileXfs, FileBtrfs, StorPool)


@functools.cache
def all_factories() -> tuple[DriverFactory, ...]:
    """Return volmgr's own factories and those that entry points name.

    They are always the same objects: pytest would end and begin a factory's world anew for each test otherwise.
    """
    found = {factory.name: factory() for factory in BUILT_IN}
    for entry in importlib.metadata.entry_points(group=GROUP):
        made = entry.load()()
        found.setdefault(made.name, made)
    return tuple(found.values())


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=COMMAND_TIMEOUT)

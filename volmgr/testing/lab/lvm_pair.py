# SPDX-License-Identifier: Apache-2.0
"""Two volume groups on loop devices for the LVM driver's replicas, the first of which can die and come back."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.options import Configuration
from volmgr.testing.lab.commands import run, wait_until
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.lab.lvm_factories import GROUP, NEIGHBOUR, LvmThin
from volmgr.types import GiB, Volume, VolumeType

FIRST, SECOND = "first", "second"
REPLICATED = VolumeType("11111111-1111-4111-8111-111111111111", "replicated", {"replication": "<is> True"})


class LvmReplicated(LvmThin):
    """Thin volumes that a neighbour has the replicas of."""

    name = "lvm-thin"

    def make(self, folder: pathlib.Path) -> LVMVolumeDriver:
        self._options = {
            **self._options,
            "replication_device": [{"backend_id": "cellar", "volume_group": NEIGHBOUR}],
            "state_path": str(folder),
        }
        return self._made(GROUP, f"host@{self.name}")

    def end(self, driver: Any, folder: pathlib.Path) -> None:
        with driver.shipping.stopped():
            driver._switch(driver.shipping, False)
        super().end(driver, folder)


class Pair:
    """The groups ``first`` and ``second``, and drivers on them.

    :param folder: where the sparse files are, and what the drivers keep.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._devices: dict[str, str] = {}
        self._away: set[str] = set()

    @contextlib.contextmanager
    def world(self, size_gib: int = 4) -> Iterator[Pair]:
        """Make both groups; at the end remove them, whatever is in them."""
        try:
            for group in (FIRST, SECOND):
                image = self.folder / f"{group}.img"
                image.touch()
                os.truncate(image, size_gib * GiB)  # sparse: only what is written takes memory
                self.plug(group)
                run("vgcreate", "-q", "-y", group, self._devices[group])
            yield self
        finally:
            for group in self._devices:
                if group in self._away:
                    self.revive(group)
                run("udevadm", "settle")
                run("vgremove", "-q", "-f", "-y", group)
                self.unplug(group)

    def plug(self, group: str) -> None:
        """Let the disk of a group be there."""
        self._devices[group] = run("losetup", "--find", "--show", str(self.folder / f"{group}.img")).strip()

    def unplug(self, group: str) -> None:
        """Take the disk of a group away; what has a volume of it open keeps this from being done."""
        device = self._devices[group]
        run("losetup", "--detach", device)
        wait_until(lambda: device not in run("losetup", "--list", "--noheadings").split(), f"{device} is free")

    def kill(self, group: str) -> None:
        """Let a group be gone, with all that is in it."""
        run("udevadm", "settle")
        run("vgchange", "-q", "-an", group)
        self.unplug(group)
        self._away.add(group)

    def revive(self, group: str) -> None:
        """Let a group that is gone be there again."""
        self.plug(group)
        self._away.discard(group)
        run("udevadm", "settle")
        run("vgchange", "-q", "-ay", group)

    def driver(self, over: bool = False) -> LVMVolumeDriver:
        """Return a driver as a worker that starts would have it.

        :param over: whether SQL says that the backend has failed over.
        """
        options = {
            "volume_group": FIRST,
            "lvm_type": "thin",
            "replication_device": [{"backend_id": "cellar", "volume_group": SECOND}],
            "state_path": str(self.folder),
        }
        active = "cellar" if over else None
        made = LVMVolumeDriver(configuration=Configuration(options), host="host@first", active_backend_id=active)
        made.do_setup(None)
        made.check_for_setup_error()
        return made


def write(driver: LVMVolumeDriver, volume: Volume, data: bytes, offset: int = 0) -> None:
    """Write whole blocks as an initiator would."""
    write_device(pathlib.Path(driver.export_path(volume)), data, offset=offset)


def read(driver: LVMVolumeDriver, volume: Volume, length: int) -> bytes:
    """Read as an initiator would."""
    return read_device(pathlib.Path(driver.export_path(volume)), length)


def volumes_of(group: str) -> set[str]:
    """Return the names of a group's logical volumes but its thin pool."""
    return set(run("lvs", "--noheadings", "-o", "lv_name", group).split()) - {f"{group}-pool"}

# SPDX-License-Identifier: Apache-2.0
"""The LVM driver for the conformance suite, thin, thick and mirrored, over loop devices in a guest."""

from __future__ import annotations

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any, ClassVar

from volmgr import names
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.options import Configuration
from volmgr.targets.base import Target
from volmgr.testing.conformance.factories import DriverFactory
from volmgr.testing.lab.commands import run
from volmgr.types import GiB, Snapshot, Volume

GROUP, NEIGHBOUR = "conformance", "neighbour"
GROUP_BYTES, NEIGHBOUR_BYTES = 30 * GiB, 6 * GiB
ZRAM = pathlib.Path("/sys/class/zram-control")


class LvmThick(DriverFactory):
    """Linear volumes in a group whose free space is full of other people's bytes, for all that volmgr knows.

    :param target: what exports them. :param options: of the backend, beside those that its kind has.
    """

    name = "lvm-thick"
    lvm_type: ClassVar[str] = "default"
    mirrors: ClassVar[int] = 0

    def __init__(self, target: Target | None = None, **options: Any) -> None:
        self._target = target
        self._options = options

    def make(self, folder: pathlib.Path) -> LVMVolumeDriver:
        return self._made(GROUP, f"host@{self.name}")

    def _made(self, group: str, host: str) -> LVMVolumeDriver:
        options = {"volume_group": group, "lvm_type": self.lvm_type, "lvm_mirrors": self.mirrors, **self._options}
        driver = LVMVolumeDriver(configuration=Configuration(options), host=host, target=self._target)
        driver.do_setup(None)
        driver.check_for_setup_error()
        return driver

    @contextlib.contextmanager
    def world(self, folder: pathlib.Path, *, neighbour: bool = True) -> Iterator[pathlib.Path]:
        """Make the groups on disks of their own; at the end remove them, whatever is in them.

        :param folder: where the sparse files are, and what is yielded.
        :param neighbour: whether there is a second group; only who asks for :meth:`neighbour` needs it.
        """
        with contextlib.ExitStack() as undo:
            for group, size in ((GROUP, GROUP_BYTES), *([(NEIGHBOUR, NEIGHBOUR_BYTES)] if neighbour else [])):
                devices = [self._disk(undo, folder / f"{group}-{copy}.img", size) for copy in range(self.mirrors + 1)]
                run("vgcreate", "-q", "-y", group, *devices)
                undo.callback(run, "vgremove", "-q", "-f", "-y", group)
            yield folder
            run("udevadm", "settle")

    def _disk(self, undo: contextlib.ExitStack, image: pathlib.Path, size: int) -> str:
        image.touch()
        undo.callback(image.unlink)
        os.truncate(image, size)  # sparse: only what is written takes memory
        device = run("losetup", "--find", "--show", str(image)).strip()
        undo.callback(run, "losetup", "--detach", device)
        return device

    def end(self, driver: Any, folder: pathlib.Path) -> None:
        for gate in run("dmsetup", "ls").split():
            if gate.startswith(names.GATE_PREFIX):
                run("dmsetup", "remove", "--retry", gate)
        ours = f"vg_name={GROUP} || vg_name={NEIGHBOUR}"  # by selection, as the second one need not be there
        listed = run("lvs", "--noheadings", "--separator", "/", "-o", "vg_name,lv_name", "-S", ours).split()
        left = [path for path in listed if path not in (f"{GROUP}/{GROUP}-pool", f"{NEIGHBOUR}/{NEIGHBOUR}-pool")]
        if left:
            run("udevadm", "settle")
            run("lvremove", "-q", "-f", "-y", *left)

    def write(self, driver: Any, resource: Volume | Snapshot, offset: int, data: bytes) -> None:
        with open(driver.export_path(resource), "r+b") as device:
            device.seek(offset)
            device.write(data)

    def _lv(self, driver: Any, name: str, size_bytes: int) -> str:
        """Make a logical volume as an operator would; returns its path."""
        run("lvcreate", "-q", "-y", "-Wn", "-n", name, "-L", f"{size_bytes}b", GROUP)
        return f"/dev/{GROUP}/{name}"

    def half_build(self, driver: Any, resource: Volume | Snapshot, data: bytes) -> bool:
        self._put(self._lv(driver, names.building_name(resource.name_id), 8 << 20), data)
        return True

    def foreign(self, driver: Any, name: str, size_bytes: int, data: bytes) -> bool:
        self._put(self._lv(driver, name, size_bytes), data)
        return True

    def image_location(self, driver: Any, data: bytes) -> Any:
        image = str(uuid.uuid4())
        path = self._lv(driver, names.object_name("volume", image), GiB)
        run("blkdiscard", path)  # the lab's disks read as zeros afterwards
        self._put(path, data)
        return f"cinder://{image}"

    def neighbour(self, driver: Any, folder: pathlib.Path) -> Any:
        return self._made(NEIGHBOUR, "host@neighbour")

    @staticmethod
    def _put(path: str, data: bytes) -> None:
        with open(path, "r+b") as device:
            device.write(data)
        run("udevadm", "settle")  # it looks at what was written, and for a moment the device is in use


class LvmThin(LvmThick):
    """Thin volumes in a pool that the driver made."""

    name = "lvm-thin"
    lvm_type = "thin"

    def _lv(self, driver: Any, name: str, size_bytes: int) -> str:
        run("lvcreate", "-q", "-y", "-n", name, "-V", f"{size_bytes}b", "--thinpool", f"{GROUP}/{driver.pool}")
        return f"/dev/{GROUP}/{name}"


class OnZram(LvmThick):
    """Disks in memory that keep zeros for nothing: RAID writes them out where a sparse file would be left a hole."""

    mirrors = 1

    def _disk(self, undo: contextlib.ExitStack, image: pathlib.Path, size: int) -> str:
        number = (ZRAM / "hot_add").read_text().strip()
        undo.callback((ZRAM / "hot_remove").write_text, number)
        pathlib.Path(f"/sys/block/zram{number}/disksize").write_text(str(size))
        undo.callback(run, "udevadm", "settle")
        return f"/dev/zram{number}"


class LvmMirrored(OnZram):
    """Volumes of RAID 1 on two disks."""

    name = "lvm-mirrored"


class LvmThinMirrored(OnZram, LvmThin):
    """Thin volumes in a pool of RAID 1 on two disks."""

    name = "lvm-thin-mirrored"


ALL: tuple[type[LvmThick], ...] = (LvmThick, LvmThin, LvmMirrored, LvmThinMirrored)

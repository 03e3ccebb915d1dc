# SPDX-License-Identifier: Apache-2.0
"""A disk that can be lost under what is open on it, and be there again, inside a guest.

A dm-linear device over a loop device over a sparse file; lost, every command ends with an error, as of a disk that was
pulled. Unlike a loop device it can be taken away while logical volumes on it are served.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from volmgr.testing.lab.commands import run

#: Sectors at the loop device's beginning that are not the disk's, or LVM would find the same label on both.
_AHEAD = 2048


@dataclass(frozen=True)
class FailingDisk:
    """The disk.

    :param name: device-mapper's. :param loop: the device below. :param size: in bytes.
    """

    name: str
    loop: str
    size: int

    @property
    def node(self) -> Path:
        """Its node."""
        return Path("/dev/mapper", self.name)

    def lose(self) -> None:
        """Answer every command with an error from now on."""
        self._exchange("error")

    def find(self) -> None:
        """Be there again, with the bytes of before."""
        self._exchange(f"linear {self.loop} {_AHEAD}")

    def _exchange(self, table: str) -> None:
        run("dmsetup", "load", self.name, "--table", f"0 {self.size // 512} {table}")
        # What is on its way does not hold it up, and nothing is flushed to what is gone.
        run("dmsetup", "suspend", "--noflush", "--nolockfs", self.name)
        run("dmsetup", "resume", self.name)


@contextlib.contextmanager
def failing_disk(folder: Path, name: str, size: int) -> Iterator[FailingDisk]:
    """Make the disk; at the end remove it.

    :param folder: where its sparse file is made. :param name: device-mapper's. :param size: in bytes.
    """
    image = folder / f"{name}.img"
    with contextlib.ExitStack() as undo:
        image.touch()
        undo.callback(image.unlink)
        os.truncate(image, size + _AHEAD * 512)
        loop = run("losetup", "--find", "--show", str(image)).strip()
        undo.callback(run, "losetup", "--detach", loop)
        made = FailingDisk(name, loop, size)
        run("dmsetup", "create", name, "--table", f"0 {size // 512} linear {loop} {_AHEAD}")
        undo.callback(run, "dmsetup", "remove", "--retry", name)
        yield made

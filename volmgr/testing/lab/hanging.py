# SPDX-License-Identifier: Apache-2.0
"""A block device whose storage can be made to hang, inside a guest; whatever happens it goes on again.

A dm-linear device over a loop device over a sparse file: suspended, it takes commands and answers none. A process that
waits for it cannot be killed, the test's own included, so a shell on guard resumes it after a while.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from volmgr.testing.lab.commands import run

GUARD_SECONDS = 90
"""After this long a suspended device goes on by itself: longer than is asked of it, shorter than a test may take."""


@dataclass(frozen=True)
class HangingDevice:
    """The device.

    :param name: device-mapper's. :param image: the file that has its bytes.
    """

    name: str
    image: Path

    @property
    def node(self) -> Path:
        """Its node."""
        return Path("/dev/mapper", self.name)

    @contextlib.contextmanager
    def suspended(self, guard_seconds: int = GUARD_SECONDS) -> Iterator[None]:
        """Answer no command while the block runs.

        :param guard_seconds: after which it does again, whatever the block does.
        """
        script = f"sleep {int(guard_seconds)}; exec dmsetup resume {self.name}"
        with subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) as guard:
            try:
                run("dmsetup", "suspend", "--nolockfs", self.name)
                yield
            finally:
                try:
                    run("dmsetup", "resume", self.name)
                finally:
                    guard.kill()


@contextlib.contextmanager
def hanging_device(folder: Path, name: str, size: int) -> Iterator[HangingDevice]:
    """Make the device; at the end remove it.

    :param folder: where its sparse file is made. :param name: device-mapper's. :param size: in bytes.
    """
    image = folder / f"{name}.img"
    with contextlib.ExitStack() as undo:
        image.touch()
        undo.callback(image.unlink)
        os.truncate(image, size)
        loop = run("losetup", "--find", "--show", str(image)).strip()
        undo.callback(run, "losetup", "--detach", loop)
        run("dmsetup", "create", name, "--table", f"0 {size // 512} linear {loop} 0")
        undo.callback(run, "dmsetup", "remove", "--retry", name)
        yield HangingDevice(name, image)

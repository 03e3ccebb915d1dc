# SPDX-License-Identifier: Apache-2.0
"""What StorPool's client does on a host: block devices for what is attached to it, with links by name and global id.

The devices are loop devices over the files that hold the bytes, so it needs root. Knows no call.
"""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
from pathlib import Path

from volmgr.testing.storpool.world import Item

TIMEOUT = 30.0


class Devices:
    """The devices of one client.

    :param folder: the folder that is ``/dev`` to whoever uses them. :param client: the client's id.
    """

    def __init__(self, folder: Path, client: int) -> None:
        self.folder = folder
        self.client = client
        self._loops: dict[int, str] = {}
        self._links: dict[int, list[Path]] = {}

    def follow(self, item: Item, file: Path, attached: dict[int, str]) -> None:
        """Make device and links be as the attachments say."""
        self._unlink(item)
        rights = attached.get(self.client)
        if rights is None:
            if (loop := self._loops.pop(item.number, None)) is not None:
                _run("losetup", "--detach", loop)
            return
        if item.number not in self._loops:
            self._loops[item.number] = self._loop(file, rights)
        links = [self.folder / "storpool" / item.name, self.folder / "storpool-byid" / item.global_id]
        for link in links:
            link.parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(self._loops[item.number])
        self._links[item.number] = links

    def grown(self, item: Item) -> None:
        """Let the device show the size that its file has now."""
        if item.number in self._loops:
            _run("losetup", "--set-capacity", self._loops[item.number])

    def close(self) -> None:
        """Let go of every device."""
        for links in self._links.values():
            for link in links:
                link.unlink(missing_ok=True)
        while self._loops:
            _run("losetup", "--detach", self._loops.popitem()[1])

    def _loop(self, file: Path, rights: str) -> str:
        mode = ["--read-only"] if rights == "ro" else []
        path = _run("losetup", "--find", "--show", *mode, str(file)).strip()
        if not os.path.exists(path):
            # A private /dev does not get the nodes that the kernel makes.
            number = int(path.removeprefix("/dev/loop"))
            os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(7, number))
        return path

    def _unlink(self, item: Item) -> None:
        for link in self._links.pop(item.number, []):
            link.unlink(missing_ok=True)


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=TIMEOUT).stdout

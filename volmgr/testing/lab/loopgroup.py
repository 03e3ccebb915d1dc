# SPDX-License-Identifier: Apache-2.0
"""A volume group on a loop device over a sparse file, with a thin pool, inside a guest; nothing of it stays.

It knows LVM's commands and not volmgr's use of them, so that the drivers are proven against something else.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from volmgr.testing.lab.commands import run, wait_until

_ALIGNMENT = 4096


@dataclass(frozen=True)
class LoopGroup:
    """A volume group.

    :param name: of the group.
    :param pool: name of its thin pool.
    :param device: the loop device below it.
    """

    name: str
    pool: str
    device: Path

    def create_thick(self, name: str, size_mib: int) -> Path:
        """Make a thick logical volume and return its node."""
        run("lvcreate", "-q", "-y", "-Wn", "-n", name, "-L", f"{size_mib}m", self.name)
        return self.node(name)

    def create_thin(self, name: str, size_mib: int) -> Path:
        """Make a thin logical volume and return its node."""
        run("lvcreate", "-q", "-y", "-n", name, "-V", f"{size_mib}m", "--thinpool", f"{self.name}/{self.pool}")
        return self.node(name)

    def remove(self, name: str) -> None:
        """Remove a logical volume."""
        run("lvremove", "-q", "-y", f"{self.name}/{name}")

    def volumes(self) -> set[str]:
        """Return the names of all logical volumes but the thin pool."""
        listed = run("lvs", "--noheadings", "-o", "lv_name", self.name)
        return {line.strip() for line in listed.splitlines()} - {self.pool}

    def node(self, name: str) -> Path:
        """Return the node of a logical volume."""
        return Path("/dev", self.name, name)


@contextlib.contextmanager
def loop_group(folder: Path, name: str, size_mib: int = 1024, pool_mib: int = 400) -> Iterator[LoopGroup]:
    """Make a volume group with a thin pool; at the end remove it, whatever is in it.

    :param folder: where the sparse file is made; only what is written takes memory.
    :param name: of the group; its thin pool is called ``pool``.
    :param size_mib: of the group.
    :param pool_mib: of the pool.
    :raises volmgr.testing.lab.errors.CommandFailed: a volume is still open at the end, for instance.
    """
    image = folder / f"{name}.img"
    with contextlib.ExitStack() as undo:
        image.touch()
        undo.callback(image.unlink)
        os.truncate(image, size_mib << 20)
        device = Path(run("losetup", "--find", "--show", str(image)).strip())
        undo.callback(run, "losetup", "--detach", str(device))
        run("vgcreate", "-q", "-y", name, str(device))
        undo.callback(run, "vgremove", "-q", "-f", "-y", name)
        run("lvcreate", "-q", "-y", "-L", f"{pool_mib}m", "-T", f"{name}/pool")
        yield LoopGroup(name, "pool", device)
        # udev may be looking at a volume that was just written: LVM would call it busy.
        run("udevadm", "settle")
    wait_until(lambda: str(image) not in run("losetup", "--list"), f"{device} is free")


def read_device(device: Path, length: int, offset: int = 0) -> bytes:
    """Return bytes of a device past all caches, for two devices over the same storage do not share a cache.

    :param device: a block device.
    :param length: in bytes, a multiple of 4096.
    :param offset: in bytes, a multiple of 4096.
    """
    data = bytearray()
    with _opened(device, os.O_RDONLY) as descriptor, mmap.mmap(-1, 1 << 20) as buffer:
        while len(data) < length:
            with memoryview(buffer) as whole, whole[: min(len(buffer), length - len(data))] as view:
                count = os.preadv(descriptor, [view], offset + len(data))
            if not count:
                raise EOFError(f"{device} ends at {offset + len(data)}")
            data += buffer[:count]
    return bytes(data)


def write_device(device: Path, data: bytes, offset: int = 0) -> None:
    """Write bytes to a device past all caches and flush it.

    :param device: a block device.
    :param data: a multiple of 4096 bytes.
    :param offset: in bytes, a multiple of 4096.
    """
    if len(data) % _ALIGNMENT or offset % _ALIGNMENT:
        raise ValueError(f"length and offset must be multiples of {_ALIGNMENT}")
    with _opened(device, os.O_WRONLY) as descriptor, mmap.mmap(-1, len(data)) as buffer:
        buffer[:] = data
        with memoryview(buffer) as view:
            written = 0
            while written < len(data):
                written += os.pwritev(descriptor, [view[written:]], offset + written)
        os.fsync(descriptor)


@contextlib.contextmanager
def _opened(device: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(device, flags | os.O_DIRECT)
    try:
        yield descriptor
    finally:
        os.close(descriptor)

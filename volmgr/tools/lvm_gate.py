# SPDX-License-Identifier: Apache-2.0
"""Gates: linear layers of device-mapper over logical volumes, at which everybody can be made wait for a moment.

LVM's own devices are never suspended: ``lvcreate -s`` takes a suspended origin for one that it has suspended itself,
and the thin pool's transaction id is broken for good. A gate is ours alone, and LVM is told not to look at it (see
:data:`FILTER`), because a report that reads a suspended device does not end. Sources: dmsetup(8), lvmconfig(8), the
kernel's admin-guide/device-mapper. This module knows no volumes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from volmgr import exception, killpoints, names
from volmgr.concurrency import offload
from volmgr.tools import guardian, lvm_dm, process
from volmgr.tools.guardian_main import DM_DEV_SUSPEND, DM_SUSPEND_FLAG, dm_request

FOLDER = "/dev/mapper"
SECTOR = 512
_BLOCK = Path("/sys/block")


class Gates:
    """The gates over one volume group.

    :param group: its name. :param timeout: seconds for each command.
    """

    def __init__(self, group: str, timeout: float = 60.0) -> None:
        self.group = group
        self._timeout = timeout

    def path(self, object_id: str) -> str:
        """Return the node of an object's gate, whether there is one or not."""
        return f"{FOLDER}/{names.gate_name(self.group, object_id)}"

    def exists(self, object_id: str) -> bool:
        """Return whether an object has a gate; without a process."""
        return os.path.exists(self.path(object_id))

    def make(self, object_id: str, device: str, size_bytes: int) -> str:
        """Make sure that there is a gate over a device; returns its node."""
        name = names.gate_name(self.group, object_id)
        if not self.exists(object_id):
            table = f"0 {size_bytes // SECTOR} linear {device} 0"
            with contextlib.suppress(_Exists):  # somebody else was quicker
                self._dmsetup("create", name, "--uuid", f"VOLMGR-gate-{object_id}", "--table", table)
        return self.path(object_id)

    def grow(self, object_id: str, device: str, size_bytes: int) -> None:
        """Let a gate show the size that its device has now; nothing to do where there is no gate."""
        if not self.exists(object_id):
            return
        name = names.gate_name(self.group, object_id)
        self._dmsetup("load", name, "--table", f"0 {size_bytes // SECTOR} linear {device} 0")
        self._dmsetup("resume", name)

    def remove(self, object_id: str) -> bool:
        """Remove an object's gate; absent is success.

        :returns: whether there is none now; False: somebody has it open.
        """
        path = self.path(object_id)
        if not self.exists(object_id):
            return True
        if lvm_dm.open_count(path) and not lvm_dm.closes(path):
            return False
        self._dmsetup("remove", "--retry", names.gate_name(self.group, object_id))
        return True

    def resume_left(self) -> list[str]:
        """Let all gates of this group go on that somebody left suspended; returns their names. It needs no LVM."""
        found = []
        for device, name in self._all():
            if (device / "dm" / "suspended").read_text().strip() == "1":
                _suspend(_number(device), suspend=False)
                found.append(name)
        return found

    def _all(self) -> Iterator[tuple[Path, str]]:
        prefix = names.gate_prefix(self.group)
        for device in _BLOCK.glob("dm-*"):
            with contextlib.suppress(FileNotFoundError):  # it has just gone
                name = (device / "dm" / "name").read_text().strip()
                if name.startswith(prefix):
                    yield device, name

    @contextlib.contextmanager
    def held(self, object_ids: Sequence[str], seconds: float) -> Iterator[None]:
        """Let everybody who uses these gates wait for the length of a block.

        What was acknowledged before is in the logical volumes. Should we die meanwhile, a guardian lets them go on.

        :param seconds: after which the guardian does so although the block lasts.
        :raises Timeout: it lasted longer: what was done in it is not of one instant.
        """
        numbers = []
        for object_id in object_ids:
            status = os.stat(self.path(object_id))
            numbers.append((os.major(status.st_rdev), os.minor(status.st_rdev)))
        with guardian.guarded([f"dm:{major}:{minor}" for major, minor in numbers], seconds):
            try:
                for number in numbers:
                    offload(_suspend, number, suspend=True)
                killpoints.reach("hold/gates/held")
                yield
                killpoints.reach("hold/gates/done")
            finally:
                for number in numbers:
                    _suspend(number, suspend=False)

    def _dmsetup(self, *words: str) -> None:
        done = process.run(["dmsetup", *words], timeout=self._timeout)
        if done.status == 0:
            return
        text = done.stderr.strip()
        if words[0] == "create" and "already exists" in text.lower():
            raise _Exists
        raise exception.BackendDown(
            f"dmsetup {words[0]} of {words[1]} failed: {text}", hint="See: dmsetup info; dmesg"
        )


class _Exists(Exception):
    """There is a device of that name."""


def _number(device: Path) -> tuple[int, int]:
    major, minor = (device / "dev").read_text().strip().split(":")
    return int(major), int(minor)


def _suspend(number: tuple[int, int], *, suspend: bool) -> None:
    """Suspend a device, after all that is on its way has arrived, or resume it; what is so already is success."""
    buffer = dm_request(*number, DM_SUSPEND_FLAG if suspend else 0)
    control = os.open(lvm_dm.CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(control, DM_DEV_SUSPEND, buffer)
    except OSError as error:
        if suspend or error.errno != errno.ENXIO:
            raise exception.BackendDown(
                f"The device {number[0]}:{number[1]} cannot be suspended or resumed: {error.strerror}",
                hint=f"See: dmsetup info -j {number[0]} -m {number[1]}",
            ) from error
    finally:
        os.close(control)


#: what keeps LVM from looking at gates.
FILTER = f"r|^/dev/mapper/{names.GATE_PREFIX}|"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')


def filter_setting(configured: str) -> str:
    """Return the setting that keeps LVM from gates and else lets it look at what it was told to.

    :param configured: what ``lvmconfig devices/global_filter`` printed; empty where nothing is set.
    """
    patterns = [FILTER, *(item for item in _QUOTED.findall(configured) if item != FILTER)]
    return "devices/global_filter=[" + ",".join(f'"{item}"' for item in patterns) + "]"

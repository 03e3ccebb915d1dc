# SPDX-License-Identifier: Apache-2.0
"""What a storage test can forget in a guest's kernel: to be found, and to be swept away before the next module.

It knows nothing of who made it; a guest has nobody else's.
"""

from __future__ import annotations

from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run


def found() -> list[str]:
    """Return targets, backstores, sessions, device-mapper devices and loop devices."""
    return [*lio.leftovers(), *initiator.sessions(), *mapped(), *run("losetup", "--list", "--noheadings").splitlines()]


def sweep() -> None:
    """Remove all of it, from the user to the storage.

    :raises CommandFailed: something is in use, by a process that a test left, for instance.
    """
    # Whoever waits for a suspended device cannot be ended, and every report of LVM would wait as well.
    for name in mapped():
        run("dmsetup", "resume", name)
    if initiator.sessions():
        run("iscsiadm", "-m", "node", "--logoutall=all")
    lio.wipe()
    if mapped():
        run("vgchange", "-q", "-an")
        run("dmsetup", "remove_all", "--retry")
    run("udevadm", "settle")
    run("losetup", "--detach-all")


def mapped() -> list[str]:
    """Return the names of device-mapper's devices."""
    return [line.split()[0] for line in run("dmsetup", "ls").splitlines() if line.strip() != "No devices found"]

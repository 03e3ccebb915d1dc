# SPDX-License-Identifier: Apache-2.0
"""Takes stale disks away from a host, so that nothing of what is cached for them is written anywhere.

A stale disk's dirty pages belong to a volume that is not there any more; where its LUN is another volume's by now, an
orderly removal would write them to that one. So a disk is set offline first, then its map and it itself go, and its
session if nothing of it is kept. What is in use by somebody is left alone. It needs root.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from volmgr import exception
from volmgr.initiator import sysfs
from volmgr.initiator.audit import HostFinding
from volmgr.tools import process

TIMEOUT = 60.0
"""Seconds that one program may take."""
_NO_OBJECTS = 21  # ISCSI_ERR_NO_OBJS_FOUND: there is no such session or record


def repair(finding: HostFinding) -> str:
    """Take away what a finding is about; returns what was done.

    :raises Busy: somebody uses it. :raises BackendDown: a program refused.
    """
    session = finding.session
    if session is None or not finding.fixable:
        return ""
    # A session's number and a disk's name are given out again: what is there now must be what was found.
    view = sysfs.read()
    if session not in [_without_state(item, session) for item in view.sessions]:
        return "it is gone already"
    disks = [disk for disk in finding.disks if disk in view.disks]
    gone = {disk.name for disk in disks}
    # A map that keeps another path goes on without the stale one, whoever uses it.
    doomed = [item for item in finding.maps if gone.issuperset(item.paths)]
    _check_unused([item.device for item in doomed] + sorted(gone), {item.device for item in finding.maps})
    done = []
    for disk in disks:
        _offline(disk.name)
    for item in doomed:
        _run("dmsetup", "message", item.name, "0", "fail_if_no_path")
        _run("multipath", "-f", item.name)
        done.append(f"map {item.name}")
    for disk in disks:
        _delete(disk.name)
        done.append(disk.name)
    if finding.whole:
        _run("iscsiadm", "-m", "session", "-r", str(session.number), "-u", harmless=(_NO_OBJECTS,))
        record = ("-T", session.target, "-p", session.portal, "-o", "delete")
        _run("iscsiadm", "-m", "node", *record, harmless=(_NO_OBJECTS,))
        done.append(f"session {session.number}")
    return f"taken away: {', '.join(done)}"


def _without_state(session: sysfs.Session, like: sysfs.Session) -> sysfs.Session:
    return sysfs.Session(session.number, session.target, session.portal, session.initiator, like.state)


def _check_unused(devices: list[str], maps: set[str]) -> None:
    """Return if no process, file system or other device uses one of the devices.

    Nothing is opened for it: to open a disk can wait for its session.

    :raises Busy: somebody does.
    """
    for device in devices:
        above = [name for name in _listed(f"/sys/block/{device}/holders") if name not in maps]
        if above:
            raise _busy(device, f"the device {above[0]} is made of it")
    numbers = dict(_numbers(devices))
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[2] in numbers:
            raise _busy(numbers[fields[2]], f"it is mounted at {fields[4]}")
    for line in Path("/proc/swaps").read_text(encoding="utf-8").splitlines()[1:]:
        name = os.path.basename(os.path.realpath(line.split()[0]))
        if name in numbers.values():
            raise _busy(name, "it is swap space")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for number in _open_devices(pid):
            if number in numbers and not _is_multipathd(pid):
                raise _busy(numbers[number], f"the process {pid} has it open")


def _busy(device: str, why: str) -> exception.Busy:
    return exception.Busy(
        f"The stale device {device} is in use: {why}",
        hint="What is read there is not the volume any more: stop its user, then run volmgr host audit --fix again",
        device=device,
    )


def _numbers(devices: Iterable[str]) -> Iterable[tuple[str, str]]:
    """Return ``major:minor`` of the devices and of their partitions, with the device's name."""
    for device in devices:
        partitions = [item for item in _listed(f"/sys/block/{device}") if item.startswith(device)]
        for folder in (f"/sys/block/{device}", *(f"/sys/block/{device}/{item}" for item in partitions)):
            with contextlib.suppress(OSError):  # it has gone
                yield Path(folder, "dev").read_text(encoding="ascii").strip(), device


def _open_devices(pid: str) -> Iterable[str]:
    for descriptor in _listed(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):  # the process, or the descriptor, has gone
            found = os.stat(f"/proc/{pid}/fd/{descriptor}")
            if stat.S_ISBLK(found.st_mode):
                yield f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def _is_multipathd(pid: str) -> bool:
    """multipathd keeps every path open, to check it, and lets go of one that goes."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "multipathd"
    return False


def _offline(disk: str) -> None:
    """Let every further command to a disk fail at once; one whose session is lost does that already."""
    state = Path(f"/sys/block/{disk}/device/state")
    with contextlib.suppress(FileNotFoundError):  # it is gone
        if state.read_text(encoding="ascii").strip() == "running":
            state.write_text("offline\n", encoding="ascii")


def _delete(disk: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # it is gone, with its map
        Path(f"/sys/block/{disk}/device/delete").write_text("1\n", encoding="ascii")


def _run(*argv: str, harmless: tuple[int, ...] = ()) -> None:
    done = process.run(argv, timeout=TIMEOUT)
    if done.status not in (0, *harmless):
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"status {done.status}"]
        raise exception.BackendDown(f"{' '.join(argv[:3])} failed: {said[0]}", hint="See: dmesg; volmgr doctor")


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return []

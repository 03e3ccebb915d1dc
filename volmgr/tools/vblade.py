# SPDX-License-Identifier: Apache-2.0
"""vblade processes of one folder: started, found again, ended. Each serves one ATA over Ethernet address.

A process is known by what it serves: its arguments and the storage that it has open. No process id is ever written
down. All of ours work in the folder that they were started for, which tells them from everybody else's, and bear the
export's name as their first argument. They outlive us, because initiators use them. This module knows no exports.

Facts of vblade 25: a MAC address that it cannot parse is left out of the mask, and an empty mask lets everybody in; it
has room for 32 of them and does not count; the commas of the mask become NULs in its command line; it does nothing on a
flush, so that only ``-s`` keeps what was acknowledged; it reads the size once; it ends when its interface goes down; it
takes shelf and blade from anybody who is not masked, and answers "all shelves" too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from volmgr import exception
from volmgr.incarnation import started as started_at

PROGRAM = "vblade"
MASKS_MAX = 32
SECTOR = 512
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"])
_PAUSE_SECONDS = 0.002


@dataclass(frozen=True)
class Blade:
    """What one process serves.

    :param name: whose it is. :param macs: who may use it, sorted, never empty. :param sectors: its size, of 512 bytes.
    """

    name: str
    shelf: int
    slot: int
    interface: str
    path: str
    sectors: int
    macs: tuple[str, ...]
    read_only: bool = False

    def argv(self) -> list[str]:
        """Return its command line, with the name in place of the program's."""
        if not 1 <= len(self.macs) <= MASKS_MAX:
            raise ValueError(f"a vblade needs 1 to {MASKS_MAX} MAC addresses, not {len(self.macs)}")
        mask = ",".join(mac.replace(":", "") for mac in self.macs)
        options = ["-s", "-l", str(self.sectors), *(["-r"] if self.read_only else []), "-m", mask]
        return [self.name, *options, str(self.shelf), str(self.slot), self.interface, self.path]

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Blade | None:
        """Return what a command line made by :meth:`argv` says, or None for another one."""
        if len(argv) < 10 or list(argv[1:3]) != ["-s", "-l"]:
            return None
        read_only = argv[4] == "-r"
        masks = argv[5 + read_only : -4]
        if argv[4 + read_only] != "-m" or not all(text.isdecimal() for text in (argv[3], argv[-4], argv[-3])):
            return None
        macs = sorted(":".join(mac[at : at + 2] for at in range(0, 12, 2)) for part in masks for mac in part.split(","))
        return cls(
            argv[0], int(argv[-4]), int(argv[-3]), argv[-2], argv[-1], int(argv[3]), tuple(macs), read_only=read_only
        )


@dataclass
class Process:
    """A vblade that was started or found.

    :param started: when, in clock ticks after boot; with the process id it names one process for good.
    :param said: a file in memory with what it prints, if we started it.
    """

    blade: Blade
    pid: int
    started: str
    child: subprocess.Popen[bytes] | None = None
    said: int | None = field(default=None, repr=False)

    def alive(self) -> bool:
        """Return whether it runs."""
        if self.child is not None:
            return self.child.poll() is None
        return started_at(self.pid) == self.started

    def serves(self, storage: os.stat_result) -> bool:
        """Return whether it has this very storage open, and not one that had the path before."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            for descriptor in os.scandir(f"/proc/{self.pid}/fd"):
                with contextlib.suppress(FileNotFoundError):  # a socket or a pipe has no file
                    if is_same_storage(os.stat(descriptor.path), storage):
                        return True
        return False

    def last_words(self) -> str:
        """Return the last line that it printed, empty if it is not known."""
        if self.said is None:
            return ""
        lines = os.pread(self.said, 65536, 0).decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def forget(self) -> None:
        """Let go of it, whether it runs or not."""
        if self.said is not None:
            os.close(self.said)
            self.said = None


def is_same_storage(one: os.stat_result, other: os.stat_result) -> bool:
    """Return whether two paths lead to the same block device, or the same file."""
    if stat.S_ISBLK(one.st_mode) or stat.S_ISBLK(other.st_mode):
        return stat.S_IFMT(one.st_mode) == stat.S_IFMT(other.st_mode) and one.st_rdev == other.st_rdev
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def found(folder: str) -> list[Process]:
    """Return the vblades that work in ``folder``, by one walk of the process table."""
    wanted = os.path.realpath(folder)
    processes = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            if os.path.basename(os.readlink(f"/proc/{entry}/exe")).removesuffix(" (deleted)") != PROGRAM:
                continue
            if os.readlink(f"/proc/{entry}/cwd") != wanted:
                continue
            started = started_at(int(entry))
            argv = Path(f"/proc/{entry}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
        except OSError:  # it ended meanwhile, or is a kernel thread
            continue
        if started is not None and (blade := Blade.parse(argv)) is not None:
            processes.append(Process(blade, int(entry), started))
    return processes


def start(blade: Blade, folder: str, timeout: float) -> Process:
    """Start a vblade and return once it listens.

    :param timeout: seconds.
    :raises ToolMissing: there is no vblade. :raises BackendDown: it ended at once; the message says what it said.
    :raises Timeout: it did not come up.
    """
    tool = shutil.which(PROGRAM, path=_PATH)
    if tool is None:
        raise exception.ToolMissing(tool=PROGRAM, hint="Install the package vblade")
    said = os.memfd_create(PROGRAM, os.MFD_CLOEXEC)
    try:
        child = subprocess.Popen(
            blade.argv(),
            executable=tool,
            cwd=folder,
            env={"PATH": _PATH, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        process = Process(blade, child.pid, started_at(child.pid) or "", child, said)
        try:
            _await(process, timeout)
        except BaseException:
            child.kill()
            child.wait()
            raise
    except BaseException:
        os.close(said)
        raise
    return process


def _await(process: Process, timeout: float) -> None:
    """Return once it has printed its line, after which its socket takes what comes."""
    deadline = time.monotonic() + timeout
    while not process.last_words().startswith("pid "):
        if not process.alive():
            said = process.last_words() or "it said nothing"
            raise exception.BackendDown(
                f"vblade for e{process.blade.shelf}.{process.blade.slot} ended: {said}",
                hint="It needs root and an Ethernet interface that is up: see option aoe_eth_dev, and: ip link",
            )
        if time.monotonic() > deadline:
            raise exception.Timeout(f"vblade (process {process.pid}) did not start within {timeout:g} s")
        time.sleep(_PAUSE_SECONDS)


def end(process: Process, timeout: float) -> None:
    """End a vblade at once; it keeps nothing that was acknowledged and not stored. One that has ended is success.

    :param timeout: seconds.
    :raises Busy: it does not end, because its storage does not answer.
    """
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        process.forget()
        return
    try:
        # The handle names one process; only now is it sure that it is the right one.
        if started_at(process.pid) == process.started:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            _await_end(handle, process, timeout)
    finally:
        os.close(handle)
    if process.child is not None:
        process.child.wait(timeout)
    process.forget()


def _await_end(handle: int, process: Process, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while process.alive():
        if time.monotonic() > deadline:
            raise exception.Busy(
                f"vblade (process {process.pid}) was killed and does not end: its storage does not answer",
                hint=f"See what blocks it: ps -o pid,stat,wchan,cmd -p {process.pid}; dmesg",
                path=process.blade.path,
            )
        time.sleep(_PAUSE_SECONDS)

# SPDX-License-Identifier: Apache-2.0
"""One life of a worker: work does not outlive its worker.

A worker holds an exclusive lock on its incarnation file; every child that it starts inherits the open file and so the
lock. A new worker ends whoever still holds it after the old worker has died, and takes the lock before it recovers
anything: two lives never touch the same storage. This module knows no driver and no database.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

from volmgr import exception, names

LOG = logging.getLogger(__name__)

PAUSE = 0.02


class Incarnation:
    """The lock of one worker.

    :param folder: where the lock files are. :param service: the worker, ``host@backend``.
    :ivar id: the UUID of this life.
    """

    def __init__(self, folder: str, service: str) -> None:
        self.id = str(uuid.uuid4())
        self.service = service
        self.path = Path(folder) / names.lock_file_name(service)
        self._fd: int | None = None

    @property
    def held_fd(self) -> int | None:
        """The same descriptor, None while the lock is not taken."""
        return self._fd

    @property
    def fd(self) -> int:
        """The descriptor that children inherit (``pass_fds``).

        :raises RuntimeError: the lock is not held.
        """
        if self._fd is None:
            raise RuntimeError("the incarnation is not acquired")
        return self._fd

    def acquire(self, timeout: float = 10.0) -> None:
        """Take the lock; what a dead worker left running is killed first.

        :param timeout: seconds that the ending of left-over children may take.
        :raises Conflict: another worker serves the backend and lives. :raises Timeout: a left-over child does not end.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(fd, timeout)
            record = json.dumps({"id": self.id, "pid": os.getpid(), "started": started(os.getpid())})
            os.ftruncate(fd, 0)
            os.pwrite(fd, record.encode(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _lock(self, fd: int, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                # Tried once more after whatever was killed, however long the look for it has taken.
                if time.monotonic() >= deadline:
                    raise self._stuck() from None
            self._end_left_over(fd)
            time.sleep(PAUSE)

    def _stuck(self) -> exception.Timeout:
        left = holders(self.path)
        return exception.Timeout(
            f"Processes of an earlier volmgr-volume for {self.service} do not end: {left}",
            hint=f"See what blocks them: ps -o pid,stat,wchan,cmd -p {','.join(map(str, left))}",
        )

    def _end_left_over(self, fd: int) -> None:
        """Kill what holds the lock, unless the worker itself lives."""
        record = _record(os.pread(fd, 4096, 0))
        pid = record.get("pid")
        if pid is not None and pid != os.getpid() and started(pid) == record.get("started"):
            raise exception.Conflict(
                f"volmgr-volume with pid {pid} serves {self.service} already",
                hint=f"Stop it first: systemctl stop volmgr-volume, or: kill {pid}",
                resource="service",
                id=self.service,
                pid=pid,
            )
        for holder in lockers(self.path):
            LOG.warning("Ending process %s, left over from an earlier worker of %s", holder, self.service)
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
                os.kill(holder, signal.SIGKILL)

    def left_over(self) -> list[int]:
        """Return the processes that hold this life's lock and descend from somebody else: nobody waits for them.

        None without the lock.
        """
        if self._fd is None:
            return []
        # Whoever has the lock has it from this process, so it is no older.
        since = int(started(os.getpid()) or 0)
        return [pid for pid in holders(self.path, since) if os.getpid() not in ancestors(pid)]

    def release(self) -> None:
        """Let go of the lock; children that still live keep it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def end_life(path: Path, incarnation: str, timeout: float = 10.0) -> bool:
    """End a worker of this machine and whatever it started; returns whether nothing of that life is left.

    The lock itself is not tried: a life that begins at this moment would take this process for a left-over one.

    :param path: its lock file. :param incarnation: the life that is meant; a later one is left alone.
    :param timeout: seconds that the end of its processes may take.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            record = _record(path.read_bytes())
        except OSError as error:
            LOG.error("Nothing is known of a life of %s: %s", path.name, error)
            return False
        if record.get("id") != incarnation:
            return "id" in record  # a later life has the lock, which it could only get after this one
        pid = record.get("pid")
        left = {pid} if pid is not None and started(pid) == record.get("started") else set()
        held = {holder: _taker(holder, path) for holder in holders(path)}
        if any(holder == taker and holder not in left for holder, taker in held.items()):
            return True  # a later life has the lock, and has not written yet who it is
        left |= {holder for holder, taker in held.items() if taker is not None}
        if not left:
            return True
        for holder in left:
            LOG.warning("Ending process %s of a worker whose lease has ended, %s", holder, path.name)
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
                os.kill(holder, signal.SIGKILL)
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE)


def _record(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def lockers(path: Path) -> list[int]:
    """Return the processes, other than this one, that have a file open by a descriptor that holds its lock.

    One that only waits for the lock has another open file, whose fdinfo tells of no lock; see proc(5).
    """
    return [pid for pid in holders(path) if _taker(pid, path) is not None]


def _taker(pid: int, path: Path) -> int | None:
    """Return which process took the lock that a process holds by an open file; 0 for one that is gone, None for none.

    Whoever has inherited the file holds the lock, too, and has not taken it.
    """
    wanted = os.stat(path)
    with contextlib.suppress(OSError):  # it has ended, or closed the file, meanwhile
        for link in Path(f"/proc/{pid}/fd").iterdir():
            seen = link.stat()
            if (seen.st_dev, seen.st_ino) != (wanted.st_dev, wanted.st_ino):
                continue
            for line in Path(f"/proc/{pid}/fdinfo/{link.name}").read_text().splitlines():
                if " FLOCK " in line:
                    return int(line.partition(" FLOCK ")[2].split()[2])  # see proc(5), /proc/locks
    return None


def started(pid: int) -> str | None:
    """Return when a process started (clock ticks after boot), or None if there is none; see proc(5), stat field 22."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def ancestors(pid: int) -> list[int]:
    """Return a process's parent, its parent, and so on; none for one that has ended (proc(5), stat field 4)."""
    found: list[int] = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(pid)
    return found


def command_of(pid: int) -> str:
    """Return a process's command line, or its short name where it has none; empty if it has ended."""
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return ""  # nobody has asked yet how it ended
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return b" ".join(words).decode(errors="replace").strip()[:200] or Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def holders(path: Path, since: int = 0) -> list[int]:
    """Return the processes, other than this one, that have a file open.

    :param since: clock ticks after boot; processes that started before are left out. To look at all descriptors of a
        machine takes a second of a processor where a hypervisor has some ten thousand.
    """
    wanted, found = os.stat(path), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        if since and int(started(int(entry.name)) or 0) < since:
            continue
        try:
            fds = os.listdir(entry / "fd")
        except OSError:
            continue
        for name in fds:
            try:
                seen = os.stat(f"{entry}/fd/{name}")
            except OSError:
                continue
            if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append(int(entry.name))
                break
    return found


def now() -> int:
    """Return the clock ticks after boot, as :func:`started` counts them."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))

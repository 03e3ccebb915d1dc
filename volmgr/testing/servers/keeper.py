# SPDX-License-Identifier: Apache-2.0
"""The keeper: a small program that owns a test server's processes and its folder, and outlives neither its user.

A test run can end by SIGKILL, a server can fork helpers into sessions of their own (PostgreSQL's backends, Erlang's
epmd). So every server is a descendant of a keeper, which is a *child subreaper* (prctl(2)): whatever the server leaves
behind becomes the keeper's child, and a process that is one's own unreaped child cannot be mistaken for another. The
keeper watches its user by a pidfd (pidfd_open(2)) and by its command socket; when either ends it kills its
descendants and removes the folder. Its children get PR_SET_PDEATHSIG, for the case that the keeper itself is killed.

It is started as ``python -I -S keeper.py PARENT_PID FOLDER`` with a stream socket as standard input, over which each
request and each reply is one line of JSON. It must import nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IPC_RMID = 0
_POLL_SECONDS = 0.005
_KILL_DEADLINE_SECONDS = 15.0

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _die_with_keeper() -> None:
    # After setuid(2), which clears the setting: subprocess calls this last, just before exec.
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _descendants(root: int) -> list[int]:
    """Return the pids of the processes under ``root``, parents first (proc(5), fields 1 and 4 of ``stat``)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # It may have ended since the listing.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                stat = (entry / "stat").read_text(errors="replace")
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = list(children.get(root, []))
    for pid in found:
        found.extend(children.get(pid, []))
    return found


class Keeper:
    """The state of the keeper: what it runs, by name, and what has ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pids: dict[str, int] = {}
        self._ended: dict[int, int] = {}
        self._all_pids: set[int] = set()

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry one request out: ``run``, ``poll``, ``stop`` or ``kill``; the reply holds what is asked for."""
        action = request.pop("action")
        if action == "run":
            return {"pid": self._run(**request)}
        if action == "poll":
            return {"status": self._poll(**request)}
        if action == "stop":
            return {"status": self._stop(**request)}
        if action == "kill":
            return {"left": self.kill_all()}
        raise ValueError(f"unknown action {action!r}")

    def _run(
        self, name: str, argv: list[str], env: dict[str, str], cwd: str, log: str, uid: int | None, gid: int | None
    ) -> int:
        identity: dict[str, Any] = {} if uid is None else {"user": uid, "group": gid, "extra_groups": []}
        with Path(log).open("ab") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_die_with_keeper,
                **identity,
            )
        self._pids[name] = process.pid
        self._all_pids.add(process.pid)
        self._ended.pop(process.pid, None)
        # The keeper reaps by waitpid(-1) itself; told of an end, Popen does not wait (or warn) on its own.
        process.returncode = 0
        return process.pid

    def _poll(self, name: str) -> int | None:
        self.reap()
        return self._ended.get(self._pids[name])

    def _stop(self, name: str, signal_number: int, grace_seconds: float) -> int | None:
        """Ask one process to end; its exit status, or None when it has not ended in the time given."""
        if self._poll(name) is None:
            os.kill(self._pids[name], signal_number)
        deadline = time.monotonic() + grace_seconds
        while (status := self._poll(name)) is None and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return status

    def reap(self) -> bool:
        """Collect every child that has ended; return whether there is a child left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._ended[pid] = os.waitstatus_to_exitcode(status)

    def kill_all(self) -> list[int]:
        """SIGKILL every descendant until there is none; return those that are left at the deadline."""
        deadline = time.monotonic() + _KILL_DEADLINE_SECONDS
        while self.reap():
            for pid in _descendants(os.getpid()):
                # A grandchild may have been reaped by its parent since the listing.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() >= deadline:
                return _descendants(os.getpid())
            time.sleep(_POLL_SECONDS)
        return []

    def finish(self) -> None:
        """End everything, and remove the folder and the shared memory that a killed PostgreSQL leaves behind."""
        self.kill_all()
        self._remove_shared_memory()
        shutil.rmtree(self._folder)

    def _remove_shared_memory(self) -> None:
        # The columns are key, shmid, perms, size, cpid, lpid, nattch, ... (proc(5), /proc/sysvipc/shm).
        table = Path("/proc/sysvipc/shm")
        if not table.exists():
            return
        for line in table.read_text().splitlines()[1:]:
            columns = [int(column) for column in line.split()]
            if columns[4] in self._all_pids and columns[6] == 0:
                _libc.shmctl(columns[1], _IPC_RMID, None)


def _serve(keeper: Keeper, commands: socket.socket, parent: int) -> None:
    """Answer requests until the parent ends, closes its end of the socket, or says ``finish``."""
    buffered = b""
    while True:
        ready, _, _ = select.select([commands.fileno(), parent], [], [])
        if parent in ready:
            return
        received = commands.recv(65536)
        if not received:
            return
        buffered += received
        while b"\n" in buffered:
            line, _, buffered = buffered.partition(b"\n")
            request = json.loads(line)
            if request["action"] == "finish":
                return
            try:
                reply = keeper.handle(request)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                reply = {"error": f"{type(error).__name__}: {error}"}
            commands.sendall(json.dumps(reply).encode() + b"\n")


def main() -> int:
    """Run the keeper; returns the exit status, 0 when nothing is left behind."""
    parent_pid, folder = int(sys.argv[1]), Path(sys.argv[2])
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # A terminal's Ctrl-C is for the test run, which ends the keeper by closing the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper = Keeper(folder)
    commands = socket.socket(fileno=os.dup(0))
    with contextlib.closing(commands):
        # A parent that has gone already has another pid in its place as ours: nothing is to be served then.
        if os.getppid() == parent_pid:
            parent = os.pidfd_open(parent_pid)
            try:
                _serve(keeper, commands, parent)
            except OSError as error:
                print(f"keeper: {error}", file=sys.stderr)
        keeper.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Runs one short program: in a process group of its own, with a deadline, without copying this process.

Output goes to files in memory, not to pipes: what a program leaves running in the background (LVM starts dmeventd) may
keep them open, and nobody waits for it. This module knows no particular program.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from volmgr import exception, killpoints
from volmgr.concurrency import offload

LOG = logging.getLogger(__name__)

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Seconds that a killed program may take to disappear; one that the kernel holds in a system call does not.
GRACE = 5.0
#: Seconds between two looks of somebody who watches a long program.
WATCH_INTERVAL = 1.0
#: Bytes of output that are kept; a program that says more has gone wrong.
MAX_OUTPUT = 256 * 1024 * 1024


@dataclass(frozen=True)
class Result:
    """How a program ended: ``status`` is its exit status, or minus the number of the signal that ended it."""

    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    pass_fds: Sequence[int] = (),
    watch: Callable[[], None] | None = None,
    stdout: int | None = None,
) -> Result:
    """Run a program to its end.

    :param argv: the program, looked up in :data:`PATH`, and its arguments; never a secret, every user can read them.
    :param timeout: seconds; then its whole process group is killed.
    :param env: what its environment has beside ``PATH`` and ``LC_ALL=C``; nothing of ours is inherited.
    :param stdin: descriptor for its standard input, empty input without one.
    :param pass_fds: further descriptors that it inherits under their own numbers.
    :param watch: called about once a second while it runs; what it raises kills the program and passes through.
    :param stdout: descriptor for its standard output, for whoever reads along; the result then has none.
    :raises ToolMissing: the program is not installed. :raises Timeout: it did not end in time.
    """
    environment = {"PATH": PATH, "LC_ALL": "C", **(env or {})}
    with _memory_file("stdout") as out, _memory_file("stderr") as err:
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=out if stdout is None else stdout,
                stderr=err,
                env=environment,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise exception.ToolMissing(tool=argv[0], hint=f"Install the package that has {argv[0]}") from error
        killpoints.reach(f"child/-/{argv[0]}.runs")
        try:
            ended = _watch(child.pid)
            if not _wait(ended, timeout, watch):
                _end(child, ended)
                raise exception.Timeout(
                    f"{argv[0]} did not end within {timeout:g} seconds and was killed",
                    hint="See what holds it up: dmesg; ps axo pid,stat,wchan,cmd",
                    tool=argv[0],
                    seconds=timeout,
                )
        except BaseException:
            _kill_group(child.pid)
            raise
        status = child.wait()
        killpoints.reach(f"child/-/{argv[0]}.ended")
        return Result(status, _read(out), _read(err))


@contextlib.contextmanager
def _memory_file(name: str) -> Iterator[int]:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _read(fd: int) -> str:
    return os.pread(fd, MAX_OUTPUT, 0).decode(errors="replace")


def _watch(pid: int) -> threading.Event:
    """Return an event that is set once the child has ended; its status is left for the caller to collect."""
    ended = threading.Event()

    def wait() -> None:
        try:
            offload(_wait_native, pid)
        finally:
            ended.set()

    threading.Thread(target=wait, name=f"volmgr-wait-{pid}", daemon=True).start()
    return ended


def _wait(ended: threading.Event, timeout: float, watch: Callable[[], None] | None) -> bool:
    if watch is None:
        return ended.wait(timeout)
    deadline = time.monotonic() + timeout
    while not ended.wait(max(0.0, min(WATCH_INTERVAL, deadline - time.monotonic()))):
        if time.monotonic() >= deadline:
            return False
        watch()
    return True


def _wait_native(pid: int) -> None:
    # Blocks in the kernel: Popen.wait under green threads would look only every 10 ms.
    with contextlib.suppress(ChildProcessError):  # it has ended, and somebody has collected it
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def _end(child: subprocess.Popen[bytes], ended: threading.Event) -> None:
    _kill_group(child.pid)
    if ended.wait(GRACE):
        child.wait()
    else:
        LOG.error("Process %s was killed and does not end: the kernel holds it", child.pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of it has ended meanwhile
        os.killpg(pid, signal.SIGKILL)

# SPDX-License-Identifier: Apache-2.0
"""A tgtd of our own in a private folder: started, found again after our restart, ended.

It outlives us, because initiators are connected to it. It is recognised by the socket that it answers on and by what
the kernel says of the process behind that socket (SO_PEERCRED, /proc), never by a recorded process id alone. This
module knows nothing of volumes or of what the tgtd serves.

Facts of tgt 1.0.85: the environment variable TGT_IPC_SOCKET is the prefix of the control socket, ``.N`` is added; it
answers only its own user, and works for any; it ignores SIGTERM; when the portal of its command line cannot be had it
listens on every address of port 3260 instead; without ``-t 1`` each LUN costs 16 threads.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from volmgr import exception, killpoints
from volmgr.tools import guardian, tgtd_port
from volmgr.tools.tgt import TgtClient, errors
from volmgr.types import Portal

LOG = logging.getLogger(__name__)

SYSTEM_SOCKET = "/var/run/tgtd/socket.0"
_PREFIX = "socket"
_CONTROL_PORT = 0
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"])
_LOG_MAX = 8 * 1024**2
_PAUSE_SECONDS = 0.01
#: how long an end by request and then a SIGKILL may each take, and how long a start.
_END_SECONDS = 5.0
_START_SECONDS = 15.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True)
class Identity:
    """One life of one process: the id alone is used again, with its start (clock ticks since boot) it is unique."""

    pid: int
    started: int
    boot: str


class Tgtd:
    """One private tgtd.

    :param folder: its own folder: socket, log and state file; it is made, mode 0700.
    :param portals: where it listens, on these and nowhere else.
    :param timeout: seconds for each request to it.
    :param threads: I/O threads for each LUN.
    """

    def __init__(self, folder: str, portals: Sequence[Portal], *, timeout: float = 60.0, threads: int = 1) -> None:
        self.folder = Path(folder).absolute()
        self.portals = tuple(portals)
        self.threads = threads
        self.client = TgtClient(str(self.folder / f"{_PREFIX}.{_CONTROL_PORT}"), timeout)
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def log_file(self) -> Path:
        """Where its standard output and error go."""
        return self.folder / "tgtd.log"

    @property
    def _state_file(self) -> Path:
        return self.folder / "tgtd.json"

    def start(self) -> bool:
        """Make sure that it runs: adopt the one that does, else start one; then make its portals ours exactly.

        :returns: whether a new one was started, which serves nothing yet.
        :raises ToolMissing: there is no tgtd. :raises BackendDown: a port is taken, or it ended at once.
        :raises InvalidConfiguration: an address is not this machine's. :raises TgtTimeout: it runs and does not answer.
        """
        with self._lock:
            if not self.portals:
                raise exception.InvalidConfiguration(reason="tgtd has no portal", hint="Set target_ip_address")
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._let_go_on()
            started = not self._adopt()
            if started:
                self._end_unmanageable()
                for portal in self.portals:
                    tgtd_port.check(portal)
                self._spawn()
            self._set_portals()
            return started

    def check(self) -> None:
        """Return if it answers now and is ours.

        :raises BackendDown: it does not.
        """
        self._reap()
        self._verify(self.client.pid())
        self.client.portals()

    def identity(self) -> Identity:
        """Return which life of which process answers on the socket.

        :raises TgtDown: none does.
        """
        pid = self.client.pid()
        found = _identity(pid)
        if found is None:
            raise errors.TgtDown(socket=self.client.socket, reason=f"process {pid} ended", request="connect")
        return found

    def stop(self) -> None:
        """End it with all its targets and sessions; nothing to do is success.

        :raises BackendDown: it outlived SIGKILL.
        """
        with self._lock:
            try:
                pid = self.client.pid()
                self._verify(pid)
            except errors.TgtDown:
                self._end_unmanageable()
                return
            identity = _identity(pid)
            try:
                for target in self.client.targets():
                    with contextlib.suppress(errors.TgtNoTarget):  # it went by itself, which is what we want
                        self.client.delete_target(target.tid, force=True)
                self.client.end()
            except errors.TgtError as error:
                LOG.warning("tgtd (process %d) does not end on request, it is killed: %s", pid, error)
            if identity is not None and not self._gone(identity, _END_SECONDS):
                self._kill(identity)
            self._state_file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self, seconds: float) -> Iterator[None]:
        """Stop the process for the length of a block; nothing of what it does for initiators is half done then.

        What it has acknowledged is in its files. Should we die meanwhile, a guardian lets it go on, and so does our
        next start.

        :param seconds: after which the guardian lets it go on although the block lasts.
        :raises Timeout: the block lasted longer, or the process did not stop.
        """
        identity = self.identity()
        handle = os.pidfd_open(identity.pid)
        try:
            if _identity(identity.pid) != identity:
                raise errors.TgtDown(socket=self.client.socket, reason="it has just ended", request="hold")
            with guardian.guarded([f"process:{identity.pid}:{identity.started}"], seconds):
                try:
                    signal.pidfd_send_signal(handle, signal.SIGSTOP)
                    # A thread that is inside a write stops behind it; until then the write may be half done.
                    _poll(lambda: _all_stopped(identity.pid), _STOP_SECONDS, "tgtd to stop")
                    killpoints.reach("hold/tgtd/held")
                    yield
                    killpoints.reach("hold/tgtd/done")
                finally:
                    with contextlib.suppress(ProcessLookupError):  # it was killed while it was held
                        signal.pidfd_send_signal(handle, signal.SIGCONT)
        finally:
            os.close(handle)

    # --- start

    def _adopt(self) -> bool:
        try:
            pid = self.client.pid()
        except errors.TgtDown:
            return False
        identity = _identity(pid)
        try:
            self._verify(pid)
            self.client.system()
        except errors.TgtDown:
            # A process that is being killed still takes connections for a moment.
            if identity is None or self._gone(identity, _END_SECONDS):
                return False
            raise
        self._record(pid)
        return True

    def _spawn(self) -> None:
        tool = shutil.which("tgtd", path=_PATH)
        if tool is None:
            raise exception.ToolMissing(tool="tgtd", hint="Install the package tgt")
        with contextlib.suppress(FileNotFoundError):  # the first start has no log yet
            if self.log_file.stat().st_size > _LOG_MAX:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                [tool, "-f", "-C", str(_CONTROL_PORT), "-t", str(self.threads), "--iscsi", f"portal={self.portals[0]}"],
                cwd=self.folder,
                # The prefix is relative, so that a long folder name does not exceed what a socket address can hold.
                env={"PATH": _PATH, "LC_ALL": "C", "TGT_IPC_SOCKET": _PREFIX},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o077,
            )
        pid = self._child.pid
        try:
            _poll(self._answers, _START_SECONDS, f"tgtd (process {pid}) to answer")
        except exception.Timeout:
            self._child.kill()
            self._child.wait(_END_SECONDS)
            raise
        self._record(pid)
        LOG.info("Started tgtd, process %d, in %s", pid, self.folder)

    def _answers(self) -> bool:
        if self._child is not None and self._child.poll() is not None:
            raise exception.BackendDown(
                f"tgtd ended with status {self._child.returncode}: {self._last_line()}", hint=f"See {self.log_file}"
            )
        try:
            self.client.system()
        except errors.TgtDown:
            return False
        return True

    def _last_line(self) -> str:
        lines = self.log_file.read_text(errors="replace")[-4096:].splitlines()
        return lines[-1] if lines else "it wrote nothing"

    def _set_portals(self) -> None:
        wanted = [str(portal) for portal in self.portals]
        present = self.client.portals()
        for text in present:
            if text not in wanted:
                self.client.delete_portal(text)
        for portal in self.portals:
            if str(portal) not in present:
                tgtd_port.check(portal)
                try:
                    self.client.new_portal(str(portal))
                except errors.TgtNumberedError as error:
                    raise tgtd_port.taken(portal) from error

    # --- identity

    def _record(self, pid: int) -> None:
        identity = _identity(pid)
        if identity is None:
            raise errors.TgtDown(socket=self.client.socket, reason=f"process {pid} ended", request="start")
        text = json.dumps({"pid": identity.pid, "started": identity.started, "boot": identity.boot})
        if self._state_file.exists() and self._state_file.read_text() == text:
            return
        fresh = self._state_file.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self._state_file)

    def _verify(self, pid: int) -> None:
        """Return if the process is a tgtd that works in our folder, as every one that we started does."""
        try:
            program = Path(os.readlink(f"/proc/{pid}/exe")).name.removesuffix(" (deleted)")
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            folder = os.readlink(f"/proc/{pid}/cwd")
        except OSError as error:
            reason = f"process {pid}: {error.strerror}"
            raise errors.TgtDown(socket=self.client.socket, reason=reason, request="connect") from error
        ours = program == "tgtd" and b"--iscsi" in arguments and folder == os.path.realpath(self.folder)
        if not ours:
            raise exception.BackendDown(
                f"Process {pid} ({program} in {folder}) listens on {self.client.socket} and is not the tgtd of volmgr",
                hint="End that process, or give the backend another state_path",
                pid=pid,
            )

    def _recorded(self) -> Identity | None:
        """Return which process we started or adopted last, as the state file says."""
        try:
            state = json.loads(self._state_file.read_text())
            return Identity(int(state["pid"]), int(state["started"]), str(state["boot"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            LOG.warning("%s cannot be read, it is ignored", self._state_file)
            return None

    def _let_go_on(self) -> None:
        """Let a tgtd of ours go on that was held when we and the guardian died; one that runs takes no notice."""
        if (identity := self._recorded()) is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it has ended
            handle = os.pidfd_open(identity.pid)
            try:
                if _identity(identity.pid) == identity:
                    signal.pidfd_send_signal(handle, signal.SIGCONT)
            finally:
                os.close(handle)

    def _end_unmanageable(self) -> None:
        """Kill a tgtd of ours whose socket is gone: it keeps ports and files and nobody can speak to it any more."""
        identity = self._recorded()
        if identity is not None and _identity(identity.pid) == identity:
            with contextlib.suppress(errors.TgtDown):  # it ended meanwhile
                self._verify(identity.pid)
                LOG.warning("tgtd (process %d) does not listen on its socket any more, it is killed", identity.pid)
                self._kill(identity)
        self._state_file.unlink(missing_ok=True)

    def _kill(self, identity: Identity) -> None:
        try:
            handle = os.pidfd_open(identity.pid)
        except ProcessLookupError:
            return
        try:
            # The handle names one process for good; only now is it sure that it is the one that was verified.
            if _identity(identity.pid) != identity:
                return
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not select.select([handle], [], [], _END_SECONDS)[0]:
                raise exception.BackendDown(f"tgtd (process {identity.pid}) outlived SIGKILL", pid=identity.pid)
        finally:
            os.close(handle)
            self._reap()

    def _gone(self, identity: Identity, timeout: float) -> bool:
        def ended() -> bool:
            self._reap()
            return _identity(identity.pid) != identity

        try:
            _poll(ended, timeout, "tgtd to end")
        except exception.Timeout:
            return False
        return True

    def _reap(self) -> None:
        if self._child is not None and self._child.poll() is not None:
            self._child = None


def _identity(pid: int) -> Identity | None:
    """Return the process's identity, or None when it has ended (a zombie has)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in ("Z", "X"):
        return None
    return Identity(pid, int(fields[19]), _boot_id())


def _all_stopped(pid: int) -> bool:
    """Return whether every thread of a process is stopped (proc(5): state T)."""
    states = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
    return all(state in ("T", "Z", "X") for state in states)


@functools.cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _poll(condition: Callable[[], bool], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise exception.Timeout(f"Waited {timeout:g} s in vain for {what}")
        time.sleep(_PAUSE_SECONDS)

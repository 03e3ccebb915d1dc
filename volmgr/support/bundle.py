# SPDX-License-Identifier: Apache-2.0
"""A support bundle: one tar with what somebody needs who is to find out from afar what is wrong, and no secret.

Every text goes through one scrubber, which knows the secrets of the configuration, of the key file and of the
database by their values and other secrets by their looks. What cannot be had is left out and said. Nothing is changed
anywhere; a daemon that runs is asked for its guru meditation.
"""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import io
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volmgr import __version__, exception
from volmgr.incarnation import started
from volmgr.support import facts, scrub, settings

LIBRARIES = (
    "SQLAlchemy", "alembic", "eventlet", "greenlet", "os-brick", "oslo.concurrency", "oslo.config", "oslo.db",
    "oslo.log", "oslo.messaging", "oslo.service", "psycopg2-binary", "PyMySQL", "taskflow",
)
MEDITATION_SECONDS = 10.0
PAUSE = 0.05
COMMAND_SECONDS = 20
UNIT = "volmgr-volume.service"


class Bundle:
    """The texts of a bundle, by name; all of them scrubbed.

    :ivar missing: what could not be had, with the reason.
    """

    def __init__(self, scrubber: scrub.Scrubber) -> None:
        self._scrubber = scrubber
        self.files: dict[str, bytes] = {}
        self.missing: dict[str, str] = {}

    def add(self, name: str, text: str) -> None:
        """Keep a text, scrubbed."""
        self.files[name] = self._scrubber.scrub(text).encode()

    def collect(self, name: str, make: Callable[[], str]) -> None:
        """Keep what ``make`` returns, or note why it cannot be had."""
        try:
            self.add(name, make())
        except Exception as error:
            self.missing[name] = self._scrubber.scrub(f"{type(error).__name__}: {error}")

    def write(self, path: Path) -> None:
        """Write the tar; nobody but its owner may read it.

        :raises Invalid: it is there already, or cannot be written.
        """
        self.add("missing.json", json.dumps(self.missing, indent=2) + "\n")
        now, folder, flags = int(time.time()), path.name.partition(".")[0], os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            with (
                open(os.open(path, flags | os.O_CLOEXEC, 0o600), "wb") as file,
                tarfile.open(fileobj=file, mode="w:gz") as tar,
            ):
                for name, content in sorted(self.files.items()):
                    item = tarfile.TarInfo(f"{folder}/{name}")
                    item.size, item.mtime, item.mode = len(content), now, 0o600
                    tar.addfile(item, io.BytesIO(content))
        except OSError as error:
            raise exception.Invalid(f"{path} cannot be written: {error.strerror}", field="output") from error


def make(conf: Any, *, lines: int, ask_daemon: bool) -> Bundle:
    """Return the bundle of this host.

    :param conf: the configuration. :param lines: how many log lines at most.
    :param ask_daemon: whether daemons that run here are asked for a guru meditation.
    """
    tokens, unread = facts.secret_tokens(conf)
    bundle = Bundle(scrub.Scrubber(settings.secret_values(conf), tokens))
    bundle.missing.update(unread)
    bundle.collect("versions.json", lambda: json.dumps(_versions(), indent=2) + "\n")
    bundle.collect("configuration.conf", lambda: settings.text(conf))
    bundle.collect("database.json", lambda: json.dumps(facts.database(conf), indent=2, default=str) + "\n")
    bundle.collect("checks.txt", lambda: _checks(conf))
    if ask_daemon:
        _meditations(bundle, conf)
    bundle.collect("log.txt", lambda: _log(conf, lines))
    return bundle


def _versions() -> dict[str, Any]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        system = "unknown"
    return {
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "volmgr": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "system": system,
        "libraries": found,
        "programs": _programs(),
    }


def _programs() -> dict[str, str]:
    from volmgr.cli import checks

    found = {}
    for name, tool in checks.TOOLS.items():
        path = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
        found[name] = checks.tool_version(path, tool.version) if path else "not installed"
    return found


def _checks(conf: Any) -> str:
    """Return what volmgr doctor says of this host without asking anybody."""
    from volmgr import conf as config
    from volmgr.cli import checks

    needed = checks.needs(list(config.backends(conf)))
    results = checks.check_modules(needed) + checks.check_tools(needed.tools) + checks.check_state_path(conf.state_path)
    return "".join(f"{item.result}\t{item.check}\t{item.found}\t{item.remedy or ''}\n" for item in results)


# --- daemons ----------------------------------------------------------------------------------------------------------


def _meditations(bundle: Bundle, conf: Any) -> None:
    """Ask every daemon of this host's backends what it is at."""
    from volmgr import conf as config
    from volmgr import names
    from volmgr.support.meditation import path_of

    for backend in config.backends(conf):
        service = f"{conf.host}@{backend.config_group}"
        name = f"meditation-{backend.config_group}.txt"
        lock = Path(conf.state_path) / "locks" / names.lock_file_name(service)
        bundle.collect(name, functools.partial(_meditation, lock, path_of(conf.state_path, service)))


def _meditation(lock: Path, path: Path) -> str:
    try:
        record = json.loads(lock.read_text() or "{}")
    except FileNotFoundError:
        record = {}
    pid = record.get("pid")
    if pid is None or started(pid) != record.get("started"):
        raise exception.NotFound("volmgr-volume does not run", resource="process")
    if not _catches(pid, signal.SIGUSR2):
        raise exception.Conflict(f"Process {pid} takes no requests for a report (yet)")
    before = _stamp(path)
    os.kill(pid, signal.SIGUSR2)
    deadline = time.monotonic() + MEDITATION_SECONDS
    while _stamp(path) == before:
        if time.monotonic() > deadline or started(pid) != record.get("started"):
            raise exception.Timeout(f"Process {pid} wrote no report in {MEDITATION_SECONDS:g} s")
        time.sleep(PAUSE)
    return path.read_text(encoding="utf-8", errors="replace")


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _catches(pid: int, number: int) -> bool:
    """Return whether a process catches a signal, which would end it else (proc(5), SigCgt)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


# --- log --------------------------------------------------------------------------------------------------------------


def _log(conf: Any, lines: int) -> str:
    """Return the last lines of the daemon's log: its file, else the journal's."""
    if conf.log_file:
        path = os.path.join(conf.log_dir or "", conf.log_file)
        with open(path, encoding="utf-8", errors="replace") as file:
            return "".join(deque(file, maxlen=lines))
    if shutil.which("journalctl") is None:
        raise exception.NotFound("There is neither log_file nor a journal", resource="log")
    done = subprocess.run(
        ["journalctl", "--unit", UNIT, "--lines", str(lines), "--no-pager", "--output", "short-iso-precise"],
        capture_output=True, text=True, errors="replace", timeout=COMMAND_SECONDS, check=False,
    )
    if done.returncode:
        raise exception.NotFound(f"journalctl ended with {done.returncode}: {done.stderr.strip()}", resource="log")
    return done.stdout

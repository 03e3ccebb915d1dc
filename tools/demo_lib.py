# SPDX-License-Identifier: Apache-2.0
"""What the demonstration is made of: a private daemon, an initiator in user space, pictures of a file system.

Everything lives in one temporary folder, and every process carries the demonstration's mark in its environment, so that
none can be left behind unnoticed. This module tells no story; :mod:`demo` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from volmgr.types import Portal  # noqa: E402  (a checkout need not be installed)

MARK = "VOLMGR_DEMO_MARK"
#: The name under which QEMU's programs log in to an iSCSI target.
INITIATOR = "iqn.2008-11.org.linux-kvm"
MIB = 1024**2
DEADLINE = 60.0
COMMAND_TIMEOUT = 120.0
PAUSE = 0.02
Value = TypeVar("Value")


class DemoFailed(Exception):
    """A proof failed; the text says which."""


def prove(truth: object, what: str) -> None:
    """Raise if something that the demonstration claims is not so."""
    if not truth:
        raise DemoFailed(what)


def wait_until(condition: Callable[[], Value], what: str, timeout: float = DEADLINE) -> Value:
    """Call ``condition`` until its value is true and return that; ``timeout`` is in seconds."""
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {timeout:g} s")
        time.sleep(PAUSE)


def run(*argv: str, env: dict[str, str] | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its output is not repeated in errors, because it may hold a secret."""
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False, stdin=subprocess.DEVNULL
    )
    if check and done.returncode != 0:
        raise DemoFailed(f"{argv[0]} ended with {done.returncode}")
    return done


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put signals that end the demonstration off until the block is over.

    One that arrived while a process is being started would leave it unknown; one that arrived in the midst of the
    cleaning would leave processes behind.
    """
    arrived: list[int] = []
    before = {number: signal.signal(number, lambda got, _frame: arrived.append(got)) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])


# --- the daemon -----------------------------------------------------------------------------------------------------


@dataclass
class Daemon:
    """volmgr-volume on its embedded defaults, with a state folder, a socket and a portal of its own.

    :param folder: the state folder. :ivar process: the daemon, None while there is none.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "volmgr-volume.log"

    def settings(self) -> dict[str, str]:
        """Return what makes the embedded defaults private, as oslo.config reads it from the environment."""
        return {
            "OS_DEFAULT__STATE_PATH": str(self.folder),
            "OS_DEFAULT__TRANSPORT_URL": f"unix://{self.folder}/rpc",
            "OS_BACKEND_DEFAULTS__TARGET_IP_ADDRESS": "127.0.0.1",
            "OS_BACKEND_DEFAULTS__TARGET_PORT": str(self.port),
            MARK: self.mark,
        }

    def start(self) -> None:
        """Start it and return; requests are answered a moment later."""
        argv = [sys.executable, "-m", "volmgr.cmd.volume"]
        with undisturbed(), self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, env={**os.environ, **self.settings()}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> int:
        """End it with SIGKILL, at whatever it is doing; returns the process id that it had."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE)
        return self.process.pid

    def stop(self) -> int:
        """Ask it to drain and end; returns its exit status."""
        assert self.process is not None
        self.process.terminate()
        status = self.process.wait(DEADLINE)
        self.process = None
        return status

    def died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def tail(self) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:]) if self.log.exists() else ""

    def processes(self) -> list[int]:
        """Return the ids of the demonstration's processes, this one left out.

        They bear its mark, or work in its folder: tgtd gets an environment of its own.
        """
        mark = f"{MARK}={self.mark}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                # A process may end while it is looked at, and others' are not ours to read.
                with contextlib.suppress(OSError):
                    marked = mark in (entry / "environ").read_bytes().split(b"\0")
                    inside = Path(os.readlink(entry / "cwd")).is_relative_to(self.folder)
                    if (marked or inside) and not _is_dead(entry):
                        found.append(int(entry.name))
        return found

    def end_target(self) -> None:
        """End the tgtd, which outlives the daemon on purpose: initiators are connected to it."""
        from volmgr.tools.tgtd import Tgtd

        Tgtd(str(self.folder / "embedded" / "target"), (Portal("127.0.0.1", self.port),)).stop()

    def sweep(self) -> list[int]:
        """Kill what is left of the demonstration's processes, until there is none; returns what was left."""
        left: set[int] = set()

        def none_left() -> bool:
            found = self.processes()
            for pid in found:
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(pid, signal.SIGKILL)
            left.update(found)
            return not found

        wait_until(none_left, "processes end after SIGKILL")
        if self.process is not None:
            self.process.wait(DEADLINE)
            self.process = None
        return sorted(left)


def _is_dead(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


@contextlib.contextmanager
def workshop(base: Path, keep: bool) -> Iterator[Path]:
    """Give a new folder in ``base``, which is removed afterwards unless it is to be kept."""
    folder = base.absolute() / f"volmgr-demo-{uuid.uuid4().hex[:8]}"
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


# --- the initiator --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """A volume as its initiator sees it: libiscsi inside QEMU's programs, no kernel needed.

    :param info: what ``attachment_update`` or ``initialize_connection`` answered.
    """

    info: dict[str, Any]

    @property
    def url(self) -> str:
        data = self.info["data"]
        return f"iscsi://{data['target_portal']}/{data['target_iqn']}/{data['target_lun']}"

    def environment(self, password: str | None = None) -> dict[str, str]:
        """Return the environment with the CHAP account: a secret has no place on a command line."""
        data = self.info["data"]
        account = {
            "LIBISCSI_CHAP_USERNAME": data["auth_username"],
            "LIBISCSI_CHAP_PASSWORD": password or data["auth_password"],
        }
        return {**os.environ, **account}

    def refuses(self, password: str) -> bool:
        """Return whether a login with that password is refused."""
        done = run("qemu-img", "info", self.url, env=self.environment(password), check=False)
        return done.returncode != 0 and "uthentication" in done.stderr

    def answers(self) -> bool:
        """Return whether a login works."""
        return run("qemu-img", "info", self.url, env=self.environment(), check=False).returncode == 0

    def size(self) -> int:
        """Return the size that the target reports, in bytes."""
        done = run("qemu-img", "info", "--output=json", self.url, env=self.environment())
        size: int = json.loads(done.stdout)["virtual-size"]
        return size

    def write(self, picture: Path) -> None:
        """Write a picture to the beginning of the disk."""
        run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", str(picture), self.url, env=self.environment())

    def read(self, to: Path, length: int) -> str:
        """Read the first ``length`` bytes into a file; returns their SHA-256."""
        to.unlink(missing_ok=True)
        count = f"count={length // MIB}"
        run(
            "qemu-img", "dd", "-f", "raw", "-O", "raw", "bs=1M", count, f"if={self.url}", f"of={to}",
            env=self.environment(),
        )
        return checksum(to)


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listed_targets(port: int) -> list[str]:
    """Return the targets that discovery shows; no listener means none."""
    done = run("iscsi-ls", "-i", INITIATOR, f"iscsi://127.0.0.1:{port}", check=False)
    return [line for line in done.stdout.splitlines() if line.startswith("Target:")]


# --- pictures -------------------------------------------------------------------------------------------------------


def file_system(picture: Path, source: Path, label: str, length: int) -> None:
    """Make an ext4 picture of ``length`` bytes with the files of ``source``."""
    with picture.open("wb") as file:
        file.truncate(length)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, "-d", str(source), str(picture))


def sources(to: Path) -> Path:
    """Copy the project's own source tree, without what was built in it; returns the copy."""
    unwanted = shutil.ignore_patterns(".*", "__pycache__", "build", "*.egg-info")
    return Path(shutil.copytree(ROOT, to, ignore=unwanted, symlinks=True))


def is_clean(picture: Path) -> bool:
    """Return whether the file system in a picture has no errors."""
    return run("e2fsck", "-f", "-n", str(picture), check=False).returncode == 0


def content(picture: Path, path: str) -> str:
    """Return a file out of a picture's file system."""
    return run("debugfs", "-R", f"cat {path}", str(picture)).stdout


# --- what is left ---------------------------------------------------------------------------------------------------


def rows(folder: Path) -> dict[str, int]:
    """Count the rows of the tables that hold what there is; the journal keeps its finished rows on purpose."""
    tables = ("volumes", "snapshots", "attachments", "objects", "exports", "grants")
    database = next(iter(folder.glob("*.sqlite*")), None) or next(iter(folder.glob("*.db")))
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def storage_files(folder: Path) -> list[str]:
    """Return the files that hold volumes' bytes, deleted ones in the trash among them."""
    return sorted(path.name for part in ("volumes", "trash") for path in (folder / "file" / part).glob("*"))

# SPDX-License-Identifier: Apache-2.0
"""What a daemon left, seen from outside: its database, its storage, its tgtd and the process table, read directly."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa

from volmgr import names, states
from volmgr.db import models
from volmgr.db.engine import Database, utcnow
from volmgr.drivers.naming import describe
from volmgr.images.directory import DirectoryStore
from volmgr.incarnation import holders, now
from volmgr.testing.daemon import Daemon
from volmgr.testing.initiator import SESSIONS
from volmgr.testing.invariants import violations
from volmgr.testing.waiting import WaitTimeout, wait_until
from volmgr.tools.tgt import Target, TgtClient
from volmgr.types import ObservedExport, ObservedObject

IDLE_SECONDS = 60.0
#: how long a target may take to follow what SQL says, once nothing runs any more.
FOLLOW_SECONDS = 20.0
PREFIX = "iqn.2010-10.org.openstack:"
#: the folder of a stage that backups go to.
ARCHIVE = "archive"
#: names that let-go objects bear: they are nobody's.
UNMANAGED = "unmanaged-"

Storage = Callable[[], list[ObservedObject]]


class Outside:
    """See the module.

    :cvar ungranted: whether the target has exports that nobody is let in to.
    :param daemon: whose state it is; it may be dead.
    :param storage: returns what the storage has under names of ours; by default the files of the sim and file drivers.
    :param targets: returns what the target serves; by default what a private tgtd says, None if there is none.
    """

    ungranted: ClassVar[bool] = True

    def __init__(
        self,
        daemon: Daemon,
        *,
        url: str | None = None,
        storage: Storage | None = None,
        targets: Callable[[], list[ObservedExport] | None] | None = None,
    ) -> None:
        self.daemon = daemon
        self._since = now()
        #: further daemons on the same database.
        self.beside: list[Daemon] = []
        self.database = Database(url or f"sqlite:///{daemon.state}/volmgr.sqlite", pool_size=4)
        self.storage: Storage = storage or (lambda: files(self.folders()))
        self.targets = targets or self._tgt

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    # --- what is there --------------------------------------------------------------------------------------------

    def folders(self) -> list[Path]:
        """Return the folders that have the daemon's objects as files."""
        state = self.daemon.state / "file"
        known = [self.daemon.folder / "sim", state / "volumes", state / "trash"]
        known += [item.folder / "sim" for item in self.beside]
        return [path for path in known if path.is_dir()]

    def archive(self, backup_id: str) -> list[str]:
        """Return the names of a backup's objects in its store; what a broken-off write has left is none."""
        top = self.daemon.folder / ARCHIVE / backup_id
        found = (path for path in top.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(str(path.relative_to(top)) for path in found)

    def path_of(self, object_id: str, kind: str = "volume") -> Path:
        """Return the file of an object.

        :raises FileNotFoundError: there is none under its final name.
        """
        for folder in self.folders():
            path = folder / names.object_name(kind, object_id)
            if path.exists():
                return path
        raise FileNotFoundError(f"no file of object {object_id}")

    def object_of(self, kind: str, resource_id: str) -> str:
        """Return the object that embodies a volume or a snapshot now.

        :raises LookupError: there is no such resource.
        """
        table = models.volumes if kind == "volume" else models.snapshots
        found = self.rows(table, table.c.id == resource_id)
        if not found:
            raise LookupError(f"there is no {kind} {resource_id}")
        return str(found[0].object_id)

    def rows(self, table: sa.Table, *where: Any) -> list[Any]:
        """Return rows of the database."""
        with self.database.reader() as conn:
            return list(conn.execute(sa.select(table).where(*where)))

    def _tgtd(self) -> tuple[TgtClient, int] | None:
        for path in self.daemon.state.rglob("tgtd.json"):
            return TgtClient(str(path.parent / "socket.0"), 10.0), int(json.loads(path.read_text())["pid"])
        return None

    def tgtd_pid(self) -> int | None:
        """Return the process id that the daemon noted for its tgtd."""
        found = self._tgtd()
        return found[1] if found else None

    def _tgt(self) -> list[ObservedExport] | None:
        found = self._tgtd()
        return exports_of(found[0].targets()) if found else None

    # --- what is wrong --------------------------------------------------------------------------------------------

    def unfinished(self) -> list[str]:
        """Return the operations that still run or wait for anything but their time."""
        later = models.operations.c.not_before > utcnow()
        rows = self.rows(models.operations, models.operations.c.state.in_(states.UNFINISHED))
        waiting = {row.id for row in self.rows(models.operations, later, models.operations.c.state == "queued")}
        return [f"{row.verb} {row.id} is {row.state} at {row.step}" for row in rows if row.id not in waiting]

    def wait_idle(self, timeout: float = IDLE_SECONDS) -> None:
        """Wait until no operation has anything left to do.

        :raises WaitTimeout: one still has.
        """
        wait_until(lambda: not self.unfinished(), timeout, "every operation has ended")

    def violations(self) -> list[str]:
        """Return everything that is wrong now, in words."""
        found = violations(
            self.database, storage=self.storage(), targets=self.targets(), ungranted=self.ungranted
        )
        return found + self.strangers() + self.half_images() + self.sessions() + self.processes()

    def image_store(self) -> DirectoryStore:
        """Return the daemon's own store of images, as somebody else opens it."""
        return DirectoryStore("local", str(self.daemon.state / "images" / "store"))

    def half_images(self) -> list[str]:
        """Return what is left of transfers of images that nobody will go on with."""
        folder = self.daemon.state / "images"
        there = [path for path in folder.glob("store/*") if path.suffix != ".json"]
        whole = {json.loads(path.read_text())["data"] for path in folder.glob("store/*.json")}
        left = [path for path in there if path.name not in whole]
        return [f"{path} is left of a transfer" for path in (*left, *folder.glob("staging/*"))]

    def sessions(self) -> list[str]:
        """Return what the daemon has attached still, by an initiator that stands for the kernel's."""
        return [f"{path.name} is attached still" for path in self.daemon.state.glob(f"{SESSIONS}/*")]

    def settle(self, *, patient: bool = True) -> list[str]:
        """Wait until nothing runs and the target has followed; returns what is wrong then.

        :param patient: False: look once, as something may be wrong on purpose.
        """
        try:
            self.wait_idle()
            if not patient:
                return self.violations()
            wait_until(lambda: not self.violations(), FOLLOW_SECONDS, "nothing is wrong")
        except WaitTimeout:
            return self.unfinished() + self.violations()
        return []

    def strangers(self) -> list[str]:
        """Return files whose names say nothing to us: what was left of work that nobody will go on with."""
        found = [path for folder in self.folders() for path in folder.iterdir() if path.is_file()]
        return [
            f"{path} is nobody's"
            for path in found
            if describe(path.name, 0) is None and not path.name.startswith(UNMANAGED)
        ]

    def processes(self) -> list[str]:
        """Return processes of the daemon's that are neither it nor what serves its exports."""
        known = self.own()
        locks = [pid for path in self.daemon.state.glob("locks/*.incarnation") for pid in holders(path, self._since)]
        return [f"process {pid} is left: {text}" for pid, text in _of(self.daemon.folder, locks) if pid not in known]

    def own(self) -> set[int | None]:
        """Return the processes that may be there."""
        daemons = {item.process.pid if item.process else None for item in (self.daemon, *self.beside)}
        return daemons | {self.tgtd_pid(), os.getpid()}


def _of(folder: Path, locks: list[int]) -> list[tuple[int, str]]:
    """Return (process id, command line) of what holds a lock, or works in a folder or names it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = os.readlink(entry / "cwd")
        except OSError:
            continue  # it has ended meanwhile, or is a kernel thread
        if int(entry.name) in locks or f"{folder}/" in f"{place}/ {text}":
            found.append((int(entry.name), text))
    return found


def files(folders: Sequence[Path]) -> list[ObservedObject]:
    """Return what folders have under names of ours."""
    found = (describe(path.name, path.stat().st_size) for folder in folders for path in folder.iterdir())
    return [item for item in found if item is not None]


def exports_of(targets: Sequence[Target]) -> list[ObservedExport]:
    """Return tgtd's targets as exports; a read-only twin is part of its export."""
    grouped: dict[str, list[Target]] = {}
    for target in targets:
        if (parsed := names.parse_target_name(PREFIX, target.name)) is not None:
            grouped.setdefault(names.target_name(PREFIX, parsed[0], parsed[1]), []).append(target)
    return [
        ObservedExport(
            target_name=name,
            paths=tuple(sorted({str(lun.path) for each in group for lun in each.disks})),
            serials=tuple(sorted({lun.serial for each in group for lun in each.disks})),
            initiators=tuple(sorted({acl for each in group for acl in each.acls})),
        )
        for name, group in grouped.items()
    ]

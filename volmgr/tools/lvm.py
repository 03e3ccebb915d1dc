# SPDX-License-Identifier: Apache-2.0
"""One LVM volume group: a report in one process, a change in one process, refusals as typed errors.

It runs LVM's own commands and says what they did; what a logical volume is for, it does not know.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from volmgr import exception
from volmgr.tools import lvm_errors as errors
from volmgr.tools import lvm_gate, lvm_report, process, thin_delta
from volmgr.tools.lvm_report import Report

LOG = logging.getLogger(__name__)

#: lvm(8), "VALID NAMES".
_NAME = re.compile(r"\A[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}\Z")
_CONFIG = "activation/retry_deactivation=1"
_RETRY_PAUSE = 0.5
#: Seconds for a command that waits for the kernel, whose work is watched.
_LONG = 30 * 86400.0


class VolumeGroup:
    """The commands on one volume group. Each call is one process; its methods may be called from several threads.

    :param name: of the group.
    :param conf_file: the ``lvm.conf`` to use, None for the system's; the children alone get to know.
    :param timeout: seconds that a command may take.
    :param tries: how often a command that failed for a passing reason is run.
    :param lock_fd: a descriptor that every command holds open while it runs, as its standard input: LVM closes all
        other inherited descriptors at its start, and dmeventd, which it may leave running, closes this one too.
    """

    def __init__(
        self,
        name: str,
        *,
        conf_file: str | None = None,
        timeout: float = 60.0,
        tries: int = 3,
        lock_fd: int | None = None,
    ) -> None:
        self.name = _checked(name)
        self._environment = {} if conf_file is None else {"LVM_SYSTEM_DIR": os.path.dirname(conf_file)}
        self._timeout = timeout
        self._tries = max(1, tries)
        self._lock_fd = lock_fd
        #: All settings in one string: LVM takes ``--config`` only once in a command.
        self._config = f"{_CONFIG} {lvm_gate.filter_setting('')}"

    def sibling(self, name: str) -> VolumeGroup:
        """Return the commands on another group, with the same settings."""
        other = copy.copy(self)
        other.name = _checked(name)
        return other

    def path(self, volume: str) -> str:
        """Return the path of a logical volume's node; it is there while the volume is active."""
        return f"/dev/{self.name}/{volume}"

    def avoid_gates(self) -> None:
        """Learn what LVM may look at, so that gates are left out and nothing else changes; one process."""
        name = "devices/global_filter"
        done = process.run(["lvmconfig", name], timeout=self._timeout, env=self._environment, stdin=self._lock_fd)
        # It fails where nothing is configured.
        configured = done.stdout if done.status == 0 else ""
        self._config = f"{_CONFIG} {lvm_gate.filter_setting(configured)}"

    # --- looking ------------------------------------------------------------------------------------------------

    def report(self) -> Report:
        """Return the whole group.

        :raises GroupMissing: there is no such group.
        """
        command = lvm_report.arguments(self.name)
        found = lvm_report.parse(self._run([*command[:2], "--config", self._config, *command[2:]], again=True).stdout)
        if found is None:
            raise errors.GroupMissing(command="lvm fullreport", group=self.name)
        return found

    def extents(self, volume: str) -> tuple[str, ...]:
        """Return the physical extents that a volume's bytes lie on, ``/dev/sdb:10-19``, those of all its copies.

        :raises LvNotFound: it is not there.
        """
        words = ("-a", "--reportformat", "json", "-o", "lv_name,seg_pe_ranges")
        done = self._run(["lvs", "--config", self._config, *words, self.name], again=True)
        ranges = lvm_report.parse_extents(done.stdout)
        if volume not in ranges:
            raise errors.LvNotFound(command="lvs", group=self.name, reason=f"{volume} is not there")
        return lvm_report.physical_extents(ranges, volume)

    def transaction_id(self, pool: str) -> int:
        """Return how many changes of a thin pool LVM has counted.

        :raises LvNotFound: it is not there.
        """
        words = ("--noheadings", "-o", "transaction_id", f"{self.name}/{_checked(pool)}")
        return int(self._run(["lvs", "--config", self._config, *words], again=True).stdout.strip() or 0)

    def differing(self, pool: str, first: str, second: str, note: Path) -> thin_delta.Ranges:
        """Return in which bytes two active volumes of a thin pool may differ; one process.

        :param note: see :func:`volmgr.tools.thin_delta.compare`, which also says what is raised.
        """
        volumes = (_checked(first), _checked(second))
        return thin_delta.compare(
            self.name, _checked(pool), volumes, note=note, timeout=self._timeout, lock_fd=self._lock_fd
        )

    # --- making -------------------------------------------------------------------------------------------------

    def create_thick(self, volume: str, size_bytes: int, tags: Sequence[str] = (), mirrors: int = 0) -> None:
        """Make a linear volume, or one of RAID 1, active; its bytes are what was there before.

        :param mirrors: copies beside the first; they differ until they are written.
        :raises LvExists: the name is taken. :raises GroupFull: there is no room.
        """
        # Wiped at its start, where signatures are: udev is told of it only afterwards.
        how = ("-Wy", "-Zy", *_raid(mirrors))
        self._change("lvcreate", *how, *self._named(volume, tags), "-L", _bytes(size_bytes), self.name)

    def create_thin(self, volume: str, size_bytes: int, pool: str, tags: Sequence[str] = ()) -> None:
        """Make a thin volume, active; it reads as zeros.

        :raises LvExists: the name is taken. :raises PoolFull: the pool is above LVM's own threshold.
        """
        where = ("--thinpool", f"{self.name}/{_checked(pool)}")
        self._change("lvcreate", "-kn", *self._named(volume, tags), "-V", _bytes(size_bytes), *where)

    def create_pool(self, pool: str, percent_of_free: int) -> None:
        """Make a thin pool that zeroes what it hands out.

        :raises LvExists: the name is taken. :raises GroupFull: there is no room.
        """
        size = ("-l", f"{percent_of_free}%FREE")
        self._change("lvcreate", "-Zy", "-T", *size, f"{self.name}/{_checked(pool)}")

    def create_mirrored_pool(self, pool: str, data_bytes: int, metadata_bytes: int, mirrors: int) -> None:
        """Make a thin pool whose data and metadata are of RAID 1; it zeroes what it hands out.

        What an earlier try has left is used: the pool gets its kind by the last of three commands.

        :raises GroupFull: there is no room on as many disks as there are copies.
        """
        metadata = _checked(f"{pool}-metadata")
        for volume, size in ((_checked(pool), data_bytes), (metadata, metadata_bytes)):
            with contextlib.suppress(errors.LvExists):
                self._change("lvcreate", "-Wy", "-Zy", *_raid(mirrors), "-n", volume, "-L", _bytes(size), self.name)
        kind = ("--type", "thin-pool", "-Zy", "--poolmetadata", f"{self.name}/{metadata}")
        self._change("lvconvert", *kind, f"{self.name}/{pool}")

    def grow_pool(self, pool: str, *, data_bytes: int = 0, metadata_bytes: int = 0) -> None:
        """Make a thin pool larger by so many bytes.

        :raises GroupFull: there is no room.
        """
        for option, size in (("-L", data_bytes), ("--poolmetadatasize", metadata_bytes)):
            if size:
                self._change("lvextend", option, f"+{_bytes(size)}", f"{self.name}/{_checked(pool)}", again=False)

    def snapshot(
        self,
        volume: str,
        origin: str,
        tags: Sequence[str] = (),
        space_bytes: int | None = None,
        devices: Sequence[str] = (),
    ) -> None:
        """Make a snapshot, active and writeable.

        One that failed is not tried again: what it left may be of a later moment than the caller's.

        :param space_bytes: for a thick origin: room for what changes, LVM takes no more than it can ever need.
        :param devices: the only ones that LVM may look at, while others would not answer; all without them.
        :raises LvNotFound: the origin is not there. :raises LvExists: the name is taken.
        """
        only = ("--devices", ",".join(devices)) if devices else ()
        space = ("-kn",) if space_bytes is None else ("-L", _bytes(space_bytes))
        self._change(
            "lvcreate", *only, "-s", *space, *self._named(volume, tags), f"{self.name}/{_checked(origin)}", again=False
        )

    def _named(self, volume: str, tags: Sequence[str]) -> list[str]:
        return ["-n", _checked(volume), *(word for tag in tags for word in ("--addtag", tag))]

    # --- changing -----------------------------------------------------------------------------------------------

    def rename(self, volume: str, new_name: str) -> None:
        """Give a volume another name, in use or not.

        :raises LvNotFound: it is not there. :raises LvExists: the new name is taken.
        """
        self._change("lvrename", self.name, _checked(volume), _checked(new_name), again=False)

    def extend(self, volume: str, size_bytes: int, pe_ranges: Sequence[str] = ()) -> bool:
        """Make a volume larger; returns False if it has that size already.

        :param pe_ranges: the physical extents to take, ``/dev/sdb:10-19``; any without them.
        :raises LvWouldShrink: it is larger already. :raises LvActiveOrigin: it has thick snapshots and is active.
        """
        try:
            self._change("lvextend", "-L", _bytes(size_bytes), f"{self.name}/{_checked(volume)}", *pe_ranges)
        except errors.LvSameSize:
            return False
        return True

    def remove(self, volume: str) -> bool:
        """Remove a volume, its thick snapshots with it; returns False if it was not there.

        :raises LvInUse: something has it open.
        """
        try:
            self._change("lvremove", f"{self.name}/{_checked(volume)}")
        except errors.LvNotFound:
            return False
        return True

    def split_snapshot(self, volume: str) -> None:
        """Make the space of a thick snapshot a volume by itself, under the snapshot's name; its origin is free of it.

        :raises LvInUse: something has it open.
        """
        self._change("lvconvert", "--splitsnapshot", f"{self.name}/{_checked(volume)}")

    def merge(self, snapshot: str, watch: Callable[[], None]) -> None:
        """Give the origin of ``snapshot`` its bytes and remove it; returns when all is done.

        From the begin on the origin reads as the snapshot did. A merge that was broken off goes on in the kernel, and
        ends with :meth:`finish_merge`. One whose origin is open begins when the origin is activated the next time.

        :param watch: called once a second; what it raises passes through, and the merge goes on.
        :raises SnapshotOverflowed: there is nothing left to merge. :raises LvNotFound: there is no such snapshot.
        """
        name = f"{self.name}/{_checked(snapshot)}"
        self._long("lvconvert", "--yes", "--config", self._config, "--interval", "1", "--merge", name, watch=watch)

    def finish_merge(self, origin: str, watch: Callable[[], None], *, thin: bool = False) -> None:
        """Wait for a merge into ``origin`` that was broken off, and remove the snapshot.

        :param watch: as for :meth:`merge`.
        """
        what = ("--polloperation", "merge_thin" if thin else "merge", "--interval", "1")
        self._long("lvm", "lvpoll", "--config", self._config, *what, f"{self.name}/{_checked(origin)}", watch=watch)

    def keep_active(self, volume: str) -> None:
        """Let a volume that is marked to be skipped be activated with all others."""
        self._change("lvchange", "-kn", f"{self.name}/{_checked(volume)}")

    def activate(self, volume: str) -> None:
        """Make a volume's node, also of one that is marked to be skipped."""
        self._change("lvchange", "-ay", "-K", "--poll", "n", f"{self.name}/{_checked(volume)}")

    def deactivate(self, volume: str) -> None:
        """Take a volume's node away.

        :raises LvInUse: something has it open.
        """
        self._change("lvchange", "-an", f"{self.name}/{_checked(volume)}")

    def retag(self, volume: str, *, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
        """Add and remove tags; what is so already is success."""
        words = [word for tag in add for word in ("--addtag", tag)]
        words += [word for tag in remove for word in ("--deltag", tag)]
        self._change("lvchange", *words, f"{self.name}/{_checked(volume)}")

    # --- processes ----------------------------------------------------------------------------------------------

    def _long(self, *argv: str, watch: Callable[[], None]) -> None:
        """Run a command that ends when the kernel has done its work, however long that takes."""
        self._run(list(argv), again=False, timeout=_LONG, watch=watch)

    def _change(self, command: str, *words: str, again: bool = True) -> None:
        self._run([command, "--yes", "--config", self._config, *words], again=again)

    def _run(
        self,
        argv: list[str],
        *,
        again: bool,
        timeout: float | None = None,
        watch: Callable[[], None] | None = None,
    ) -> process.Result:
        """Run a command, more than once where its failure passes.

        :param again: whether it may be run again after it crashed, when what it was to do may be done already.
        """
        command = argv[0] if argv[0] != "lvm" else " ".join(argv[:2])
        for attempt in range(1, self._tries + 1):
            done = process.run(
                argv, timeout=timeout or self._timeout, env=self._environment, stdin=self._lock_fd, watch=watch
            )
            if done.status == 0:
                return done
            error = errors.classify(command, self.name, done.status, done.stderr)
            passing = isinstance(error, errors.LvmLocked) or (again and isinstance(error, errors.LvmCrashed))
            if not passing or attempt == self._tries:
                raise error
            LOG.warning("%s is run again (%d of %d): %s", command, attempt + 1, self._tries, error.message)
            time.sleep(_RETRY_PAUSE * attempt)
        raise AssertionError("the last attempt returns or raises")


def _checked(name: str) -> str:
    """Return a name that LVM can have.

    :raises Invalid: it cannot; a name with a slash or a leading hyphen would mean something else on a command line.
    """
    if not _NAME.match(name) or name in (".", ".."):
        raise exception.Invalid(f"{name[:60]!r} cannot be a name in LVM", field="name")
    return name


def _raid(mirrors: int) -> tuple[str, ...]:
    # Not synchronised: whoever makes a volume writes all of it before anybody reads it.
    return ("--type", "raid1", "-m", str(mirrors), "--nosync") if mirrors else ()


def _bytes(size_bytes: int) -> str:
    return f"{size_bytes}b"

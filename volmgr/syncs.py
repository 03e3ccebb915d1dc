# SPDX-License-Identifier: Apache-2.0
"""A sync makes the target what SQL says of one resource; a rebuild does it for all of a backend.

Recovery, reboot, repair and every change of a right end in the same sync. This module reads rows and changes none but
the numbers of LUNs, which are given back once the target agrees.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection

from volmgr import exception, names, types
from volmgr.crypto import Cipher
from volmgr.db import exports as rows
from volmgr.db import luns
from volmgr.db.admission import Settings
from volmgr.db.engine import Database
from volmgr.locks import KeyedLocks
from volmgr.own_exports import OwnExports
from volmgr.runtime import Clock
from volmgr.targets.base import Target

LOG = logging.getLogger(__name__)

#: seconds until a heartbeat tries an export again that could not be made.
RETRY_INTERVAL = 60.0
REBUILD_BATCH = 50


class Syncs:
    """The exports of one backend, as far as they follow SQL.

    :param driver: gives the path that the target serves; without a target it answers connections itself.
    :param killpoint: called with ``verb/-/when`` between the rows and the target; see :mod:`volmgr.killpoints`.
    :param locks: those of a cluster, where several workers sync the same target.
    """

    def __init__(
        self,
        database: Database,
        driver: Any,
        target: Target | None,
        *,
        settings: Settings,
        cipher: Cipher,
        clock: Clock,
        killpoint: Callable[[str], None] | None = None,
        volume_types: Callable[[str | None], types.VolumeType | None] = lambda _id: None,
        locks: KeyedLocks | None = None,
    ) -> None:
        self._types = volume_types
        self.database = database
        self.driver = driver
        self.target = target
        self.settings = settings
        self.cipher = cipher
        self.clock = clock
        self.locks = locks or KeyedLocks()
        self.own = OwnExports(database, driver, cipher, self.locks)
        self._killpoint = killpoint or (lambda _name: None)
        #: by resource, when an export that could not be made is worth another try; see :meth:`restore_missing`.
        self._not_before: dict[str, float] = {}

    def sync(self, kind: str, resource_id: str, *, size: int | None = None) -> bool:
        """Make the target what SQL says of one resource; returns whether it should be exported.

        :param size: GiB that it has by now, where SQL does not say so yet.
        :raises Moved: it is another worker's.
        """
        with self.locks.hold(resource_id):
            with self.database.reader() as conn:
                found = rows.wanted(conn, kind, resource_id)
            if found is None or found.export is None:
                return False
            self._here(found)
            if size is not None and isinstance(found.resource, types.Volume):
                found = dataclasses.replace(found, resource=dataclasses.replace(found.resource, size=size))
            self._sync(found if self.target is not None else self._with_accounts([found])[0])
            self._free_numbers(found)
            return True

    def _here(self, found: rows.Wanted) -> None:
        """Return if the resource is this worker's to export.

        :raises Moved: it is another's.
        """
        if (owner := found.resource.host) and names.service_of(owner) != self.settings.host:
            raise exception.Moved(host=owner)

    def admit(self, wwpn: str) -> None:
        """Know a port of a host for ever, so that it may log in before it attaches anything.

        :raises Unsupported: the target needs no such thing.
        """
        if self.target is None:
            raise exception.Unsupported(verb="initiator_add", hint="Only Fibre Channel needs it")
        self.target.admit(wwpn)

        def write() -> None:
            with self.database.writer() as conn:
                luns.remember(conn, self.settings.host, [wwpn])

        self.database.retrying(write)

    def admit_known(self) -> None:
        """Make the ports known again that were, after a start."""
        if self.target is not None and self.target.ports:
            with self.database.reader() as conn:
                wwpns = luns.known(conn, self.settings.host)
            for wwpn in wwpns:
                self.target.admit(wwpn)

    def rebuild(self) -> int:
        """Make every export that SQL knows, after a start; one that fails is logged, the others go on."""
        done = 0
        with self.database.reader() as conn:
            found = rows.ids_by_kind(conn, self.settings.host)
        for kind, ids in found.items():
            for start in range(0, len(ids), REBUILD_BATCH):
                done += self._rebuild(kind, ids[start : start + REBUILD_BATCH])
        return done

    def restore_missing(self) -> int:
        """Make the exports that the target has lost since; returns how many. Two statements and one look at the target.

        For a heartbeat: what an export that is there looks like is the audit's affair.
        """
        if self.target is None:
            return 0
        with self.locks.watching() as busy:
            with self.database.reader() as conn:
                wanted = rows.names_of(conn, self.settings.host, ungranted=self.target.shows_ungranted)
            if not wanted:
                return 0
            present = self.target.present()
        made, now = 0, self.clock.monotonic()
        missing = [row for row in wanted if row.target_name not in present and row.resource_id not in busy]
        for kind in names.EXPORTED:
            ids = [row.resource_id for row in missing if row.kind == kind]
            lost = [item for item in ids if self._not_before.get(item, now) <= now]
            if lost:
                LOG.warning("The target has lost the exports of %d %ss, they are made again", len(lost), kind)
            for start in range(0, len(lost), REBUILD_BATCH):
                made += self._rebuild(kind, lost[start : start + REBUILD_BATCH])
        return made

    def _rebuild(self, kind: str, ids: list[str]) -> int:
        """Sync a few exports after two statements; whoever wants one of them waits for these few at most."""
        done = 0
        with contextlib.ExitStack() as stack:
            # Only another member of a cluster holds two of these locks, and takes them in the same order.
            for resource_id in sorted(ids):
                stack.enter_context(self.locks.hold(resource_id))
            with self.database.reader() as conn:
                batch = rows.many_wanted(conn, kind, ids)
                # Whoever died, or was told that the sync had failed, has not given them back.
                numbered = self._stale_numbers(conn, batch)
            if self.target is None:
                batch = self._with_accounts(batch)
            for found in batch:
                try:
                    self._sync(found)
                    if found.resource.id in numbered:
                        self._free_numbers(found)
                    self._not_before.pop(found.resource.id, None)
                    done += 1
                except exception.VolmgrError as error:
                    self._not_before[found.resource.id] = self.clock.monotonic() + RETRY_INTERVAL
                    LOG.error("The export of %s %s could not be made: %s", kind, found.resource.id, error)
        return done

    def _sync(self, found: rows.Wanted) -> None:
        if self.target is not None:
            self.target.sync(self.spec(found))
        elif isinstance(found.resource, types.Volume):
            self.own.ensure(found.resource)

    def _with_accounts(self, batch: list[rows.Wanted]) -> list[rows.Wanted]:
        """Return the same with what a driver that exports by itself needs to know of each resource."""
        typed = [self._typed(found) for found in batch]
        known = self.own.known([found.resource for found in typed])
        return [dataclasses.replace(found, resource=item) for found, item in zip(typed, known, strict=True)]

    def _stale_numbers(self, conn: Connection, batch: list[rows.Wanted]) -> set[str]:
        if self.target is None or not self.target.ports:
            return set()
        return luns.stale(conn, {
            found.resource.id: {wwpn for row in found.grants for wwpn in row.grant.wwpns} for found in batch
        })

    def _free_numbers(self, found: rows.Wanted) -> None:
        """Give back the numbers of initiators that lost their access; only now nothing answers to them any more."""
        if self.target is None or not self.target.ports:
            return
        wwpns = sorted({wwpn for row in found.grants for wwpn in row.grant.wwpns})

        def write() -> None:
            with self.database.writer() as conn:
                luns.keep(conn, found.resource.id, wwpns)

        self.database.retrying(write)

    def spec(self, found: rows.Wanted) -> types.ExportSpec:
        """Return the whole of what an export should be."""
        resource, export = found.resource, found.export
        kind = "volume" if isinstance(resource, types.Volume) else "snapshot"
        if export is None:
            raise exception.Inconsistent(f"The {kind} {resource.id} has grants and no export", id=resource.id)
        return types.ExportSpec(
            kind=kind,
            resource_id=resource.id,
            target_name=export.target_name,
            path=self.driver.export_path(resource),
            serial=resource.serial or "",
            size_bytes=resource.size_bytes,
            lun=export.lun,
            auth=export.chap(self.cipher, resource.id),
            grants=tuple(row.grant for row in found.grants),
            read_only=kind == "snapshot" or bool(resource.get("readonly")),
            shelf=export.shelf,
            blade=export.blade,
        )

    def resource(self, kind: str, resource_id: str) -> types.Volume | types.Snapshot:
        """Return a resource with its type.

        :raises NotFound: it is not there.
        """
        with self.database.reader() as conn:
            return self._wanted(conn, kind, resource_id).resource

    def _wanted(self, conn: Connection, kind: str, resource_id: str, *, lock: bool = False) -> rows.Wanted:
        found = rows.wanted(conn, kind, resource_id, lock=lock)
        if found is None:
            missing = exception.VolumeNotFound if kind == "volume" else exception.SnapshotNotFound
            raise missing(id=resource_id)
        return self._typed(found)

    def _typed(self, found: rows.Wanted) -> rows.Wanted:
        """Return the same with the volume's type, which drivers and connection_info read."""
        kind = self._types(found.resource.volume_type_id)
        if kind is None or isinstance(found.resource, types.Snapshot):
            return found
        return dataclasses.replace(found, resource=dataclasses.replace(found.resource, volume_type=kind))

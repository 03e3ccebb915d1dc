# SPDX-License-Identifier: Apache-2.0
"""Level-triggered: rows say who may connect to what, and a sync makes the target so.

Whoever changes an export's rows holds the resource's lock until the target agrees, so the last change wins and an
answer is given only while the grant stands. Recovery, reboot and repair are the same sync. This module knows no RPC and
no operation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import secrets
import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection

from volmgr import exception, names, qos, types
from volmgr.crypto import Cipher
from volmgr.db import answered, luns
from volmgr.db import exports as rows
from volmgr.db.admission import Settings
from volmgr.db.engine import Database
from volmgr.locks import KeyedLocks
from volmgr.own_exports import PROTOCOL, OwnExports
from volmgr.peers import PORTS, peer_key, port_names
from volmgr.runtime import Clock
from volmgr.targets.base import Target

LOG = logging.getLogger(__name__)

#: seconds until a heartbeat tries an export again that could not be made.
RETRY_INTERVAL = 60.0
REBUILD_BATCH = 50
_OF_SNAPSHOTS = "initialize_connection_snapshot"
Change = Callable[[Connection, rows.Wanted], None]


class Exports:
    """The exports of one backend.

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

    @property
    def protocol(self) -> str:
        return self.target.protocol if self.target is not None else PROTOCOL

    def validate(self, connector: dict[str, Any]) -> None:
        """Check a connector before anything changes.

        :raises InvalidConnector: it lacks what the transport needs.
        """
        if self.target is not None:
            self.target.validate_connector(connector)
        else:
            self.driver.validate_connector(connector)

    def connect(
        self,
        kind: str,
        resource_id: str,
        connector: dict[str, Any],
        *,
        check: Callable[[types.Volume | types.Snapshot], None],
        mode: str = "rw",
        attachment_id: str = "",
        change: Change | None = None,
    ) -> dict[str, Any]:
        """Grant access to a connector, make the export so, return connection_info; a repeat joins.

        :param check: raises if the resource's status does not allow it; runs in the transaction.
        :param change: what else to write in the transaction in which the grant is made.
        """
        self._may_connect(kind, resource_id, connector)
        peer = peer_key(connector, self.protocol)
        with self.locks.hold(resource_id):
            grant = None
            if change is None and not answered.keyed():  # what has something to write anyway need not look first
                with self.database.reader() as conn:
                    found = self._wanted(conn, kind, resource_id)
                self._here(found)
                grant = _granted(found, peer, attachment_id, mode)
            if grant is None:
                found, grant = self.database.repeating(
                    lambda: self._grant(kind, resource_id, connector, peer, check, mode, attachment_id, change)
                )
                self._killpoint("connect/-/granted")
            else:
                check(found.resource)
            answer = self._answer(found, grant, connector)
            self._killpoint("connect/-/synced")
            return answer

    def _may_connect(self, kind: str, resource_id: str, connector: dict[str, Any]) -> None:
        """Return if a connector has what the transport needs, and a resource of this kind can be connected to.

        What this worker's transport cannot do, that of the resource's own worker may.
        """
        try:
            if self.target is None and kind == "snapshot" and not self.driver.supports(_OF_SNAPSHOTS):
                raise exception.Unsupported(verb=_OF_SNAPSHOTS)
            self.validate(connector)
        except (exception.Invalid, exception.Unsupported):
            with self.database.reader() as conn:
                self._here(self._wanted(conn, kind, resource_id))
            raise

    def _grant(
        self,
        kind: str,
        resource_id: str,
        connector: dict[str, Any],
        peer: str,
        check: Callable[[types.Volume | types.Snapshot], None],
        mode: str,
        attachment_id: str,
        change: Change | None,
    ) -> tuple[rows.Wanted, types.Grant]:
        with self.database.writer(urgent=True) as conn:
            found = self._wanted(conn, kind, resource_id, lock=True)
            self._here(found)
            check(found.resource)
            export = found.export or self._new_export(conn, kind, found.resource)
            existing = _granted(found, peer, attachment_id, mode)
            grants = found.grants
            if existing is None:
                answered.check_first(conn, kind, resource_id, self.clock.now())
                replaced = [old for old in grants if old.attachment_id == attachment_id and self._is(old, connector)]
                for key in {old.peer_key for old in replaced}:
                    rows.delete_grants(conn, resource_id, peer_key=key, attachment_id=attachment_id)
                existing = self._new_grant(conn, resource_id, connector, mode)
                row = rows.GrantRow(existing, peer, attachment_id)
                rows.insert_grant(conn, resource_id, row, self.clock.now())
                grants = (*(old for old in grants if old not in replaced), row)
            else:
                answered.keep(conn, resource_id, self.clock.now())
            if change is not None:
                change(conn, found)
            return dataclasses.replace(found, export=export, grants=grants), existing

    def _new_grant(self, conn: Connection, resource_id: str, connector: dict[str, Any], mode: str) -> types.Grant:
        ports = port_names(connector, self.protocol)
        shared = self.target.ports if self.target is not None else ()
        if shared:
            luns.remember(conn, self.settings.host, ports)
        return types.Grant(
            id=str(uuid.uuid4()),
            mode=mode,
            initiator=connector.get("initiator"),
            wwpns=ports if self.protocol == "fibre_channel" else tuple(connector.get("wwpns") or ()),
            macs=ports if self.protocol == "aoe" else tuple(connector.get("aoe_macs") or ()),
            host_name=connector.get("host"),
            ip=connector.get("ip"),
            lun=luns.take(conn, resource_id, shared, ports) if shared else 1,
        )

    def _is(self, row: rows.GrantRow, connector: dict[str, Any]) -> bool:
        """Return whether a grant is of the host that a connector describes.

        A host may get or lose ports between two calls, so it is the same one if it shares a port with the grant.
        """
        if row.peer_key == peer_key(connector, self.protocol):
            return True
        known = {"fibre_channel": row.grant.wwpns, "aoe": row.grant.macs}.get(self.protocol, ())
        return not set(known).isdisjoint(port_names(connector, self.protocol))

    def _new_export(self, conn: Connection, kind: str, resource: types.Volume | types.Snapshot) -> rows.ExportRow:
        auth: dict[str, Any] = {}
        if self.settings.auth and self.target is not None and self.protocol not in PORTS:
            # 64 random bits each; 16 characters is the longest secret that every initiator takes.
            made = types.Chap(names.new_account(), types.Secret(secrets.token_hex(8)))
            chap = self.settings.chap or made
            auth["auth_username"] = chap.username
            auth["auth_secret"] = self.cipher.encrypt("exports", "auth_secret", resource.id, chap.password)
        target_name = names.target_name(self.settings.target_prefix, kind, resource.id)
        if (other := rows.name_taken(conn, self.settings.host, target_name)) is not None:
            raise exception.Conflict(
                f"The {kind} {other} is exported under the name of {resource.id}: it took over that one's storage",
                hint=f"Use another id, or end its connections and: volmgr volume migrate {other}",
                resource=kind, id=resource.id, status=resource.status,
            )
        shared = self.target.ports if self.target is not None else ()
        return rows.insert(
            conn,
            kind,
            resource.id,
            host=self.settings.host,
            target_name=target_name,
            now=self.clock.now(),
            lun=luns.take(conn, resource.id, shared, (luns.SELF,), simple=False) if shared else 1,
            addresses=self.settings.shelves,
            **auth,
        )

    def _answer(self, found: rows.Wanted, grant: types.Grant, connector: dict[str, Any]) -> dict[str, Any]:
        resource = found.resource
        if self.target is None:
            info = self.own.connect(resource, connector)
            data = dict(info["data"])
            protocol = info["driver_volume_type"]
        else:
            spec = self.spec(found)
            self.target.sync(spec)
            data = dict(self.target.connection(spec, grant))
            protocol = self.target.protocol
        data |= {"volume_id": resource.id, "access_mode": grant.mode, "encrypted": False}
        data["qos_specs"] = qos.front_end(resource)
        data.setdefault("discard", False)
        data["serial"] = resource.serial
        return {"driver_volume_type": protocol, "data": data}

    def disconnect(
        self,
        kind: str,
        resource_id: str,
        *,
        connector: dict[str, Any] | None,
        attachment_id: str | None = None,
        change: Change | None = None,
    ) -> bool:
        """Take access away from a connector, an attachment, or (None, None) from everybody, and make the target so.

        :returns: whether there was anything to take away.
        """

        def goes(row: rows.GrantRow) -> bool:
            of_peer = connector is None or self._is(row, connector)
            return of_peer and attachment_id in (None, row.attachment_id)

        gone = 0
        lets_go = False

        def revoke() -> rows.Wanted | None:
            nonlocal gone, lets_go
            with self.database.writer(urgent=True) as conn:
                found = rows.wanted(conn, kind, resource_id, lock=True)
                if found is None:
                    answered.keep(conn, resource_id, self.clock.now())  # it may be made anew
                    return None
                self._here(found)
                if not answered.first(conn, resource_id, self.clock.now()):
                    return found  # whoever is connected has connected since
                going = [row for row in found.grants if goes(row)]
                for key in {row.peer_key for row in going}:
                    gone += rows.delete_grants(conn, resource_id, peer_key=key, attachment_id=attachment_id)
                if change is not None:
                    change(conn, found)
                kept = tuple(row for row in found.grants if row not in going)
                # One without a grant may be connected still: an earlier try came no further than the rows.
                shared = connector is not None and any(self._is(row, connector) for row in kept)
                lets_go = not shared and (connector is not None or gone > 0)
                return dataclasses.replace(found, grants=kept)

        with self.locks.hold(resource_id):
            found = self.database.repeating(revoke)
            self._killpoint("disconnect/-/revoked")
            if self.target is not None and found is not None and found.export is not None:
                self._sync(found)
                self._free_numbers(found)
            if self.target is None and found is not None and lets_go:
                everybody = connector is None and attachment_id is None
                self.own.disconnect(found.resource, connector, everybody=everybody)
            self._killpoint("disconnect/-/synced")
            return bool(gone)

    def end_unwanted(self, kind: str, resource_id: str, target_name: str) -> bool:
        """End an export on the target that SQL does not want; one whose resource is gone loses its rows as well.

        :returns: whether it was unwanted still; nothing is changed if it is wanted by now.
        """
        with self.locks.hold(resource_id):
            with self.database.writer() as conn:
                found = rows.wanted(conn, kind, resource_id)
                if found is not None and found.export is not None:
                    return False
                if found is None:
                    rows.delete(conn, resource_id)
            if self.target is not None:
                self.target.sync(types.ExportSpec(kind, resource_id, target_name, wanted=False))
            return True

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

    def withdraw(self, kind: str, resource_id: str) -> None:
        """End a resource's export with everybody's access to it; a repeat changes nothing.

        Under the lock, so that a sync that comes later, for whatever reason, finds no row to make it again from. The
        target comes first: a death in between leaves rows, from which a start makes the export again. The other way
        round it would leave an export on the target that nobody knows of.
        """
        with self.locks.hold(resource_id):
            self._unserve(kind, resource_id)
            self._forget(resource_id)

    def end_target(self, kind: str, resource_id: str, target_name: str) -> None:
        """End what is served under a name that is a resource's no more."""
        with self.locks.hold(resource_id):
            if self.target is not None:
                self.target.sync(types.ExportSpec(kind, resource_id, target_name, wanted=False))

    def _unserve(self, kind: str, resource_id: str) -> None:
        with self.database.reader() as conn:
            found = rows.wanted(conn, kind, resource_id)
        if self.target is None:
            if found is not None and found.export is not None:
                self.own.remove(found.resource)
            return
        name = names.target_name(self.settings.target_prefix, kind, resource_id)
        if found is not None and found.export is not None:
            name = found.export.target_name  # that of another volume, whose storage it took over
        self.target.sync(types.ExportSpec(kind, resource_id, name, wanted=False))

    def _forget(self, resource_id: str) -> None:
        def write() -> None:
            with self.database.writer(urgent=True) as conn:
                rows.delete(conn, resource_id)

        self.database.repeating(write)

    def remove(self, kind: str, resource_id: str) -> bool:
        """Remove a resource's export, rows and target; returns whether there was one.

        :raises Conflict: somebody is still granted access.
        """
        with self.locks.hold(resource_id):
            with self.database.reader() as conn:
                found = rows.wanted(conn, kind, resource_id)
            if found is None or found.export is None:
                return False
            self._here(found)
            if found.grants:
                raise exception.Conflict(
                    f"The {kind} {resource_id} is still granted to {len(found.grants)} connectors",
                    hint="Terminate their connections first",
                    resource=kind,
                    id=resource_id,
                )
            self._unserve(kind, resource_id)
            self._killpoint("remove_export/-/removed")
            self._forget(resource_id)
            return True

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


def _granted(found: rows.Wanted, peer: str, attachment_id: str, mode: str) -> types.Grant | None:
    for row in found.grants:
        if (row.peer_key, row.attachment_id, row.grant.mode) == (peer, attachment_id, mode):
            return row.grant
    return None



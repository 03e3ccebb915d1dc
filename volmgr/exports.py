# SPDX-License-Identifier: Apache-2.0
"""Level-triggered: rows say who may connect to what, and a sync makes the target so.

Whoever changes an export's rows holds the resource's lock until the target agrees, so the last change wins and an
answer is given only while the grant stands. Recovery, reboot and repair are the same sync. This module knows no RPC and
no operation.
"""

from __future__ import annotations

import dataclasses
import secrets
import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection

from volmgr import exception, names, qos, types
from volmgr.db import answered, luns
from volmgr.db import exports as rows
from volmgr.own_exports import PROTOCOL
from volmgr.peers import PORTS, peer_key, port_names
from volmgr.syncs import Syncs

_OF_SNAPSHOTS = "initialize_connection_snapshot"
Change = Callable[[Connection, rows.Wanted], None]


class Exports(Syncs):
    """The exports of one backend, and who may connect to them: what changes the rows, each followed by its sync."""

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


def _granted(found: rows.Wanted, peer: str, attachment_id: str, mode: str) -> types.Grant | None:
    for row in found.grants:
        if (row.peer_key, row.attachment_id, row.grant.mode) == (peer, attachment_id, mode):
            return row.grant
    return None



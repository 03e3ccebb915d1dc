# SPDX-License-Identifier: Apache-2.0
"""Exports of a backend without a target: its driver makes them, connects and lets go, and is told of attachments.

What the driver says of an export (where it is, the account) is kept in the resource's row and handed back to it with
the next request. This module knows no target, no RPC and no operation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

from volmgr import context as ctx
from volmgr import exception, types
from volmgr.crypto import Cipher
from volmgr.db import initiators, provider
from volmgr.db.engine import Database
from volmgr.locks import KeyedLocks
from volmgr.peers import peer_key

R = TypeVar("R", bound=types.Volume | types.Snapshot)
PROTOCOL = "local"


class OwnExports:
    """The exports that a driver makes by itself.

    :param locks: those of the resources, which the callers hold.
    """

    def __init__(self, database: Database, driver: Any, cipher: Cipher, locks: KeyedLocks) -> None:
        self.database = database
        self.driver = driver
        self.cipher = cipher
        self.locks = locks

    @property
    def _exports(self) -> bool:
        """Whether there is anything to export: without a target, storage of this host is reached by its path."""
        return not self.driver.needs_target

    def connect(self, resource: R, connector: dict[str, Any]) -> dict[str, Any]:
        """Export a resource and let a connector use it; returns connection_info.

        What the driver wants to remember of the initiator is stored, and handed back to it.
        """
        snapshot = isinstance(resource, types.Snapshot)
        resource = self._export(resource, connector)
        verb = self.driver.initialize_connection_snapshot if snapshot else self.driver.initialize_connection
        peer, backend = peer_key(connector, PROTOCOL)[:255], self.driver.backend_name
        with self.locks.hold(f"what {backend} knows of {peer}", about=resource.id):
            with self.database.reader() as conn:
                known = initiators.get(conn, self.cipher, peer, backend)
            # Who has nothing stored may be a driver that takes no such argument.
            info: dict[str, Any] = verb(resource, connector, **({"initiator_data": known} if known else {}))
            if updates := info.get("initiator_updates"):

                def write() -> None:
                    with self.database.writer(urgent=True) as conn:
                        initiators.save(conn, self.cipher, peer, backend, updates)

                self.database.repeating(write)
        return info

    def _export(self, resource: R, connector: dict[str, Any]) -> R:
        resource = self._known(resource)
        verb = "create_export_snapshot" if isinstance(resource, types.Snapshot) else "create_export"
        if not self._exports or not self.driver.supports(verb):
            return resource
        return self._keep(resource, getattr(self.driver, verb)(ctx.admin(), resource, connector))

    def ensure(self, volume: types.Volume) -> None:
        """Let the driver make an export again if it is not there; of a snapshot's the tree's drivers have no such verb.

        :param volume: as :meth:`known` returns it.
        """
        if self._exports and self.driver.supports("ensure_export"):
            self._keep(volume, self.driver.ensure_export(ctx.admin(), volume))

    def remove(self, resource: types.Volume | types.Snapshot) -> None:
        """Let the driver end an export; absent is success."""
        verb = "remove_export_snapshot" if isinstance(resource, types.Snapshot) else "remove_export"
        if self._exports and self.driver.supports(verb):
            getattr(self.driver, verb)(ctx.admin(), self._known(resource))

    def disconnect(
        self, resource: types.Volume | types.Snapshot, connector: dict[str, Any] | None, *, everybody: bool
    ) -> None:
        """Let the driver end the use by a connector, or by everybody."""
        snapshot = isinstance(resource, types.Snapshot)
        verb = self.driver.terminate_connection_snapshot if snapshot else self.driver.terminate_connection
        verb(self._known(resource), None if everybody else connector or {}, force=everybody)

    # --- what the row keeps -----------------------------------------------------------------------------------------

    def known(self, resources: Sequence[R]) -> list[R]:
        """Return resources of one kind with the accounts that the driver has given their exports; one statement."""
        with self.database.reader() as conn:
            return provider.with_accounts(conn, self.cipher, resources)

    def _known(self, resource: R) -> R:
        return self.known([resource])[0]

    def _keep(self, resource: R, update: types.ModelUpdate) -> R:
        """Write what the driver has said of an export; returns the resource with it.

        :raises Inconsistent: it tells of what is not an export's.
        """
        told = dict(update or {})
        if unknown := set(told) - provider.COLUMNS:
            raise exception.Inconsistent(
                f"The driver returned {', '.join(sorted(unknown))} for an export, which it may not set"
            )
        if (account := told.get(provider.AUTH)) and not isinstance(account, types.Secret):
            told[provider.AUTH] = types.Secret(str(account))
        changed = {name: value for name, value in told.items() if getattr(resource, name) != value}
        if not changed:
            return resource

        def write() -> None:
            with self.database.writer(urgent=True) as conn:
                provider.save(conn, self.cipher, resource, changed)

        self.database.repeating(write)
        return dataclasses.replace(resource, **changed)

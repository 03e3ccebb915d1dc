# SPDX-License-Identifier: Apache-2.0
"""Which client has what attached, and how a reassignment changes that. Knows no call and no device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from volmgr.testing.storpool.contract import ApiError
from volmgr.testing.storpool.world import Item, World

Wish = tuple[Item, dict[str, Any]]


class Attachments:
    """Attachments of one world to the registered ``clients``."""

    def __init__(self, world: World, clients: set[int]) -> None:
        self._world = world
        self.clients = clients

    def of(self, item: Item) -> dict[int, str]:
        """Return who has it attached: id of client → ``rw`` or ``ro``."""
        return dict(self._world.attached.get(item.number, {}))

    def open(self, item: Item, client: int, opened: bool) -> None:
        """Note that a process of ``client`` has the device open, or not any more."""
        if opened and client not in self.of(item):
            raise ApiError("invalidParam", f"{item.name} is not attached to client {client}")
        (self._world.opened.add if opened else self._world.opened.discard)((item.number, client))

    def refuse_attached(self, item: Item) -> None:
        """Return if nobody has it attached.

        :raises ApiError: somebody has.
        """
        if attached := self.of(item):
            raise ApiError("busy", f"{item.kind} {item.name} is attached to {sorted(attached)}")

    def reassign(self, wishes: Sequence[Wish]) -> None:
        """Do all of the wishes, or none.

        :raises ApiError: one of them cannot be done.
        """
        planned = [(item, self._plan(item, wish)) for item, wish in wishes]
        for item, after in planned:
            self._world.opened -= {(item.number, client) for client in set(self.of(item)) - set(after)}
            if after:
                self._world.attached[item.number] = after
            else:
                self._world.attached.pop(item.number, None)

    def _plan(self, item: Item, wish: dict[str, Any]) -> dict[int, str]:
        detach = wish.get("detach", [])
        attached = self.of(item)
        gone = set(attached) if detach == "all" else {int(client) for client in detach}
        comers = {rights: [int(client) for client in wish.get(rights, [])] for rights in ("ro", "rw")}
        if set(comers["ro"]) & set(comers["rw"]):
            raise ApiError("invalidParam", f"{item.name} cannot be rw and ro on one client")
        for client in sorted(gone & set(attached)):
            if (item.number, client) in self._world.opened and not wish.get("force"):
                raise ApiError("busy", f"{item.kind} {item.name} is open at client {client}")
        for client in (*comers["ro"], *comers["rw"], *gone):
            if client not in self.clients:
                raise ApiError("invalidParam", "No such client registered")
        kept = {client: rights for client, rights in attached.items() if client not in gone}
        return kept | {client: rights for rights, clients in comers.items() for client in clients}

# SPDX-License-Identifier: Apache-2.0
"""ATA over Ethernet addresses: which shelf and blade an export gets.

A unique constraint makes an address one export's in the whole deployment; this module only finds one that is free. It
picks at random: an address that was freed a moment ago may still be open at a host that was cut off, and should not
name another volume while many others are free.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception
from volmgr.db import models

_E = models.exports
#: How many random addresses are looked up before all that are taken are read.
SAMPLE = 16
#: Shelf 65535 and blade 255 mean all of them (AoE specification, 2.2).
SHELF_MAX, BLADE_MAX = 65534, 254

_random = random.SystemRandom()


@dataclass(frozen=True)
class Shelves:
    """The addresses that a worker may give out.

    :param first: its first shelf. :param last: its last. :param slots: blades in each.
    """

    first: int
    last: int
    slots: int

    def __post_init__(self) -> None:
        if not 0 <= self.first <= self.last <= SHELF_MAX or not 1 <= self.slots <= BLADE_MAX + 1:
            raise exception.InvalidConfiguration(
                reason=f"there is no shelf from {self.first} to {self.last} with {self.slots} blades",
                hint="Set aoe_first_shelf_id, aoe_last_shelf_id and aoe_slots_per_shelf",
            )

    @property
    def total(self) -> int:
        """How many addresses there are."""
        return (self.last - self.first + 1) * self.slots

    def at(self, index: int) -> tuple[int, int]:
        """Return (shelf, blade) number ``index``, from 0."""
        return self.first + index // self.slots, index % self.slots


def free(conn: Connection, shelves: Shelves) -> tuple[int, int]:
    """Return (shelf, blade) that no export has now; whoever inserts it may still lose it to another.

    :raises NoMoreVolumes: all are taken.
    """
    candidates = {shelves.at(_random.randrange(shelves.total)) for _ in range(min(SAMPLE, shelves.total))}
    address = sa.tuple_(_E.c.shelf, _E.c.blade)
    query = sa.select(_E.c.shelf, _E.c.blade)
    taken = {(row.shelf, row.blade) for row in conn.execute(query.where(address.in_(sorted(candidates))))}
    left = sorted(candidates - taken)
    if not left:
        within = _E.c.shelf.between(shelves.first, shelves.last)
        taken = {(row.shelf, row.blade) for row in conn.execute(query.where(within))}
        left = [shelves.at(index) for index in range(shelves.total) if shelves.at(index) not in taken]
    if not left:
        raise exception.NoMoreVolumes(
            f"All {shelves.total} addresses of the shelves {shelves.first} to {shelves.last} are taken",
            hint="Delete volumes, or raise aoe_last_shelf_id or aoe_slots_per_shelf and restart volmgr-volume",
            shelves=shelves.last - shelves.first + 1,
            slots=shelves.slots,
        )
    return _random.choice(left)

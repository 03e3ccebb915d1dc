# SPDX-License-Identifier: Apache-2.0
"""Storage of nobody's that bears the name of what a schedule may make: it must never be taken, nor touched."""

from __future__ import annotations

from collections.abc import Iterable

from volmgr import names
from volmgr.drivers.sim.store import Store
from volmgr.testing.simulation.plan import uuid_of
from volmgr.types import GiB

SECRET = b"an earlier tenant's bytes"
_MARK = "another-life"


def place(store: Store, wanted: Iterable[str]) -> frozenset[str]:
    """Leave objects of 1 GiB with a secret in them; returns their names in the store.

    :param wanted: symbolic ids, ``v2`` for the object of that volume, ``s1`` for that of a snapshot; one that the stage
        has made itself is left out.
    """
    made = set()
    for symbol in wanted:
        name = names.object_name("volume" if symbol.startswith("v") else "snapshot", uuid_of(symbol))
        if store.size(name) is None:
            store.create(name, GiB)
            store.write(name, 0, SECRET)
            store.mark(name, _MARK)
            made.add(name)
    return frozenset(made)


def touched(store: Store, placed: Iterable[str]) -> list[str]:
    """Return what has become of orphans that should be as they were, in words."""
    found = []
    for name in sorted(placed):
        if store.size(name) != GiB or store.mark_of(name) != _MARK:
            found.append(f"{name}, which nobody has made, was taken or removed")
        elif store.read(name, 0, len(SECRET)) != SECRET:
            found.append(f"the bytes of {name}, which nobody has made, were changed")
    return found

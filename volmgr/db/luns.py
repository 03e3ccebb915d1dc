# SPDX-License-Identifier: Apache-2.0
"""Logical unit numbers where all exports share one target: one number for each port, initiator and resource.

Fibre Channel has a target for each port of the host and not for each volume, so an initiator tells its volumes apart by
the number alone. A unique constraint makes a number one resource's for that initiator at that port. Numbers are picked
at random, as those of :mod:`volmgr.db.shelves` are and for the same reason. 0 is never given out: LIO answers for it
with zeros when nothing is mapped there.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from volmgr import exception
from volmgr.db import faults, models

_L = models.luns
#: The initiator that stands for the port itself: its own list of units, which is seen by no initiator.
SELF = ""
#: Up to here every initiator's operating system writes a number in the same way (SAM-5, 4.7: peripheral addressing).
SIMPLE_MAX, MAX = 255, 16383
#: How many random numbers are looked up before all that are taken are read.
SAMPLE = 16

_random = random.SystemRandom()


def take(
    conn: Connection, resource_id: str, ports: Sequence[str], initiators: Sequence[str], *, simple: bool = True
) -> int:
    """Return the number of a resource for initiators at ports, giving it one if it has none: the same for all of them.

    :param ports: WWPNs of the target's ports. :param initiators: WWPNs, or :data:`SELF`.
    :param simple: prefer numbers up to 255.
    :raises NoSpace: no number is free for all of them. :raises DatabaseBusy: another transaction was first.
    """
    of_these = _L.c.port.in_(ports) & _L.c.initiator.in_(initiators)
    query = sa.select(_L.c.port, _L.c.initiator, _L.c.lun, _L.c.resource_id).where(of_these)
    own = {(row.port, row.initiator): row.lun for row in conn.execute(query.where(_L.c.resource_id == resource_id))}
    pairs = set(itertools.product(ports, initiators))
    if set(own) == pairs and len(set(own.values())) == 1:
        return int(next(iter(own.values())))
    number = _free(conn, of_these & (_L.c.resource_id != resource_id), sorted(set(own.values())), simple)
    if number is None:
        raise exception.NoSpace(
            f"No LUN is free for {', '.join(initiators)}", hint="Detach volumes from this host", initiators=initiators
        )
    conn.execute(sa.delete(_L).where(of_these, _L.c.resource_id == resource_id))
    rows = [
        {"port": port, "initiator": initiator, "lun": number, "resource_id": resource_id}
        for port, initiator in sorted(pairs)
    ]
    try:
        conn.execute(sa.insert(_L), rows)
    except Exception as error:
        if not faults.is_duplicate(error):
            raise
        raise faults.DatabaseBusy(database=str(conn.engine.url.render_as_string())) from error
    return number


def _free(conn: Connection, others: sa.ColumnElement[bool], preferred: Sequence[int], simple: bool) -> int | None:
    """Return a number that none of ``others`` has: a preferred one, else one at random."""
    query = sa.select(_L.c.lun).where(others)
    sample = [*preferred, *(_random.randint(1, SIMPLE_MAX if simple else MAX) for _ in range(SAMPLE))]
    taken = set(conn.execute(query.where(_L.c.lun.in_(sample))).scalars())
    for number in sample:
        if number not in taken:
            return number
    taken = set(conn.execute(query).scalars())
    for first, last in ((1, SIMPLE_MAX), (1, MAX)):
        if left := [number for number in range(first, last + 1) if number not in taken]:
            return _random.choice(left)
    return None


def remember(conn: Connection, host: str, wwpns: Sequence[str]) -> None:
    """Note the ports of a host that a worker must know after its next start.

    :raises DatabaseBusy: another transaction was first.
    """
    known_here = set(known(conn, host, wwpns))
    rows = [{"host": host, "wwpn": wwpn} for wwpn in sorted(set(wwpns) - known_here)]
    if not rows:
        return
    try:
        conn.execute(sa.insert(models.initiators), rows)
    except Exception as error:
        if not faults.is_duplicate(error):
            raise
        raise faults.DatabaseBusy(database=str(conn.engine.url.render_as_string())) from error


def known(conn: Connection, host: str, wwpns: Sequence[str] | None = None) -> list[str]:
    """Return the ports that a worker knows, all or which of ``wwpns``."""
    table = models.initiators
    query = sa.select(table.c.wwpn).where(table.c.host == host)
    return list(conn.execute(query if wwpns is None else query.where(table.c.wwpn.in_(wwpns))).scalars())


def keep(conn: Connection, resource_id: str, initiators: Sequence[str]) -> None:
    """Give back a resource's numbers but for those of ``initiators`` and of the ports themselves."""
    others = _L.c.initiator.not_in([SELF, *initiators])
    conn.execute(sa.delete(_L).where(_L.c.resource_id == resource_id, others))


def stale(conn: Connection, let_in: Mapping[str, Collection[str]]) -> set[str]:
    """Return which resources have numbers for initiators that are not let in.

    :param let_in: by resource, the initiators that are.
    """
    query = sa.select(_L.c.resource_id, _L.c.initiator).where(_L.c.resource_id.in_(let_in), _L.c.initiator != SELF)
    return {row.resource_id for row in conn.execute(query) if row.initiator not in let_in[row.resource_id]}


def give(conn: Connection, resource_id: str, to: str) -> None:
    """Let another resource have all numbers of one."""
    conn.execute(sa.update(_L).where(_L.c.resource_id == resource_id).values(resource_id=to))


def give_back(conn: Connection, resource_id: str) -> None:
    """Give back all numbers of a resource."""
    conn.execute(sa.delete(_L).where(_L.c.resource_id == resource_id))

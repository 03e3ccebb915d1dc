# SPDX-License-Identifier: Apache-2.0
"""What one export is in LIO's configfs on Fibre Channel, and the ordered steps to what should be. Pure.

All exports share a target for each port of the host, and in it an entry for each initiator that stays for ever: a port
that logged in before its entry was made sees nothing until it has forgotten the target. So an export is a backstore, a
unit of each port, and a number mapped to it for each initiator that is let in. The steps take away before they give.
It must not know how configfs is reached, and no initiator, volume or driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from volmgr.targets.lio.tree import (
    Backstore,
    Link,
    Make,
    Mapped,
    Remove,
    Step,
    Unlink,
    Write,
    adjust_backstore,
    backstore_path,
    build_backstore,
    remove_backstores,
)

Steps = Iterator[Step]
#: A port, an initiator that logs in there, and the number by which it knows the unit.
Place = tuple[str, str, int]
TAG = "tpgt_1"
#: Where the fabric has them: nobody without an entry sees anything.
ATTRIBUTES = {"generate_node_acls": "0", "cache_dynamic_acls": "0"}


@dataclass(frozen=True)
class Wanted:
    """What an export should be: ``mapped`` says of each place whether it is read-only."""

    name: str
    backstore: Backstore
    lun: int
    ports: tuple[str, ...]
    mapped: Mapping[Place, bool]


@dataclass(frozen=True)
class Observed:
    """What is there, at the places where something of this export is or should be.

    :param units: links by (port, number). :param mapped: by place. :param entries: the (port, initiator) that exist.
    :param ports: whether each port's group exists. :param attributes: of each port's group.
    """

    name: str
    backstores: Mapping[str, Backstore | None] = field(default_factory=dict)
    units: Mapping[tuple[str, int], Mapping[str, str]] = field(default_factory=dict)
    mapped: Mapping[Place, Mapped] = field(default_factory=dict)
    entries: frozenset[tuple[str, str]] = frozenset()


def colons(wwn: str) -> str:
    """Return a WWN as configfs spells it: ``20:00:52:54:00:aa:00:01``."""
    return ":".join(wwn[at : at + 2] for at in range(0, 16, 2))


def group_path(fabric: str, port: str) -> str:
    """Return the folder of a port's group."""
    return f"{fabric}/{colons(port)}/{TAG}"


def entry_path(fabric: str, port: str, initiator: str) -> str:
    """Return the folder of an initiator's entry."""
    return f"{group_path(fabric, port)}/acls/{colons(initiator)}"


def port_steps(fabric: str, port: str, exists: bool, attributes: Mapping[str, str]) -> Steps:
    """Make a port a target: its group, closed to those who have no entry.

    :param attributes: what is there of :data:`ATTRIBUTES` and ``enable``, empty where the fabric has no such thing.
    """
    group = group_path(fabric, port)
    if not exists:
        yield Make(fabric, shared=True)
        yield Make(group.rpartition("/")[0], shared=True)
        yield Make(group, shared=True)
        return
    for key, value in ATTRIBUTES.items():
        if attributes.get(key) not in ("", None, value):
            yield Write(f"{group}/attrib/{key}", value)
    if attributes.get("enable") == "0":
        yield Write(f"{group}/enable", "1")


def plan(fabric: str, wanted: Wanted | None, have: Observed) -> list[Step]:
    """Return the steps from ``have`` to ``wanted``, none if it is so; None: nothing should be there."""
    return list(_removal(fabric, have) if wanted is None else _making(fabric, wanted, have))


def _removal(fabric: str, have: Observed) -> Steps:
    for place in _own(fabric, have):
        yield from _unmap(fabric, place, have)
    for (port, number), links in have.units.items():
        if _serves(have, links):
            yield from _remove_unit(fabric, port, number, links)
    yield from remove_backstores(have.name, have.backstores)


def _making(fabric: str, wanted: Wanted, have: Observed) -> Steps:
    present = have.backstores.get(wanted.backstore.plugin)
    same = present is not None and len(have.backstores) == 1 and present.serves(wanted.backstore)
    to = backstore_path(wanted.backstore.plugin, wanted.name)
    units = {(port, wanted.lun) for port in wanted.ports}
    kept = {key for key in units if same and list(have.units.get(key, {}).values()) == [to]}
    own = _own(fabric, have)
    for place in own:
        if place not in wanted.mapped or (place[0], wanted.lun) not in kept:
            yield from _unmap(fabric, place, have)
    for (port, number), links in have.units.items():
        if _serves(have, links) and (port, number) not in kept:
            yield from _remove_unit(fabric, port, number, links)
    if same:
        yield from adjust_backstore(wanted.name, wanted.backstore, present)
    else:
        yield from remove_backstores(have.name, have.backstores)
        yield from build_backstore(wanted.name, wanted.backstore)
    for port, number in sorted(units - kept):
        others = have.units.get((port, number))
        if others is not None and not _serves(have, others):
            # The number is this export's now; whose it was has not been told yet.
            yield from _remove_unit(fabric, port, number, others)
        yield Make(_unit_path(fabric, port, number))
        yield Link(f"{_unit_path(fabric, port, number)}/device", to)
    for place, read_only in wanted.mapped.items():
        is_kept = place in own and (place[0], wanted.lun) in kept
        yield from _map(fabric, place, read_only, wanted, have, kept=is_kept)


def _map(fabric: str, place: Place, read_only: bool, wanted: Wanted, have: Observed, *, kept: bool) -> Steps:
    port, initiator, _number = place
    path = _mapped_path(fabric, place)
    there = have.mapped.get(place)
    if kept and there is not None:
        if there.read_only != read_only:
            yield Write(f"{path}/write_protect", str(int(read_only)))
        return
    if (port, initiator) not in have.entries:
        yield Make(entry_path(fabric, port, initiator), shared=True)
    if there is not None and place not in _own(fabric, have):
        yield from _unmap(fabric, place, have)
    yield Make(path)
    yield Link(f"{path}/mapped", _unit_path(fabric, port, wanted.lun))
    if read_only:
        yield Write(f"{path}/write_protect", "1")


def _own(fabric: str, have: Observed) -> list[Place]:
    """Return the places where an initiator meets this export's backstore, or half of what leads to it."""
    own = {_unit_path(fabric, port, number) for (port, number), links in have.units.items() if _serves(have, links)}
    return [place for place, mapped in have.mapped.items() if not set(mapped.links.values()).isdisjoint(own)]


def _serves(have: Observed, links: Mapping[str, str]) -> bool:
    """Return whether a unit is this export's, or was begun and leads nowhere."""
    return not links or all(to.rpartition("/")[2] == have.name for to in links.values())


def _unmap(fabric: str, place: Place, have: Observed) -> Steps:
    path = _mapped_path(fabric, place)
    for link in have.mapped[place].links:
        yield Unlink(f"{path}/{link}")
    yield Remove(path)


def _remove_unit(fabric: str, port: str, number: int, links: Mapping[str, str]) -> Steps:
    path = _unit_path(fabric, port, number)
    for link in links:
        yield Unlink(f"{path}/{link}")
    yield Remove(path)


def _unit_path(fabric: str, port: str, number: int) -> str:
    return f"{group_path(fabric, port)}/lun/lun_{number}"


def _mapped_path(fabric: str, place: Place) -> str:
    port, initiator, number = place
    return f"{entry_path(fabric, port, initiator)}/lun_{number}"

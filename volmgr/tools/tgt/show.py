# SPDX-License-Identifier: Apache-2.0
"""Reads what tgtd prints about targets, connections, portals and itself.

tgtd has only this text, made for people: indentation is its structure, four spaces a level. The text of an initiator's
alias comes from the initiator, so every line is read by its place, and a text that does not fit is an error, never a
guess. This module opens no socket and knows nothing of volumes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from volmgr.tools.tgt import errors

_INDENT = 4
_TARGET = re.compile(r"Target (-?[0-9]{1,20}): (.*)\Z")
_SIZE = re.compile(r"([0-9]{1,20}) MB, Block size: ([0-9]{1,20})\Z")
#: tgtd's numbers have 64 bits at most.
_DIGITS = 20
_OUTGOING = " (outgoing)"
_NONE = "None"


@dataclass(frozen=True)
class Connection:
    """One TCP connection of a session."""

    cid: int
    address: str


@dataclass(frozen=True)
class Session:
    """An initiator that is logged in; ``sid`` is what tgtd calls the I_T nexus."""

    sid: int
    initiator: str
    connections: tuple[Connection, ...] = ()


@dataclass(frozen=True)
class Lun:
    """A logical unit; tgtd tells sizes in MB of 10^6 bytes, to the nearest. LUN 0 is tgtd's own controller."""

    number: int
    kind: str = "disk"
    scsi_id: str = ""
    serial: str = ""
    size_mb: int = 0
    block_size: int = 512
    online: bool = True
    read_only: bool = False
    thin: bool = False
    backing_type: str = "rdwr"
    path: str | None = None


@dataclass(frozen=True)
class Target:
    """A target with all that tgtd shows of it."""

    tid: int
    name: str
    state: str = "ready"
    sessions: tuple[Session, ...] = ()
    luns: tuple[Lun, ...] = ()
    accounts: tuple[str, ...] = ()
    outgoing_account: str | None = None
    acls: tuple[str, ...] = ()

    @property
    def disks(self) -> tuple[Lun, ...]:
        """The logical units that somebody made: all but tgtd's own LUN 0."""
        return tuple(lun for lun in self.luns if lun.number != 0)


@dataclass(frozen=True)
class System:
    """tgtd itself: ``drivers`` says which transports are ready, ``backing_stores`` what it can serve."""

    state: str
    drivers: dict[str, str] = field(default_factory=dict)
    backing_stores: tuple[str, ...] = ()


@dataclass
class _Node:
    text: str
    children: list[_Node] = field(default_factory=list)

    def walk(self, prefix: str) -> Iterator[_Node]:
        return (child for child in self.children if child.text.startswith(prefix))

    def only(self, text: str) -> _Node:
        """Return the one child with that text: twice would mean that somebody else wrote into the listing."""
        found = [child for child in self.children if child.text == text]
        if len(found) != 1:
            raise _bad(f"{len(found)} times {text!r} under {self.text!r}")
        return found[0]

    def values(self) -> dict[str, str]:
        pairs = (child.text.partition(":") for child in self.children)
        return {key: value.strip() for key, separator, value in pairs if separator}


def _bad(reason: str) -> errors.TgtProtocolError:
    return errors.TgtProtocolError(request="show", socket="tgtd", reason=reason)


def _tree(text: str) -> list[_Node]:
    root = _Node("")
    stack = [root]
    for line in text.split("\n"):
        if not line.strip():
            continue
        bare = line.lstrip(" ")
        depth, rest = divmod(len(line) - len(bare), _INDENT)
        if rest or depth >= len(stack):
            raise _bad(f"a line is indented by {len(line) - len(bare)}: {line[:80]!r}")
        node = _Node(bare.rstrip())
        stack[depth].children.append(node)
        del stack[depth + 1 :]
        stack.append(node)
    return root.children


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _DIGITS:
        raise _bad(f"{text[:80]!r} is not a number")
    return int(text)


def _after(text: str, label: str) -> str:
    if not text.startswith(label):
        raise _bad(f"{text[:80]!r} where {label!r} belongs")
    return text[len(label) :].strip()


def _session(node: _Node) -> Session:
    sid = _number(_after(node.text, "I_T nexus: "))
    initiator = ""
    connections = []
    for child in node.children:
        if child.text.startswith("Initiator: "):
            # The alias is the initiator's own free text, the name is what the access list compares.
            initiator = _after(child.text, "Initiator: ").rpartition(" alias: ")[0]
        elif child.text.startswith("Connection: "):
            address = child.values().get("IP Address", "")
            connections.append(Connection(_number(_after(child.text, "Connection: ")), address))
    return Session(sid, initiator, tuple(connections))


def _lun(node: _Node) -> Lun:
    values = node.values()
    size = _SIZE.match(values.get("Size", ""))
    if size is None:
        raise _bad(f"a LUN without a size: {values.get('Size', '')!r}")
    path = values.get("Backing store path", _NONE)
    return Lun(
        number=_number(_after(node.text, "LUN: ")),
        kind=values.get("Type", ""),
        scsi_id=values.get("SCSI ID", ""),
        serial=values.get("SCSI SN", ""),
        size_mb=int(size[1]),
        block_size=int(size[2]),
        online=values.get("Online") == "Yes",
        read_only=values.get("Readonly") == "Yes",
        thin=values.get("Thin-provisioning") == "Yes",
        backing_type=values.get("Backing store type", ""),
        path=None if path == _NONE else path,
    )


def _target(node: _Node) -> Target:
    match = _TARGET.match(node.text)
    if match is None:
        raise _bad(f"{node.text[:80]!r} where a target belongs")
    accounts = [child.text for child in node.only("Account information:").children]
    outgoing = [name.removesuffix(_OUTGOING) for name in accounts if name.endswith(_OUTGOING)]
    return Target(
        tid=int(match[1]),
        name=match[2],
        state=node.only("System information:").values().get("State", ""),
        sessions=tuple(_session(child) for child in node.only("I_T nexus information:").walk("I_T nexus: ")),
        luns=tuple(_lun(child) for child in node.only("LUN information:").walk("LUN: ")),
        accounts=tuple(name for name in accounts if not name.endswith(_OUTGOING)),
        outgoing_account=outgoing[0] if outgoing else None,
        acls=tuple(child.text for child in node.only("ACL information:").children),
    )


def parse_targets(text: str) -> tuple[Target, ...]:
    """Return the targets of ``target show`` with no target number.

    :raises TgtProtocolError: the text is not such a listing.
    """
    targets = tuple(_target(node) for node in _tree(text))
    if len({target.tid for target in targets}) != len(targets):
        raise _bad("a target number appears twice")
    return targets


def parse_sessions(text: str) -> tuple[Session, ...]:
    """Return the sessions of one target from ``connection show``.

    :raises TgtProtocolError: the text is not such a listing.
    """
    sessions = []
    for node in _tree(text):
        sid = _number(_after(node.text, "Session: "))
        initiator = ""
        connections = []
        for child in node.walk("Connection: "):
            values = child.values()
            initiator = values.get("Initiator", initiator)
            connections.append(Connection(_number(_after(child.text, "Connection: ")), values.get("IP Address", "")))
        sessions.append(Session(sid, initiator, tuple(connections)))
    return tuple(sessions)


def parse_portals(text: str) -> tuple[str, ...]:
    """Return ``address:port`` of each portal from ``portal show``; the portal group after the comma is dropped.

    :raises TgtProtocolError: the text is not such a listing.
    """
    return tuple(_after(node.text, "Portal: ").rpartition(",")[0] for node in _tree(text))


def parse_accounts(text: str) -> tuple[str, ...]:
    """Return the names of all accounts from ``account show``.

    :raises TgtProtocolError: the text is not such a listing.
    """
    nodes = _tree(text)
    if not nodes:
        return ()
    if len(nodes) != 1 or nodes[0].text != "Account list:":
        raise _bad(f"{nodes[0].text[:80]!r} where the account list belongs")
    return tuple(node.text for node in nodes[0].children)


def parse_parameters(text: str) -> dict[str, str]:
    """Return the iSCSI parameters of one target, ``key=value`` on each line."""
    pairs = (line.partition("=") for line in text.splitlines())
    return {key: value for key, separator, value in pairs if separator}


def parse_system(text: str) -> System:
    """Return tgtd's own state from ``system show``.

    :raises TgtProtocolError: the text is not such a listing.
    """
    sections = {node.text.rstrip(":"): node for node in _tree(text)}
    if "System" not in sections:
        raise _bad("there is no section System")
    stores = sections.get("Backing stores", _Node("")).children
    return System(
        state=sections["System"].values().get("State", ""),
        drivers=sections.get("LLDs", _Node("")).values(),
        backing_stores=tuple(node.text.split(" ")[0] for node in stores),
    )

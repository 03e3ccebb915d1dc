# SPDX-License-Identifier: Apache-2.0
"""Compares what a host's kernel has with what the host was granted. Pure.

Only a session that goes to a portal of ours, to a target with a name of ours, is ever looked at: another's is nobody's
business here, even where it has the same kind of name. What is seen must be seen before the grants are read: a host is
granted a volume before it connects, and disconnects before the grant goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from volmgr import names
from volmgr.initiator.sysfs import Disk, Map, Session, View

#: The host may not have this any more, or has another's: to be taken away.
REVOKED, STALE = "revoked", "stale-disk"
#: To be looked at: nothing is taken away for it.
MISSING, MIXED, EMPTY = "missing-disk", "mixed-map", "empty-map"


@dataclass(frozen=True)
class Backend:
    """Where a backend's target listens, and what its targets' names begin with."""

    prefix: str
    portals: frozenset[str]


@dataclass(frozen=True)
class Granted:
    """What an initiator may see of a resource."""

    kind: str
    resource_id: str
    initiator: str
    lun: int
    serial: str


@dataclass(frozen=True)
class HostFinding:
    """Where the host's kernel and the grants differ.

    :param session: what it is about, with the :attr:`disks` that should go; None for a multipath map.
    :param whole: nothing of the session is to be kept.
    """

    kind: str
    reason: str
    hint: str
    session: Session | None = None
    disks: tuple[Disk, ...] = ()
    maps: tuple[Map, ...] = ()
    whole: bool = False

    @property
    def fixable(self) -> bool:
        """Whether what is found is stale beyond doubt and can be taken away."""
        return self.kind in (REVOKED, STALE)


def backends_of(rows: Iterable[Mapping[str, Any]]) -> list[Backend]:
    """Return the iSCSI backends among the answers of ``list_backends``: those that have told where they listen."""
    found = []
    for row in rows:
        capabilities = row.get("capabilities") or {}
        if capabilities.get("target_portals") and capabilities.get("target_prefix"):
            found.append(Backend(capabilities["target_prefix"], frozenset(capabilities["target_portals"])))
    return found


def granted_of(rows: Iterable[Mapping[str, Any]]) -> list[Granted]:
    """Return the grants to iSCSI initiators among the answers of ``list_grants``."""
    return [
        Granted(row["kind"], row["resource_id"], row["initiator"], int(row["lun"]), row["serial"] or "")
        for row in rows
        if row["initiator"]
    ]


def ours(session: Session, backends: Sequence[Backend]) -> tuple[str, str] | None:
    """Return the kind and id of the resource that a session of ours is for, None for another's session."""
    for backend in backends:
        parsed = names.parse_target_name(backend.prefix, session.target)
        if parsed is not None and session.portal in backend.portals:
            return parsed[0], parsed[1]
    return None


def compare(view: View, grants: Sequence[Granted], backends: Sequence[Backend]) -> list[HostFinding]:
    """Return where a host differs from what it was granted.

    :param view: what its kernel had before ``grants`` were read.
    """
    known = {(grant.kind, grant.resource_id, grant.initiator.lower()): grant for grant in grants}
    found: list[HostFinding] = []
    mine: set[str] = set()
    for session in view.sessions:
        resource = ours(session, backends)
        if resource is not None:
            disks = [disk for disk in view.disks if disk.session == session.number]
            mine.update(disk.name for disk in disks)
            found += _session(view, session, disks, known.get((*resource, session.initiator.lower())))
    stale = {disk.name for finding in found for disk in finding.disks}
    return found + _maps(view, mine, stale)


def _session(view: View, session: Session, disks: list[Disk], grant: Granted | None) -> list[HostFinding]:
    if grant is None:
        reason = f"{session.initiator} is not granted {session.target}"
        return [HostFinding(REVOKED, reason, "", session, tuple(disks), _below(view, disks), whole=True)]
    stale = [disk for disk in disks if disk.lun != grant.lun or _another(disk, grant)]
    if stale:
        said = "; ".join(f"{disk.name} is LUN {disk.lun} with the serial {disk.serial or '?'}" for disk in stale)
        reason = f"the volume has LUN {grant.lun} and the serial {grant.serial}: {said}"
        whole = len(stale) == len(disks)
        return [HostFinding(STALE, reason, "", session, tuple(stale), _below(view, stale), whole=whole)]
    if not disks and session.state == "LOGGED_IN":
        hint = f"iscsiadm -m session -r {session.number} --rescan"
        return [HostFinding(MISSING, "the session shows no disk", hint, session)]
    return []


def _another(disk: Disk, grant: Granted) -> bool:
    return bool(disk.serial and grant.serial) and disk.serial != grant.serial


def _below(view: View, disks: Iterable[Disk]) -> tuple[Map, ...]:
    """Return the maps whose paths are among these disks."""
    names_ = {disk.name for disk in disks}
    return tuple(item for item in view.maps if names_.intersection(item.paths))


def _maps(view: View, mine: set[str], stale: set[str]) -> list[HostFinding]:
    """Return the maps that join different volumes, and those that are left without paths, whoever's they were."""
    found = []
    serials = {disk.name: disk.serial for disk in view.disks}
    for item in view.maps:
        if not item.paths:
            found.append(HostFinding(EMPTY, f"{item.name} has no path", f"multipath -f {item.name}", maps=(item,)))
        elif mine.intersection(item.paths) and len({serials.get(path) for path in item.paths}) > 1:
            kept = [path for path in item.paths if path not in stale]
            if len({serials.get(path) for path in kept}) > 1:
                paths = ", ".join(f"{path} {serials.get(path) or '?'}" for path in item.paths)
                reason = f"{item.name} joins disks of different serials: {paths}"
                hint = "Stop using it; volmgr volume why; multipathd show paths"
                found.append(HostFinding(MIXED, reason, hint, maps=(item,)))
    return found

# SPDX-License-Identifier: Apache-2.0
"""What states a resource can be in, and which event leads from which to which.

One automaton machine per noun. Nothing else in volmgr decides which status allows which verb: the compare-and-swap of
a claim takes its ``WHERE status IN (...)`` from :meth:`Machine.sources`, and the documentation's diagrams are drawn
from here. A status whose name ends in ``ing`` is transitional: it never stands without an unfinished operation.
This module knows no database.
"""

from __future__ import annotations

from collections.abc import Iterable

from automaton import machines

Transition = tuple[str, str, str]


class Machine:
    """A named set of states with events between them.

    :param noun: the resource.
    :param start: the state of a new row.
    :param stable: states that may stand for ever, with what they mean.
    :param transitional: states that only an unfinished operation or an attachment may hold.
    :param transitions: (state, event, next state).
    """

    def __init__(
        self,
        noun: str,
        start: str,
        stable: dict[str, str],
        transitional: dict[str, str],
        transitions: Iterable[Transition],
    ) -> None:
        self.noun = noun
        self.start = start
        self.stable = stable
        self.transitional = transitional
        self.transitions = tuple(transitions)
        self._by_event: dict[str, dict[str, str]] = {}
        for source, event, target in self.transitions:
            if source not in self.states or target not in self.states:
                raise ValueError(f"{noun}: {source} --{event}--> {target} names an unknown state")
            if self._by_event.setdefault(event, {}).setdefault(source, target) != target:
                raise ValueError(f"{noun}: {event} from {source} leads to two states")

    @property
    def states(self) -> dict[str, str]:
        """Every state with its meaning."""
        return {**self.stable, **self.transitional}

    def sources(self, event: str) -> tuple[str, ...]:
        """Return the states in which ``event`` is allowed.

        :raises KeyError: the machine has no such event.
        """
        return tuple(self._by_event[event])

    def target(self, event: str, source: str | None = None) -> str:
        """Return the state that ``event`` leads to; without ``source`` it must be the same from everywhere.

        :raises KeyError: no such event, or not from that state. :raises ValueError: it depends on the source.
        """
        moves = self._by_event[event]
        if source is not None:
            return moves[source]
        found = set(moves.values())
        if len(found) != 1:
            raise ValueError(f"{self.noun}: {event} leads to {sorted(found)}, by its source")
        return found.pop()

    def events(self) -> tuple[str, ...]:
        """Return the names of all events."""
        return tuple(self._by_event)

    def automaton(self) -> machines.FiniteMachine:
        """Return the automaton machine, frozen, for walking and drawing."""
        machine = machines.FiniteMachine()
        for state in self.states:
            machine.add_state(state, terminal=all(source != state for source, _, _ in self.transitions))
        for source, event, target in self.transitions:
            machine.add_transition(source, target, event)
        machine.default_start_state = self.start
        machine.freeze()
        return machine


def _moves(event: str, sources: Iterable[str], target: str) -> list[Transition]:
    return [(source, event, target) for source in sources]


_IDLE = ("available", "in-use", "reserved", "attaching", "detaching")
_BROKEN = ("error", "error_deleting")

_VOLUME_WORK = {
    "creating": "its storage is being made",
    "downloading": "an image is being written to it",
    "deleting": "its storage is being taken away",
    "extending": "is being made larger",
    "reverting": "goes back to a snapshot",
    "uploading": "is being copied to an image",
    "backing-up": "is being backed up",
    "restoring-backup": "a backup is being written to it",
    "retyping": "is being given another type",
    "migrating": "is being moved to another backend",
    "promoting": "its replica takes its place",
    "managing": "existing storage is being taken over",
    "unmanaging": "its storage is being let go",
}

VOLUME = Machine(
    "volume",
    "creating",
    {
        "available": "has its storage, nobody uses it",
        "in-use": "attached to an instance or a host",
        "reserved": "an attachment was created, its connector is not known yet",
        "attaching": "an attachment has its connection and is not complete yet",
        "detaching": "an attachment is being taken away",
        "awaiting-transfer": "offered to another project",
        "error": "is broken; why says what to do",
        "error_deleting": "could not be deleted; delete it again",
        "deleted": "gone, or in the trash until it is wiped",
    },
    _VOLUME_WORK,
    [
        ("creating", "create:download", "downloading"),
        *_moves("create:done", ("creating", "downloading"), "available"),
        *_moves("create:failed", ("creating", "downloading"), "error"),
        *_moves("delete", ("available", *_BROKEN), "deleting"),
        ("deleting", "delete:done", "deleted"),
        ("deleting", "delete:failed", "error_deleting"),
        ("deleting", "delete:busy", "available"),
        *_moves("force-delete", (*_IDLE, "awaiting-transfer", *_BROKEN, *_VOLUME_WORK), "deleting"),
        *_moves("unmanage", ("available", *_BROKEN), "unmanaging"),
        ("unmanaging", "unmanage:done", "deleted"),
        ("unmanaging", "unmanage:failed", "error"),
        ("deleted", "undelete", "available"),
        *_moves("extend", ("available", "in-use"), "extending"),
        *(move for state in ("available", "in-use") for move in _moves(f"extend:done-{state}", ("extending",), state)),
        *_moves("revert", ("available",), "reverting"),
        ("reverting", "revert:done", "available"),
        *_moves("snapshot", ("available",), "available"),
        *_moves("snapshot", ("in-use",), "in-use"),
        *_moves("force-snapshot", ("reserved",), "reserved"),
        *_moves("force-snapshot", ("attaching",), "attaching"),
        *_moves("force-snapshot", ("detaching",), "detaching"),
        *_moves("force-snapshot", ("available",), "available"),
        *_moves("force-snapshot", ("in-use",), "in-use"),
        *(move for state in _IDLE for move in _moves("clone", (state,), state)),
        *(move for state in _IDLE for move in _moves("update", (state,), state)),
        *(move for state in ("available", "in-use") for move in _moves("join-group", (state,), state)),
        *(move for state in ("available", "in-use", *_BROKEN) for move in _moves("leave-group", (state,), state)),
        *_moves("group:failed", ("available", "in-use", "deleting", *_BROKEN), "error"),
        *_moves("reserve", _IDLE, "reserved"),
        *_moves("connect", ("reserved", "attaching", "in-use", "detaching", "available"), "attaching"),
        *_moves("attach", _IDLE, "in-use"),
        *_moves("detach-begin", ("in-use",), "detaching"),
        *_moves("detach", ("reserved", "attaching", "in-use", "detaching"), "available"),
        *_moves("upload", ("available", "in-use"), "uploading"),
        *(move for state in ("available", "in-use") for move in _moves(f"upload:done-{state}", ("uploading",), state)),
        *_moves("backup", ("available", "in-use"), "backing-up"),
        *(move for state in ("available", "in-use") for move in _moves(f"backup:done-{state}", ("backing-up",), state)),
        *_moves("restore", ("available", "error"), "restoring-backup"),
        ("restoring-backup", "restore:done", "available"),
        ("restoring-backup", "restore:failed", "error"),
        *_moves("retype", ("available", "in-use"), "retyping"),
        *(move for state in ("available", "in-use") for move in _moves(f"retype:done-{state}", ("retyping",), state)),
        *_moves("migrate", ("available", "in-use"), "migrating"),
        *(move for state in ("available", "in-use") for move in _moves(f"migrate:done-{state}", ("migrating",), state)),
        ("available", "promote", "promoting"),
        ("promoting", "promote:done", "available"),
        *(move for state in _IDLE for move in _moves("reenable", (state,), state)),
        ("managing", "manage:done", "available"),
        ("managing", "manage:failed", "error"),
        ("available", "transfer", "awaiting-transfer"),
        *_moves("accept", ("available", "awaiting-transfer"), "awaiting-transfer"),
        ("awaiting-transfer", "transfer:done", "available"),
    ],
)

SNAPSHOT = Machine(
    "snapshot",
    "creating",
    {
        "available": "can be restored from and connected to",
        "error": "could not be created; delete it",
        "error_deleting": "could not be deleted; delete it again",
        "deleted": "gone, or in the trash until it is wiped",
    },
    {
        "creating": "is being taken",
        "deleting": "its storage is being taken away",
        "restoring": "its volume goes back to it",
        "backing-up": "is being backed up",
        "managing": "existing storage is being taken over",
        "unmanaging": "its storage is being let go",
    },
    [
        ("creating", "create:done", "available"),
        ("creating", "create:failed", "error"),
        *_moves("delete", ("available", *_BROKEN), "deleting"),
        ("deleting", "delete:done", "deleted"),
        ("deleting", "delete:failed", "error_deleting"),
        ("deleting", "delete:busy", "available"),
        ("deleting", "cgsnapshot:failed", "error"),
        ("available", "revert", "restoring"),
        ("restoring", "revert:done", "available"),
        ("available", "clone", "available"),
        ("available", "connect", "available"),
        ("available", "update", "available"),
        *(move for state in ("available", *_BROKEN) for move in _moves("transfer", (state,), state)),
        ("available", "backup", "backing-up"),
        ("backing-up", "backup:done", "available"),
        ("managing", "manage:done", "available"),
        ("managing", "manage:failed", "error"),
        *_moves("unmanage", ("available", *_BROKEN), "unmanaging"),
        ("unmanaging", "unmanage:done", "deleted"),
        ("unmanaging", "unmanage:failed", "error"),
    ],
)

ATTACHMENT = Machine(
    "attachment",
    "reserved",
    {
        "reserved": "the volume is kept for an instance",
        "attaching": "the connection is granted, the instance is connecting",
        "attached": "the instance uses the volume",
        "detaching": "the instance is letting go",
        "deleted": "over",
    },
    {},
    [
        *_moves("connect", ("reserved", "attaching", "attached"), "attaching"),
        *_moves("complete", ("attaching", "attached"), "attached"),
        *_moves("attach", ("reserved", "attaching", "attached"), "attached"),
        *_moves("detach-begin", ("attached",), "detaching"),
        ("detaching", "detach-rolled-back", "attached"),
        *_moves("delete", ("reserved", "attaching", "attached", "detaching"), "deleted"),
    ],
)

CONSISTENCY_GROUP = Machine(
    "consistency group",
    "creating",
    {"available": "complete", "error": "could not be made or changed", "deleted": "gone"},
    {
        "creating": "is being made",
        "updating": "members are being added or removed",
        "deleting": "is being taken away",
    },
    [
        ("creating", "create:done", "available"),
        ("creating", "create:failed", "error"),
        ("available", "update", "updating"),
        ("updating", "update:done", "available"),
        ("updating", "update:failed", "error"),
        *_moves("delete", ("available", "error"), "deleting"),
        ("deleting", "delete:done", "deleted"),
        ("deleting", "delete:failed", "error"),
        ("available", "snapshot", "available"),
        ("available", "clone", "available"),
        ("available", "join", "available"),
        *(move for state in ("available", "error") for move in _moves("unsnapshot", (state,), state)),
    ],
)

CGSNAPSHOT = Machine(
    "cgsnapshot",
    "creating",
    {"available": "all members at one instant", "error": "could not be taken or deleted", "deleted": "gone"},
    {"creating": "is being taken", "deleting": "is being taken away"},
    [
        ("creating", "create:done", "available"),
        ("creating", "create:failed", "error"),
        *_moves("delete", ("available", "error"), "deleting"),
        ("deleting", "delete:done", "deleted"),
        ("deleting", "delete:failed", "error"),
        ("available", "clone", "available"),
    ],
)

BACKUP = Machine(
    "backup",
    "creating",
    {"available": "can be restored", "error": "is incomplete; delete it", "deleted": "gone"},
    {"creating": "is being written", "restoring": "is being read back", "deleting": "is being taken away"},
    [
        ("creating", "create:done", "available"),
        ("creating", "create:failed", "error"),
        ("available", "restore", "restoring"),
        ("restoring", "restore:done", "available"),
        ("available", "chain", "available"),
        *_moves("delete", ("available", "error"), "deleting"),
        ("deleting", "delete:done", "deleted"),
        ("deleting", "delete:failed", "error"),
    ],
)

TRANSFER = Machine(
    "transfer",
    "offered",
    {"offered": "waits for its key", "accepted": "over, the volume has a new owner", "deleted": "withdrawn"},
    {"accepting": "the owner is being changed"},
    [
        ("offered", "accept", "accepting"),
        ("accepting", "accept:done", "accepted"),
        ("accepting", "accept:failed", "offered"),
        ("offered", "delete", "deleted"),
    ],
)

REPLICATION = Machine(
    "replication",
    "inactive",
    {
        "inactive": "copying is on hold, the replica may be inconsistent",
        "copying": "data goes to the replica, it is not consistent yet",
        "active": "data goes to the replica, it is consistent",
        "active-stopped": "copying is on hold, the replica is consistent",
        "error": "replication has failed",
        "deleted": "there is no replica any more",
    },
    {},
    [
        *_moves("start", ("inactive", "active-stopped", "error"), "copying"),
        ("copying", "in-sync", "active"),
        ("active", "stop", "active-stopped"),
        ("copying", "stop", "inactive"),
        *_moves("promote", ("active", "active-stopped"), "inactive"),
        *_moves("fail", ("copying", "active", "active-stopped", "inactive"), "error"),
        *_moves("delete", ("copying", "active", "active-stopped", "inactive", "error"), "deleted"),
    ],
)

MIGRATION = Machine(
    "migration",
    "none",
    {
        "none": "is not being moved",
        "success": "was moved",
        "error": "could not be moved, it stayed where it was",
    },
    {
        "starting": "its new home is being chosen",
        "migrating": "its bytes are being copied",
        "completing": "the new home takes over",
    },
    [
        *_moves("migrate", ("none", "success", "error"), "starting"),
        ("starting", "copy", "migrating"),
        ("migrating", "complete", "completing"),
        ("completing", "done", "success"),
        *_moves("fail", ("starting", "migrating"), "error"),
    ],
)

OPERATION = Machine(
    "operation",
    "queued",
    {
        "done": "ended well; kept for days, so that a late repeat gets its answer",
        "failed": "ended in an error, what it had begun is undone",
    },
    {
        "queued": "its intent is committed; it waits for a worker, a lane, a time or the operation in its way",
        "running": "a worker is at it",
        "undoing": "it failed or was cancelled, its steps are being undone",
        "parked": "it waits: for its backend or another worker by itself, or for somebody to retry or abandon it",
    },
    [
        ("queued", "claim", "running"),
        ("queued", "cancel", "failed"),
        ("running", "succeed", "done"),
        ("running", "fail", "undoing"),
        ("undoing", "undone", "failed"),
        ("undoing", "move", "queued"),
        *_moves("park", ("queued", "running", "undoing"), "parked"),
        ("parked", "retry", "queued"),
        ("parked", "abandon", "failed"),
    ],
)

MACHINES = (
    VOLUME,
    SNAPSHOT,
    ATTACHMENT,
    CONSISTENCY_GROUP,
    CGSNAPSHOT,
    BACKUP,
    TRANSFER,
    REPLICATION,
    MIGRATION,
    OPERATION,
)

#: the statuses that follow from a volume's attachments.
IDLE = _IDLE
#: what a transitional status becomes when its operation is lost; one that is not named here becomes idle again.
LOST: dict[str, dict[str, str]] = {
    "volume": {
        "creating": "error",
        "downloading": "error",
        "deleting": "error_deleting",
        "restoring-backup": "error",
        "managing": "error",
        "unmanaging": "error",
    },
    "snapshot": {"creating": "error", "deleting": "error_deleting", "managing": "error", "unmanaging": "error"},
    "group": {"creating": "error", "updating": "error", "deleting": "error"},
    "cgsnapshot": {"creating": "error", "deleting": "error"},
    "backup": {"creating": "error", "deleting": "error"},
}

UNFINISHED = ("queued", "running", "undoing", "parked")


def volume_status_of(attachment_statuses: Iterable[str]) -> str:
    """Return the status of an idle volume, given the statuses of its attachments."""
    order = (("attached", "in-use"), ("attaching", "attaching"), ("detaching", "detaching"), ("reserved", "reserved"))
    present = set(attachment_statuses)
    return next((status for attachment, status in order if attachment in present), "available")

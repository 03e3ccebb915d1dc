# SPDX-License-Identifier: Apache-2.0
"""What an audit finds: where is and should be differ, of which kind, and what would mend it.

Each kind has one meaning and one repair; operators read them in :doc:`operate`. This module knows no database, no
driver and no target.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import uuid
from dataclasses import dataclass
from typing import Any

_IDS = uuid.UUID("c5b9d3a8-3a0f-4c1e-9f53-0d1c7be0a6d1")


class Repair(enum.StrEnum):
    """What ``--fix`` does about a finding."""

    SYNC = "sync"  # the export is made again from SQL
    REVOKE = "revoke"  # the grant's row goes, and with it the access
    WITHDRAW = "withdraw"  # the export on the target ends
    DISCARD = "discard"  # the storage is wiped and freed
    WIPE = "wipe"  # the wipe of the trash is asked for again
    RESTORE = "restore"  # the storage gets its own name back
    EXTEND = "extend"  # the storage grows to the size that SQL says
    FORGET = "forget"  # the row goes
    LEAVE = "leave"  # the member leaves its group, or the snapshot its cgsnapshot
    SETTLE = "settle"  # hold and status become what the journal and the attachments say
    RECOUNT = "recount"  # usage is counted anew
    PURGE = "purge"  # the objects in the backup store are removed
    RESUME = "resume"  # the device takes reads and writes again
    END = "end"  # the process is killed
    OPERATOR = "operator"  # nothing by itself: the reason says what can be done


class Kind(enum.Enum):
    """A kind of finding: its name, what it means, its repair."""

    STORAGE_MISSING = "storage-missing", "a resource has no storage", Repair.OPERATOR
    STORAGE_IN_TRASH = "storage-in-trash", "the storage of a resource lies in the trash", Repair.RESTORE
    STORAGE_TOO_SMALL = "storage-too-small", "storage is smaller than SQL says", Repair.EXTEND
    STORAGE_TOO_LARGE = "storage-too-large", "storage is larger than SQL says", Repair.OPERATOR
    STORAGE_ORPHAN = "storage-orphan", "storage under one of our names that no row knows", Repair.DISCARD
    BUILDING_LEFT = "building-left", "incomplete storage that nobody builds any more", Repair.DISCARD
    TRASH_ORPHAN = "trash-orphan", "storage in the trash that no row knows", Repair.DISCARD
    TRASH_NOT_WIPED = "trash-not-wiped", "storage in the trash that nobody is going to wipe", Repair.WIPE
    DEVICE_SUSPENDED = "device-suspended", "a device that lets nobody read or write", Repair.RESUME
    OBJECT_ROW_MISSING = "object-row-missing", "a resource's object has no row, its serial is lost", Repair.OPERATOR
    OBJECT_ROW_ORPHAN = "object-row-orphan", "an object's row without resource and without storage", Repair.FORGET
    BACKUP_MISSING = "backup-missing", "a backup that its store does not have", Repair.OPERATOR
    BACKUP_ORPHAN = "backup-orphan", "a backup in a store that no row knows", Repair.PURGE
    EXPORT_MISSING = "export-missing", "the target does not export what it should", Repair.SYNC
    EXPORT_WRONG_PATH = "export-wrong-path", "the target serves other storage than it should", Repair.SYNC
    EXPORT_WRONG_SERIAL = "export-wrong-serial", "the target shows another serial than SQL has", Repair.SYNC
    ACCESS_MISSING = "access-missing", "a grant that the target does not know", Repair.SYNC
    ACCESS_TOO_WIDE = "access-too-wide", "the target lets in whom no grant names", Repair.SYNC
    EXPORT_ORPHAN = "export-orphan", "the target exports what it should not", Repair.WITHDRAW
    EXPORT_ROW_ORPHAN = "export-row-orphan", "an export's row whose resource is gone", Repair.WITHDRAW
    GRANT_ORPHAN = "grant-orphan", "a grant whose attachment is gone", Repair.REVOKE
    ATTACHMENT_ORPHAN = "attachment-orphan", "an attachment whose volume is gone", Repair.FORGET
    MEMBER_STRAY = "member-stray", "a member of a group or cgsnapshot that is gone or not its own", Repair.LEAVE
    CGSNAPSHOT_ORPHAN = "cgsnapshot-orphan", "a cgsnapshot without snapshots, or without its group", Repair.FORGET
    CGSNAPSHOT_INCOMPLETE = "cgsnapshot-incomplete", "a cgsnapshot that lacks some of its snapshots", Repair.SETTLE
    TRANSFER_ORPHAN = "transfer-orphan", "an offer whose volume is gone, or is not kept for it", Repair.FORGET
    STATUS_STUCK = "status-stuck", "a status that says work is going on, and nobody is at it", Repair.SETTLE
    STATUS_WRONG = "status-wrong", "a status that the attachments contradict", Repair.SETTLE
    HOLD_STALE = "hold-stale", "a resource is held by an operation that has ended", Repair.SETTLE
    OPERATION_PARKED = "operation-parked", "an operation waits for an operator", Repair.OPERATOR
    QUOTA_WRONG = "quota-wrong", "the usage of a project is not what its rows say", Repair.RECOUNT
    PROCESS_LEFT = "process-left", "a process of an earlier life of the worker", Repair.END

    def __init__(self, label: str, meaning: str, repair: Repair) -> None:
        self.label = label
        self.meaning = meaning
        self.repair = repair

    @classmethod
    def of(cls, label: str) -> Kind:
        """Return the kind of that name.

        :raises KeyError: there is none.
        """
        return _BY_LABEL[label]


_BY_LABEL = {kind.label: kind for kind in Kind}


@dataclass(frozen=True)
class Finding:
    """One difference.

    :param resource: the noun of ``resource_id``: volume, snapshot, object, export, operation, process, project…
    :param resource_id: what it is about. :param reason: what is and what should be, in words.
    :param name: how the backend, the target or the kernel calls it, where it has such a name.
    :param object_id: the object that it is about, where it is not ``resource_id``.
    :param repair: what mends it. :param safe: whether ``--fix`` does that unasked: SQL or the journal proves that it is
        ours and nobody's any more, or nothing can be lost by it. Else the finding has to be named.
    :param since: when an audit saw it first; None until it has been recorded.
    """

    kind: Kind
    resource: str
    resource_id: str
    reason: str
    name: str = ""
    object_id: str = ""
    repair: Repair = Repair.OPERATOR
    safe: bool = False
    since: datetime.datetime | None = None

    def id_on(self, service: str) -> str:
        """Return the finding's id: the same for the same difference on the same worker, however often it is seen."""
        return str(uuid.uuid5(_IDS, "/".join((service, self.kind.label, self.resource, self.resource_id, self.name))))

    def age(self, now: datetime.datetime) -> float:
        """Return for how many seconds it has been known."""
        return 0.0 if self.since is None else max(0.0, (now - self.since).total_seconds())

    def seen(self, since: datetime.datetime) -> Finding:
        """Return the finding with the time at which it was first seen."""
        return dataclasses.replace(self, since=since)

    def row(self, service: str) -> dict[str, Any]:
        """Return the finding as it is kept in SQL."""
        return {
            "id": self.id_on(service),
            "host": service,
            "kind": self.kind.label,
            "resource": self.resource,
            "resource_id": self.resource_id,
            "name": self.name[:1024],
            "reason": self.reason,
            "repair": str(self.repair),
            "safe": self.safe,
        }


def finding(
    kind: Kind,
    resource: str,
    resource_id: str,
    reason: str,
    *,
    name: str = "",
    object_id: str = "",
    safe: bool = True,
    repair: Repair | None = None,
) -> Finding:
    """Return a finding with its kind's repair; what only an operator can mend is never safe."""
    chosen = repair or kind.repair
    return Finding(
        kind, resource, resource_id, reason, name, object_id, chosen, safe and chosen is not Repair.OPERATOR
    )

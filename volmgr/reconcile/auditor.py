# SPDX-License-Identifier: Apache-2.0
"""One worker's audit: it looks at both sides, compares them, records what it found, and mends what it is told to.

A finding is never an operation caught at work: whatever an operation or a request for a connection was at between the
first and the last look is left out. This module knows no RPC.
"""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from volmgr import exception, names, types
from volmgr.db import audit, findings, records
from volmgr.db.audit_rows import ExportRow, ResourceRow
from volmgr.reconcile import archive, wholes
from volmgr.reconcile.diff import diff
from volmgr.reconcile.findings import Finding, Kind, Repair
from volmgr.reconcile.repairs import Repairs
from volmgr.reconcile.world import Process, Recorded, World

if TYPE_CHECKING:
    from volmgr.dispatch import Dispatcher

LOG = logging.getLogger(__name__)

#: seconds that something must have been seen before what cannot be taken back is done about it.
GRACE = 60.0
#: repairs that free, remove or kill, or meddle with what LVM may be at; everything else can be done at first sight.
FINAL = frozenset({Repair.PURGE, Repair.DISCARD, Repair.WIPE, Repair.FORGET, Repair.END, Repair.RESUME})
#: repairs that only make the target what SQL says; the background audit does them by itself.
LEVEL = frozenset({Repair.SYNC, Repair.REVOKE, Repair.WITHDRAW})
_STORAGE_KINDS = frozenset({
    Kind.STORAGE_MISSING, Kind.STORAGE_IN_TRASH, Kind.STORAGE_TOO_SMALL, Kind.STORAGE_TOO_LARGE, Kind.STORAGE_ORPHAN,
    Kind.BUILDING_LEFT, Kind.TRASH_ORPHAN, Kind.TRASH_NOT_WIPED, Kind.DEVICE_SUSPENDED, Kind.OBJECT_ROW_ORPHAN,
})
_TARGET_KINDS = frozenset({
    Kind.EXPORT_MISSING, Kind.EXPORT_WRONG_PATH, Kind.EXPORT_WRONG_SERIAL, Kind.ACCESS_MISSING, Kind.ACCESS_TOO_WIDE,
    Kind.EXPORT_ORPHAN,
})


@dataclass(frozen=True)
class Outcome:
    """What became of a finding that was to be mended: ``done`` in words, or ``error``."""

    finding: Finding
    done: str = ""
    error: str = ""


@dataclass(frozen=True)
class Report:
    """One audit.

    :param findings: what it found. :param outcomes: what was mended, or could not be.
    :param unseen: which side could not be looked at, and why.
    """

    service: str
    at: datetime.datetime
    findings: list[Finding]
    outcomes: list[Outcome] = field(default_factory=list)
    unseen: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the audit as clients read it; ``age`` in seconds."""
        mended = {item.finding.id_on(self.service): item for item in self.outcomes}
        shown = []
        for item in self.findings:
            row = item.row(self.service)
            outcome = mended.get(row["id"])
            done = {"done": outcome.done, "error": outcome.error} if outcome else {"done": "", "error": ""}
            shown.append({**row, "created_at": records.moment(item.since), "age": item.age(self.at), **done})
        return {"host": self.service, "findings": shown, "unseen": self.unseen}


class Auditor:
    """The audit of one worker.

    :param processes: returns processes of earlier lives of the worker. :param grace: seconds, see :data:`GRACE`.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        *,
        processes: Callable[[], list[Process]] = list,
        grace: float = GRACE,
        page: int = audit.PAGE,
    ) -> None:
        self.dispatcher = dispatcher
        self.database = dispatcher.database
        self.exports = dispatcher.backend.exports
        self.driver = dispatcher.backend.driver
        self.service = dispatcher.backend.settings.host
        self.grace = grace
        self._page = page
        self._processes = processes
        self._repairs = Repairs(dispatcher, processes)
        self._one = threading.Lock()

    def run(
        self, *, fix: bool = False, only: Collection[str] = (), repairs: Collection[Repair] | None = None
    ) -> Report:
        """Look, compare and record; with ``fix`` mend what is safe and old enough, or exactly what ``only`` names.

        :param only: ids of findings. Naming one is the consent to what is not safe unasked, at any age.
        :param repairs: only these repairs.
        """
        with self._one:
            found, unseen = self._look()
            now = self.dispatcher.clock.now()
            kept = [kind.label for kind in Kind if kind in _unseen_kinds(unseen)]
            with self.database.writer() as conn:
                since = findings.record(conn, self.service, [item.row(self.service) for item in found], now, kept)
            found = [item.seen(since[item.id_on(self.service)]) for item in found]
            outcomes = []
            if fix:
                for item in found:
                    if (outcome := self._mend(item, only, repairs)) is not None:
                        outcomes.append(outcome)
            return Report(self.service, now, found, outcomes, unseen)

    def _mend(self, item: Finding, only: Collection[str], repairs: Collection[Repair] | None) -> Outcome | None:
        if item.repair is Repair.OPERATOR or (repairs is not None and item.repair not in repairs):
            return None
        named = item.id_on(self.service) in only
        if only and not named:
            return None
        if not named and not item.safe:
            return None
        if not named and item.repair in FINAL and item.age(self.dispatcher.clock.now()) < self.grace:
            return Outcome(item, error=f"It is left alone until it has been seen for {self.grace:.0f} s")
        try:
            done = self._repairs.apply(item)
        except exception.VolmgrError as error:
            LOG.error("%s of %s %s could not be mended: %s", item.kind.label, item.resource, item.resource_id, error)
            return Outcome(item, error=str(error))
        LOG.warning("%s of %s %s: %s", item.kind.label, item.resource, item.resource_id, done)
        return Outcome(item, done=done)

    # --- looking --------------------------------------------------------------------------------------------------

    def _look(self) -> tuple[list[Finding], dict[str, str]]:
        begun = self.dispatcher.clock.now()
        with self.exports.locks.watching() as touched:
            with self.database.reader() as conn:
                before = audit.operations(conn, self.service)
                of = audit.hosts(conn, self.service)
            sides = self._sides(of)
            world, unseen = self._world()
            with self.database.reader() as conn:
                grouped = wholes.look(conn, of)
            with self.database.reader() as conn:
                after = audit.operations(conn, self.service, ended_since=begun)
                attachments = audit.orphan_attachments(conn)
                quotas = audit.quotas(conn)
        recorded = Recorded(
            self.service, self.exports.settings.target_prefix, **sides, **self._strangers(sides, world, of),
            operations=after, attachments=attachments, quotas=quotas, active=self.driver.active_backend_id,
        )
        busy = set(touched).union(*(item.ids for item in (*before, *after)))
        busy.update(*(self.driver.helper_ids(item) for item in tuple(busy)))
        archived, away = archive.look(self.database, self.dispatcher.backend.stores, busy)
        settled = [item for item in grouped if not {item.resource_id, item.object_id, item.name} & busy]
        found = [*diff(recorded, world, busy), *archived, *settled]
        order = {kind: index for index, kind in enumerate(Kind)}
        return sorted(found, key=lambda item: order[item.kind]), unseen | away

    def _sides(self, of: list[str]) -> dict[str, Any]:
        resources = audit.resources(self.database, of, self._page)
        exports = audit.exports(self.database, self.service, self._page)
        return {
            "resources": resources,
            "objects": audit.objects(self.database, of, self._page),
            "exports": exports,
            "grants": audit.grants(self.database, self.service, self._page),
            "paths": self._paths(resources, exports),
        }

    def _paths(self, resources: dict[str, ResourceRow], exports: dict[str, ExportRow]) -> dict[str, str]:
        """Return by resource what the target should serve."""
        paths: dict[str, str] = {}
        if self.exports.target is None:
            return paths
        for row in exports.values():
            if (of := resources.get(row.resource_id)) is not None:
                paths[of.id] = self.driver.export_path(_record(of))
        return paths

    def _world(self) -> tuple[World, dict[str, str]]:
        unseen: dict[str, str] = {}
        objects = exports = None
        if self.driver.supports("observe"):
            try:
                objects = self.driver.observe()
            except exception.VolmgrError as error:
                unseen["storage"] = str(error)
        if self.exports.target is not None:
            try:
                exports = self.exports.target.observe()
            except exception.VolmgrError as error:
                unseen["target"] = str(error)
        target = self.exports.target
        ungranted = target is None or target.shows_ungranted
        return World(objects, exports, self._processes(), ungranted), unseen

    def _strangers(self, sides: dict[str, Any], world: World, of: list[str]) -> dict[str, Any]:
        """Ask SQL about what was observed and is in no row of this worker."""
        objects, resources = sides["objects"], sides["resources"]
        ids = {item.object_id for item in world.objects or () if item.object_id not in objects}
        for export in world.exports or ():
            parsed = names.parse_target_name(self.exports.settings.target_prefix, export.target_name)
            if parsed is not None and parsed[1] not in resources:
                ids.add(parsed[1])
        ids.update(row.resource_id for row in sides["exports"].values() if row.resource_id not in resources)
        unknown = sorted(ids)
        if not unknown:
            return {}
        made = {helper: item for item in objects for helper in self.driver.helper_ids(item)}
        helpers = {item: made[item] for item in unknown if item in made}
        return {
            "elsewhere": audit.elsewhere(self.database, unknown, of),
            "past": audit.past(self.database, unknown),
            "helpers": helpers,
        }


def findings_of(dispatcher: Dispatcher, *, page: int = audit.PAGE) -> list[Finding]:
    """Return what an audit of a worker finds at this moment; nothing is mended.

    :param dispatcher: of a :class:`~volmgr.service.Worker` or a :class:`~volmgr.testing.rig.Rig`.
    """
    return Auditor(dispatcher, page=page).run().findings


def _record(row: ResourceRow) -> types.Volume | types.Snapshot:
    """Return as much of a resource as its path depends on."""
    if row.kind == "volume":
        return types.Volume(row.id, row.size, object_id=row.object_id)
    return types.Snapshot(row.id, "", row.size, object_id=row.object_id)


def _unseen_kinds(unseen: dict[str, str]) -> frozenset[Kind]:
    kinds: frozenset[Kind] = frozenset()
    if "storage" in unseen:
        kinds |= _STORAGE_KINDS
    if "target" in unseen:
        kinds |= _TARGET_KINDS
    if any(side.startswith("backup store") for side in unseen):
        kinds |= archive.STORE_KINDS
    return kinds

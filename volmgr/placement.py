# SPDX-License-Identifier: Apache-2.0
"""What this worker knows of all backends, and where it places volumes by that.

The workers' rows are read with every heartbeat and kept in memory, so placing asks the database nothing. What was
placed since a pool was measured is counted beside what it reported. Two workers do not know of each other's promises;
the driver that has no room says so, and the volume is placed again. The decision itself is :mod:`volmgr.scheduler`'s.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from volmgr import exception, names, scheduler
from volmgr.db import services
from volmgr.db.engine import Database
from volmgr.runtime import Clock
from volmgr.scheduler import Judged, Pool, Request

SHOWN = 3


@dataclass(frozen=True)
class Place:
    """Where a volume goes: a pool and its availability zone."""

    host: str
    zone: str | None

    @property
    def service(self) -> str:
        """The worker, ``host@backend``."""
        return names.service_of(self.host)


class Placement:
    """Places volumes for one worker.

    :param host: the worker's name. :param zone: its availability zone.
    :param down_time: seconds without a sign of life after which another worker is down.
    :param max_age: seconds after which what is known is read again, should no heartbeat have done it.
    """

    def __init__(
        self,
        database: Database,
        host: str,
        zone: str,
        clock: Clock,
        *,
        down_time: float = 60.0,
        max_age: float = 60.0,
    ) -> None:
        self.database = database
        self.host = host
        self.zone = zone
        self.clock = clock
        self._down_time = down_time
        self._max_age = max_age
        self._lock = threading.Lock()
        self._own: dict[str, Any] = {"capabilities": {}, "state": "up", "reason": None}
        self._rows: dict[str, dict[str, Any]] = {}
        self._read_at: float | None = None
        self._promised: dict[str, float] = {}

    # --- what is known --------------------------------------------------------------------------------------------

    def measured(self, capabilities: Mapping[str, Any], reason: str | None = None) -> None:
        """Take what this worker's own backend has just reported; ``reason`` says why it is down."""
        with self._lock:
            self._own = {
                "capabilities": dict(capabilities), "state": "down" if reason is not None else "up", "reason": reason
            }
            self._settle(self.host)

    def refresh(self) -> None:
        """Read what all workers have published; one statement."""
        with self.database.reader() as conn:
            found = {row["host"]: row for row in services.list_services(conn, self._down_time)}
        with self._lock:
            for host, row in found.items():
                if host != self.host and row["capabilities"] != self._rows.get(host, {}).get("capabilities"):
                    self._settle(host)
            self._rows = found
            self._read_at = self.clock.monotonic()

    def _settle(self, service: str) -> None:
        """Forget promises that a new measurement has in it."""
        self._promised = {host: gb for host, gb in self._promised.items() if names.service_of(host) != service}

    def promise(self, host: str, size: int) -> None:
        """Count a volume that was placed in a pool until that is measured again.

        :param size: GiB.
        """
        with self._lock:
            self._promised[host] = self._promised.get(host, 0.0) + size

    def pools(self) -> list[Pool]:
        """Return every pool that is known, this worker's own as it is now."""
        if self._read_at is None or self.clock.monotonic() - self._read_at > self._max_age:
            self.refresh()
        with self._lock:
            rows, promised = dict(self._rows), dict(self._promised)
            empty = {"host": self.host, "availability_zone": self.zone}
            rows[self.host] = {**empty, **rows.get(self.host, {}), **self._own, "up": True}
        found = [pool for row in rows.values() for pool in scheduler.pools_of(row)]
        if not promised:
            return found
        return [
            dataclasses.replace(pool, promised_gb=promised[pool.host]) if pool.host in promised else pool
            for pool in found
        ]

    def clones_across(self, host: str) -> bool:
        """Return whether volumes of a pool can be copied into the other pools of its backend."""
        return any(pool.host == host and pool.capabilities.get("clone_across_pools") for pool in self.pools())

    # --- decisions ------------------------------------------------------------------------------------------------

    def choose(self, request: Request, *, reread: bool = True) -> Place:
        """Return the best place for a volume.

        A request that can only go to this worker waits for its backend where that is down.

        :param reread: ask the database again before there is none; False inside a transaction.
        :raises NoValidBackend: there is none; the error says what each backend lacks.
        """
        ranked = scheduler.rank(request, self.pools())
        if not ranked and reread:
            self.refresh()
            ranked = scheduler.rank(request, self.pools())
        if not ranked and request.patient is None:
            ranked = scheduler.rank(dataclasses.replace(request, patient=self.host), self.pools())
        if not ranked:
            raise self._refusal(request)
        best = ranked[0].pool
        return Place(best.host, best.zone)

    def explain(self, request: Request) -> list[Judged]:
        """Return every pool with all that speaks for and against it, as it is in SQL now."""
        self.refresh()
        return scheduler.explain(request, self.pools())

    def _refusal(self, request: Request) -> exception.NoValidBackend:
        judged = scheduler.explain(request, self.pools())
        lacks = {
            item.pool.host: "; ".join(f"{verdict.check}: {verdict.why}" for verdict in item.verdicts if verdict.why)
            for item in judged
        }
        shown = [f"{host} ({why})" for host, why in list(lacks.items())[:SHOWN]]
        more = f" and {len(lacks) - SHOWN} more" if len(lacks) > SHOWN else ""
        return exception.NoValidBackend(
            f"No backend takes a volume of {request.size} GiB: {', '.join(shown) or 'there is none'}{more}",
            hint=f"{_switch_on(judged)}See what each lacks: volmgr backend explain --size {request.size}",
            size=request.size,
            rejected=dict(list(lacks.items())[:20]),
        )


def _switch_on(judged: list[Judged]) -> str:
    """Return the command that would help where a worker is only disabled."""
    for item in judged:
        if [verdict.check for verdict in item.verdicts if verdict.why] == ["service"] and item.pool.disabled:
            return f"volmgr service enable {item.pool.service}. "
    return ""

# SPDX-License-Identifier: Apache-2.0
"""Whether new volumes may be placed on a worker: operators disable it, with a reason, and see what it is still at."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from volmgr.db import operations, services
from volmgr.db.engine import Database
from volmgr.runtime import Clock

#: the longest that one request waits for a worker to become idle; the client asks again.
WAIT_SLICE = 5.0
PAUSE = 0.2


class Switches:
    """The switches of all workers, as one of them sees them.

    :param host: this worker. :param down_time: seconds after which a worker without a sign of life is down.
    :param changed: called once a switch was moved; other workers see it with their next sign of life.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        host: str,
        down_time: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.database = database
        self.clock = clock
        self.host = host
        self._down_time = down_time
        self._changed = changed

    def switch(self, host: str | None, *, disabled: bool, reason: str | None) -> dict[str, Any]:
        """Disable or enable a worker, this one by default; returns it.

        :raises NotFound: there never was such a worker.
        """
        chosen = host or self.host
        with self.database.writer() as conn:
            if disabled:
                services.disable(conn, chosen, reason)
            else:
                services.enable(conn, chosen)
            found = services.get(conn, chosen, self._down_time())
        self._changed()
        return {key: value for key, value in found.items() if key != "capabilities"}

    def drain(self, host: str | None, reason: str | None, timeout: float) -> dict[str, Any]:
        """Disable a worker and wait for the end of what it is at; returns it with ``unfinished``, how many are left.

        Parked operations do not end by themselves and are counted apart.
        """
        found = self.switch(host, disabled=True, reason=reason)
        deadline = self.clock.monotonic() + min(timeout, WAIT_SLICE)
        while True:
            with self.database.reader() as conn:
                counts = operations.count_unfinished(conn, found["host"], self.clock.now())
            left = deadline - self.clock.monotonic()
            if not counts["unfinished"] or left <= 0:
                return {**found, **counts}
            self.clock.wait(threading.Event(), min(PAUSE, left))

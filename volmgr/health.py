# SPDX-License-Identifier: Apache-2.0
"""Whether a backend that was set up still works, and what follows when it does not.

A worker asks its backend now and then how it is. One that cannot say so is down: the service tells the reason at once,
placement leaves it out, requests wait in the journal. It is tried again with growing pauses, for ever, in a thread of
its own; once it is back it is looked through as after a start, and used. This module knows no verb and no driver.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from volmgr import context as ctx
from volmgr import exception
from volmgr.db import services
from volmgr.operations.registry import while_down

if TYPE_CHECKING:
    from volmgr.service import Worker

LOG = logging.getLogger(__name__)

#: Seconds between the tries of something that has to succeed in the end.
BACKOFF = (1, 2, 5, 15, 60)


def pauses() -> Iterator[int]:
    """Yield the seconds between one try and the next, for ever."""
    yield from BACKOFF
    while True:
        yield BACKOFF[-1]


class Health:
    """The health of one worker's backend."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._sooner = threading.Event()

    def hurry(self) -> None:
        """Let a backend that is down be tried again now: it may work, or the worker is to end."""
        self._sooner.set()

    def rest(self, seconds: float) -> bool:
        """Wait before the next try, at most so long; returns whether the worker is to stop instead."""
        self._worker.clock.wait(self._sooner, seconds)
        self._sooner.clear()
        return bool(self._worker.stopping.is_set())

    def wait_until_up(self) -> None:
        """Set a backend up that could not be at the start; what lets it work elsewhere does not wait for that."""
        worker = self._worker
        self.insist(
            lambda: worker.dispatcher.recover(while_down()), "Taking over what may bring the backend up elsewhere"
        )
        worker.spawn(worker.dispatcher.loop, "pump")
        for pause in pauses():
            if worker.is_working() or self.rest(pause):
                return
            worker.init_host()

    def examine(self) -> dict[str, Any] | None:
        """Ask the backend how it is; returns what it says, None if it is down now."""
        worker = self._worker
        try:
            worker.driver.check_for_setup_error()
            return worker.measure()
        except Exception as error:
            self._fall(error)
            return None

    def _fall(self, error: Exception) -> None:
        worker = self._worker
        LOG.error("The backend %s is down: %s", worker.host, error, exc_info=not is_ours(error))
        # What runs meets the error by itself; what comes waits.
        worker.dispatcher.paused = True
        worker.down(error)
        worker.spawn(self._recover, "recovery")

    def _recover(self) -> None:
        """Try until the backend works again, then take it into use."""
        worker = self._worker
        for pause in pauses():
            if self.rest(pause):
                return
            if self._revive():
                break
            self._tell("down")
        LOG.warning("The backend %s works again", worker.host)
        worker.dispatcher.paused = False
        self.insist(lambda: self._tell("up"), "Telling that the backend works again")
        worker.dispatcher.ring()
        self.insist(worker.exports.rebuild, "Making the exports again")
        worker.audit()

    def _revive(self) -> bool:
        worker = self._worker
        try:
            worker.driver.do_setup(ctx.admin())
            worker.driver.check_for_setup_error()
            worker.measure(discover=True)
        except Exception as error:
            LOG.warning("The backend %s is still down: %s", worker.host, error, exc_info=not is_ours(error))
            worker.down(error)
            return False
        worker.reason = None
        return True

    def _tell(self, state: str) -> None:
        """Let everybody know now, not at the next heartbeat."""
        worker = self._worker
        if state == "down" and worker.membership is not None:
            return  # the backend's other members may well reach it
        capabilities = worker.stats if state == "up" else None
        with worker.database.writer() as conn:
            services.beat(conn, worker.host, capabilities=capabilities, state=state, reason=worker.reason)
        worker.placement.refresh()

    def insist(self, work: Callable[[], object], what: str) -> bool:
        """Do what has to be done, again until it succeeds; returns whether it did before the worker was to stop."""
        worker = self._worker
        for pause in pauses():
            try:
                work()
                return True
            except Exception as error:
                LOG.error("%s failed, it is tried again in %d s: %s", what, pause, error, exc_info=not is_ours(error))
            if worker.clock.wait(worker.stopping, pause):
                break
        return False


def is_ours(error: Exception) -> bool:
    """Return whether an error is typed, so that its message says everything."""
    return isinstance(error, exception.VolmgrError)

# SPDX-License-Identifier: Apache-2.0
"""Which driver a schedule runs, over which storage: what outlives the lives of the worker and has a driver made anew
in each of them. A room knows its driver; the world, the judge and the plans know none.
"""

from __future__ import annotations

import abc
import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from volmgr import exception
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import MemoryStore
from volmgr.drivers.sim.driver import SimDriver
from volmgr.testing.simulation.plan import Plan, Request, Strike
from volmgr.testing.simulation.worker import make_driver

if TYPE_CHECKING:
    from volmgr.targets.fake import FakeTarget
    from volmgr.testing.simulation.scheduler import Scheduler


class Room(abc.ABC):
    """One driver and what it stores in.

    :cvar name: how the command line calls it. :cvar exports: whether a target serves what it stores.
    """

    name: ClassVar[str]
    exports: ClassVar[bool] = True

    def __init__(self) -> None:
        self.folder = Path()

    def furnish(self, folder: Path) -> str:
        """Put down what the driver needs beside its storage; returns the options of its backend, as a section's lines.

        :param folder: a private one, which outlives all schedules.
        """
        self.folder = folder
        return ""

    @abc.abstractmethod
    def store(self) -> Any:
        """Return an empty storage: ``entries``, ``size``, ``create``, ``read``, ``write``, ``mark`` and ``mark_of``, by
        the names that all drivers give to objects, as those of :class:`volmgr.drivers.sim.store.Store`."""

    @abc.abstractmethod
    def copy(self, store: Any) -> Any:
        """Return another storage with the same in it."""

    @abc.abstractmethod
    def driver(
        self,
        cls: type[Any] | None,
        host: str,
        target: FakeTarget,
        store: Any,
        scheduler: Scheduler,
        **replication: Any,
    ) -> Any:
        """Return a driver for one life of the worker, with the schedule's yield points.

        :param cls: another class than usual, for drivers that are wrong on purpose.
        :param replication: ``replica_store`` and ``active_backend_id``, for a driver that replicates.
        """

    def fault(self, strike: Strike) -> BaseException:
        """Return what is raised where a strike fails something."""
        return exception.by_code(strike.error)("A fault was ordered here")

    def fit(self, plan: Plan) -> Plan | None:
        """Return a plan as this room can run it, None for one that means nothing here."""
        return plan

    def ask(self, request: Request) -> Request | None:
        """Return a request of a stage as this room can serve it, None for one that means nothing here."""
        return request

    def mended(self, plan: Plan) -> bool:
        """Return whether a plan may leave what an audit is for, as an operation that was given up does."""
        return False

    def wrong(self, store: Any) -> list[str]:
        """Return what the driver did that no storage like this would take, in words."""
        return []


class SimRoom(Room):
    """The simulator in memory, with all its mixins."""

    name = "sim"

    def __init__(self) -> None:
        super().__init__()
        self._options = Configuration({"volume_backend_name": "pool"}, SimDriver.get_driver_options())

    def furnish(self, folder: Path) -> str:
        super().furnish(folder)
        return "volume_driver = sim\ntarget_helper = fake\ntarget_ip_address = 127.0.0.1\n"

    def store(self) -> MemoryStore:
        return MemoryStore("sim")

    def copy(self, store: MemoryStore) -> MemoryStore:
        return copied(store)

    def driver(
        self,
        cls: type[Any] | None,
        host: str,
        target: FakeTarget,
        store: MemoryStore,
        scheduler: Scheduler,
        **replication: Any,
    ) -> SimDriver:
        return make_driver(cls or SimDriver, self._options, host, target, store, scheduler, **replication)


def copied(store: MemoryStore) -> MemoryStore:
    """Return a store with the same objects."""
    made = MemoryStore(store.name)
    made._objects = copy.deepcopy(store._objects)
    made._provisioned = store._provisioned
    return made

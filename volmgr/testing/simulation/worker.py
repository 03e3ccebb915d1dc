# SPDX-License-Identifier: Apache-2.0
"""The real worker, with the simulation's threads, clock and locks; and the two edges at which faults strike.

Whatever :class:`volmgr.service.Worker` does at its start and while it lives is simulated by itself: a background task
that it spawns becomes a thread of the schedule. What it would ask the machine for (its lock file, its own database
connection, an RPC server) is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, cast

from volmgr import exception, joining
from volmgr.backups.store import BackupStore
from volmgr.backups.stores import DEFAULT
from volmgr.cluster import ClusterLocks, Timer
from volmgr.crypto import Cipher
from volmgr.db.admission import Settings
from volmgr.db.image_cache import CacheSettings
from volmgr.drivers.sim import Faults, SimDriver
from volmgr.images.access import Images
from volmgr.joining import Fence
from volmgr.locks import KeyedLocks
from volmgr.manager import VolumeManager
from volmgr.reconcile.world import Process
from volmgr.service import Worker
from volmgr.targets.fake import FakeTarget
from volmgr.testing.simulation.database import SimDatabase
from volmgr.testing.simulation.scheduler import Life, Lock, Pools, Scheduler, VirtualClock
from volmgr.types import ExportSpec, Grant

#: lanes and their threads: few, so that requests meet full pools.
LANES = {"control": 3, "bulk": 2, "observe": 1}
#: tasks that a worker keeps for as long as it lives; the world is at rest while they wait.
BACKGROUND = ("pump", "audit", "lease", "members")


class SimFaults(Faults):
    """Every step of every driver verb is a yield point."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(VirtualClock(scheduler))
        self._scheduler = scheduler

    @property
    def armed(self) -> bool:
        return True

    def reach(self, verb: str, when: str, resource_id: str) -> None:
        self._scheduler.reach(f"driver:{verb}/{when}")


class SimTarget(FakeTarget):
    """A target that outlives its workers, as tgtd does; a sync is a yield point before and behind."""

    scheduler: Scheduler | None = None

    def sync(self, spec: ExportSpec) -> bool:
        if self.scheduler is not None:
            self.scheduler.reach("target:sync/before")
        changed = super().sync(spec)
        if self.scheduler is not None:
            self.scheduler.reach("target:sync/after")
        return changed

    @staticmethod
    def connector_of(host: str) -> dict[str, Any]:
        """Return the connector of a host, by its name of one letter."""
        return {"initiator": f"iqn.1993-08.org.debian:01:{host}", "ip": "127.0.0.1", "host": host}


class SimPorts(SimTarget):
    """A target whose exports share two ports, as Fibre Channel's do: initiators tell them apart by the number alone."""

    protocol: ClassVar[str] = "fibre_channel"
    ports = ("2000000000000001", "2000000000000002")

    def validate_connector(self, connector: dict[str, Any]) -> None:
        """Check that the connector has a port's name."""
        if not connector.get("wwpns"):
            raise exception.InvalidConnector(missing="wwpns")

    def admit(self, initiator: str) -> None:
        """Do nothing: whoever logs in is known."""

    def _peers(self, grant: Grant) -> tuple[str, ...]:
        return grant.wwpns

    @staticmethod
    def connector_of(host: str) -> dict[str, Any]:
        """Return the connector of a host with two ports of its own."""
        names = [f"21000000000{number}00{ord(host):02x}" for number in range(2)]
        return {"wwpns": names, "wwnns": names, "ip": "127.0.0.1", "host": host}


class SimShelves(SimTarget):
    """A target whose exports each have an address, as those over ATA over Ethernet have."""

    protocol: ClassVar[str] = "aoe"
    shows_ungranted: ClassVar[bool] = False

    def sync(self, spec: ExportSpec) -> bool:
        """Keep ``spec`` while somebody is let in; nothing runs for it otherwise."""
        return super().sync(dataclasses.replace(spec, wanted=spec.wanted and bool(spec.grants)))

    def validate_connector(self, connector: dict[str, Any]) -> None:
        """Check that the connector has an Ethernet address."""
        if not connector.get("aoe_macs"):
            raise exception.InvalidConnector(missing="aoe_macs")

    def _peers(self, grant: Grant) -> tuple[str, ...]:
        return grant.macs

    @staticmethod
    def connector_of(host: str) -> dict[str, Any]:
        """Return the connector of a host with one interface."""
        return {"aoe_macs": [f"02:00:00:00:00:{ord(host):02x}"], "ip": "127.0.0.1", "host": host}


#: by the transport of a plan.
TARGETS: dict[str, type[SimTarget]] = {"iscsi": SimTarget, "fibre_channel": SimPorts, "aoe": SimShelves}


class SimWorker(Worker):
    """One life of the worker.

    :param life: the threads of it. :param scheduler: who lets them take turns.
    :param retention: seconds that what was deleted can be brought back.
    :param audits: whether it compares SQL, storage and target in the background. :param backups: where backups go.
    :param images: where images are. :param caching: whether it keeps them.
    """

    def __init__(
        self,
        conf: Any,
        options: Any,
        *,
        scheduler: Scheduler,
        life: Life,
        database: SimDatabase,
        cipher: Cipher,
        driver: Any,
        retention: int = 0,
        audits: bool = False,
        backups: BackupStore | None = None,
        images: Images | None = None,
        caching: bool = False,
    ) -> None:
        super().__init__(
            conf,
            options,
            driver=driver,
            clock=VirtualClock(scheduler),
            executor=Pools(scheduler, life, LANES),
            killpoint=lambda name: scheduler.reach(f"step:{name}"),
        )
        self.scheduler = scheduler
        self.life = life
        self.database = database
        self.cipher = cipher
        self._retention = retention
        self._audits = audits
        self._backups = backups
        self._images = images
        #: in a cluster: what ends this life with its lease, and what makes sure that another one has ended.
        self.timer: Timer | None = None
        self.fence: Fence | None = None
        self._caching = CacheSettings("volmgr-images", max_count=1) if caching else None

    def _settings(self) -> Settings:
        return dataclasses.replace(
            super()._settings(), trash_retention=self._retention, image_cache=self._caching
        )

    def open(self) -> None:
        """Put the worker together on what is given."""
        self.target = self.driver.target_driver
        self.membership = joining.membership(self, timer=self.timer, fence=self.fence)
        self.assemble()

    def assemble(self) -> None:
        super().assemble()
        if self._backups is not None:
            self.dispatcher.backend.stores.add(DEFAULT, self._backups)
        if self._images is not None:
            self.images = self.dispatcher.backend.images = self._images
        near = KeyedLocks(lambda: Lock(self.scheduler))
        self.exports.locks = near if self.membership is None else ClusterLocks(self.membership, near)
        if self.membership is not None:
            self.exports.own.locks = self.exports.locks
        self.auditor._one = cast(Any, Lock(self.scheduler))

    def begin(self) -> None:
        """Start as the daemon does, without an RPC server; requests are served at once."""
        self.open()
        joining.join(self)
        self.init_host()
        self.manager = VolumeManager(worker=self)
        self.spawn(self.init_host_with_rpc, "recovery")

    def _reconcile(self) -> None:
        if self._audits and (thread := self.scheduler.current) is not None:
            thread.background = True
            super()._reconcile()

    def _left_over(self) -> list[Process]:
        return []

    def spawn(self, work: Callable[[], None], name: str) -> None:
        self.scheduler.spawn(self.life, f"{self.life.name}/{name}", work, background=name in BACKGROUND)


def make_driver(
    cls: type[SimDriver], configuration: Any, host: str, target: FakeTarget, store: Any, scheduler: Scheduler,
    **options: Any,
) -> SimDriver:
    """Return the simulator over ``store``, with the schedule's yield points.

    :param options: more of the driver's arguments.
    """
    driver = cls(
        configuration=configuration, host=host, target=target, store=store, clock=VirtualClock(scheduler), **options
    )
    driver.faults = SimFaults(scheduler)
    return driver


# SPDX-License-Identifier: Apache-2.0
"""Two workers with a store each and one database, for tests of what goes from one to the other."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from volmgr import exception
from volmgr.db import models, services
from volmgr.db import types as volume_types
from volmgr.db.engine import utcnow
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import SimDriver
from volmgr.initiator.writing import Initiators
from volmgr.operations import volumes
from volmgr.replicas import Replicas
from volmgr.testing.chaos.points import normal
from volmgr.testing.initiator import REACHED, SESSIONS, FolderInitiator
from volmgr.testing.invariants import violations
from volmgr.testing.rig import PREFIX, Rig
from volmgr.types import MiB

#: how often a run lets the time pass that operations wait.
ROUNDS = 8
ONE, TWO = "node@one", "node@two"


def new_id() -> str:
    return str(uuid.uuid4())


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


class Sessions(FolderInitiator):
    """Attaches only what the other worker's target serves to this host, to whoever knows the password."""

    site: Any
    point: Callable[[str], None]

    def reach(self, moment: str) -> None:
        self.point(f"initiator/-/{moment}")

    def attached(self, info: Any) -> Any:
        data = info["data"]
        served = [rig.target.exports.get(data["target_iqn"]) for rig in (self.site.one, self.site.two)]
        (spec,) = [item for item in served if item is not None]
        assert spec.serial == data["serial"] and not spec.read_only
        assert [grant.initiator for grant in spec.grants] == [self.properties()["initiator"]]
        assert (spec.auth.username, spec.auth.password.reveal()) == (data["auth_username"], data["auth_password"])
        if self.site.broken:
            self._session(info).parent.mkdir(exist_ok=True)
            self._session(info).touch()
            raise exception.BackendDown("the disk did not appear, and the session stays")
        return super().attached(info)


class Site:
    """Workers ``one`` and ``two``; either can die at a point and live again.

    :param shared: both over one store, so that the driver moves volumes by itself.
    :param second: the name of worker ``two``.
    """

    def __init__(self, folder: Path, *, shared: bool = False, second: str = TWO, **settings: Any) -> None:
        self.folder, self.shared, self.settings = folder, shared, settings
        self.hosts = (ONE, second)
        (folder / REACHED).write_text(f"{folder}/one/sim\n{folder}/two/sim\n")
        self.passed: list[str] = []
        #: (worker, point, how often it is still passed before the worker dies there).
        self.aims: list[list[Any]] = []
        self.deaths = 0
        #: whether attaching what the other exports fails half way.
        self.broken = False
        #: what was wrong at a point that was passed, see :meth:`look`.
        self.doubtful: list[str] = []
        (folder / "one").mkdir()
        self.one = self._rig(ONE)
        (folder / "two").mkdir()
        shutil.copy(folder / "one" / "keys.json", folder / "two")
        if shared:
            (folder / "two" / "sim").symlink_to(folder / "one" / "sim")
        self.two = self._rig(second, self.one.database)
        self.report()

    def _rig(self, host: str, database: Any = None) -> Rig:
        def point(name: str) -> None:
            name = normal(name)
            self.passed.append(f"{host} {name}")
            self.look(f"{host} {name}")
            for aim in self.aims:
                if aim[0] == host and aim[1] == name:
                    aim[2] -= 1
                    if aim[2] == 0:
                        raise Killed(name)

        name = host.partition("@")[2]
        folder = self.folder / name

        def driver(host: str, target: Any) -> SimDriver:
            options = Configuration({"sim_store_path": str(folder / "sim"), "volume_backend_name": "pool"})
            active = Replicas(self.one.database, None, host).active_backend_id if hasattr(self, "one") else None
            return SimDriver(configuration=options, host=host, target=target, active_backend_id=active)

        machine = host.partition("@")[0]
        way = Sessions(host=machine, ip="127.0.0.1", state_path=str(self.folder), prefix=PREFIX)
        way.site, way.point = self, point
        initiators = Initiators("sessions")
        initiators.known["sessions"] = way
        return Rig(
            folder, host=host, database=database, killpoint=point, make_driver=driver, initiators=initiators,
            **self.settings,
        )

    def report(self, **more: dict[str, Any]) -> None:
        """Let both measure, with ``more`` capabilities by worker, and everybody know of it."""
        self.told = more
        for rig in (self.one, self.two):
            stats = rig.driver.get_volume_stats(refresh=True)
            stats["pools"] = [{**stats["pools"][0], **more.get(rig.settings.host.partition("@")[2], {})}]
            state = {"topic": "volume", "rpc_version": "1.0", "incarnation": "i", "availability_zone": "nova"}
            with self.one.database.writer() as conn:
                services.register(conn, rig.settings.host, capabilities=stats, **state)
            rig.placement.measured(stats)
        for rig in (self.one, self.two):
            rig.placement.refresh()

    def look(self, point: str) -> None:
        """Note if a volume has two current objects at this moment, or is not the one that it has."""
        if not hasattr(self, "one"):
            return
        table, volumes_ = models.objects, models.volumes
        current = (table.c.resource_id == volumes_.c.id) & (table.c.role == "current")
        query = sa.select(volumes_.c.id, volumes_.c.object_id, table.c.id.label("current")).select_from(
            volumes_.join(table, current)
        )
        with self.one.database.reader() as conn:
            self.doubtful += [
                f"at {point} volume {row.id} is the object {row.object_id}, and {row.current} is current"
                for row in conn.execute(query) if row.object_id not in (None, row.current)
            ]

    def aim(self, host: str, point: str, nth: int = 1) -> None:
        self.aims.append([host, point, nth])

    def run(self) -> None:
        """Run until nothing can be run any more, or only waits for somebody else; who dies lives again."""
        busy, rounds = True, 0
        while busy:
            busy = False
            for host in self.hosts:
                rig = self.rig(host)
                try:
                    busy |= bool(rig.stepwise.run() or rig.dispatcher.pump())
                except Killed:
                    self.deaths += 1
                    self.revive(host)
                    busy = True
            if not busy and rounds < ROUNDS:
                busy, rounds = self.hurry(), rounds + 1

    def hurry(self) -> bool:
        """Let the time pass that operations wait for another worker at most; returns whether any did."""
        table = models.operations
        waits = (table.c.state == "parked") & table.c.parked_for.in_(("worker", "backend"))
        with self.one.database.writer() as conn:
            return bool(conn.execute(table.update().where(waits, table.c.not_before > utcnow()).values(
                not_before=utcnow()
            )).rowcount)

    def revive(self, host: str) -> None:
        """Begin the next life of a worker on what the last one left."""
        rig = self._rig(host, self.one.database)
        rig.placement.measured(rig.driver.get_volume_stats(refresh=True))
        rig.placement.refresh()
        setattr(self, host.partition("@")[2], rig)
        rig.exports.rebuild()  # as every start does
        rig.dispatcher.recover()

    def rig(self, host: str) -> Rig:
        found: Rig = self.one if host == ONE else self.two
        return found

    def do(self, cls: Any, on: str = ONE, **arguments: Any) -> Any:
        """Ask a worker and let both work; returns the operation."""
        answer = self.rig(on).submit(cls, **arguments)
        self.run()
        return self.rig(on).dispatcher.get(answer["operation_id"])

    def create(self, size: int = 1, **values: Any) -> str:
        self.report(**self.told)  # a slow machine must not make a worker look dead
        volume_id = new_id()
        self.do(volumes.CreateVolume, volume_id=volume_id, size=size, host=ONE, **values)
        return volume_id

    def write(self, volume_id: str, text: bytes = b"the tenant's bytes") -> None:
        """Write at several places, far from each other."""
        row = self.volume(volume_id)
        rig = self.rig(row["host"].partition("#")[0])
        name = f"volume-{row['object_id']}"
        for offset in (0, 5 * MiB + 123, row["size"] * 1024 * MiB - len(text)):
            rig.driver.store.write(name, offset, text)

    def read(self, volume_id: str, text: bytes = b"the tenant's bytes") -> bool:
        """Return whether the volume has, where it is now, what :meth:`write` wrote, and zeros beside it."""
        row = self.volume(volume_id)
        rig = self.rig(row["host"].partition("#")[0])
        name = f"volume-{row['object_id']}"
        places = (0, 5 * MiB + 123, row["size"] * 1024 * MiB - len(text))
        there = all(rig.driver.store.read(name, offset, len(text)) == text for offset in places)
        return there and not any(rig.driver.store.read(name, MiB, MiB))

    def volume(self, volume_id: str) -> dict[str, Any]:
        (row,) = self.one.rows(models.volumes, id=volume_id)
        return row

    def serial(self, volume_id: str) -> str:
        (row,) = self.one.rows(models.objects, id=self.volume(volume_id)["object_id"])
        return str(row["serial"])

    def kind(self, name: str, **extra_specs: str) -> str:
        """Make a volume type; returns its id."""
        type_id = new_id()
        specs = {key.replace("__", ":"): value for key, value in extra_specs.items()}
        with self.one.database.writer() as conn:
            volume_types.create(conn, type_id, name, now=utcnow(), extra_specs=specs)
        return type_id

    def usage(self, type_id: str = "", project: str = "p") -> tuple[int, int, int]:
        rows = self.one.rows(models.quotas, project_id=project, volume_type_id=type_id)
        return (rows[0]["volumes"], rows[0]["snapshots"], rows[0]["gigabytes"]) if rows else (0, 0, 0)

    def wrong(self) -> list[str]:
        """Return what is wrong once nothing runs, in SQL and in both stores."""
        rigs = [self.one] if self.shared else [self.one, self.two]
        seen = [item for rig in rigs for item in rig.driver.observe()]
        found = violations(self.one.database, storage=seen) + self.doubtful
        for rig in (self.one, self.two):
            mine = {item.object_id for item in rig.driver.observe()}
            if not self.shared:
                rows = {row["id"] for row in self.one.rows(models.objects)
                        if str(row["host"]).startswith(rig.settings.host)}
                found += [f"{item} is on {rig.settings.host} and should not be" for item in sorted(mine - rows)]
        exports = {name for rig in (self.one, self.two) for name in rig.target.present()}
        wanted = {row["target_name"] for row in self.one.rows(models.exports)}
        sessions = self.folder / SESSIONS
        found += [f"session {item.name} is left" for item in (sessions.iterdir() if sessions.exists() else ())]
        return found + [f"target {name} is left" for name in sorted(exports - wanted)]


def points_of(site: Site, since: int, keep: Callable[[str], bool] = lambda _name: True) -> list[tuple[str, str, int]]:
    """Return (worker, point, which time) of every point that was passed since."""
    seen: dict[str, int] = {}
    found = []
    for line in site.passed[since:]:
        seen[line] = seen.get(line, 0) + 1
        host, _, point = line.partition(" ")
        if keep(point):
            found.append((host, point, seen[line]))
    return found

# SPDX-License-Identifier: Apache-2.0
"""A worker's inside in one process: real SQLite, real journal, the simulator driver; no RPC and no daemon.

For tests of operations, and for whoever writes one. A second rig on the same folder is the next life of the worker: it
finds what the first one left.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volmgr import crypto, types
from volmgr.backups.stores import DEFAULT, Stores
from volmgr.context import RequestContext
from volmgr.db import schema
from volmgr.db import types as volume_types
from volmgr.db.admission import Settings
from volmgr.db.engine import Database
from volmgr.dispatch import Dispatcher
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import SimDriver
from volmgr.exports import Exports
from volmgr.images.access import Images
from volmgr.images.directory import DirectoryStore
from volmgr.images.staging import Staging
from volmgr.images.stores import Stores as ImageStores
from volmgr.images.transfer import Tools
from volmgr.operations.attachments import Attachments
from volmgr.operations.base import Operation
from volmgr.placement import Placement
from volmgr.runtime import Executor, SystemClock
from volmgr.targets.base import Target, TargetConfig
from volmgr.targets.fake import FakeTarget
from volmgr.tasks import Backend
from volmgr.testing.backups import MemoryStore
from volmgr.tools.qemu_img import QemuImg

HOST = "host@sim"
FOREVER = float("inf")
PREFIX = "iqn.2010-10.org.openstack:"


class Stepwise:
    """An executor that runs work only when told to, in the order in which it came."""

    def __init__(self) -> None:
        self.work: deque[Callable[[], None]] = deque()

    def submit(self, lane: str, work: Callable[[], None]) -> None:
        self.work.append(work)

    def shutdown(self, timeout: float) -> bool:
        self.work.clear()
        return True

    def run(self) -> int:
        """Run what is there, and what that brings; returns how many pieces of work ran."""
        count = 0
        while self.work:
            self.work.popleft()()
            count += 1
        return count


class Rig:
    """See the module.

    :param folder: where the database, the key file and the simulator's objects are.
    :param host: the worker's name; several rigs on one database are several workers.
    :param make_driver: makes another driver than the simulator, given the worker's name and the target.
    :param stores: where backups go, for a rig that finds what another one left.
    :param initiators: how it attaches what workers of other hosts export; see :mod:`volmgr.initiator.writing`.
    :param settings: what differs from the defaults of :class:`volmgr.db.admission.Settings`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        database: Database | None = None,
        executor: Executor | None = None,
        killpoint: Callable[[str], None] | None = None,
        target: Target | None = None,
        make_driver: Callable[[str, Target], Any] | None = None,
        host: str = HOST,
        stores: Stores | None = None,
        initiators: Any = None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.stepwise = Stepwise()
        self.clock = SystemClock()
        self.database = database or Database(f"sqlite:///{folder}/volmgr.sqlite")
        schema.prepare(self.database, embedded=True)
        self.cipher = crypto.Cipher.open(str(folder / "keys.json"), self.database)
        self.target = target or FakeTarget(TargetConfig(PREFIX, (types.Portal("127.0.0.1", 3260),), str(folder)))
        self.target.start()
        self.driver: Any = (make_driver or self._simulator)(host, self.target)
        self.settings = Settings(host=host, **{"pool": "pool", "quota": NO_LIMITS, **settings})
        self.types = volume_types.Cache(self.database)
        self.placement = Placement(self.database, host, self.settings.zone, self.clock, max_age=FOREVER)
        self.placement.measured(self.driver.get_volume_stats())
        #: where backups go: memory, unless told otherwise.
        self.stores = stores or Stores({})
        if stores is None:
            self.stores.add(DEFAULT, MemoryStore())
        image_stores = ImageStores({"local": DirectoryStore("local", str(folder / "images"))}, "local")
        self.images = Images(image_stores, Tools(Staging(str(folder / "staging")), QemuImg()))
        #: the other workers that were woken.
        self.rung: list[str] = []
        self.exports = Exports(
            self.database,
            self.driver,
            self.target,
            settings=self.settings,
            cipher=self.cipher,
            clock=self.clock,
            volume_types=self.types.get,
            killpoint=killpoint,
        )
        self.dispatcher = Dispatcher(
            self.database,
            Backend(
                self.driver,
                self.exports,
                self.settings,
                self.cipher,
                self.types.get,
                self.types.find,
                self.placement,
                self.rung.append,
                stores=self.stores,
                images=self.images,
                initiators=initiators,
            ),
            executor=executor or self.stepwise,
            clock=self.clock,
            incarnation=str(uuid.uuid4()),
            killpoint=killpoint,
        )
        self.attachments = Attachments(self.database, self.exports, self.clock)
        self.context = RequestContext(project_id="p", user_id="u", is_admin=True, overwrite=False)

    def _simulator(self, host: str, target: Target) -> SimDriver:
        options = Configuration({"sim_store_path": str(self.folder / "sim"), "volume_backend_name": "pool"})
        return SimDriver(configuration=options, host=host, target=target)

    def submit(self, cls: type[Operation[Any]], *, key: str | None = None, **arguments: Any) -> dict[str, Any]:
        """Admit a request as a client of its own; it runs with :meth:`run`."""
        context = RequestContext(
            project_id="p", user_id="u", is_admin=True, request_key=key or str(uuid.uuid4()), overwrite=False
        )
        return self.dispatcher.submit(context, cls, cls.args.parse(arguments))

    def run(self) -> None:
        """Run until nothing is left that could be run now."""
        while self.stepwise.run() or self.dispatcher.pump():
            pass

    def do(
        self, cls: type[Operation[Any]], *, key: str | None = None, **arguments: Any
    ) -> types.OperationRecord | None:
        """Admit and run a request; returns its journal row, or None where there was nothing to do."""
        answer = self.submit(cls, key=key, **arguments)
        self.run()
        return self.dispatcher.get(answer["operation_id"]) if answer["operation_id"] else None

    def rows(self, table: Any, **where: Any) -> list[dict[str, Any]]:
        """Return rows of a table as dictionaries."""
        with self.database.reader() as conn:
            found = conn.execute(table.select().filter_by(**where))
            return [dict(row._mapping) for row in found]

    def close(self) -> None:
        """Let go of the database; nothing is told to the rows."""
        self.database.close()


NO_LIMITS = {"volumes": -1, "snapshots": -1, "gigabytes": -1}

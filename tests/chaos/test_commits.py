# SPDX-License-Identifier: Apache-2.0
"""The connection to the database is lost at the COMMIT that follows each kill point, with and without its arriving.

The journal says what became of it: nothing is guessed, nothing is done twice, nothing that was swapped is taken back.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from volmgr import states
from volmgr.db import models, schema
from volmgr.db.engine import CommitUnknown, Database
from volmgr.operations import snapshots, volumes
from volmgr.operations.base import Operation
from volmgr.testing.chaos.points import normal
from volmgr.testing.chaos.stage import counted
from volmgr.testing.cutting_proxy import CuttingProxy
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig
from volmgr.testing.servers import MariaDBServer, PostgreSQLServer

pytest_plugins = ("volmgr.testing.servers.pytest_fixtures",)

pytestmark = pytest.mark.timeout(600)

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:chaos", "ip": "127.0.0.1", "host": "compute"}
OTHER = {**CONNECTOR, "initiator": "iqn.1993-08.org.debian:01:other"}
#: stands for the moment before the request is sent.
BEGIN = "begin"


class Story:
    """Makes a volume with a snapshot, connected, and then does one thing; every commit of that may be lost."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.volume, self.snapshot, self.copy = (str(uuid.uuid4()) for _ in range(3))

    def prepare(self) -> None:
        self.rig.do(volumes.CreateVolume, volume_id=self.volume, size=1)
        self.rig.do(snapshots.CreateSnapshot, volume_id=self.volume, snapshot_id=self.snapshot)
        self.connect(CONNECTOR)

    def do(self, cls: type[Operation[Any]], **arguments: Any) -> None:
        key = str(uuid.uuid4())
        answer = None
        while answer is None:
            try:
                answer = self.rig.submit(cls, key=key, **arguments)
            except CommitUnknown:
                pytest.fail("a request was answered with a commit of unknown outcome")
            except Exception as error:
                assert "Send it again" in str(error), error  # looked up, and found not to have been admitted
        self.finish()
        record = self.rig.dispatcher.get(answer["operation_id"])
        assert (record.state, record.error) == ("done", None)

    def finish(self) -> None:
        for _ in range(10):
            with contextlib.suppress(CommitUnknown):  # the daemon's loop looks again as well
                self.rig.run()
            if not any(row["state"] in states.UNFINISHED for row in self.rig.rows(models.operations)):
                return
        pytest.fail("it does not come to an end")

    def create(self) -> None:
        self.do(volumes.CreateVolume, volume_id=self.copy, source_volid=self.volume)

    def extend(self) -> None:
        self.do(volumes.ExtendVolume, volume_id=self.volume, new_size=3)

    def revert(self) -> None:
        self.do(snapshots.RevertToSnapshot, volume_id=self.volume, snapshot_id=self.snapshot)

    def delete(self) -> None:
        self.disconnect()
        self.do(volumes.DeleteVolume, volume_id=self.volume, cascade=True)

    def connect(self, connector: dict[str, str] = OTHER) -> None:
        self.rig.attachments.initialize("volume", self.volume, connector)

    def disconnect(self) -> None:
        self.rig.attachments.terminate("volume", self.volume, CONNECTOR, False)


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> PostgreSQLServer | MariaDBServer:
    made: PostgreSQLServer | MariaDBServer = request.getfixturevalue(f"{request.param}_server")
    return made


@pytest.fixture
def through(server: PostgreSQLServer | MariaDBServer) -> Iterator[tuple[Database, CuttingProxy]]:
    """A database with the schema, by way of a proxy that can lose a COMMIT."""
    url = sa.make_url(server.create_database(f"commits_{uuid.uuid4().hex[:12]}"))
    direct = Database(url.render_as_string(hide_password=False))
    schema.upgrade(direct)
    direct.close()
    assert url.port is not None
    proxy = CuttingProxy(url.port, deliver=False)
    database = Database(url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False), pool_size=4)
    yield database, proxy
    database.close()
    proxy.close()


@pytest.mark.parametrize("verb", ["create", "extend", "revert", "delete", "connect", "disconnect"])
def test_a_commit_is_lost_after_each_point(
    through: tuple[Database, CuttingProxy], tmp_path: Path, verb: str
) -> None:
    database, proxy = through
    hooks: list[Callable[[str], None]] = [lambda _name: None]
    rig = Rig(tmp_path, database=database, killpoint=lambda name: hooks[-1](name), trash_retention=0, grows_in_use=True)
    passed: list[str] = []
    hooks.append(passed.append)
    recorded = Story(rig)
    recorded.prepare()
    passed.clear()
    getattr(recorded, verb)()
    points, expected = [(BEGIN, 1), *counted([normal(point) for point in passed])], _shape(recorded)
    for point, count in points:
        for deliver in (False, True):
            story = Story(rig)
            story.prepare()
            hooks.append(_aim(proxy, point, count, deliver))
            hooks[-1](BEGIN)
            getattr(story, verb)()
            hooks.append(lambda _name: None)
            proxy.cut_at = None
            assert _shape(story) == expected, (verb, point, count, "arrived" if deliver else "lost")
    assert violations(database, rig.driver) == []
    assert proxy.cuts >= 2


def _aim(proxy: CuttingProxy, point: str, count: int, deliver: bool) -> Callable[[str], None]:
    left = [count]

    def hook(name: str) -> None:
        if normal(name) == point:
            left[0] -= 1
            if not left[0]:
                proxy.deliver, proxy.cut_at = deliver, b"COMMIT"

    return hook


def _shape(story: Story) -> dict[str, Any]:
    """Return what is there of a story, without ids."""
    ids = (story.volume, story.snapshot, story.copy)
    rig = story.rig
    of = {name: [row for row in rig.rows(table)] for name, table in models.metadata.tables.items() if name in TABLES}
    own = {*ids, *(row["id"] for row in of["objects"] if row["resource_id"] in ids)}
    found: dict[str, Any] = {
        "volumes": sorted((row["status"], row["size"]) for row in of["volumes"] if row["id"] in ids),
        "snapshots": sorted((row["status"], row["volume_size"]) for row in of["snapshots"] if row["id"] in ids),
        "objects": sorted((row["kind"], row["role"]) for row in of["objects"] if row["resource_id"] in ids),
        "grants": sum(row["resource_id"] in ids for row in of["grants"]),
        "exports": sum(row["resource_id"] in ids for row in of["exports"]),
        "operations": sorted((row["verb"], row["state"]) for row in of["operations"] if row["resource_id"] in ids),
        "storage": sorted(
            (item.kind, item.state, item.size_bytes) for item in rig.driver.observe() if item.object_id in own
        ),
        "target": sorted(
            len(item.initiators) for item in rig.target.observe() if any(name in item.target_name for name in ids)
        ),
    }
    return found


TABLES = ("volumes", "snapshots", "objects", "grants", "exports", "operations")

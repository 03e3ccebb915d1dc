# SPDX-License-Identifier: Apache-2.0
"""The database goes under the daemon's feet: connections cut at COMMIT, the server killed and started again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import sqlalchemy as sa

from volmgr.db import schema
from volmgr.db.engine import Database
from volmgr.testing.chaos.raids import Raiders
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.cutting_proxy import CuttingProxy
from volmgr.testing.servers import MariaDBServer, PostgreSQLServer
from volmgr.testing.waiting import wait_until

pytest_plugins = ("volmgr.testing.servers.pytest_fixtures",)

pytestmark = pytest.mark.timeout(600)

CUTS, RESTARTS, REQUESTS = 12, 2, 15


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> PostgreSQLServer | MariaDBServer:
    made: PostgreSQLServer | MariaDBServer = request.getfixturevalue(f"{request.param}_server")
    return made


@pytest.fixture
def url(server: PostgreSQLServer | MariaDBServer, request: pytest.FixtureRequest) -> str:
    """A database with the schema, and its URL."""
    name = f"chaos_{request.node.name.partition('[')[0]}"[:40]
    made = server.create_database(name)
    database = Database(made)
    schema.upgrade(database)
    database.close()
    return made


def _has_cut(proxy: CuttingProxy, count: int) -> bool:
    return proxy.cuts == count


def by_way_of(url: str, port: int) -> str:
    return sa.make_url(url).set(host="127.0.0.1", port=port).render_as_string(hide_password=False)


def test_connections_cut_at_commit_lose_nothing(make_stage: Callable[..., Stage], url: str) -> None:
    """Half of the commits arrive and half do not: the journal tells, nobody guesses."""
    port = sa.make_url(url).port
    assert port is not None
    proxy = CuttingProxy(port, deliver=False)
    stage = make_stage(database=by_way_of(url, proxy.port)).start()
    raiders = Raiders(stage, 1, by_target=False)
    with raiders.working():
        for number in range(CUTS):
            proxy.deliver = number % 2 == 0
            proxy.cut_at = b"COMMIT"
            wait_until(partial(_has_cut, proxy, number + 1), 30, "a connection is cut")
            raiders.work(3)
    assert raiders.look() == []
    assert raiders.close().violations == []
    assert stage.daemon.process is not None and stage.daemon.process.poll() is None
    stage.daemon.stop()
    proxy.close()


def test_the_server_dies_and_comes_back(
    make_stage: Callable[..., Stage], url: str, server: PostgreSQLServer | MariaDBServer
) -> None:
    stage = make_stage(database=url).start()
    raiders = Raiders(stage, 2, by_target=False)
    pid = stage.daemon.pid
    for number in range(RESTARTS):
        with raiders.working():
            raiders.work(REQUESTS)
            server.kill()
            if number % 2:
                stage.daemon.kill()
            server.start()
            if number % 2:
                stage.start()
            raiders.work(REQUESTS)
        assert raiders.look() == []
        if not number:
            assert stage.daemon.pid == pid
    assert raiders.close().violations == []
    stage.daemon.stop()

# SPDX-License-Identifier: Apache-2.0
"""Three daemons of a cluster, each in a network namespace: one is cut off from the database, then one from the broker.

All three are in the middle of making volumes when it happens. The links lose what is sent without a word, and are
mended afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from volmgr.db import models
from volmgr.testing.netns import NetworkNamespace
from volmgr.testing.rack import PATIENCE, QUORUM, Rack, new_ids
from volmgr.testing.servers import PostgreSQLServer, RabbitMQServer
from volmgr.testing.servers.pytest_fixtures import unavailable
from volmgr.testing.waiting import wait_until

pytest_plugins = ("volmgr.testing.servers.pytest_fixtures",)
pytestmark = [pytest.mark.extended, pytest.mark.timeout(1800)]

NAMES = ("one", "two", "three")
DATABASE, BROKER = "database", "broker"
#: "one" is the one that loses it; no machine is so busy that the others do.
LEASE, LONG, GRACE = 12.0, 300.0, 2.0
#: seconds after which a connection to the broker that says nothing is given up, by either end.
HEARTBEAT = 10


class Fleet:
    """The daemons and the namespaces that they are in."""

    def __init__(self, folder: Path, spaces: dict[str, NetworkNamespace], database: str, broker: str) -> None:
        self.spaces = spaces
        self.rack = Rack(
            folder,
            NAMES,
            database=database,
            broker=broker,
            lease=LONG,
            leases={"one": LEASE},
            grace=GRACE,
            ways={name: (_by(space, DATABASE, database), _by(space, BROKER, broker)) for name, space in spaces.items()},
            under={name: space.under for name, space in spaces.items()},
            sections={
                "oslo_messaging_rabbit": {
                    **QUORUM,
                    "heartbeat_timeout_threshold": HEARTBEAT,
                    "kombu_reconnect_delay": 0.5,
                }
            },
        )
        # A request that was sent to one that is cut off comes back when the broker gives that connection up.
        self.rack.client.api.timeout = PATIENCE

    def in_the_middle(self, count: int) -> dict[str, str]:
        """Have volumes made that all daemons are in the middle of; returns the operation of each."""
        ids = new_ids(count)
        self.rack.hang(ids)
        operations = self.rack.create(ids)
        wait_until(lambda: self.rack.reached() >= set(ids), PATIENCE, "the driver is at each of them")
        assert set(self.rack.owners(operations.values()).values()) == set(NAMES)
        return operations

    def create_at(self, name: str, volume_id: str) -> str:
        """Ask one daemon for a volume; returns the operation."""
        host = self.rack.daemons[name].host
        with self.rack.new_client() as client:
            caller = client.api._client.prepare(server=host, timeout=PATIENCE)
            context = client.context.to_dict() | {"request_key": volume_id}
            answer = caller.call(context, "create_volume", volume_id=volume_id, size=1)
        return str(answer["operation_id"])

    def waits_for_a_lock(self) -> bool:
        """Return whether a session of the database waits for another one."""
        with self.rack.database.reader() as conn:
            return bool(conn.execute(sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())

    def is_whole(self, ids: list[str]) -> None:
        """Check that each volume was made once and that all fits together."""
        assert self.rack.settle() == []
        assert self.rack.answers(ids) == {item: ["done"] for item in ids}


def _by(space: NetworkNamespace, link: str, url: str) -> str:
    host, port = space.address(link)
    parts = urlsplit(url)
    credentials = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{credentials}@{host}:{port}").geturl()


@pytest.fixture
def fleet(tmp_path: Path, postgresql_server: PostgreSQLServer, rabbitmq_server: RabbitMQServer) -> Iterator[Fleet]:
    if os.geteuid() != 0:
        unavailable("network namespaces are made by root")
    database, broker = postgresql_server.create_database("partitions"), rabbitmq_server.url
    ports = {DATABASE: sa.make_url(database).port or 0, BROKER: urlsplit(broker).port or 0}
    with contextlib.ExitStack() as stack:
        spaces = {name: stack.enter_context(NetworkNamespace(ports)) for name in NAMES}
        made = Fleet(tmp_path, spaces, database, broker)
        stack.callback(made.rack.close)
        made.rack.start()
        yield made


def test_one_is_cut_off_from_the_database(fleet: Fleet) -> None:
    rack = fleet.rack
    operations = fleet.in_the_middle(12)
    fleet.spaces["one"].cut(DATABASE)
    rack.release()  # it may go on with its storage, and nobody hears of it
    ids = new_ids(6)
    operations |= rack.create(ids)
    process = rack.daemons["one"].pid
    assert rack.ended("one") == -signal.SIGKILL
    rack.await_done(operations.values())
    for name in ("two", "three"):
        log = rack.daemons[name].log.read_text(errors="replace")
        assert f"Ending process {process} " not in log, "somebody else than the kernel has ended it"
    assert set(rack.owners(operations.values()).values()) == {"two", "three"}
    assert rack.members() == {"two", "three"}
    fleet.is_whole([*operations])

    fleet.spaces["one"].mend(DATABASE)
    rack.start()
    more = fleet.in_the_middle(12)
    rack.release()
    rack.await_done(more.values())
    fleet.is_whole([*operations, *more])


def test_a_transaction_that_is_cut_off_holds_nobody_up(fleet: Fleet) -> None:
    """It has the locks that every other creation needs, and its server cannot know that nobody will end it."""
    rack = fleet.rack
    (first, lost) = new_ids(2)
    rack.await_done(rack.create([first]).values())
    asking = threading.Thread(target=fleet.create_at, args=("one", lost))
    with rack.database.writer() as conn:
        conn.execute(sa.update(models.quotas).values(volumes=models.quotas.c.volumes))
        asking.start()
        wait_until(fleet.waits_for_a_lock, PATIENCE, "the transaction has come as far as the quota")
        fleet.spaces["one"].cut(DATABASE)
    ids = new_ids(4)
    made = {item: fleet.create_at(name, item) for item, name in zip(ids, ("two", "three") * 2, strict=True)}
    rack.await_done(made.values())
    assert rack.ended("one") == -signal.SIGKILL
    fleet.spaces["one"].mend(DATABASE)
    rack.start()
    asking.join(PATIENCE)
    assert not asking.is_alive()
    fleet.is_whole([first, lost, *ids])


def test_one_is_cut_off_from_the_broker(fleet: Fleet) -> None:
    rack = fleet.rack
    operations = fleet.in_the_middle(12)
    fleet.spaces["two"].cut(BROKER)
    assert not rack.serves("two")
    rack.release()
    rack.await_done(operations.values())
    # What it was at it has ended by itself: its lease is the database's affair.
    assert set(rack.owners(operations.values()).values()) == set(NAMES)
    ids = new_ids(6)
    later = rack.create(ids)
    rack.await_done(later.values())
    assert "two" not in rack.owners(later.values()).values()
    assert rack.members() == set(NAMES)
    fleet.is_whole([*operations, *later])

    fleet.spaces["two"].mend(BROKER)
    wait_until(lambda: rack.serves("two"), PATIENCE, "it serves again")
    more = fleet.in_the_middle(12)
    rack.release()
    rack.await_done(more.values())
    fleet.is_whole([*operations, *later, *more])

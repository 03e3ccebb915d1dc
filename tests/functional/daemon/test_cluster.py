# SPDX-License-Identifier: Apache-2.0
"""Two daemons that serve one backend together, on PostgreSQL and RabbitMQ: one ends what the other leaves undone.

What is waited for comes or does not; nothing is timed. Each test waits for the end of a lease, so the module runs once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from volmgr import exception
from volmgr.testing.database import empty_database_url
from volmgr.testing.rack import PATIENCE, Rack, new_ids
from volmgr.testing.servers import RabbitMQServer, ServerUnavailable
from volmgr.testing.servers.pytest_fixtures import unavailable
from volmgr.testing.waiting import wait_until

pytest_plugins = ("volmgr.testing.servers.pytest_fixtures",)
pytestmark = pytest.mark.once

#: the one that goes on has a lease that no loaded machine makes it lose.
LEASE, LONG, GRACE = 9.0, 120.0, 2.0
DONE = ["done"]


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory, rabbitmq_server: RabbitMQServer) -> Iterator[Rack]:
    try:
        url = empty_database_url("postgresql")
    except ServerUnavailable as error:
        unavailable(str(error))
    folder = tmp_path_factory.mktemp("rack")
    made = Rack(
        folder,
        ("one", "two"),
        database=url,
        broker=rabbitmq_server.url,
        lease=LEASE,
        leases={"two": LONG},
        grace=GRACE,
        # Members need not have the same kind of threads.
        environments={"one": {"VOLMGR_CONCURRENCY": "eventlet"}, "two": {"VOLMGR_CONCURRENCY": "threading"}},
    )
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def rack(daemons: Rack) -> Iterator[Rack]:
    """Both daemons, whatever became of them in another test; afterwards all fits together."""
    daemons.release()
    daemons.start()
    yield daemons
    assert daemons.settle() == []


def in_the_middle(rack: Rack, count: int) -> dict[str, str]:
    """Have volumes made that both daemons are in the middle of; returns the operation of each."""
    ids = new_ids(count)
    rack.hang(ids)
    operations = rack.create(ids)
    wait_until(lambda: rack.reached() >= set(ids), PATIENCE, "the driver is at each of them")
    assert set(rack.owners(operations.values()).values()) == set(rack.daemons)
    return operations


def test_what_a_killed_one_was_at_the_other_ends(rack: Rack) -> None:
    operations = in_the_middle(rack, 8)
    owners = rack.owners(operations.values())
    rack.daemons["one"].kill()
    rack.release()
    rack.await_done(operations.values())
    assert rack.members() == {"two"}
    assert set(rack.owners(operations.values()).values()) == {"two"}
    assert "one" in owners.values()
    assert rack.answers(operations) == dict.fromkeys(operations, DONE)
    # The messages that the dead one had not answered are the other one's, and so is whatever comes.
    ids = new_ids(4)
    rack.await_done(rack.create(ids).values())
    assert rack.answers(ids) == dict.fromkeys(ids, DONE)


def test_one_that_is_stopped_for_longer_than_its_lease_writes_nothing_more(rack: Rack) -> None:
    operations = in_the_middle(rack, 8)
    owners = rack.owners(operations.values())
    process = rack.daemons["one"].process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    rack.release()
    rack.await_done(operations.values())
    assert rack.members() == {"two"}
    assert set(rack.owners(operations.values()).values()) == {"two"}
    # Its storage goes, and its name with it: a write that came late would bring it back.
    volume_id = next(item for item, operation_id in operations.items() if owners[operation_id] == "one")
    rack.client.do("delete_volume", volume_id)
    os.kill(process.pid, signal.SIGCONT)
    assert rack.ended("one") == -signal.SIGKILL
    # The kernel had ended it when the lease was over: whoever took over found nobody to end.
    assert f"Ending process {process.pid} " not in rack.daemons["two"].log.read_text(errors="replace")
    with pytest.raises(exception.VolumeNotFound):
        rack.client.api.get_volume(rack.client.context, volume_id)
    assert rack.answers(operations) == dict.fromkeys(operations, DONE)


def test_one_that_ends_in_order_leaves_at_once(rack: Rack) -> None:
    operations = rack.create(new_ids(8))
    assert rack.daemons["one"].stop() == 0
    assert rack.members() == {"two"}
    rack.await_done(operations.values())
    for daemon in rack.daemons.values():
        assert "Traceback" not in daemon.log.read_text(errors="replace"), daemon.tail(100)

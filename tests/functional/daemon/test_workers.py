# SPDX-License-Identifier: Apache-2.0
"""Two workers with a backend each, one directory of sockets and one database: a request finds its worker."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.database import empty_database_url
from volmgr.testing.servers import ServerUnavailable
from volmgr.testing.servers.pytest_fixtures import unavailable
from volmgr.testing.waiting import wait_until

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


@dataclass
class Pair:
    """Two daemons; ``one`` and ``two`` are clients whose requests go straight to either of them."""

    first: Daemon
    second: Daemon
    one: Client
    two: Client

    def at(self, daemon: Daemon, method: str, **arguments: Any) -> Any:
        """Ask one worker, without following where it sends us."""
        prepared = self.one.api._client.prepare(server=daemon.host, timeout=30)
        return prepared.call(self.one.context.to_dict() | {"request_key": new_id()}, method, **arguments)

    def until_served(self, daemon: Daemon) -> None:
        """Wait until this very worker answers; any of them may answer a request that names none."""
        wait_until(
            lambda: bool(self.at(daemon, "get_capabilities")),
            60,
            f"{daemon.host} answers",
            retry_on=exception.BackendDown,
        )

    def create(self, daemon: Daemon, **properties: Any) -> str:
        volume_id = new_id()
        answer = self.at(daemon, "create_volume", volume_id=volume_id, size=1, host=daemon.host, **properties)
        self.one.api.wait_operation(self.one.context, answer["operation_id"])
        return volume_id


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, make_daemon: Callable[..., Daemon]) -> Iterator[Pair]:
    try:
        url = empty_database_url(request.param)
    except ServerUnavailable as error:
        unavailable(str(error))
    if request.param == "postgresql":
        from volmgr.db import schema
        from volmgr.db.engine import Database

        database = Database(url)
        schema.upgrade(database)
        database.close()
    daemons = []
    for name in ("one", "two"):
        daemons.append(
            make_daemon(
                name,
                options={
                    "host": name,
                    "transport_url": f"unix://{tmp_path}/rpc",
                    "key_file": str(tmp_path / "keys.json"),
                    "report_interval": 1,
                    "service_down_time": 5,
                },
                sections={"database": {"connection": url}},
            )
        )
    with contextlib.ExitStack() as stack:
        daemons[0].start()
        daemons[1].start()
        clients = [stack.enter_context(daemon.client()) for daemon in daemons]
        pair = Pair(daemons[0], daemons[1], clients[0], clients[1])
        for daemon in daemons:
            pair.until_served(daemon)
        assert [item["up"] for item in pair.one.api.list_services(pair.one.context)] == [True, True]
        yield pair
        assert [daemon.stop() for daemon in daemons] == [0, 0]
        for daemon in daemons:
            assert "Traceback" not in daemon.log.read_text(errors="replace"), daemon.tail(100)


def test_each_worker_lists_everything_and_serves_its_own(pair: Pair) -> None:
    mine, other = pair.create(pair.first), pair.create(pair.second)
    for daemon in (pair.first, pair.second):
        assert {item["id"] for item in pair.at(daemon, "list_volumes")} == {mine, other}
        assert pair.at(daemon, "get_volume", volume_id=other)["host"].startswith("two@b")
        assert "storage: missing" not in pair.at(daemon, "why", resource_id=other)["text"]
    assert {item["host"] for item in pair.at(pair.first, "list_backends")} == {"one@b", "two@b"}


def test_a_request_for_the_others_volume_is_sent_on(pair: Pair) -> None:
    volume_id, snapshot_id, attachment_id = pair.create(pair.second), new_id(), new_id()
    requests: list[tuple[str, dict[str, Any]]] = [
        ("extend_volume", {"volume_id": volume_id, "new_size": 2}),
        ("create_snapshot", {"volume_id": volume_id, "snapshot_id": snapshot_id}),
        ("initialize_connection", {"volume_id": volume_id, "connector": CONNECTOR}),
        # Again, now that the grant stands: whoever answers must be the one whose target serves it.
        ("initialize_connection", {"volume_id": volume_id, "connector": CONNECTOR}),
        ("terminate_connection", {"volume_id": volume_id, "connector": CONNECTOR}),
        ("remove_export", {"volume_id": volume_id}),
        ("attachment_create", {"attachment_id": attachment_id, "volume_id": volume_id}),
        (
            "attachment_update",
            {"attachment_id": attachment_id, "volume_id": volume_id, "connector": CONNECTOR},
        ),
        ("attachment_complete", {"attachment_id": attachment_id}),
        ("attachment_delete", {"attachment_id": attachment_id, "volume_id": volume_id}),
        ("delete_snapshot", {"snapshot_id": snapshot_id}),
        ("delete_volume", {"volume_id": volume_id}),
    ]
    for method, arguments in requests:
        with pytest.raises(exception.Moved) as moved:
            pair.at(pair.first, method, **arguments)
        assert moved.value.details["host"].startswith("two@b"), method
        # The client follows by itself, wherever it began.
        answer = pair.one.api.call(pair.one.context, method, host=pair.first.host, **arguments)
        if answer.get("operation_id"):
            pair.one.api.wait_operation(pair.one.context, answer["operation_id"])
    assert pair.at(pair.first, "list_volumes") == []
    assert {item["host"] for item in pair.at(pair.first, "list_operations")} == {"two@b"}


def test_a_request_that_must_wait_waits_where_the_volume_is(pair: Pair) -> None:
    volume_id, snapshot_id = pair.create(pair.second), new_id()
    assert pair.second.stop() == 0
    pair.second.start(VOLMGR_KILL_AT="create_snapshot/create/before")
    pair.until_served(pair.second)
    with pytest.raises(exception.VolmgrError):  # the point may be passed before or after the request is answered
        pair.two.do("create_snapshot", volume_id, snapshot_id)
    pair.second.wait_killed()
    # The volume is held by an operation that nobody runs now: the other worker must not queue requests for itself.
    for method, arguments in (
        ("extend_volume", {"volume_id": volume_id, "new_size": 2}),
        ("delete_volume", {"volume_id": volume_id}),
        ("delete_volume", {"volume_id": volume_id, "cascade": True}),
        ("create_volume", {"volume_id": new_id(), "source_volid": volume_id}),
        ("create_volume", {"volume_id": new_id(), "snapshot_id": snapshot_id}),
        ("revert_to_snapshot", {"volume_id": volume_id, "snapshot_id": snapshot_id}),
        ("delete_snapshot", {"snapshot_id": snapshot_id}),
    ):
        with pytest.raises(exception.Moved):
            pair.at(pair.first, method, **arguments)
    assert {item["host"] for item in pair.at(pair.first, "list_operations")} == {"two@b"}
    pair.second.start()
    pair.until_served(pair.second)
    pair.one.do("extend_volume", volume_id, 2)
    pair.one.do("delete_volume", volume_id, cascade=True)
    assert pair.one.api.list_volumes(pair.one.context) == []


def test_an_instance_with_volumes_of_both_is_told_who_has_which(pair: Pair) -> None:
    instance = new_id()
    ids = [pair.create(pair.first), pair.create(pair.second)]
    for volume_id in ids:
        attachment_id = new_id()
        pair.one.api.attachment_create(pair.one.context, attachment_id, volume_id, instance)
        pair.one.api.attachment_update(pair.one.context, volume_id, CONNECTOR, attachment_id)
    found = pair.at(pair.first, "check_for_export", instance_id=instance)
    assert found["volumes"] == {ids[0]: True}
    assert list(found["elsewhere"]) == [ids[1]]

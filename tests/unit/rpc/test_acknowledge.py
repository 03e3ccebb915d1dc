# SPDX-License-Identifier: Apache-2.0
"""When a message is acknowledged: before its verb runs by the library's own order, after its intent is stored by ours.

The wrapper relies on the order in which the library's server calls a message. Should that change, this fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oslo_messaging
import pytest
from oslo_config import cfg

from volmgr import exception
from volmgr.db.engine import DatabaseDown
from volmgr.rpc.endpoint import answered, journalled
from volmgr.rpc.server import Server, make_server
from volmgr.rpc.transport import get_transport


class Message:
    """What a transport hands to the server, writing down what is done with it: the edge of the library."""

    def __init__(self, method: str, events: list[str], *, call: bool = True) -> None:
        self.ctxt: dict[str, Any] = {"is_admin": True}
        self.message = {"method": method, "args": {}, "version": "1.0"}
        self.msg_id = "1" if call else None
        self.client_timeout = None
        self.events = events

    def acknowledge(self) -> None:
        self.events.append("acknowledge")

    def requeue(self) -> None:
        self.events.append("requeue")

    def reply(self, reply: Any = None, failure: Any = None) -> None:
        self.events.append("reply" if failure is None else f"failure {failure[0].__name__}")


class Endpoint:
    """Verbs that write down when they run."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def authorise(self, context: Any, *_: Any) -> Any:
        """Everybody may."""
        return context

    def ended(self, *_: Any) -> None:
        """Nobody watches."""

    @answered()
    def read(self, context: Any) -> None:
        self.events.append("run")

    @journalled
    def change(self, context: Any) -> None:
        self.events.append("run")

    @journalled
    def refused(self, context: Any) -> None:
        self.events.append("run")
        raise exception.Invalid("no", field="x")

    @journalled
    def lost(self, context: Any) -> None:
        self.events.append("run")
        raise DatabaseDown(database="d")

    def hidden(self, context: Any) -> None:
        self.events.append("run")


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def server(events: list[str], tmp_path: Path) -> Iterator[Server]:
    conf = cfg.ConfigOpts()
    conf([], project="volmgr", default_config_files=[])
    transport = get_transport(conf, f"unix://{tmp_path}/rpc")
    yield make_server(transport, topic="t", name="s", endpoints=[Endpoint(events)])
    transport.cleanup()


def test_the_library_acknowledges_first(server: Server, events: list[str]) -> None:
    server._process_incoming([Message("read", events)])
    assert events == ["acknowledge", "run", "reply"]


def test_a_change_is_acknowledged_after_it_is_stored_and_before_its_answer(server: Server, events: list[str]) -> None:
    server._process_incoming([Message("change", events)])
    assert events == ["run", "acknowledge", "reply"]


def test_a_refused_change_is_answered_and_gone(server: Server, events: list[str]) -> None:
    server._process_incoming([Message("refused", events, call=False)])
    assert events == ["run", "failure Invalid", "acknowledge"]


def test_a_cast_that_the_database_lost_goes_back_to_its_queue(server: Server, events: list[str]) -> None:
    server._process_incoming([Message("lost", events, call=False)])
    assert events == ["run", "requeue"]


def test_a_call_that_the_database_lost_is_answered(server: Server, events: list[str]) -> None:
    server._process_incoming([Message("lost", events)])
    assert events == ["run", "failure BackendDown", "acknowledge"]


@pytest.mark.parametrize("method", ["hidden", "_hidden", "__init__", "events", "target", "nothing"])
def test_what_is_no_verb_does_not_run(server: Server, events: list[str], method: str) -> None:
    server._process_incoming([Message(method, events)])
    assert events == ["acknowledge", "failure Unsupported"]

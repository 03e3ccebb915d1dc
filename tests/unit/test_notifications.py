# SPDX-License-Identifier: Apache-2.0
"""Events: every verb has one or is silent on purpose, a slow listener holds up nobody, nothing secret is told."""

from __future__ import annotations

import datetime
import threading
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, notifications, types
from volmgr.cmd.manage_usage import last_whole
from volmgr.db.engine import Database
from volmgr.manager import VolumeManager
from volmgr.operations import backups, registry, repairs, volumes
from volmgr.testing.rig import Rig


def test_every_verb_has_an_event_or_is_silent_on_purpose() -> None:
    assert repairs and backups  # what only audits enqueue registers itself, too
    known = set(notifications.EVENTS) | notifications.SILENT
    assert known == set(registry.verbs())
    assert not set(notifications.EVENTS) & notifications.SILENT
    for verb in notifications.ANSWERED:
        assert getattr(VolumeManager, verb).exposed


class Listener:
    """Takes events, and holds the first one until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.events: list[tuple[str, dict[str, Any], str]] = []
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, _context: Any, event: str, payload: dict[str, Any], priority: str) -> None:
        assert self.go.wait(30)
        self.events.append((event, payload, priority))


def told(rig: Rig, listener: Listener) -> list[tuple[str, dict[str, Any], str]]:
    rig.dispatcher.backend.notifications.close()
    return listener.events


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def listening(rig: Rig, listener: Listener) -> None:
    rig.dispatcher.backend.notifications = notifications.Notifications(listener, rig.database.reader)


def test_a_verb_tells_of_its_start_and_its_end(rig: Rig) -> None:
    listener = Listener()
    listening(rig, listener)
    volume_id = str(uuid.uuid4())
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=2, name="data")
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    events = told(rig, listener)
    assert [(event, payload["status"], priority) for event, payload, priority in events] == [
        ("volume.create.start", "creating", "info"),
        ("volume.create.end", "available", "info"),
        ("volume.delete.start", "deleting", "info"),
        ("volume.delete.end", "deleted", "info"),
    ]
    for _event, payload, _priority in events:
        assert payload["volume_id"] == volume_id
        assert (payload["size"], payload["display_name"], payload["tenant_id"]) == (2, "data", "p")
        assert payload["verb"] in ("create_volume", "delete_volume")
        assert not {"provider_location", "provider_auth", "serial"} & set(payload)


def test_a_failure_tells_its_cause(rig: Rig) -> None:
    listener = Listener()
    listening(rig, listener)
    rig.driver.faults.fail("create_volume", exception.Inconsistent("The pool is broken"))
    rig.do(volumes.CreateVolume, volume_id=str(uuid.uuid4()), size=1)
    event, payload, priority = told(rig, listener)[-1]
    assert (event, priority, payload["status"]) == ("volume.create.error", "error", "error")
    assert payload["error"]["code"] == "volmgr.inconsistent"


def test_a_listener_that_is_away_holds_up_nobody_and_the_oldest_events_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "QUEUE_LIMIT", 3)
    listener = Listener(held=True)
    sender = notifications.Notifications(listener, lambda: nullcontext(None))
    for number in range(10):
        sender.answered(None, "attachment_complete", {"attachment_id": str(number)})
    listener.go.set()
    sender.close()
    numbers = [payload["attachment_id"] for _event, payload, _priority in listener.events]
    assert numbers[-3:] == ["7", "8", "9"]
    assert len(numbers) <= 4  # one may have been on its way already


def test_an_event_of_a_verb_that_was_done_is_sent_when_sql_does_not_answer(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/nothing.sqlite")
    listener = Listener()
    sender = notifications.Notifications(listener, database.reader)
    sender.answered(None, "attach_volume", {"volume_id": "v", "instance_uuid": "i"})
    sender.close()
    database.close()
    assert listener.events == [
        ("volume.attach.end", {"volume_id": "v", "instance_uuid": "i", "verb": "attach_volume"}, "info")
    ]


def test_an_event_that_cannot_be_sent_does_not_silence_those_behind_it() -> None:
    heard: list[str] = []

    def send(_context: Any, event: str, payload: dict[str, Any], _priority: str) -> None:
        if payload["attachment_id"] == "0":
            raise ValueError("no such form")
        heard.append(event)

    sender = notifications.Notifications(send, lambda: nullcontext(None))
    for number in range(2):
        sender.answered(None, "attachment_complete", {"attachment_id": str(number)})
    sender.close()
    assert heard == ["attachment.complete.end"]


def test_a_payload_has_no_secret() -> None:
    volume = types.Volume("v", 1, provider_auth=types.Secret("CHAP a b"), driver_data="inside")
    assert "CHAP" not in str(notifications.payload_of("volume", volume))
    assert "inside" not in str(notifications.payload_of("volume", volume))


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("hour", "2026-01-01T09:00:00", "2026-01-01T10:00:00"),
        ("day", "2025-12-31T00:00:00", "2026-01-01T00:00:00"),
        ("month", "2025-12-01T00:00:00", "2026-01-01T00:00:00"),
        ("year", "2025-01-01T00:00:00", "2026-01-01T00:00:00"),
    ],
)
def test_a_period_is_the_last_whole_one(period: str, start: str, end: str) -> None:
    found = last_whole(period, datetime.datetime(2026, 1, 1, 10, 30, 5))
    assert [moment.isoformat() for moment in found] == [start, end]

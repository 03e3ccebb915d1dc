# SPDX-License-Identifier: Apache-2.0
"""Messages that come twice, late, in another order, by the thousand, or while another verb is at the same volume."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import models
from volmgr.operations.base import Policy
from volmgr.operations.conflicts import TABLE
from volmgr.testing.chaos.stage import Stage, ask, must
from volmgr.testing.chaos.story import CONNECTOR
from volmgr.testing.daemon import Client
from volmgr.testing.waiting import wait_until

pytestmark = pytest.mark.timeout(900)
BURST, KILL_AT = 1500, 700
PROJECT = "chaos"
SEED = 20260101


def new_id() -> str:
    return str(uuid.uuid4())


def cast(client: Client, host: str, key: str, method: str, **arguments: Any) -> None:
    """Send a message that nobody answers; it returns once the intent is stored."""
    context = client.context.to_dict() | {"request_key": key, "project_id": PROJECT}
    client.api._client.prepare(server=host).cast(context, method, **arguments)


def test_a_burst_of_casts_with_a_kill_in_it_loses_none(stage: Stage) -> None:
    left = [(new_id(), new_id()) for _ in range(BURST)]
    wanted = {volume_id for _key, volume_id in left}
    resent = 0

    def send() -> None:
        nonlocal resent
        while left:
            key, volume_id = left[-1]
            try:
                cast(stage.client, stage.daemon.host, key, "create_volume", volume_id=volume_id, size=1)
            except exception.BackendDown:
                resent += 1  # not acknowledged: it is sent again, under its key
                threading.Event().wait(0.02)
                continue
            left.pop()

    stage.aim("create_volume/-/admitted", KILL_AT)
    sender = threading.Thread(target=send)
    sender.start()
    stage.wait_killed()
    stage.aim("")
    stage.start()
    sender.join(120)
    assert not sender.is_alive()
    volumes = models.volumes

    def made() -> bool:
        return {row.id for row in stage.outside.rows(volumes, volumes.c.status == "available")} == wanted

    wait_until(made, 120, "every volume is there")
    verbs = Counter(row.resource_id for row in stage.outside.rows(models.operations))
    assert set(verbs) == wanted and set(verbs.values()) == {1}
    assert resent, "the kill was not felt"
    assert stage.outside.settle() == []


def test_late_and_early_messages_change_nothing(stage: Stage) -> None:
    volume_id, created, deleted = new_id(), new_id(), new_id()
    create: dict[str, Any] = {"volume_id": volume_id, "size": 1}
    # A deletion that overtakes the creation finds nothing, and finds nothing to do when it comes once more.
    early = stage.do("delete_volume", {"volume_id": volume_id}, project=PROJECT, key=new_id())
    assert early["state"] == "done"
    first = stage.do("create_volume", create, project=PROJECT, key=created)
    second = stage.do("delete_volume", {"volume_id": volume_id}, project=PROJECT, key=deleted)
    # The creation comes once more, late: it must not bring the volume back.
    assert stage.do("create_volume", create, project=PROJECT, key=created) == first
    assert stage.outside.rows(models.volumes) == []
    # It is made again under its old id, which is free once the old object is wiped. The old deletion comes once more:
    # it must not take the new one.
    assert stage.outside.settle() == []
    must(stage.do("create_volume", create, project=PROJECT, key=new_id()))
    assert stage.do("delete_volume", {"volume_id": volume_id}, project=PROJECT, key=deleted) == second
    assert [row.status for row in stage.outside.rows(models.volumes)] == ["available"]
    assert stage.outside.settle() == []


def test_shuffled_and_doubled_messages_run_once_each(stage: Stage) -> None:
    messages: list[tuple[str, str, dict[str, Any]]] = []
    for _ in range(25):
        volume_id, snapshot_id = new_id(), new_id()
        messages += [
            (new_id(), "create_volume", {"volume_id": volume_id, "size": 1}),
            (new_id(), "extend_volume", {"volume_id": volume_id, "new_size": 2}),
            (new_id(), "create_snapshot", {"volume_id": volume_id, "snapshot_id": snapshot_id}),
            (new_id(), "delete_snapshot", {"snapshot_id": snapshot_id}),
            (new_id(), "delete_volume", {"volume_id": volume_id, "cascade": True}),
        ]
    doubled = messages * 3
    random.Random(SEED).shuffle(doubled)
    answered: dict[str, set[str | None]] = {}
    lock = threading.Lock()

    def send(mine: list[tuple[str, str, dict[str, Any]]]) -> None:
        with stage.daemon.client() as client:
            for key, method, arguments in mine:
                try:
                    answer = ask(client, method, arguments, project=PROJECT, key=key)
                except (exception.NotFound, exception.Conflict):
                    continue  # it came before what it needs, or meets what it must not
                with lock:
                    answered.setdefault(key, set()).add(answer["operation_id"])

    threads = [threading.Thread(target=send, args=(doubled[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert stage.outside.settle() == []
    # One key, one operation; that there was nothing to do (None) may be said as often as one likes.
    assert all(len(ids - {None}) <= 1 for ids in answered.values())
    keys = Counter(row.request_key for row in stage.outside.rows(models.operations))
    assert max(keys.values()) == 1


# --- the table of verbs, from two clients ---------------------------------------------------------------------------


@dataclass
class Cell:
    """Two clients at one volume ``v`` with a snapshot ``s``; ``n`` is new."""

    stage: Stage
    other: Client

    def __post_init__(self) -> None:
        self.v, self.s, self.n, self.m = (new_id() for _ in range(4))

    def calls(self, noun: str) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return the request of each name in the table."""
        of, snap = {"volume_id": self.v}, {"snapshot_id": self.s}
        if noun == "snapshot":
            return {
                "create": ("create_snapshot", {**of, **snap}),
                "delete": ("delete_snapshot", snap),
                "revert": ("revert_to_snapshot", {**of, **snap}),
                "clone": ("create_volume", {"volume_id": self.n, **snap}),
                "connect": ("initialize_connection_snapshot", {**snap, "connector": CONNECTOR}),
                "disconnect": ("terminate_connection_snapshot", {**snap, "connector": CONNECTOR}),
            }
        return {
            "create": ("create_volume", {**of, "size": 1}),
            "delete": ("delete_volume", {**of, "cascade": True}),
            "extend": ("extend_volume", {**of, "new_size": 3}),
            "revert": ("revert_to_snapshot", {**of, **snap}),
            "snapshot": ("create_snapshot", {**of, "snapshot_id": self.n}),
            "clone": ("create_volume", {"volume_id": self.n, "source_volid": self.v}),
            "update": ("update_volume", {**of, "name": "other"}),
            "attach": ("attach_volume", {**of, "host_name": "compute"}),
            "connect": ("initialize_connection", {**of, "connector": CONNECTOR}),
            "disconnect": ("terminate_connection", {**of, "connector": CONNECTOR}),
            "detach": ("detach_volume", {**of, "force": True}),
        }

    def hung(self, noun: str, holder: str) -> tuple[str, str]:
        """Return the verb of the driver, and the id, at which the holder hangs."""
        if noun == "snapshot":
            return {
                "create": ("create_snapshot", self.s),
                "delete": ("trash_snapshot", self.s),
                "revert": ("create_volume_from_snapshot", self.v),
                "clone": ("create_volume_from_snapshot", self.n),
            }[holder]
        return {
            "create": ("create_volume", self.v),
            "delete": ("trash_volume", self.v),
            "extend": ("extend_volume", self.v),
            "revert": ("create_volume_from_snapshot", self.v),
            "snapshot": ("create_snapshot", self.n),
            "clone": ("create_cloned_volume", self.n),
        }[holder]

    def meet(self, noun: str, holder: str, comer: str) -> None:
        """Let the comer's client come while the holder hangs; check what it is told."""
        with_snapshot = "revert" in (holder, comer) if noun == "volume" else holder != "create"
        if not (noun == "volume" and holder == "create"):
            must(self.stage.do("create_volume", {"volume_id": self.v, "size": 1}, project=PROJECT))
            if with_snapshot:
                snapshot = {"volume_id": self.v, "snapshot_id": self.s}
                must(self.stage.do("create_snapshot", snapshot, project=PROJECT))
        verb, match = self.hung(noun, holder)
        self.stage.lay_faults({"verb": verb, "action": "hang", "match": match, "times": None})
        held = self.stage.ask(*self.calls(noun)[holder], project=PROJECT)
        operation = models.operations
        running = (operation.c.id == held["operation_id"]) & (operation.c.state == "running")
        wait_until(lambda: self.stage.outside.rows(operation, running), 30, f"{holder} is at it")
        self.n, first = self.m, self.n  # the comer makes something of its own
        try:
            told = self._told(*self.calls(noun)[comer], str(held["operation_id"]))
        finally:
            self.n = first
            self.stage.lay_faults()
        wanted = TABLE[noun][(holder, comer)]
        assert told is wanted, f"{noun}: {comer} meets {holder}: {told} instead of {wanted}"
        wait_until(lambda: not self.stage.outside.unfinished(), 30, f"{holder} and {comer} have ended")

    def _told(self, method: str, arguments: dict[str, Any], holder: str) -> Policy:
        try:
            answer = ask(self.other, method, arguments, project=PROJECT)
        except exception.Conflict:
            return Policy.CONFLICT
        if "state" not in answer:
            return Policy.BOTH  # no operation: it was done at once
        if answer["operation_id"] == holder:
            return Policy.SAME
        operation = models.operations
        rows = self.stage.outside.rows(operation, operation.c.id == answer["operation_id"])
        return Policy.WAIT if rows and not rows[0].claimed else Policy.BOTH


@pytest.fixture
def other(stage: Stage) -> Iterator[Client]:
    with stage.daemon.client() as made:
        yield made


#: there can be no snapshot of a volume that is being made.
IMPOSSIBLE = {("volume", "create", "revert")}
#: what compute services race for; every cell of the other nouns is run within one process, by the journal's own tests.
TABLES = {noun: TABLE[noun] for noun in ("volume", "snapshot")}
PAIRS = [(noun, holder) for noun, table in TABLES.items() for holder in dict.fromkeys(holder for holder, _ in table)]


def test_every_verb_meets_every_other(stage: Stage, other: Client) -> None:
    count = 0
    for noun, holder in PAIRS:
        for comer in [name for of, name in TABLE[noun] if of == holder]:
            if (noun, holder, comer) not in IMPOSSIBLE:
                Cell(stage, other).meet(noun, holder, comer)
                count += 1
        assert stage.outside.settle() == []
    assert count == sum(len(table) for table in TABLES.values()) - len(IMPOSSIBLE)



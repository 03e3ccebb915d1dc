# SPDX-License-Identifier: Apache-2.0
"""A message that arrives once more, long after its request was answered and the world has changed: it does nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import answered, models
from volmgr.operations import snapshots, volumes
from volmgr.operations.transfers import Transfers
from volmgr.testing.rig import Rig

KEY = "b0b3a1b8-7b1c-4f2e-9a56-0c8f2f5f7a01"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def new_id() -> str:
    return str(uuid.uuid4())


def make(rig: Rig, volume_id: str) -> None:
    operation = rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    assert operation is not None and operation.state == "done"


def status(rig: Rig, table: Any, resource_id: str) -> str | None:
    found = rig.rows(table, id=resource_id)
    return found[0]["status"] if found else None


def test_a_deletion_of_what_was_gone_spares_what_is_made_anew(rig: Rig) -> None:
    volume_id = new_id()
    first = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert (first["state"], first["result"]["unchanged"]) == ("done", True)
    make(rig, volume_id)
    assert rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id) == first
    rig.run()
    assert status(rig, models.volumes, volume_id) == "available"
    # Another request deletes it all the same.
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    assert status(rig, models.volumes, volume_id) is None


def test_a_deletion_of_a_snapshot_that_was_gone_spares_what_is_made_anew(rig: Rig) -> None:
    volume_id, snapshot_id = new_id(), new_id()
    make(rig, volume_id)
    rig.submit(snapshots.DeleteSnapshot, key=KEY, snapshot_id=snapshot_id)
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    rig.submit(snapshots.DeleteSnapshot, key=KEY, snapshot_id=snapshot_id)
    rig.run()
    assert status(rig, models.snapshots, snapshot_id) == "available"


def test_a_deletion_that_was_refused_stays_refused(rig: Rig) -> None:
    volume_id, snapshot_id = new_id(), new_id()
    make(rig, volume_id)
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    with pytest.raises(exception.VolumeHasSnapshots) as refused:
        rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
    with pytest.raises(exception.VolumeHasSnapshots) as again:
        rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    rig.run()
    assert exception.to_primitive(again.value) == exception.to_primitive(refused.value)
    assert status(rig, models.volumes, volume_id) == "available"


def test_a_deletion_that_joined_another_one_spares_what_is_made_anew(rig: Rig) -> None:
    volume_id = new_id()
    make(rig, volume_id)
    running = rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    joined = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert joined["operation_id"] == running["operation_id"]
    rig.run()
    make(rig, volume_id)
    late = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert (late["operation_id"], late["state"]) == (running["operation_id"], "done")
    rig.run()
    assert status(rig, models.volumes, volume_id) == "available"


def test_a_creation_that_was_refused_does_not_come_later(rig: Rig) -> None:
    volume_id = new_id()
    make(rig, volume_id)
    with pytest.raises(exception.AlreadyExists):
        rig.submit(volumes.CreateVolume, key=KEY, volume_id=volume_id, size=2)
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    with pytest.raises(exception.AlreadyExists):
        rig.submit(volumes.CreateVolume, key=KEY, volume_id=volume_id, size=2)
    rig.run()
    assert status(rig, models.volumes, volume_id) is None


def test_what_may_be_tried_again_is_no_outcome(rig: Rig) -> None:
    make(rig, volume_id := new_id())
    other = Rig(rig.folder, database=rig.database, host="other@sim")
    with pytest.raises(exception.Moved):
        other.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    operation = rig.do(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert operation is not None and operation.state == "done"


def test_two_copies_at_once_have_one_outcome(rig: Rig) -> None:
    """The second copy is admitted while the first one is on its way to being refused: the first one follows it."""
    volume_id, snapshot_id = new_id(), new_id()
    make(rig, volume_id)
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    keep, answers = rig.dispatcher._keep, []

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        if not answers:
            answers.append(None)
            rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id)
            answers[0] = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
        return keep(*args, **kwargs)

    rig.dispatcher._keep = overtaken  # type: ignore[method-assign]
    told = rig.submit(volumes.DeleteVolume, key=KEY, volume_id=volume_id)
    assert told["operation_id"] == answers[0]["operation_id"]
    rig.run()
    assert status(rig, models.volumes, volume_id) is None


# --- attaching and connecting: no operations, so their keys are kept by themselves ----------------------------------

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


def message(rig: Rig, key: str, verb: str, *args: Any) -> Any:
    """Let a message arrive, as the manager hands it on."""
    with answered.arrival(key, verb):
        return getattr(rig.attachments, verb)(*args)


def let_in(rig: Rig) -> list[str]:
    return [item for export in rig.target.observe() for item in export.initiators]


@pytest.mark.parametrize("kind", ["volume", "snapshot"])
def test_a_late_connection_lets_nobody_in_again(rig: Rig, kind: str) -> None:
    make(rig, volume_id := new_id())
    resource_id = volume_id
    if kind == "snapshot":
        resource_id = new_id()
        rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=resource_id)
    key, asked = new_id(), (kind, resource_id, CONNECTOR)
    first = message(rig, key, "initialize", *asked)
    assert message(rig, key, "initialize", *asked) == first, "a repeat joins as long as the grant stands"
    message(rig, new_id(), "terminate", *asked, False)
    with pytest.raises(exception.Conflict, match="done before"):
        message(rig, key, "initialize", *asked)
    assert let_in(rig) == []
    message(rig, new_id(), "initialize", *asked)
    assert let_in(rig) == [CONNECTOR["initiator"]]


def test_a_late_connection_that_joined_another_one_lets_nobody_in_again(rig: Rig) -> None:
    make(rig, volume_id := new_id())
    key, asked = new_id(), ("volume", volume_id, CONNECTOR)
    first = message(rig, new_id(), "initialize", *asked)
    assert message(rig, key, "initialize", *asked) == first
    assert message(rig, key, "initialize", *asked) == first, "a repeat joins as long as the grant stands"
    message(rig, new_id(), "terminate", *asked, False)
    with pytest.raises(exception.Conflict, match="done before"):
        message(rig, key, "initialize", *asked)
    assert let_in(rig) == []


@pytest.mark.parametrize("everybody", [True, False])
def test_a_late_disconnection_of_a_volume_that_was_gone_spares_the_one_made_anew(rig: Rig, everybody: bool) -> None:
    volume_id, key = new_id(), new_id()
    asked = ("volume", volume_id, None if everybody else CONNECTOR, everybody)
    assert message(rig, key, "terminate", *asked)["disconnected"] is False
    make(rig, volume_id)
    message(rig, new_id(), "initialize", "volume", volume_id, CONNECTOR)
    assert message(rig, key, "terminate", *asked)["disconnected"] is False
    assert let_in(rig) == [CONNECTOR["initiator"]], "a running instance has lost its volume"


@pytest.mark.parametrize("found_any", [True, False])
@pytest.mark.parametrize("everybody", [True, False])
def test_a_late_disconnection_cuts_off_nobody_who_has_connected_since(
    rig: Rig, found_any: bool, everybody: bool
) -> None:
    make(rig, volume_id := new_id())
    if found_any:
        message(rig, new_id(), "initialize", "volume", volume_id, CONNECTOR)
    key, asked = new_id(), ("volume", volume_id, None if everybody else CONNECTOR, everybody)
    assert message(rig, key, "terminate", *asked)["disconnected"] is found_any
    message(rig, new_id(), "initialize", "volume", volume_id, CONNECTOR)
    assert message(rig, key, "terminate", *asked)["disconnected"] is False
    assert let_in(rig) == [CONNECTOR["initiator"]], "a running instance has lost its volume"
    message(rig, new_id(), "terminate", *asked)
    assert let_in(rig) == []


@pytest.mark.parametrize("force", [True, False])
def test_a_late_detachment_spares_who_was_attached_since(rig: Rig, force: bool) -> None:
    make(rig, volume_id := new_id())

    def attach() -> None:
        message(rig, new_id(), "attach", volume_id, new_id(), None, None, "rw", new_id())

    attach()
    key = new_id()
    message(rig, key, "detach", volume_id, None, force)
    attach()
    message(rig, key, "detach", volume_id, None, force)
    assert status(rig, models.volumes, volume_id) == "in-use"
    assert len(rig.rows(models.attachments)) == 1


def test_a_late_attachment_attaches_nothing_again(rig: Rig) -> None:
    make(rig, volume_id := new_id())
    attachment_id, instance = new_id(), new_id()
    asked = {
        "reserve": (attachment_id, volume_id, instance, "rw"),
        "connect": (attachment_id, volume_id, CONNECTOR),
        "complete": (attachment_id,),
        "attach": (volume_id, instance, None, None, "rw", attachment_id),
    }
    keys = {verb: new_id() for verb in asked}
    for _ in range(2):  # copies that come at once are the same request
        for verb, args in asked.items():
            message(rig, keys[verb], verb, *args)
    message(rig, new_id(), "delete", volume_id, attachment_id)
    for verb, args in asked.items():
        with pytest.raises((exception.Conflict, exception.NotFound)):
            message(rig, keys[verb], verb, *args)
    assert (status(rig, models.volumes, volume_id), rig.rows(models.attachments)) == ("available", [])
    assert let_in(rig) == []


def test_a_late_connector_does_not_take_the_place_of_a_later_one(rig: Rig) -> None:
    """As when an instance has moved: the attachment is the other host's by now."""
    make(rig, volume_id := new_id())
    attachment_id, key = new_id(), new_id()
    other = {**CONNECTOR, "initiator": "iqn.1993-08.org.debian:01:b", "host": "other"}
    message(rig, new_id(), "reserve", attachment_id, volume_id, new_id(), "rw")
    message(rig, key, "connect", attachment_id, volume_id, CONNECTOR)
    message(rig, new_id(), "terminate", "volume", volume_id, CONNECTOR, False)
    message(rig, new_id(), "connect", attachment_id, volume_id, other)
    with pytest.raises(exception.Conflict):
        message(rig, key, "connect", attachment_id, volume_id, CONNECTOR)
    assert let_in(rig) == [other["initiator"]]
    assert rig.rows(models.attachments)[0]["host_name"] == "other"


def test_a_late_offer_offers_nothing_again(rig: Rig) -> None:
    make(rig, volume_id := new_id())
    offers, transfer_id, key = Transfers(rig.database, rig.clock, lambda *_: {}, lambda _: None), new_id(), new_id()
    with answered.arrival(key, "transfer_create"):
        offers.create(rig.context, transfer_id, volume_id, None, 0)
    offers.delete(rig.context, transfer_id)
    with answered.arrival(key, "transfer_create"), pytest.raises(exception.Conflict):
        offers.create(rig.context, transfer_id, volume_id, None, 0)
    assert (status(rig, models.volumes, volume_id), rig.rows(models.transfers)) == ("available", [])


def test_the_keys_go_after_some_days_and_none_is_kept_of_who_has_none(rig: Rig) -> None:
    make(rig, volume_id := new_id())
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    assert rig.rows(models.answered) == []
    message(rig, KEY, "terminate", "volume", volume_id, CONNECTOR, False)
    (row,) = rig.rows(models.answered)
    assert (row["request_key"], row["verb"], row["resource_id"]) == (KEY, "terminate", volume_id)
    with rig.database.writer() as conn:
        assert answered.purge(conn, row["answered_at"], 10) == 0
        assert answered.purge(conn, row["answered_at"].replace(year=2100), 10) == 1
    assert rig.rows(models.answered) == []

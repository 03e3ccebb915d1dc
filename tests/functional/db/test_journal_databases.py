# SPDX-License-Identifier: Apache-2.0
"""The journal on SQLite, PostgreSQL and MariaDB: a volume's life, and eight threads that want the same volumes."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, states, types
from volmgr.context import RequestContext
from volmgr.db import attachments, models
from volmgr.db.engine import Database
from volmgr.operations import snapshots, volumes
from volmgr.operations.base import Operation
from volmgr.runtime import Lanes
from volmgr.testing.invariants import violations
from volmgr.testing.rig import Rig
from volmgr.testing.waiting import wait_until

pytestmark = pytest.mark.database

THREADS = 8
REQUESTS = 25
VOLUMES = 3
WAIT = 120.0
SEED = 20260101
#: what a caller may be told when others are faster; that the database was busy is not among it.
EXPECTED = (exception.Conflict, exception.NotFound, exception.Invalid)


def new_id() -> str:
    return str(uuid.uuid4())


def connector(number: int) -> dict[str, Any]:
    return {"initiator": f"iqn.1993-08.org.debian:01:{number}", "ip": "127.0.0.1", "host": f"compute{number}"}


@pytest.fixture
def rig(tmp_path: Path, database: Database) -> Rig:
    return Rig(tmp_path, database=database)


def quota(rig: Rig) -> tuple[int, int, int]:
    (row,) = rig.rows(models.quotas, project_id="p", volume_type_id="")
    return row["volumes"], row["snapshots"], row["gigabytes"]


def done(rig: Rig, cls: type[Operation[Any]], **arguments: Any) -> None:
    operation = rig.do(cls, **arguments)
    assert operation is not None
    assert operation.state == "done", operation.error


def test_the_life_of_a_volume(rig: Rig) -> None:
    volume_id, snapshot_id, clone_id = new_id(), new_id(), new_id()
    done(rig, volumes.CreateVolume, volume_id=volume_id, size=1, name="naïve ☃", metadata={"ключ": "значение"})
    (row,) = rig.rows(models.volumes)
    assert (row["display_name"], row["metadata"]) == ("naïve ☃", {"ключ": "значение"})
    done(rig, snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    assert quota(rig) == (1, 1, 2)
    done(rig, volumes.ExtendVolume, volume_id=volume_id, new_size=3)
    done(rig, snapshots.RevertToSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    assert quota(rig) == (1, 1, 4)
    rig.submit(volumes.CreateVolume, volume_id=clone_id, source_volid=volume_id)
    waiting = rig.submit(volumes.DeleteVolume, volume_id=volume_id, cascade=True)
    assert waiting["state"] == "queued"
    rig.run()
    assert rig.dispatcher.get(waiting["operation_id"]).state == "done"
    assert [item["id"] for item in rig.rows(models.volumes)] == [clone_id]
    assert quota(rig) == (1, 0, 3)
    assert violations(rig.database, rig.driver) == []


def test_attachments_and_their_grants(rig: Rig) -> None:
    volume_id, attachment_id = new_id(), new_id()
    done(rig, volumes.CreateVolume, volume_id=volume_id, size=1)
    rig.attachments.reserve(attachment_id, volume_id, new_id(), "rw")
    info = rig.attachments.connect(attachment_id, volume_id, connector(1))
    assert rig.attachments.connect(attachment_id, volume_id, connector(1)) == info
    rig.attachments.complete(attachment_id)
    assert rig.rows(models.volumes)[0]["status"] == "in-use"
    with pytest.raises(exception.VolumeAttached):
        rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    with pytest.raises(exception.VolumeAttached):
        rig.attachments.reserve(new_id(), volume_id, new_id(), "rw")
    rig.attachments.delete(volume_id, attachment_id)
    done(rig, volumes.DeleteVolume, volume_id=volume_id)
    assert violations(rig.database, rig.driver) == []
    assert rig.rows(models.grants) == [] and rig.rows(models.exports) == []


def test_an_exceeded_quota_leaves_nothing(tmp_path: Path, database: Database) -> None:
    rig = Rig(tmp_path, database=database, quota={"volumes": 2, "snapshots": 1, "gigabytes": 3})
    volume_id = new_id()
    done(rig, volumes.CreateVolume, volume_id=volume_id, size=2)
    for cls, arguments in (
        (volumes.CreateVolume, {"volume_id": new_id(), "size": 2}),
        (volumes.CreateVolume, {"volume_id": new_id(), "source_volid": volume_id}),
        (volumes.ExtendVolume, {"volume_id": volume_id, "new_size": 4}),
        (snapshots.CreateSnapshot, {"volume_id": volume_id, "snapshot_id": new_id()}),
    ):
        with pytest.raises(exception.QuotaExceeded):
            rig.submit(cls, **arguments)
    assert sorted(row["state"] for row in rig.rows(models.operations)) == ["done", *["failed"] * 4]
    assert violations(rig.database, rig.driver) == []


def test_a_request_that_comes_twice_at_once_runs_once(rig: Rig) -> None:
    volume_id, key = new_id(), new_id()
    answers: list[dict[str, Any]] = []

    def send() -> None:
        answers.append(rig.submit(volumes.CreateVolume, key=key, volume_id=volume_id, size=1))

    in_threads([send] * THREADS)
    assert len({answer["operation_id"] for answer in answers}) == 1
    assert len(answers) == THREADS
    rig.run()
    assert rig.driver.faults.calls["create_volume"] == 1
    assert violations(rig.database, rig.driver) == []


def in_threads(work: list[Callable[[], None]]) -> None:
    """Run all of it at once and raise what went wrong."""
    errors: list[BaseException] = []

    def guarded(item: Callable[[], None]) -> None:
        try:
            item()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(item,)) for item in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []


WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}


def test_an_attachment_that_is_made_while_an_operation_ends_is_in_the_status(rig: Rig) -> None:
    question = WAITING.get(rig.database.engine.dialect.name)
    if question is None:
        pytest.skip("does not apply: SQLite has one writer at a time")
    volume_id = new_id()
    done(rig, volumes.CreateVolume, volume_id=volume_id, size=1)
    locked, attached = threading.Event(), threading.Event()

    def waits() -> bool:
        with rig.database.reader() as conn:
            return bool(conn.exec_driver_sql(question).scalar_one())

    def attach() -> None:
        with rig.database.writer() as conn:
            attachments.lock_volume(conn, volume_id)
            attachments.insert(conn, types.Attachment(new_id(), volume_id, "attached", created_at=rig.clock.now()))
            attachments.settle(conn, volume_id, rig.clock.now())
            locked.set()
            wait_until(waits, WAIT, "the operation's end waits for the volume")
        attached.set()

    def before_the_end(point: str) -> None:
        if point == "extend_volume/-/close":
            threading.Thread(target=attach, daemon=True).start()
            assert locked.wait(WAIT)

    rig.dispatcher.runner.killpoint = before_the_end
    done(rig, volumes.ExtendVolume, volume_id=volume_id, new_size=2)
    assert attached.wait(WAIT)
    (row,) = rig.rows(models.volumes, id=volume_id)
    assert row["status"] == "in-use"
    assert violations(rig.database, rig.driver) == []


class Caller:
    """One of many who ask for anything at all of the same few volumes."""

    def __init__(self, rig: Rig, number: int, volume_ids: list[str], snapshot_ids: list[str]) -> None:
        self.rig = rig
        self.number = number
        self.volume_ids = volume_ids
        self.snapshot_ids = snapshot_ids
        self.random = random.Random(SEED + number)
        self.told: Counter[str] = Counter()
        self.admitted: list[str] = []

    def submit(self, cls: type[Operation[Any]], **arguments: Any) -> None:
        answer = self.rig.submit(cls, **arguments)
        if answer["operation_id"] is not None:
            self.admitted.append(answer["operation_id"])

    def ask(self) -> None:
        pick, attachments = self.random, self.rig.attachments
        volume_id = pick.choice(self.volume_ids)
        snapshot_id = pick.choice(self.snapshot_ids)
        peer = connector(self.number)
        verbs: list[Callable[[], Any]] = [
            lambda: self.submit(volumes.CreateVolume, volume_id=volume_id, size=1),
            lambda: self.submit(volumes.DeleteVolume, volume_id=volume_id, cascade=pick.random() < 0.5),
            lambda: self.submit(volumes.ExtendVolume, volume_id=volume_id, new_size=pick.randint(1, 9)),
            lambda: self.submit(volumes.CreateVolume, volume_id=new_id(), source_volid=volume_id),
            lambda: self.submit(volumes.CreateVolume, volume_id=new_id(), snapshot_id=snapshot_id),
            lambda: self.submit(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id),
            lambda: self.submit(snapshots.DeleteSnapshot, snapshot_id=snapshot_id),
            lambda: self.submit(snapshots.RevertToSnapshot, volume_id=volume_id, snapshot_id=snapshot_id),
            lambda: attachments.attach(volume_id, None, f"compute{self.number}", None, "rw", new_id()),
            lambda: attachments.initialize("volume", volume_id, peer),
            lambda: attachments.terminate("volume", volume_id, peer, False),
            lambda: attachments.detach(volume_id, None, True),
        ]
        pick.choice(verbs)()

    def run(self) -> None:
        for _ in range(REQUESTS):
            try:
                self.ask()
                self.told["answered"] += 1
            except EXPECTED as error:
                self.told[error.code] += 1


@pytest.fixture
def live(tmp_path: Path, database: Database) -> Iterator[Rig]:
    """A rig with the daemon's own threads: lanes that run what was admitted, and the pump."""
    lanes = Lanes({"control": 8, "bulk": 2, "observe": 1})
    rig = Rig(tmp_path, database=database, executor=lanes, grows_in_use=True)
    pump = threading.Thread(target=rig.dispatcher.loop, daemon=True)
    pump.start()
    yield rig
    rig.dispatcher.stop()
    assert lanes.shutdown(WAIT)
    pump.join(WAIT)


def test_eight_threads_want_the_same_three_volumes(live: Rig) -> None:
    volume_ids = [new_id() for _ in range(VOLUMES)]
    snapshot_ids = [new_id() for _ in range(VOLUMES)]
    callers = [Caller(live, number, volume_ids, snapshot_ids) for number in range(THREADS)]
    in_threads([caller.run for caller in callers])

    def ended() -> bool:
        unfinished = [row for row in live.rows(models.operations) if row["state"] in states.UNFINISHED]
        return not unfinished

    wait_until(ended, WAIT, "everything that was admitted has ended")
    journal = {row["id"]: row for row in live.rows(models.operations)}
    told: Counter[str] = sum((caller.told for caller in callers), Counter())
    assert told["answered"] > THREADS, told
    assert {item for caller in callers for item in caller.admitted} <= set(journal)
    for row in journal.values():
        # An operation fails because of another one that was first, never because of the database or of ourselves.
        assert row["state"] == "done" or row["error"]["code"].startswith(
            ("volmgr.conflict", "volmgr.not_found", "volmgr.invalid", "volmgr.busy.volume")
        ), row["error"]
    assert violations(live.database, live.driver) == []
    for volume in live.rows(models.volumes):
        if volume["status"] == "error":
            continue  # its source had gone when its turn came
        assert volume["size"] == expected_size(volume, list(journal.values())), volume["id"]


def expected_size(volume: dict[str, Any], journal: list[dict[str, Any]]) -> int:
    """Return what the operations that are done made of a volume's size: no extension of it may be lost."""
    # One that never ran only keeps the answer of a request that had nothing to do, or joined another.
    of = [row for row in journal if row["resource_id"] == volume["id"] and row["state"] == "done" and row["epoch"]]
    born = max(row["created_at"] for row in of if row["verb"] == "create_volume")
    sizes = [
        int(row["result"]["size"]) for row in of if row["verb"] == "extend_volume" and row["created_at"] >= born
    ]
    made = next(row for row in of if row["verb"] == "create_volume" and row["created_at"] == born)
    return max([*sizes, int(made["args"]["size"] or 0)]) if sizes or made["args"]["size"] else int(volume["size"])


def test_the_context_of_a_request_survives(rig: Rig) -> None:
    context = RequestContext(project_id="p", user_id="ü", roles=["a"], request_key=new_id(), overwrite=False)
    arguments = volumes.CreateVolume.args.parse({"volume_id": new_id(), "size": 1})
    answer = rig.dispatcher.submit(context, volumes.CreateVolume, arguments)
    rig.run()
    record = rig.dispatcher.get(answer["operation_id"])
    assert (record.context["user_id"], record.context["roles"]) == ("ü", ["a"])

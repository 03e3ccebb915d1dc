# SPDX-License-Identifier: Apache-2.0
"""The audit around work that goes on, its cost as counts, what repeats by itself, and the heartbeat of the target."""

from __future__ import annotations

import collections
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from volmgr import exception, names, types
from volmgr.db import models
from volmgr.drivers.sim.store import MemoryStore
from volmgr.operations import snapshots, volumes
from volmgr.reconcile.auditor import Auditor, findings_of
from volmgr.reconcile.findings import Kind, Repair
from volmgr.targets.base import TargetConfig
from volmgr.targets.fake import FakeTarget
from volmgr.testing.filling import fill
from volmgr.testing.rig import PREFIX, Rig

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours catches it."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.close()


def new_id() -> str:
    return str(uuid.uuid4())


def make(rig: Rig, **arguments: Any) -> str:
    volume_id = new_id()
    rig.do(volumes.CreateVolume, **{"volume_id": volume_id, "size": 1, **arguments})
    return volume_id


def audited_at(rig: Rig, verb: str, when: str) -> list[list[str]]:
    """Let an audit run in the middle of a driver's verb; returns the list that it appends its findings to."""
    seen: list[list[str]] = []
    rig.driver.faults.kill(
        verb, when, hook=lambda: seen.append([item.kind.label for item in findings_of(rig.dispatcher)])
    )
    return seen


@pytest.mark.parametrize("when", ["before", "building", "after"])
def test_an_audit_amid_an_operation_finds_nothing(rig: Rig, when: str) -> None:
    source = make(rig)
    snapshot_id = new_id()
    rig.do(snapshots.CreateSnapshot, volume_id=source, snapshot_id=snapshot_id)
    for verb, cls, arguments in (
        ("create_volume", volumes.CreateVolume, {"volume_id": new_id(), "size": 1}),
        ("create_cloned_volume", volumes.CreateVolume, {"volume_id": new_id(), "source_volid": source}),
        ("create_snapshot", snapshots.CreateSnapshot, {"volume_id": source, "snapshot_id": new_id()}),
        ("create_volume_from_snapshot", snapshots.RevertToSnapshot, {"volume_id": source, "snapshot_id": snapshot_id}),
        ("extend_volume", volumes.ExtendVolume, {"volume_id": source, "new_size": 2}),
        ("wipe", volumes.DeleteVolume, {"volume_id": make(rig)}),
        ("trash_volume", volumes.DeleteVolume, {"volume_id": make(rig)}),
    ):
        if when == "building" and verb in ("extend_volume", "trash_volume"):
            continue  # these are one step
        seen = audited_at(rig, verb, when)
        rig.do(cls, **arguments)
        assert seen == [[]], verb
        assert findings_of(rig.dispatcher) == []


def test_an_audit_amid_a_connection_finds_nothing(rig: Rig) -> None:
    volume_id = make(rig)
    seen: list[Any] = []
    sync = rig.target.sync

    def audited(spec: types.ExportSpec) -> bool:
        # In a thread of its own: the audit must neither wait for the lock that is held here nor be deceived.
        thread = threading.Thread(target=lambda: seen.append(findings_of(rig.dispatcher)))
        thread.start()
        thread.join(30)
        return sync(spec)

    rig.target.sync = audited  # type: ignore[method-assign]
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    rig.attachments.terminate("volume", volume_id, CONNECTOR, False)
    rig.target.sync = sync  # type: ignore[method-assign]
    assert seen == [[], []]


def test_work_that_begins_and_ends_while_the_audit_looks_is_left_out(rig: Rig) -> None:
    """SQL is read, then a volume is made, another deleted, a third connected, then the backend and target are asked."""
    gone, connected = make(rig), make(rig)
    observe = rig.driver.observe

    def meanwhile() -> Any:
        rig.driver.observe = observe  # type: ignore[method-assign]
        made = make(rig)
        rig.do(volumes.DeleteVolume, volume_id=gone)
        rig.attachments.initialize("volume", connected, CONNECTOR)
        rig.attachments.initialize("volume", made, CONNECTOR)
        return observe()

    rig.driver.observe = meanwhile  # type: ignore[method-assign]
    assert findings_of(rig.dispatcher) == []
    assert findings_of(rig.dispatcher) == []


def test_a_repair_that_no_longer_applies_does_nothing(rig: Rig) -> None:
    """Between the look and the repair somebody else mended it, or used it."""
    volume_id, gone = make(rig), new_id()
    auditor = Auditor(rig.dispatcher, grace=0)
    rig.driver.store.create(names.object_name("volume", gone), types.GiB)
    rig.target.sync(types.ExportSpec("volume", volume_id, names.target_name(PREFIX, "volume", volume_id)))
    report = auditor.run()
    orphan, export = sorted(report.findings, key=lambda item: item.kind is Kind.EXPORT_ORPHAN)
    rig.driver.store.remove(names.object_name("volume", gone))
    rig.do(volumes.CreateVolume, volume_id=gone, size=1)
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    with pytest.raises(exception.Conflict, match="embodies a resource"):
        auditor._repairs.apply(orphan)
    assert auditor._repairs.apply(export) == "nothing to be done any more"
    assert rig.driver.store.size(names.object_name("volume", gone)) == types.GiB
    assert names.target_name(PREFIX, "volume", volume_id) in rig.target.exports


def test_while_an_orphan_is_freed_nothing_can_be_made_under_its_id(rig: Rig) -> None:
    orphan = new_id()
    rig.driver.store.create(names.object_name("volume", orphan), types.GiB)
    auditor = Auditor(rig.dispatcher, grace=0)
    (found,) = auditor.run().findings
    auditor.run(fix=True, only=[found.id_on(rig.settings.host)])
    with pytest.raises(exception.AlreadyExists):
        rig.submit(volumes.CreateVolume, volume_id=orphan, size=1)
    rig.run()
    assert rig.do(volumes.CreateVolume, volume_id=orphan, size=1) is not None
    assert findings_of(rig.dispatcher) == []


def test_an_orphan_that_is_in_use_stays(rig: Rig) -> None:
    orphan = new_id()
    rig.driver.store.create(names.object_name("volume", orphan), types.GiB)
    rig.driver.faults.fail("discard", exception.Busy(resource="object", id=orphan))
    auditor = Auditor(rig.dispatcher, grace=0)
    (found,) = auditor.run().findings
    auditor.run(fix=True, only=[found.id_on(rig.settings.host)])
    rig.run()
    assert rig.rows(models.objects) == []
    assert [item.kind for item in auditor.run().findings] == [Kind.STORAGE_ORPHAN]


def test_another_workers_things_are_not_looked_at(rig: Rig) -> None:
    """Two backends over one volume group, or two workers at one LIO: what is the other's is nobody's orphan."""
    volume_id = make(rig)
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    for table in (models.volumes, models.objects, models.exports):
        with rig.database.writer() as conn:
            host = "other@b" if table is models.exports else "other@b#pool"
            conn.execute(sa.update(table).values(host=host))
    assert findings_of(rig.dispatcher) == []


# --- cost ---------------------------------------------------------------------------------------------------------


def test_five_thousand_volumes_cost_a_constant_number_of_calls_and_statements_per_thousand(tmp_path: Path) -> None:
    cost = {}
    for count in (1000, 5000):
        folder = tmp_path / str(count)
        folder.mkdir()
        rig = Rig(folder)
        rig.driver.store = MemoryStore()
        fill(rig, count)
        before, asked = collections.Counter(rig.driver.faults.calls), len(rig.target.calls)
        with rig.database.counting() as database:
            assert findings_of(rig.dispatcher) == []
        calls = collections.Counter(rig.driver.faults.calls) - before
        assert calls == {"observe": 1}
        assert [method for method, _name in rig.target.calls[asked:]] == ["observe"]
        cost[count] = database.statements
        rig.close()
    assert cost[1000] <= 25
    assert cost[5000] <= cost[1000] + 4 * 4, "more than four statements for each further thousand volumes"


# --- what repeats by itself -----------------------------------------------------------------------------------------


def test_a_wipe_that_fails_is_tried_again_for_ever(rig: Rig) -> None:
    volume_id = make(rig)
    failing = 8
    rig.driver.faults.fail("wipe", exception.Inconsistent("the disk says no"), times=failing)
    rig.do(volumes.DeleteVolume, volume_id=volume_id)
    pauses = []
    for _ in range(failing):
        (wipe,) = rig.rows(models.operations, verb="wipe")
        assert (wipe["state"], wipe["parked_for"]) == ("parked", "backend")
        (found,) = findings_of(rig.dispatcher)
        assert found.kind is Kind.OPERATION_PARKED
        assert "the disk says no" in found.reason
        pauses.append(round((wipe["not_before"] - wipe["updated_at"]).total_seconds()))
        with rig.database.writer() as conn:
            conn.execute(sa.update(models.operations).values(not_before=rig.clock.now()))
        rig.run()
    assert pauses == [2, 5, 15, 60, 300, 300, 300, 300]
    assert rig.rows(models.operations, verb="wipe")[0]["state"] == "done"
    assert rig.driver.observe() == []
    assert findings_of(rig.dispatcher) == []


def test_a_wipe_cannot_be_cancelled(rig: Rig) -> None:
    """There is no way back from its first byte, and nobody else would free the space."""
    volume_id = make(rig)
    rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    rig.stepwise.run()
    (wipe,) = rig.rows(models.operations, verb="wipe")
    with pytest.raises(exception.Conflict, match="point of no return"):
        rig.dispatcher.cancel(wipe["id"])
    rig.run()
    assert rig.driver.observe() == []


def test_five_deaths_park_an_operation(tmp_path: Path) -> None:
    volume_id = new_id()

    def kill(name: str) -> None:
        if name == "create_volume/create/before":
            raise Killed

    deaths = 0
    for life in range(7):
        rig = Rig(tmp_path, killpoint=kill)
        try:
            if life == 0:
                rig.submit(volumes.CreateVolume, volume_id=volume_id, size=1)
            else:
                rig.dispatcher.recover()
            rig.run()
        except Killed:
            deaths += 1
        finally:
            rig.close()
    rig = Rig(tmp_path)
    (row,) = rig.rows(models.operations)
    assert (deaths, row["state"], row["parked_for"]) == (5, "parked", "operator")
    (found,) = findings_of(rig.dispatcher)
    assert "died 5 times" in found.reason
    # Nobody waits for it without being told.
    with pytest.raises(exception.Conflict) as refused:
        rig.submit(volumes.DeleteVolume, volume_id=volume_id)
    assert f"volmgr operation retry {row['id']}, or: volmgr operation abandon {row['id']}" in refused.value.hint
    rig.dispatcher.retry(row["id"])
    rig.run()
    assert rig.rows(models.volumes)[0]["status"] == "available"
    assert findings_of(rig.dispatcher) == []
    rig.close()


def test_what_an_abandoned_revert_had_built_is_found_and_freed(rig: Rig) -> None:
    volume_id, snapshot_id = make(rig), new_id()
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    rig.driver.faults.fail("create_volume_from_snapshot", exception.NoSpace(), when="after")
    rig.driver.faults.fail("delete_volume", exception.BackendDown())
    parked = rig.submit(snapshots.RevertToSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    rig.stepwise.run()
    rig.dispatcher.abandon(parked["operation_id"])
    auditor = Auditor(rig.dispatcher, grace=0)
    (found,) = auditor.run(fix=True).findings
    assert (found.kind, found.safe) == (Kind.STORAGE_ORPHAN, True)
    rig.run()
    assert findings_of(rig.dispatcher) == []
    assert len(rig.driver.observe()) == 2


# --- the heartbeat ------------------------------------------------------------------------------------------------


def test_the_heartbeat_makes_lost_exports_again_and_nothing_else(rig: Rig) -> None:
    ids = [make(rig) for _ in range(3)]
    for volume_id in ids:
        rig.attachments.initialize("volume", volume_id, CONNECTOR)
    before = dict(rig.target.exports)
    assert rig.exports.restore_missing() == 0
    del rig.target.exports[names.target_name(PREFIX, "volume", ids[1])]
    asked = len(rig.target.calls)
    assert rig.exports.restore_missing() == 1
    assert [method for method, _name in rig.target.calls[asked:]] == ["observe", "sync"]
    rig.target.wipe()
    assert rig.exports.restore_missing() == 3
    assert rig.target.exports == before


class OnlyGranted(FakeTarget):
    """As a target that has nothing for an export that nobody is let in to."""

    shows_ungranted: ClassVar[bool] = False


def test_the_heartbeat_does_not_miss_what_nobody_is_let_in_to(tmp_path: Path) -> None:
    """Else it would make every idle volume of such a backend again, at every beat."""
    rig = Rig(tmp_path, target=OnlyGranted(TargetConfig(PREFIX, (types.Portal("127.0.0.1", 3260),), str(tmp_path))))
    idle, used = make(rig), make(rig)
    for volume_id in (idle, used):
        rig.attachments.initialize("volume", volume_id, CONNECTOR)
    rig.attachments.terminate("volume", idle, CONNECTOR, False)
    rig.target.wipe()
    assert rig.exports.restore_missing() == 1
    assert list(rig.target.exports) == [names.target_name(PREFIX, "volume", used)]
    rig.close()


def test_an_export_that_cannot_be_made_is_not_tried_at_every_beat(rig: Rig) -> None:
    volume_id = make(rig)
    rig.attachments.initialize("volume", volume_id, CONNECTOR)
    rig.target.wipe()
    sync, tries = rig.target.sync, []

    def refuse(spec: types.ExportSpec) -> bool:
        tries.append(spec.target_name)
        raise exception.NotFound(resource="file", id=spec.path)

    rig.target.sync = refuse  # type: ignore[method-assign]
    assert [rig.exports.restore_missing() for _ in range(3)] == [0, 0, 0]
    assert len(tries) == 1
    rig.target.sync = sync  # type: ignore[method-assign]
    (outcome,) = Auditor(rig.dispatcher).run(fix=True, repairs={Repair.SYNC}).outcomes
    assert outcome.done
    assert rig.exports.restore_missing() == 0

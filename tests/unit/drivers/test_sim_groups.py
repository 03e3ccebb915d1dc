# SPDX-License-Identifier: Apache-2.0
"""The simulator's groups when a member fails or the process dies: what is left, and what each member is told."""

import pathlib
import threading
import uuid
from types import SimpleNamespace

import pytest

from volmgr import exception, names
from volmgr.drivers.options import Configuration
from volmgr.drivers.sim import MemoryStore, SimDriver
from volmgr.drivers.sim.store import FolderStore
from volmgr.types import GiB, Snapshot, Volume, VolumeType

DEADLINE = 30.0
#: seconds that a write has to slip in where it should not; only a wrong store is ever that fast.
GRACE = 0.2
GROUP = SimpleNamespace(id=str(uuid.uuid4()))
REPLICATED = VolumeType("t", "replicated", {"replication": "<is> True"})


@pytest.fixture(params=["memory", "folder"])
def driver(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> SimDriver:
    if request.param == "memory":
        return SimDriver(configuration=Configuration({}), store=MemoryStore())
    return SimDriver(configuration=Configuration({"sim_store_path": str(tmp_path / "sim")}))


def volumes(driver: SimDriver, count: int = 3) -> list[Volume]:
    made = [Volume(id=str(uuid.uuid4()), size=1) for _ in range(count)]
    for index, volume in enumerate(made):
        driver.create_volume(volume)
        driver.write_bytes(volume, 0, bytes([index + 1]))
    return made


def snapshots(members: list[Volume]) -> list[Snapshot]:
    return [Snapshot(id=str(uuid.uuid4()), volume_id=item.id, volume_size=1, volume=item) for item in members]


def present(driver: SimDriver) -> set[str]:
    return {item.name for item in driver.observe() if item.state != "trash"}


class StoppingStore(FolderStore):
    """A store whose copies take long enough for a client to write in between, if it can."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.copied, self.written = threading.Event(), threading.Event()

    def copy(self, source: str, name: str, size_bytes: int) -> None:
        super().copy(source, name, size_bytes)
        self.copied.set()
        self.written.wait(GRACE)


def test_no_write_falls_between_the_copies_of_files(tmp_path: pathlib.Path) -> None:
    store = StoppingStore(str(tmp_path))
    driver = SimDriver(configuration=Configuration({}), store=store)
    members = volumes(driver, 2)
    taken = snapshots(members)

    def client() -> None:
        store.copied.wait(DEADLINE)
        driver.write_bytes(members[1], 0, b"x")
        store.written.set()

    thread = threading.Thread(target=client, daemon=True)
    thread.start()
    driver.create_cgsnapshot(None, GROUP, taken)
    assert driver.read_bytes(taken[1], 0, 1) == b"\x02"
    assert store.written.wait(DEADLINE)
    thread.join(DEADLINE)
    assert driver.read_bytes(members[1], 0, 1) == b"x"


def test_deleting_goes_as_far_as_it_can_and_tells_each_member(driver: SimDriver) -> None:
    members = volumes(driver)
    driver.faults.fail("delete_consistencygroup", exception.Busy, match=members[1].id)
    model, updates = driver.delete_consistencygroup(None, GROUP, members)
    assert model == {"status": "error_deleting"}
    assert updates == [
        {"id": members[0].id, "status": "deleted"},
        {"id": members[1].id, "status": "error_deleting"},
        {"id": members[2].id, "status": "deleted"},
    ]
    assert present(driver) == {members[1].name}
    assert driver.delete_consistencygroup(None, GROUP, members) == (
        {"status": "deleted"},
        [{"id": member.id, "status": "deleted"} for member in members],
    )
    assert driver.faults.calls["delete_consistencygroup"] == 2


def test_deleting_snapshots_goes_as_far_as_it_can_too(driver: SimDriver) -> None:
    members = volumes(driver)
    taken = snapshots(members)
    driver.create_cgsnapshot(None, GROUP, taken)
    driver.faults.fail("delete_cgsnapshot", exception.SnapshotIsBusy(id="x"), match=taken[2].id)
    model, updates = driver.delete_cgsnapshot(None, {"id": GROUP.id}, taken)
    assert model == {"status": "error_deleting"}
    assert [item["status"] for item in updates or ()] == ["deleted", "deleted", "error_deleting"]
    assert present(driver) == {*(member.name for member in members), taken[2].name}


@pytest.mark.parametrize("when", ["before", "building"])
def test_a_group_snapshot_is_all_or_nothing(driver: SimDriver, when: str) -> None:
    members = volumes(driver)
    taken = snapshots(members)
    driver.faults.fail("create_cgsnapshot", exception.BackendDown, when=when, match=taken[1].id)
    model, updates = driver.create_cgsnapshot(None, GROUP, taken)
    assert model == {"status": "error"}
    assert updates == [{"id": item.id, "status": "error"} for item in taken]
    assert present(driver) == {member.name for member in members}
    assert driver.create_cgsnapshot(None, GROUP, taken)[0] == {"status": "available"}
    assert present(driver) == {item.name for item in (*members, *taken)}


@pytest.mark.parametrize("when", ["before", "building"])
def test_a_group_from_another_is_all_or_nothing(driver: SimDriver, when: str) -> None:
    sources = volumes(driver)
    made = [Volume(id=str(uuid.uuid4()), size=1) for _ in sources]
    verb = "create_consistencygroup_from_src"
    driver.faults.fail(verb, exception.BackendDown, when=when, match=made[0].id)
    model, updates = driver.create_consistencygroup_from_src(None, GROUP, made, source_cg=GROUP, source_vols=sources)
    assert model == {"status": "error"}
    assert {item["status"] for item in updates or ()} == {"error"}
    assert present(driver) == {source.name for source in sources}
    with pytest.raises(exception.Invalid, match="3 volumes cannot come from 2"):
        driver.create_consistencygroup_from_src(None, GROUP, made, source_cg=GROUP, source_vols=sources[:2])


@pytest.mark.usefixtures("one_work")
def test_a_death_between_the_renames_keeps_the_first_instant(driver: SimDriver) -> None:
    members = volumes(driver)
    taken = snapshots(members)
    driver.create_cgsnapshot(None, GROUP, taken)
    # As it is when a process dies after the first rename: two snapshots still have their building names.
    for item in taken[1:]:
        driver.store.rename(item.name, names.building_name(item.name_id))
    for member in members:
        driver.write_bytes(member, 0, b"x")
    assert driver.create_cgsnapshot(None, GROUP, taken)[0] == {"status": "available"}
    assert [driver.read_bytes(item, 0, 1) for item in taken] == [b"\x01", b"\x02", b"\x03"]
    assert not any(names.parse_building_name(name) for name in present(driver))


def test_a_death_before_the_first_rename_makes_the_set_anew(driver: SimDriver) -> None:
    members = volumes(driver)
    taken = snapshots(members)
    driver.faults.fail("create_cgsnapshot", exception.Cancelled, when="building", match=GROUP.id)
    with pytest.raises(exception.Cancelled):
        driver.create_cgsnapshot(None, GROUP, taken)
    driver.write_bytes(members[0], 0, b"x")
    driver.create_cgsnapshot(None, GROUP, taken)
    assert [driver.read_bytes(item, 0, 1) for item in taken] == [b"x", b"\x02", b"\x03"]


def test_what_is_there_by_other_ways_is_not_touched(driver: SimDriver) -> None:
    members = volumes(driver)
    made = [members[0], Volume(id=str(uuid.uuid4()), size=1)]
    before = present(driver)
    with pytest.raises(exception.AlreadyExists):
        driver.create_consistencygroup_from_src(None, GROUP, made, source_cg=GROUP, source_vols=members[1:])
    assert present(driver) == before
    assert driver.read_bytes(members[0], 0, 1) == b"\x01"


def test_an_update_tells_only_what_failed(driver: SimDriver) -> None:
    members = volumes(driver)
    absent = Volume(id=str(uuid.uuid4()), size=1)
    assert driver.update_consistencygroup(None, GROUP, members[:1], members[1:]) == (
        {"status": "available"},
        None,
        None,
    )
    model, added, removed = driver.update_consistencygroup(None, GROUP, [*members, absent], None)
    assert (model, added, removed) == ({"status": "error"}, [{"id": absent.id, "status": "error"}], None)
    driver.faults.fail("update_consistencygroup", exception.Busy, match=members[2].id)
    assert driver.update_consistencygroup(None, GROUP, None, members)[2] == [{"id": members[2].id, "status": "error"}]


def test_a_group_that_does_not_fit_leaves_nothing() -> None:
    options = {"sim_capacity_gb": 5.0, "max_over_subscription_ratio": 1.0}
    driver = SimDriver(configuration=Configuration(options), store=MemoryStore())
    members = volumes(driver)
    with pytest.raises(exception.NoSpace):
        driver.create_cgsnapshot(None, GROUP, snapshots(members))
    assert present(driver) == {member.name for member in members}
    assert driver.store.provisioned() == 3 * GiB


def test_members_get_the_replicas_of_their_types(driver: SimDriver) -> None:
    sources = volumes(driver, 1)
    made = [Volume(id=str(uuid.uuid4()), size=1, volume_type=REPLICATED)]
    _model, updates = driver.create_consistencygroup_from_src(None, GROUP, made, source_cg=GROUP, source_vols=sources)
    assert updates is not None
    assert updates[0]["replication_status"] == "copying"
    driver.delete_consistencygroup(None, GROUP, made)
    assert driver.replication.secondary.entries() == []

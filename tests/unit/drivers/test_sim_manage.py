# SPDX-License-Identifier: Apache-2.0
"""What is the simulator's own about managing: names, snapshots of foreign volumes, types, crashes, shared stores."""

import pathlib
import uuid

import pytest

from volmgr import exception, names
from volmgr.drivers.options import Configuration
from volmgr.drivers.paging import page
from volmgr.drivers.sim import MemoryStore, SimDriver
from volmgr.types import GiB, Snapshot, Volume, VolumeType

ALL = (None, None, None, None, None)


@pytest.fixture(params=["memory", "folder"])
def driver(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> SimDriver:
    if request.param == "memory":
        return SimDriver(configuration=Configuration({}), store=MemoryStore())
    return SimDriver(configuration=Configuration({"sim_store_path": str(tmp_path / "sim")}))


def volume(size: int = 1, extra_specs: dict[str, str] | None = None) -> Volume:
    kind = VolumeType("t", "t", extra_specs) if extra_specs is not None else None
    return Volume(id=str(uuid.uuid4()), size=size, volume_type=kind)


def test_foreign_snapshots_are_told_from_volumes_and_name_their_source(driver: SimDriver) -> None:
    driver.put_foreign("base", GiB, b"now")
    driver.put_foreign("base@monday", GiB, b"then")
    (free,) = driver.get_manageable_volumes([], *ALL)
    (snap,) = driver.get_manageable_snapshots([], *ALL)
    assert free["reference"] == {"source-name": "base"}
    assert snap["reference"] == {"source-name": "base@monday"}
    assert snap["source_reference"] == {"source-name": "base"}
    assert snap["safe_to_manage"] is True
    with pytest.raises(exception.ManageExistingInvalidReference, match="not a volume"):
        driver.manage_existing(volume(), snap["reference"])
    made = volume()
    snapshot = Snapshot(id=str(uuid.uuid4()), volume_id=made.id, volume_size=1, volume=made)
    with pytest.raises(exception.ManageExistingInvalidReference, match="not a snapshot"):
        driver.manage_existing_snapshot(snapshot, free["reference"])
    driver.manage_existing(made, free["reference"])
    driver.manage_existing_snapshot(snapshot, snap["reference"])
    assert driver.read_bytes(snapshot, 0, 4) == b"then"
    driver.revert_to_snapshot(None, made, snapshot)
    assert driver.read_bytes(made, 0, 4) == b"then"


def test_orphans_are_shown_and_not_safe(driver: SimDriver) -> None:
    orphan = volume()
    driver.create_volume(orphan)
    (entry,) = driver.get_manageable_volumes([], *ALL)
    assert (entry["safe_to_manage"], entry["cinder_id"]) == (False, None)
    driver.unmanage(orphan)
    (entry,) = driver.get_manageable_volumes([], *ALL)
    assert entry["reference"] == {"source-name": names.unmanaged_name("volume", orphan.id)}
    assert entry["safe_to_manage"] is True


def test_nobody_puts_what_has_a_name_of_ours(driver: SimDriver) -> None:
    identity = str(uuid.uuid4())
    for name in (names.object_name("volume", identity), names.trash_name(identity), names.building_name(identity)):
        with pytest.raises(exception.Invalid, match="name of ours"):
            driver.put_foreign(name, GiB)


@pytest.mark.parametrize("name", ["../sim/x", "a/b", "..", "x" * 300, "nul\0", "\ud800"])
def test_no_reference_leads_out_of_the_store(driver: SimDriver, name: str) -> None:
    with pytest.raises(exception.ManageExistingInvalidReference):
        driver.manage_existing(volume(), {"source-name": name})
    assert driver.clone_image(None, volume(), f"sim://{name}", {}, None) == (None, False)
    assert driver.observe() == []


def test_a_type_of_another_backend_does_not_fit(driver: SimDriver) -> None:
    driver.put_foreign("base", GiB)
    with pytest.raises(exception.ManageExistingVolumeTypeMismatch, match="elsewhere"):
        driver.manage_existing(volume(1, {"volume_backend_name": "elsewhere"}), {"source-name": "base"})
    driver.put_foreign("large", 2 * GiB)
    with pytest.raises(exception.Invalid, match="more than 1 GiB"):
        driver.manage_existing(volume(), {"source-name": "large"})
    driver.manage_existing(volume(1, {"volume_backend_name": driver.backend_name}), {"source-name": "base"})


def test_a_crash_before_the_rename_leaves_what_was_foreign_foreign(driver: SimDriver) -> None:
    driver.put_foreign("base", GiB // 2, b"bytes")
    made = volume()
    driver.faults.fail("manage_existing", exception.Cancelled, when="building")
    with pytest.raises(exception.Cancelled):
        driver.manage_existing(made, {"source-name": "base"})
    assert driver.observe() == []
    driver.manage_existing(made, {"source-name": "base"})
    assert driver.read_bytes(made, 0, 5) == b"bytes"
    assert driver.store.provisioned() == GiB


def test_a_managed_object_never_replaces_one_that_is_there(driver: SimDriver) -> None:
    made = volume()
    driver.create_volume(made)
    driver.write_bytes(made, 0, b"mine")
    driver.put_foreign("base", GiB, b"other")
    with pytest.raises(exception.AlreadyExists):
        driver.manage_existing(made, {"source-name": "base"})
    with pytest.raises(exception.AlreadyExists):
        driver.store.adopt("base", made.name)
    assert driver.read_bytes(made, 0, 4) == b"mine"


def test_trash_is_no_image(driver: SimDriver) -> None:
    deleted = volume()
    driver.create_volume(deleted)
    driver.trash_volume(deleted)
    name = names.trash_name(deleted.id)
    assert driver.clone_image(None, volume(), f"sim://{name}", {}, None) == (None, False)
    driver.put_foreign("image", 2 * GiB)
    with pytest.raises(exception.Invalid, match="smaller than the image"):
        driver.clone_image(None, volume(), ("sim://image", []), {}, None)


def test_a_volume_in_use_or_with_a_replica_does_not_move_by_itself() -> None:
    store = MemoryStore()
    here = SimDriver(configuration=Configuration({}), store=store, host="a@one")
    there = SimDriver(configuration=Configuration({}), store=store, host="b@two")
    host = {"host": "b@two#backend", "capabilities": there.get_volume_stats()["pools"][0]}
    used = Volume(id=str(uuid.uuid4()), size=1, attach_status="attached")
    copied = volume(1, {"replication": "<is> True"})
    for made in (used, copied):
        here.create_volume(made)
        assert here.migrate_volume(None, made, host) == (False, None)
    with pytest.raises(exception.VolumeNotFound):
        here.migrate_volume(None, volume(), host)
    plain = volume()
    here.create_volume(plain)
    assert here.migrate_volume(None, plain, host) == (True, None)
    elsewhere = SimDriver(configuration=Configuration({}), store=MemoryStore()).get_volume_stats()
    assert here.migrate_volume(None, plain, {"host": "b@two", "capabilities": elsewhere}) == (False, None)


def test_drivers_over_one_folder_count_together(tmp_path: pathlib.Path) -> None:
    options = {"sim_store_path": str(tmp_path / "sim")}
    first, second = (SimDriver(configuration=Configuration(options)) for _ in range(2))
    made = volume(3)
    first.create_volume(made)
    assert second.get_volume_stats()["pools"][0]["provisioned_capacity_gb"] == 3
    second.delete_volume(made)
    assert first.get_volume_stats()["pools"][0]["provisioned_capacity_gb"] == 0


def test_what_has_no_value_sorts_first_and_markers_may_be_references() -> None:
    entries = [
        {"reference": {"source-name": name}, "cinder_id": identity}
        for name, identity in (("c", None), ("a", "2"), ("b", "1"), ("d", None))
    ]

    def order(*arguments: object) -> str:
        return "".join(item["reference"]["source-name"] for item in page(entries, *arguments))  # type: ignore[arg-type]

    assert order(None, None, None, None, None) == "abcd"
    assert order(None, None, None, ["cinder_id"], ["asc"]) == "cdba"
    assert order(None, None, None, ["cinder_id", "reference"], ["desc"]) == "abdc"
    assert order({"source-name": "b"}, 1, None, None, None) == "c"
    assert order("b", None, 1, None, None) == "d"
    assert order(None, 0, None, None, None) == ""
    with pytest.raises(exception.Invalid, match="more directions"):
        order(None, None, None, ["reference"], ["asc", "asc"])

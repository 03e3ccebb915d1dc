# SPDX-License-Identifier: Apache-2.0
"""The LVM driver where things go wrong, and where an earlier tenant's bytes lie: on real devices, in a small group."""

from __future__ import annotations

import fcntl
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, incarnation, names
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.options import Configuration
from volmgr.testing.lab.commands import programs, run, wait_until
from volmgr.testing.lab.loopgroup import LoopGroup, loop_group, read_device, write_device
from volmgr.types import GiB, MiB, Snapshot, Volume

SECRET = b"an earlier tenant's bytes".ljust(4096, b"!")
ZEROS = bytes(4096)


def silent(_fraction: float) -> None:
    """Receive progress."""


def driver_on(group: str, lvm_type: str = "default", **options: Any) -> LVMVolumeDriver:
    lock_fd = options.pop("lock_fd", None)
    values = {"volume_group": group, "lvm_type": lvm_type, **options}
    return LVMVolumeDriver(configuration=Configuration(values), host="host@lvm", lock_fd=lock_fd)


def volume_of(size: int = 1) -> Volume:
    return Volume(id=str(uuid.uuid4()), size=size)


def snapshot_of(volume: Volume) -> Snapshot:
    return Snapshot(id=str(uuid.uuid4()), volume_id=volume.id, volume_size=volume.size, volume=volume)


def node(driver: LVMVolumeDriver, resource: Volume | Snapshot) -> Path:
    return Path(driver.local_path(resource))


@pytest.fixture(scope="module")
def small(nothing_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopGroup]:
    """A group of 6 GiB, sparse, with a thin pool that is not the driver's."""
    with loop_group(tmp_path_factory.mktemp("small"), "small", size_mib=6144, pool_mib=64) as made:
        yield made


@pytest.fixture(scope="module")
def thick(small: LoopGroup) -> LVMVolumeDriver:
    driver = driver_on(small.name)
    driver.do_setup(None)
    driver.check_for_setup_error()
    return driver


def test_a_missing_group_is_named_with_the_command_that_makes_it() -> None:
    with pytest.raises(exception.BackendDown) as caught:
        driver_on("no-such-group").do_setup(None)
    assert "no-such-group" in caught.value.message
    assert "vgcreate no-such-group" in caught.value.hint


def test_a_backend_has_its_own_lvm_conf(small: LoopGroup, tmp_path: Path) -> None:
    conf_file = tmp_path / "lvm.conf"
    conf_file.write_text('devices { filter = [ "r|.*|" ] }\n')
    with pytest.raises(exception.BackendDown):
        driver_on(small.name, lvm_conf_file=str(conf_file)).do_setup(None)
    driver_on(small.name).do_setup(None)


def test_no_byte_of_an_earlier_tenant_is_readable(small: LoopGroup, thick: LVMVolumeDriver) -> None:
    places = (0, 100 * MiB, 1500 * MiB)
    earlier = small.create_thick("earlier", 2048)
    for place in places:
        write_device(earlier, SECRET, place)
    small.remove("earlier")
    # Without zeroing they would be there: the same space, given out by LVM itself.
    control = small.create_thick("control", 2048)
    assert [read_device(control, 4096, place) for place in places[1:]] == [SECRET, SECRET]
    small.remove("control")
    volume = volume_of()
    thick.create_volume(volume)
    assert [read_device(node(thick, volume), 4096, place) for place in places[:2]] == [ZEROS, ZEROS]
    thick.extend_volume(volume, 2)
    assert read_device(node(thick, volume), 4096, places[2]) == ZEROS
    # What is deleted is wiped too: nothing but zeros is left behind in its space.
    for place in places:
        write_device(node(thick, volume), SECRET, place)
    thick.trash_volume(volume)
    thick.wipe("volume", volume.name_id, silent)
    control = small.create_thick("control", 2048)
    assert [read_device(control, 4096, place) for place in places] == [ZEROS] * 3
    small.remove("control")


def test_a_full_group_is_no_space_and_leaves_nothing(thick: LVMVolumeDriver) -> None:
    with pytest.raises(exception.NoSpace) as caught:
        thick.create_volume(volume_of(8))
    assert "vgextend small" in caught.value.hint
    assert thick.observe() == []


def test_an_open_volume_is_busy_and_one_removed_by_hand_is_gone(small: LoopGroup, thick: LVMVolumeDriver) -> None:
    volume = volume_of()
    thick.create_volume(volume)
    with node(thick, volume).open("rb"), pytest.raises(exception.VolumeIsBusy):
        thick.trash_volume(volume)
    assert [item.state for item in thick.observe()] == ["current"]
    small.remove(volume.name)
    with pytest.raises(exception.VolumeNotFound):
        thick.extend_volume(volume, 2)
    with pytest.raises(exception.VolumeNotFound):
        thick.create_snapshot(snapshot_of(volume))
    thick.trash_volume(volume)
    assert thick.observe() == []


def test_a_thick_snapshot_is_never_lost_with_its_origin(small: LoopGroup, thick: LVMVolumeDriver) -> None:
    volume = volume_of()
    thick.create_volume(volume)
    write_device(node(thick, volume), SECRET)
    snapshot = snapshot_of(volume)
    thick.create_snapshot(snapshot)
    with pytest.raises(exception.VolumeIsBusy) as caught:
        thick.delete_volume(volume)
    assert snapshot.name in caught.value.hint
    write_device(node(thick, volume), ZEROS)
    thick.extend_volume(volume, 2)
    thick.trash_volume(volume)
    with pytest.raises(exception.Busy) as waits:
        thick.wipe("volume", volume.name_id, silent)
    assert snapshot.name in waits.value.message
    assert read_device(node(thick, snapshot), 4096) == SECRET
    # It can go with the last of its snapshots, which the same wipe takes along.
    thick.trash_snapshot(snapshot)
    thick.wipe("volume", volume.name_id, silent)
    thick.wipe("snapshot", snapshot.name_id, silent)
    assert thick.observe() == []


def test_what_an_operator_made_is_taken_over_and_let_go(small: LoopGroup, thick: LVMVolumeDriver) -> None:
    write_device(small.create_thick("handmade", 1000), SECRET)
    listed = thick.get_manageable_volumes([], None, 10, 0, ["size"], ["desc"])
    assert [(item["reference"], item["size"], item["safe_to_manage"]) for item in listed] == [
        ({"source-name": "handmade"}, 1, True)
    ]
    volume, reference = volume_of(), {"source-name": "handmade"}
    assert thick.manage_existing_get_size(volume, reference) == 1
    thick.manage_existing(volume, reference)
    thick.manage_existing(volume, reference)
    assert read_device(node(thick, volume), 4096) == SECRET
    with pytest.raises(exception.ManageExistingAlreadyManaged):
        thick.manage_existing_get_size(volume_of(), {"source-name": volume.name})
    # It had less than a GiB; what it was brought to reads as zeros.
    assert read_device(node(thick, volume), 4096, GiB - 4096) == ZEROS
    for wrong in ("nowhere", small.pool):
        with pytest.raises(exception.ManageExistingInvalidReference):
            thick.manage_existing_get_size(volume_of(), {"source-name": wrong})
    thick.unmanage(volume)
    let_go = names.unmanaged_name("volume", volume.id)
    with Path(f"/dev/{small.name}/{let_go}").open("rb"):
        (entry,) = thick.get_manageable_volumes([], None, None, None, None, None)
        assert (entry["safe_to_manage"], entry["reason_not_safe"]) == (False, "it is in use")
        with pytest.raises(exception.Busy, match="in use"):
            thick.manage_existing(volume_of(), {"source-name": let_go})
    small.remove(let_go)


def test_a_command_that_hangs_is_ended_and_holds_the_worker_s_lock_meanwhile(small: LoopGroup, tmp_path: Path) -> None:
    worker = tmp_path / "worker.incarnation"
    lock_fd = os.open(worker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    driver = driver_on(small.name, command_timeout=4, num_shell_tries=1, lock_fd=lock_fd)
    raised: list[BaseException] = []

    def observe() -> None:
        try:
            driver.observe()
        except BaseException as error:
            raised.append(error)

    group_lock = Path(f"/run/lock/lvm/V_{small.name}")
    with group_lock.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=observe)
        thread.start()
        # LVM has closed what it inherits, but for its standard input, before it asks for the group's lock.
        wait_until(lambda: incarnation.holders(group_lock) != [], "the command waits for the group's lock")
        assert incarnation.holders(worker) == incarnation.holders(group_lock)
        thread.join(60)
    assert [type(error) for error in raised] == [exception.Timeout]
    wait_until(lambda: incarnation.holders(worker) == [], "the command has ended")
    os.close(lock_fd)
    assert driver.observe() == []


def test_a_thin_pool_that_fills_warns_and_takes_nothing_more(
    small: LoopGroup, caplog: pytest.LogCaptureFixture
) -> None:
    run("lvcreate", "-q", "-y", "-L", "1g", "-T", f"{small.name}/{small.name}-pool")
    driver = driver_on(small.name, "auto", lvm_pool_data_threshold=1)
    driver.do_setup(None)
    driver.check_for_setup_error()
    assert driver.thin
    volume = volume_of()
    snapshot = snapshot_of(volume)
    with programs() as started:
        driver.create_volume(volume)
        driver.create_snapshot(snapshot)
        driver.trash_snapshot(snapshot)
    assert started == ["lvcreate", "lvcreate", "lvrename"], "one for each verb, none to look first"
    driver.wipe("snapshot", snapshot.name_id, silent)
    with programs() as started:
        assert driver.get_manageable_volumes([volume], None, None, None, None, None)
    assert started == ["lvm"]
    write_device(node(driver, volume), os.urandom(12 * MiB))
    # Who stops later is warned now, once, and goes on.
    patient = driver_on(small.name, "auto", lvm_pool_data_threshold=11, lvm_pool_warning_margin=10)
    patient.do_setup(None)
    for _ in range(2):
        patient.get_volume_stats(refresh=True)
    warned = [record.getMessage() for record in caplog.records if "nothing is created" in record.getMessage()]
    assert len(warned) == 1
    assert f"from 11 % on nothing is created. Run: lvextend -L +SIZE {small.name}/{small.name}-pool" in warned[0]
    another = volume_of()
    patient.create_volume(another)
    patient.delete_volume(another)
    for create in (lambda: driver.create_volume(volume_of()), lambda: driver.create_snapshot(snapshot_of(volume))):
        with pytest.raises(exception.NoSpace) as caught:
            create()
        assert f"lvextend -L +SIZE {small.name}/{small.name}-pool" in caught.value.hint
    assert [item.object_id for item in driver.observe()] == [volume.name_id]
    assert driver.get_volume_stats(refresh=True)["pools"][0]["provisioned_capacity_gb"] == volume.size_bytes / GiB
    driver.delete_volume(volume)

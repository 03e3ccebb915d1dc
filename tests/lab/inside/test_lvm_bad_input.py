# SPDX-License-Identifier: Apache-2.0
"""What an operator or a disk can do to the LVM driver: each ends in its typed error, an honest row, and nothing else.

The whole worker stands over it, so that the rows can be looked at: journal, SQLite, the driver on real devices.
"""

from __future__ import annotations

import contextlib
import fcntl
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, states
from volmgr.db import models
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.options import Configuration
from volmgr.operations import snapshots, volumes
from volmgr.testing.invariants import violations
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import LoopGroup, loop_group, read_device, write_device
from volmgr.testing.rig import Rig
from volmgr.testing.waiting import wait_until
from volmgr.tools import lvm_dm
from volmgr.types import MiB, OperationRecord, Volume

DATA = b"bytes that stay".ljust(4096, b".")
GROUP = "bad"


@pytest.fixture(scope="module")
def group(nothing_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopGroup]:
    with loop_group(tmp_path_factory.mktemp("bad"), GROUP, size_mib=6144, pool_mib=64) as made:
        # Only the driver's own pool counts, and it is made where it is needed.
        run("lvremove", "-q", "-y", f"{GROUP}/{made.pool}")
        yield made


def driver_on(**options: Any) -> LVMVolumeDriver:
    values = {"volume_group": GROUP, "lvm_type": "default", **options}
    return LVMVolumeDriver(configuration=Configuration(values), host="host@sim")


@pytest.fixture
def rig(group: LoopGroup, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, make_driver=lambda _host, _target: driver_on())
    made.driver.do_setup(None)
    yield made
    made.close()
    run("udevadm", "settle")
    run("lvremove", "-q", "-f", "-y", GROUP)


def create(rig: Rig, size: int = 1, **arguments: Any) -> tuple[str, OperationRecord]:
    volume_id = str(uuid.uuid4())
    operation = rig.do(volumes.CreateVolume, volume_id=volume_id, size=size, **arguments)
    assert operation is not None
    return volume_id, operation


def status(rig: Rig, volume_id: str) -> str:
    (row,) = rig.rows(models.volumes, id=volume_id)
    return str(row["status"])


def failed(operation: OperationRecord | None) -> dict[str, Any]:
    """Return the error of an operation that ended in one, with a hint."""
    assert operation is not None and operation.state == "failed", operation
    assert operation.error is not None and operation.error["hint"]
    return operation.error


def settle(rig: Rig) -> None:
    """Let what follows end: a wipe is tried again later where udev has the device open at the moment."""

    def ended() -> bool:
        rig.run()
        return not [row for row in rig.rows(models.operations) if row["state"] in states.UNFINISHED]

    wait_until(ended, 60, "the wipes have ended")


def node(volume_id: str) -> Path:
    return Path(f"/dev/{GROUP}/volume-{volume_id}")


@contextlib.contextmanager
def read_only_group(folder: Path) -> Iterator[None]:
    """Take the right to write out of the group's metadata, as a snapshot of a disk array does."""
    archive = folder / "group.cfg"

    def restore() -> None:
        run("vgcfgrestore", "-q", "-y", "--force", "-f", str(archive), GROUP)

    run("vgcfgbackup", "-q", "-f", str(archive), GROUP)
    text = archive.read_text()
    archive.write_text(text.replace('"RESIZEABLE", "READ", "WRITE"', '"RESIZEABLE", "READ"', 1))
    restore()
    archive.write_text(text)
    try:
        yield
    finally:
        restore()


@contextlib.contextmanager
def read_only_disk(group: LoopGroup) -> Iterator[None]:
    run("blockdev", "--setro", str(group.device))
    try:
        yield
    finally:
        run("blockdev", "--setrw", str(group.device))


@contextlib.contextmanager
def missing_group() -> Iterator[None]:
    run("vgrename", "-q", GROUP, "elsewhere")
    try:
        yield
    finally:
        run("vgrename", "-q", "elsewhere", GROUP)


class TestTheGroup:
    @pytest.mark.parametrize("what", ["missing", "read-only", "read-only disk"])
    def test_it_takes_no_changes(self, rig: Rig, group: LoopGroup, tmp_path: Path, what: str) -> None:
        volume_id, operation = create(rig)
        assert operation.state == "done"
        write_device(node(volume_id), DATA)
        states: dict[str, tuple[Any, str, str]] = {
            "missing": (missing_group(), "volmgr.backend_down.lvm_group", f"vgcreate {GROUP}"),
            "read-only": (read_only_group(tmp_path), "volmgr.backend_down.lvm_read_only", "vgcfgrestore"),
            "read-only disk": (read_only_disk(group), "volmgr.backend_down.lvm_read_only", "blockdev --getro"),
        }
        state, code, hint = states[what]
        with state:
            other, operation = create(rig)
            if what == "missing":
                # Whether something was made cannot be known: it is undone when the group is there again.
                assert (operation.state, operation.parked_for) == ("parked", "backend")
                assert hint in operation.error["details"]["cause"]
            else:
                error = failed(operation)
                assert error["code"] == code
                assert hint in error["hint"]
                assert status(rig, other) == "error"
            if what != "read-only disk":  # which can be looked at
                with pytest.raises(exception.BackendDown) as caught:
                    driver_on().do_setup(None)
                assert caught.value.hint
            assert status(rig, volume_id) == "available"
        if what == "missing":
            assert rig.dispatcher.retry(operation.id)
            rig.run()
            error = failed(rig.dispatcher.get(operation.id))
            assert hint in error["details"]["cause"]
        assert status(rig, other) == "error"
        assert {item.object_id for item in rig.driver.observe()} == {volume_id}
        assert read_device(node(volume_id), 4096) == DATA
        for each in (volume_id, other):
            operation = rig.do(volumes.DeleteVolume, volume_id=each)
            assert operation is not None and operation.state == "done"
        settle(rig)
        assert violations(rig.database, rig.driver) == []

    def test_it_is_full(self, rig: Rig) -> None:
        volume_id, _ = create(rig)
        write_device(node(volume_id), DATA)
        with pytest.raises(exception.NoSpace, match="there is room for"):  # the placement sees it before the driver
            create(rig, 50)
        error = failed(rig.do(volumes.ExtendVolume, volume_id=volume_id, new_size=50))
        assert error["code"] == "volmgr.no_space.lvm_group"
        assert f"vgextend {GROUP}" in error["hint"]
        (row,) = rig.rows(models.volumes, id=volume_id)
        assert (row["status"], row["size"]) == ("available", 1)
        assert create(rig, 4)[1].state == "done"
        error = failed(rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=str(uuid.uuid4())))
        assert error["code"] == "volmgr.no_space.lvm_group"
        assert read_device(node(volume_id), 4096) == DATA


class TestTheVolume:
    def test_it_is_in_use(self, rig: Rig) -> None:
        volume_id, _ = create(rig)
        with node(volume_id).open("rb"):
            error = failed(rig.do(volumes.DeleteVolume, volume_id=volume_id))
            assert error["code"] == "volmgr.busy.volume"
            assert status(rig, volume_id) == "available"
        operation = rig.do(volumes.DeleteVolume, volume_id=volume_id)
        assert operation is not None and operation.state == "done"
        settle(rig)
        assert violations(rig.database, rig.driver) == []

    def test_it_was_removed_by_hand(self, rig: Rig) -> None:
        volume_id, _ = create(rig)
        run("lvremove", "-q", "-y", f"{GROUP}/volume-{volume_id}")
        error = failed(rig.do(volumes.ExtendVolume, volume_id=volume_id, new_size=2))
        assert error["code"] == "volmgr.not_found.volume"
        snapshot_id = str(uuid.uuid4())
        error = failed(rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id))
        assert error["code"] == "volmgr.not_found.volume"
        (row,) = rig.rows(models.snapshots, id=snapshot_id)
        assert row["status"] == "error"
        for operation in (
            rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id),
            rig.do(volumes.DeleteVolume, volume_id=volume_id),
        ):
            assert operation is not None and operation.state == "done"
        settle(rig)
        assert violations(rig.database, rig.driver) == []


class TestTheSnapshot:
    def test_it_overflowed(self, rig: Rig) -> None:
        volume_id, _ = create(rig)
        snapshot_id = str(uuid.uuid4())
        rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
        # Ours have room for everything; one that an operator made has not.
        name = f"_snapshot-{snapshot_id}"
        run("udevadm", "settle")
        run("lvremove", "-q", "-y", f"{GROUP}/{name}")
        run("lvcreate", "-q", "-y", "-s", "-n", name, "-L", "4m", f"{GROUP}/volume-{volume_id}")
        write_device(node(volume_id), DATA * (8 * MiB // len(DATA)))
        other, operation = create(rig, 1, snapshot_id=snapshot_id)
        assert failed(operation)["code"] == "volmgr.inconsistent.lvm_snapshot"
        assert status(rig, other) == "error"
        operation = rig.do(snapshots.RevertToSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
        assert failed(operation)["code"] == "volmgr.inconsistent.lvm_snapshot"
        assert status(rig, volume_id) == "available"
        assert read_device(node(volume_id), 4096, 4 * MiB) == DATA
        for operation in (
            rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id),
            rig.do(volumes.DeleteVolume, volume_id=volume_id),
            rig.do(volumes.DeleteVolume, volume_id=other),
        ):
            assert operation is not None and operation.state == "done"
        settle(rig)
        assert violations(rig.database, rig.driver) == []


class TestThePool:
    def test_its_metadata_is_full(self, group: LoopGroup, tmp_path: Path) -> None:
        driver = driver_on(lvm_type="thin")
        driver.do_setup(None)
        rig = Rig(tmp_path, make_driver=lambda _host, _target: driver)
        try:
            volume_id, _ = create(rig)
            write_device(node(volume_id), DATA)
            fill_metadata(driver.pool, 90.0)
            other, operation = create(rig)
            snapshot_id = str(uuid.uuid4())
            for refused in (
                operation, rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
            ):  # fmt: skip
                error = failed(refused)
                assert error["code"] == "volmgr.no_space"
                assert "metadata" in error["message"]
                assert f"lvextend --poolmetadatasize +SIZE {GROUP}/{driver.pool}" in error["hint"]
            (row,) = rig.rows(models.snapshots, id=snapshot_id)
            assert (status(rig, other), row["status"], status(rig, volume_id)) == ("error", "error", "available")
            assert [item.object_id for item in driver.observe()] == [volume_id]
            assert read_device(node(volume_id), 4096) == DATA
            # It grows by itself where that is allowed, and there is room again.
            growing = driver_on(lvm_type="thin", lvm_pool_autoextend_percent=100)
            growing.do_setup(None)
            before = growing.vg.report().volumes[driver.pool].metadata_bytes
            another = Volume(id=str(uuid.uuid4()), size=1)
            growing.create_volume(another)
            assert growing.vg.report().volumes[driver.pool].metadata_bytes == 2 * before
            growing.delete_volume(another)
            for gone in (
                rig.do(snapshots.DeleteSnapshot, snapshot_id=snapshot_id),
                rig.do(volumes.DeleteVolume, volume_id=volume_id),
                rig.do(volumes.DeleteVolume, volume_id=other),
            ):
                assert gone is not None and gone.state == "done"
            settle(rig)
            assert violations(rig.database, driver) == []
        finally:
            rig.close()
            run("udevadm", "settle")
            run("lvremove", "-q", "-f", "-y", GROUP)


def fill_metadata(pool: str, percent: float) -> None:
    """Make thin devices that LVM knows nothing of until so much of the pool's metadata is taken."""
    # The messages are the kernel's: admin-guide/device-mapper/thin-provisioning; the ioctl is DM_TARGET_MSG.
    name = f"{lvm_dm.device_name(GROUP, pool)}-tpool".encode()
    numbers = (4, 0, 0, 4096, 312, 0, 0, 0, 0, 0, 0)
    header = struct.pack("=3I I I I i I I I Q 128s 129s 7s", *numbers, name, b"", b"")
    with open("/dev/mapper/control", "rb+", buffering=0) as control:
        for number in range(100_000, 200_000):
            message = struct.pack("=Q", 0) + f"create_thin {number}\0".encode()
            fcntl.ioctl(control, 0xC138FD0E, bytearray((header + message).ljust(4096, b"\0")))
            if number % 16 == 0:
                status = lvm_dm.pool_status(GROUP, pool)
                assert status is not None
                if status.metadata_percent >= percent:
                    return
    raise AssertionError(f"the metadata of {pool} does not fill")

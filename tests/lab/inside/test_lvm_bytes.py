# SPDX-License-Identifier: Apache-2.0
"""No byte of an earlier tenant: a secret is written, deleted, and looked for, by who comes next and on the disk."""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.drivers import progress
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.options import Configuration
from volmgr.testing.daemon import Daemon
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.lab.lvm_factories import GROUP, LvmMirrored
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB, MiB, Snapshot, Volume

SECRET = b"an earlier tenant's bytes".ljust(4096, b"!")
#: What an operator's own volume leaves behind: nobody wipes that.
DIRT = b"what was there before volmgr".ljust(4096, b"?")
ZEROS = bytes(4096)
PLACES = (0, 100 * MiB, GiB - 4096)
CHUNK, POOL = 64 * 1024, 32 * MiB


class Disk:
    """A volume group over one sparse file, whose bytes can be looked through from below."""

    def __init__(self, image: Path, group: str) -> None:
        self.image = image
        self.group = group

    def holds(self, secret: bytes) -> bool:
        """Return whether the secret is anywhere in the file; holes are left out."""
        run("sync", "-f", str(self.image))
        position = 0
        with self.image.open("rb") as file:
            while True:
                try:
                    start = os.lseek(file.fileno(), position, os.SEEK_DATA)
                except OSError:
                    return False
                position = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                # Where it may lie begins on a sector's border, so a read never cuts it in two.
                for offset in range(start, position, 4 * MiB):
                    if secret in os.pread(file.fileno(), min(4 * MiB, position - offset), offset):
                        return True


@pytest.fixture(scope="module")
def disk(nothing_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    folder = tmp_path_factory.mktemp("bytes")
    with contextlib.ExitStack() as undo:
        made = Disk(folder / "bytes.img", "bytes")
        made.image.touch()
        undo.callback(made.image.unlink)
        os.truncate(made.image, 10 * GiB)  # sparse: only what is written takes memory
        device = run("losetup", "--find", "--show", str(made.image)).strip()
        undo.callback(run, "losetup", "--detach", device)
        run("vgcreate", "-q", "-y", made.group, device)
        undo.callback(run, "vgremove", "-q", "-f", "-y", made.group)
        undo.callback(run, "udevadm", "settle")
        yield made


def driver_on(disk: Disk, lvm_type: str, **options: Any) -> LVMVolumeDriver:
    values = {"volume_group": disk.group, "lvm_type": lvm_type, **options}
    driver = LVMVolumeDriver(configuration=Configuration(values), host="host@lvm")
    driver.do_setup(None)
    return driver


def volume_of(size: int = 1) -> Volume:
    return Volume(id=str(uuid.uuid4()), size=size)


def node(driver: LVMVolumeDriver, resource: Volume | Snapshot) -> Path:
    return Path(driver.local_path(resource))


def written(driver: LVMVolumeDriver) -> Volume:
    volume = volume_of()
    driver.create_volume(volume)
    for place in PLACES:
        write_device(node(driver, volume), SECRET, place)
    return volume


def gone(driver: LVMVolumeDriver, resource: Volume | Snapshot) -> None:
    kind = "snapshot" if isinstance(resource, Snapshot) else "volume"
    getattr(driver, f"trash_{kind}")(resource)
    driver.wipe(kind, resource.name_id, silent)


def silent(_fraction: float) -> None:
    """Receive progress."""


class TestThick:
    def test_nothing_of_a_volume_and_its_snapshots_is_left_on_the_disk(self, disk: Disk) -> None:
        driver = driver_on(disk, "default")
        volume = written(driver)
        snapshot = Snapshot(id=str(uuid.uuid4()), volume_id=volume.id, volume_size=1, volume=volume)
        driver.create_snapshot(snapshot)
        # The secret moves to where the snapshot keeps what has changed.
        for place in PLACES:
            write_device(node(driver, volume), ZEROS, place)
        assert read_device(node(driver, snapshot), 4096, PLACES[1]) == SECRET
        gone(driver, volume_of())  # an absent one
        assert disk.holds(SECRET)
        gone(driver, snapshot)
        assert not disk.holds(SECRET)
        for place in PLACES:
            write_device(node(driver, volume), SECRET, place)
        assert disk.holds(SECRET)
        gone(driver, volume)
        assert not disk.holds(SECRET)
        assert driver.observe() == []


def test_a_wipe_goes_on_where_it_was_broken_off(nothing_left: None, tmp_path: Path) -> None:
    """What lies before the kept place is not written again: a mark put there afterwards stays.

    And what wipes has the I/O priority that was asked for, which is looked at while its disk hangs.
    """
    # RAID has to write its zeros; slowly and in small steps, so that places are kept.
    slow = {"volume_clear_size": 64, "volume_copy_bps_limit": 8 * MiB, "volume_clear_ionice": "-c3"}
    memory, factory = Memory(), LvmMirrored(**slow)

    def broken_off(_fraction: float) -> None:
        if memory.checkpoints:
            raise exception.LeaseLost(id="operation")

    with factory.world(tmp_path, neighbour=False) as folder:
        driver = factory.make(folder)
        volume = volume_of()
        run("lvcreate", "-q", "-y", "-n", volume.name, "-L", "1g", "--type", "raid1", "-m", "1", "--nosync", GROUP)
        write_device(node(driver, volume), SECRET, 60 * MiB)
        driver.trash_volume(volume)
        with progress.reporting(broken_off, memory), pytest.raises(exception.LeaseLost):
            driver.wipe("volume", volume.name_id, broken_off)
        (kept,) = memory.checkpoints.values()
        assert 0 < kept["to"] < 60 * MiB
        with pytest.raises(exception.VolumeNotFound):
            driver.restore_volume(volume)
        mark, trash = b"a later mark".ljust(4096, b"!"), Path(f"/dev/{GROUP}/_trash-{volume.name_id}")
        write_device(trash, mark)
        (below,) = [item for item in driver.vg.extents(trash.name) if "zram" in item][:1]
        disk, _, extents = below.rpartition(":")
        first = int(extents.partition("-")[0])
        hung = Hung(trash)
        with progress.reporting(silent, memory):
            driver.wipe("volume", volume.name_id, hung)
        assert hung.seen == {"idle"}
        assert driver.observe() == []
        start = int(run("pvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "pe_start", disk)) + first * 4 * MiB
        assert read_device(Path(disk), 4096, start) == mark
        assert read_device(Path(disk), 4096, start + 60 * MiB) == ZEROS


class Hung:
    """A receiver of progress that makes the disk hang once, until a thread of ours has another I/O priority."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: set[str] = set()
        self._usual = self._priorities()

    @staticmethod
    def _priorities() -> set[str]:
        threads = [task.name for task in Path("/proc/self/task").iterdir()]
        return set(run("ionice", "-p", *threads).splitlines())

    def __call__(self, _fraction: float) -> None:
        if not self.seen:
            self.seen.add("nothing yet")
            run("dmsetup", "suspend", "--nolockfs", str(self.path))
            threading.Thread(target=self._look).start()

    def _look(self) -> None:
        def looked() -> bool:
            self.seen = self._priorities() - self._usual
            return bool(self.seen)

        try:
            wait_until(looked, 30, "a thread with another priority")
        finally:
            run("dmsetup", "resume", str(self.path))


class Memory:
    """What a caller keeps for a driver."""

    def __init__(self) -> None:
        self.checkpoints: dict[str, Any] = {}

    def keep(self, **data: Any) -> None:
        self.checkpoints.update(data)


class TestKilled:
    """SIGKILL between the moment in which space is a volume's and the one in which it is zeroed."""

    @pytest.fixture
    def dirty(self, disk: Disk) -> None:
        """Make the free space of the group hold other bytes wherever a volume could be."""
        run("lvcreate", "-q", "-y", "-Wn", "-n", "earlier", "-L", "3g", disk.group)
        for place in range(0, 3 * GiB, 64 * MiB):
            write_device(Path(f"/dev/{disk.group}/earlier"), DIRT, place)
        run("lvremove", "-q", "-y", f"{disk.group}/earlier")

    def test_no_byte_is_seen_after_a_kill_in_create_and_in_extend(
        self, disk: Disk, dirty: None, tmp_path: Path
    ) -> None:
        backend = {
            "volume_driver": "volmgr.drivers.lvm.LVMVolumeDriver",
            "volume_group": disk.group,
            "lvm_type": "default",
            "target_helper": "fake",
        }
        daemon = Daemon(tmp_path, backend=backend, forked=True)
        volume_id = str(uuid.uuid4())
        path = Path(f"/dev/{disk.group}/volume-{volume_id}")
        try:
            daemon.start(VOLMGR_KILL_AT="lvm/create/allocated")
            with daemon.client() as client:
                answer = client.api.create_volume(client.context, volume_id, size=1)
                daemon.wait_killed(60)
                building = Path(f"/dev/{disk.group}/_building-{volume_id}")
                assert DIRT in [read_device(building, 4096, place) for place in range(0, GiB, 4 * MiB)]
                assert not path.exists()
                daemon.start(VOLMGR_KILL_AT="lvm/extend/allocated")
                client.api.wait_operation(client.context, answer["operation_id"], 120)
                assert self._zeros(path, 0, GiB)
                answer = client.api.extend_volume(client.context, volume_id, 2)
                daemon.wait_killed(60)
                assert self._zeros(path, 0, GiB)
                daemon.start()
                client.api.wait_operation(client.context, answer["operation_id"], 120)
                assert self._zeros(path, 0, 2 * GiB)
                client.do("delete_volume", volume_id, timeout=120)
                wait_until(lambda: not run("lvs", "--noheadings", disk.group).strip(), 60, "its space is free")
        finally:
            daemon.stop()

    @staticmethod
    def _zeros(path: Path, start: int, end: int) -> bool:
        return all(read_device(path, 4096, place) == ZEROS for place in range(start, end, 4 * MiB))


class TestThin:
    def test_who_fills_the_pool_next_never_reads_it(self, disk: Disk) -> None:
        run("lvcreate", "-q", "-y", "-Zy", "-L", f"{POOL}b", "-T", f"{disk.group}/{disk.group}-pool")
        driver = driver_on(disk, "thin", lvm_pool_data_threshold=100)
        volume = volume_of()
        driver.create_volume(volume)
        filled = POOL - 4 * MiB
        write_device(node(driver, volume), SECRET * (filled // len(SECRET)))
        # LVM alone, without telling the disks, leaves it in the pool.
        assert disk.holds(SECRET)
        gone(driver, volume)
        assert not disk.holds(SECRET), "the pool passes discards down"
        # The same without discarding: what was handed out again is zeroed, also around a small write.
        bare = driver_on(disk, "thin", volume_clear="none", lvm_pool_data_threshold=100)
        bare.create_volume(volume)
        write_device(node(bare, volume), SECRET * (filled // len(SECRET)))
        gone(bare, volume)
        assert disk.holds(SECRET)
        later = volume_of()
        bare.create_volume(later)
        for place in range(0, POOL, CHUNK):
            write_device(node(bare, later), b"x" * 4096, place + 8192)
        read = read_device(node(bare, later), POOL)
        assert len(read.replace(b"x", b"").strip(b"\0")) == 0
        assert not disk.holds(SECRET), "every chunk of it was handed out"
        gone(driver, later)
        run("lvremove", "-q", "-y", f"{disk.group}/{disk.group}-pool")

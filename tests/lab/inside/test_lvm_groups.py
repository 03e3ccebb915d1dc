# SPDX-License-Identifier: Apache-2.0
"""Groups of thin logical volumes: sets of one instant over LIO, gates that grow and go, and none that stays shut.

The writer puts number n on the first disk, then on the second, then n + 1: a set is a prefix of that if the second has
what the first has, or one less.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import LioTarget
from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.loopgroup import read_device
from volmgr.testing.lab.lvm_factories import GROUP, LvmThin
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB, Portal, Secret, Snapshot, Volume

MATRIX_DRIVER, MATRIX_TARGET = "lvm-thin", "lio"
PREFIX = "iqn.2010-10.org.openstack:"
PORT = 3277
SETS = 2
BLOCK = 4096


@pytest.fixture(scope="module")
def driver(nothing_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("groups")
    target = LioTarget(TargetConfig(PREFIX, (Portal("127.0.0.1", PORT),), str(folder), timeout=60))
    target.start()
    factory = LvmThin(target)
    with factory.world(folder, neighbour=False):
        made = factory.make(folder)
        try:
            yield made
        finally:
            target.stop(and_exports=True)
            factory.end(made, folder)


def new_id() -> str:
    return str(uuid.uuid4())


def members(driver: Any, group_id: str, count: int = 2) -> list[Volume]:
    made = []
    for _ in range(count):
        secret = Secret(f"CHAP user {'s' * 16}")
        made.append(Volume(id=new_id(), size=1, group_id=group_id, provider_auth=secret))
        driver.create_volume(made[-1])
    return made


def log_in(driver: Any, volume: Volume) -> contextlib.AbstractContextManager[pathlib.Path]:
    connector = {"initiator": initiator.initiator_name(), "ip": "127.0.0.1", "host": "guest"}
    data = driver.initialize_connection(volume, connector)["data"]
    export = lio.Export(data["target_iqn"], data["target_lun"], "127.0.0.1", PORT)
    return logged_in(export, lio.Chap(data["auth_username"], data["auth_password"]))


_WRITE = """
import mmap, os, sys
told, *disks = (os.open(path, os.O_WRONLY | (0 if index == 0 else os.O_DIRECT))
                for index, path in enumerate(sys.argv[1:]))
buffer, count = mmap.mmap(-1, 4096), 0
while True:
    buffer[:8] = (count + 1).to_bytes(8, "big")
    for disk in disks:
        os.pwrite(disk, buffer, 0)
    count += 1
    os.pwrite(told, count.to_bytes(8, "big"), 0)
"""


class Writer:
    """See the module; it writes past all caches, in a process of its own, as it waits in the kernel."""

    def __init__(self, disks: list[pathlib.Path], folder: pathlib.Path) -> None:
        self._told = folder / f"told-{new_id()}"
        self._told.write_bytes(bytes(8))
        self._process = subprocess.Popen([sys.executable, "-c", _WRITE, str(self._told), *map(str, disks)])

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def count(self) -> int:
        """How often it has written to all disks."""
        assert self._process.poll() is None, "the client ended"
        return int.from_bytes(self._told.read_bytes(), "big")

    def wait_on(self) -> None:
        goal = self.count + 2
        wait_until(lambda: self.count > goal, 30, "the client writes")


def number_on(path: str) -> int:
    return int.from_bytes(read_device(pathlib.Path(path), BLOCK)[:8], "big")


def suspended() -> list[str]:
    rows = run("dmsetup", "info", "-c", "--noheadings", "--separator", " ", "-o", "name,suspended").splitlines()
    return [row.split()[0] for row in rows if row.endswith("Suspended")]


def snapshots_of(volumes: list[Volume]) -> list[Snapshot]:
    return [Snapshot(id=new_id(), volume_id=item.id, volume_size=item.size, volume=item) for item in volumes]


def test_sets_are_of_one_instant_under_an_initiator_that_writes(driver: Any, tmp_path: pathlib.Path) -> None:
    group_id = new_id()
    volumes = members(driver, group_id)
    sets = []
    with contextlib.ExitStack() as stack:
        disks = [stack.enter_context(log_in(driver, volume)) for volume in volumes]
        for volume in volumes:
            assert driver.export_path(volume) == f"/dev/mapper/{names.gate_name(GROUP, volume.name_id)}"
        with Writer(disks, tmp_path) as writer:
            for _ in range(SETS):
                writer.wait_on()
                before = writer.count
                # The second is snapshotted first: without one instant it would be behind by more than one.
                sets.append((before, snapshots_of(volumes[::-1])))
                assert driver.create_cgsnapshot(None, None, sets[-1][1]) == (None, None)
            writer.wait_on()
        assert suspended() == []
        with pytest.raises(exception.VolumeIsBusy):
            driver.trash_volume(volumes[0])
    for before, made in sets:
        behind, ahead = (number_on(driver.local_path(item)) for item in made)
        assert 0 <= ahead - behind <= 1
        assert behind >= before
    copies = [Volume(id=new_id(), size=size, group_id=new_id()) for size in (1, 2)]
    driver.create_consistencygroup_from_src(None, None, copies, cgsnapshot=object(), snapshots=sets[0][1])
    assert number_on(driver.local_path(copies[1])) == number_on(driver.local_path(sets[0][1][1]))
    assert int(run("blockdev", "--getsize64", driver.local_path(copies[1]))) == 2 * GiB
    for _before, made in sets:
        assert driver.delete_cgsnapshot(None, None, made)[0] == {"status": "deleted"}
    for volume in volumes:
        driver.remove_export(None, volume)
    model, told = driver.delete_consistencygroup(None, None, [*volumes, *copies])
    assert (model, {item["status"] for item in told}) == ({"status": "deleted"}, {"deleted"})
    assert not any(name.startswith(names.GATE_PREFIX) for name in run("dmsetup", "ls").split())


def test_a_gate_grows_with_its_volume(driver: Any) -> None:
    (volume,) = members(driver, new_id(), 1)
    gate = driver.export_path(volume)
    driver.extend_volume(volume, 2)
    assert int(run("blockdev", "--getsize64", gate)) == 2 * GiB
    assert driver.export_path(dataclasses.replace(volume, group_id=None)) == gate
    driver.delete_volume(volume)
    assert not os.path.exists(gate)


def test_who_is_connected_past_the_gate_does_not_join(driver: Any) -> None:
    volume = Volume(id=new_id(), size=1)
    driver.create_volume(volume)
    joining = dataclasses.replace(volume, group_id=new_id())
    with open(driver.local_path(volume), "rb"):
        with pytest.raises(exception.VolumeIsBusy):
            driver.update_consistencygroup(None, None, [joining])
        with pytest.raises(exception.VolumeIsBusy):
            driver.create_cgsnapshot(None, None, snapshots_of([joining]))
    driver.update_consistencygroup(None, None, [joining])
    driver.delete_volume(volume)


_HOLD = """
import sys, signal, os
from volmgr import concurrency; concurrency.setup("threading")
from volmgr.tools.lvm_gate import Gates
with Gates(sys.argv[1]).held(sys.argv[2:], 600):
    print("held", flush=True)
    signal.pause()
"""


def test_a_death_while_gates_are_shut_opens_them(driver: Any) -> None:
    volumes = members(driver, new_id())
    for volume in volumes:
        driver.export_path(volume)
    ids = [volume.name_id for volume in volumes]
    gates = sorted(names.gate_name(GROUP, item) for item in ids)
    with subprocess.Popen([sys.executable, "-c", _HOLD, GROUP, *ids], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert sorted(suspended()) == gates
        # Reports go on meanwhile: LVM does not look at gates.
        assert {volume.name for volume in volumes} <= set(driver.vg.report().volumes)
        process.send_signal(signal.SIGKILL)
        wait_until(lambda: not suspended(), 30, "the guardian opens the gates")
    # The guardian died as well: the next start opens them, before it asks LVM anything.
    for gate in gates:
        run("dmsetup", "suspend", gate)
    driver.do_setup(None)
    assert suspended() == []
    for volume in volumes:
        driver.delete_volume(volume)


def test_thick_volumes_have_no_sets(driver: Any) -> None:
    thick = type(driver)(configuration=driver.configuration, host="host@thick")
    thick._choose(False)
    assert set(thick.lacks) - set(driver.lacks) == {"create_cgsnapshot", "create_consistencygroup_from_src"}
    with pytest.raises(exception.Unsupported):
        thick.create_cgsnapshot(None, None, snapshots_of([Volume(id=new_id(), size=1)]))

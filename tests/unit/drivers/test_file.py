# SPDX-License-Identifier: Apache-2.0
"""The file driver beyond the contract: links in the way, broken folders, real kills, attached volumes."""

import os
import pathlib
import subprocess
import sys
import uuid
from typing import Any

import pytest

import volmgr
from volmgr import exception, names
from volmgr.drivers import folder, progress
from volmgr.drivers.file import FileDriver
from volmgr.drivers.folder import Folder
from volmgr.drivers.options import Configuration
from volmgr.types import GiB, MiB, Snapshot, Volume

ROOT = pathlib.Path(volmgr.__file__).parents[1]
DEADLINE = 60.0
CLONES = """
import sys, uuid
from volmgr.drivers.file import FileDriver
from volmgr.drivers.options import Configuration
from volmgr.types import Volume
driver = FileDriver(configuration=Configuration({"file_store_path": sys.argv[1], "file_reflink": "never"}))
source = Volume(id=sys.argv[2], size=1)
while True:
    driver.create_cloned_volume(Volume(id=str(uuid.uuid4()), size=1), source)
    print("made", flush=True)
"""
ROUND = """
from volmgr import concurrency
concurrency.setup("eventlet")
import sys, threading, uuid
from volmgr.drivers.file import FileDriver
from volmgr.drivers.options import Configuration
from volmgr.types import Volume
driver = FileDriver(configuration=Configuration({"file_store_path": sys.argv[1]}))
volumes = [Volume(id=str(uuid.uuid4()), size=1) for _ in range(8)]
def work(volume):
    driver.create_volume(volume)
    clone = Volume(id=str(uuid.uuid4()), size=1)
    driver.create_cloned_volume(clone, volume)
    driver.trash_volume(volume)
    driver.wipe("volume", volume.id, lambda fraction: None)
threads = [threading.Thread(target=work, args=(volume,)) for volume in volumes]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(driver.observe()))
"""


@pytest.fixture
def driver(tmp_path: pathlib.Path) -> FileDriver:
    return at(tmp_path)


def at(path: pathlib.Path, **options: Any) -> FileDriver:
    made = FileDriver(configuration=Configuration({"file_store_path": str(path), **options}), host="h@file")
    made.do_setup(None)
    return made


def volume(size: int = 1, **fields: Any) -> Volume:
    return Volume(id=str(uuid.uuid4()), size=size, **fields)


def snapshot(of: Volume) -> Snapshot:
    return Snapshot(id=str(uuid.uuid4()), volume_id=of.id, volume_size=of.size, volume=of)


def test_files_are_sparse_and_private(driver: FileDriver) -> None:
    made = volume(8)
    driver.create_volume(made)
    status = os.stat(driver.local_path(made))
    assert (status.st_size, status.st_mode & 0o777) == (8 * GiB, 0o600)
    assert status.st_blocks == 0
    assert os.stat(os.path.dirname(driver.local_path(made))).st_mode & 0o777 == 0o700


def test_clones_stay_sparse(tmp_path: pathlib.Path) -> None:
    driver, source, made = at(tmp_path, file_reflink="never"), volume(4), volume(4)
    driver.create_volume(source)
    with open(driver.local_path(source), "r+b") as file:
        for place in (0, GiB + 12345, 4 * GiB - 7):
            file.seek(place)
            file.write(b"x" * 7)
    seen: list[float] = []
    with progress.reporting(seen.append):
        driver.create_cloned_volume(made, source)
    assert os.stat(driver.local_path(made)).st_blocks * 512 <= MiB
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    with open(driver.local_path(made), "rb") as file:
        file.seek(GiB + 12345)
        assert file.read(8) == b"x" * 7 + b"\0"


def test_a_cancelled_copy_stops_and_leaves_no_volume(tmp_path: pathlib.Path) -> None:
    driver, source, made = at(tmp_path, file_reflink="never"), volume(), volume()
    driver.create_volume(source)
    with open(driver.local_path(source), "r+b") as file:
        file.write(os.urandom(MiB))

    def stop(fraction: float) -> None:
        raise exception.Cancelled

    with progress.reporting(stop), pytest.raises(exception.Cancelled):
        driver.create_cloned_volume(made, source)
    assert {item.object_id: item.state for item in driver.observe()} == {source.id: "current", made.id: "building"}
    driver.delete_volume(made)
    assert {item.object_id for item in driver.observe()} == {source.id}


@pytest.mark.parametrize("verb", ["create_volume", "extend_volume", "create_cloned_volume", "restore_volume"])
def test_a_link_in_the_way_is_never_followed(driver: FileDriver, tmp_path: pathlib.Path, verb: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    made, source = volume(2), volume()
    driver.create_volume(source)
    building = pathlib.Path(driver.path, "volumes", names.building_name(made.id))
    for link in (building, pathlib.Path(driver.local_path(made))):
        link.symlink_to(victim)
    arguments = {"extend_volume": (made, 3), "create_cloned_volume": (made, source)}.get(verb, (made,))
    with pytest.raises(exception.Inconsistent, match="not a plain file"):
        getattr(driver, verb)(*arguments)
    assert victim.read_bytes() == b"precious"
    driver.delete_volume(made)
    assert victim.read_bytes() == b"precious"
    assert {item.object_id for item in driver.observe()} == {source.id}


def test_a_link_under_the_building_name_is_replaced(driver: FileDriver, tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    made = volume()
    pathlib.Path(driver.path, "volumes", names.building_name(made.id)).symlink_to(victim)
    driver.create_volume(made)
    assert victim.read_bytes() == b"precious"
    assert not os.path.islink(driver.local_path(made))


def test_the_folders_may_be_no_links(tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    store = tmp_path / "store"
    store.mkdir()
    (store / "volumes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(exception.Inconsistent):
        at(store)


def test_a_folder_that_is_set_must_exist(tmp_path: pathlib.Path) -> None:
    with pytest.raises(exception.BackendDown) as caught:
        at(tmp_path / "missing")
    assert f"mkdir -m 0700 -p {tmp_path / 'missing'}" in caught.value.hint
    driver = FileDriver(configuration=Configuration({"state_path": str(tmp_path)}))
    driver.do_setup(None)
    driver.check_for_setup_error()
    assert driver.path == str(tmp_path / "file")


def test_a_setup_that_cannot_hold_files_is_told(tmp_path: pathlib.Path) -> None:
    driver = at(tmp_path)
    os.rmdir(tmp_path / "volumes")
    with pytest.raises(exception.BackendDown, match="volumes was removed"):
        driver.check_for_setup_error()
    driver.do_setup(None)
    driver.check_for_setup_error()


def test_an_attached_volume_is_not_copied_bit_by_bit(tmp_path: pathlib.Path) -> None:
    driver, source = at(tmp_path, file_reflink="never"), volume(attach_status="attached", status="in-use")
    driver.create_volume(source)
    taken = snapshot(source)
    for attempt in (
        lambda: driver.create_snapshot(taken),
        lambda: driver.create_cloned_volume(volume(), source),
        lambda: driver.revert_to_snapshot(None, source, taken),
    ):
        with pytest.raises(exception.Unsupported) as caught:
            attempt()
        assert "Detach the volume" in caught.value.hint
    assert {item.object_id for item in driver.observe()} == {source.id}


def test_reflink_can_be_required(tmp_path: pathlib.Path) -> None:
    if at(tmp_path).instant_clone:
        pytest.skip("the file system of temporary files shares blocks")
    with pytest.raises(exception.InvalidConfiguration, match="cannot share blocks"):
        at(tmp_path, file_reflink="require")
    assert [path.name for path in (tmp_path / "volumes").iterdir()] == []


def test_foreign_files_are_neither_seen_nor_touched(driver: FileDriver) -> None:
    foreign = pathlib.Path(driver.path, "volumes", "disk.img")
    foreign.write_bytes(b"theirs")
    made = volume()
    driver.create_volume(made)
    assert [item.object_id for item in driver.observe()] == [made.id]
    driver.delete_volume(made)
    assert foreign.read_bytes() == b"theirs"


def test_a_read_error_is_not_taken_for_a_hole() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        folder._copy_chunk(-1, -1, 0, 4096)


def test_bytes_are_copied_by_hand_where_the_kernel_cannot(tmp_path: pathlib.Path) -> None:
    store = Folder(str(tmp_path))
    store.create("a", 3 * MiB)
    store.create("b", 3 * MiB)
    data = os.urandom(2 * MiB)
    store.write("a", 100, data)
    with store.opened("a") as source, store.opened("b") as fd:
        position = 100
        while position < 100 + len(data):
            position += folder._copy_by_hand(source, fd, position, 100 + len(data) - position)
    assert store.read("b", 0, 3 * MiB) == store.read("a", 0, 3 * MiB)
    assert store.read("b", 100, len(data)) == data


def test_a_full_file_system_is_no_space(tmp_path: pathlib.Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this machine has no /dev/full")
    with pytest.raises(exception.NoSpace), folder.typed_errors("Writing"), open("/dev/full", "wb", 0) as file:
        file.write(b"x")


def test_what_stands_under_its_name_after_a_kill_is_whole(tmp_path: pathlib.Path) -> None:
    driver, source = at(tmp_path, file_reflink="never"), volume()
    driver.create_volume(source)
    data = os.urandom(24 * MiB)
    with open(driver.local_path(source), "r+b") as file:
        file.write(data)
    for _ in range(3):
        argv = [sys.executable, "-c", CLONES, str(tmp_path), source.id]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"made\n"
            child.kill()
            child.wait(DEADLINE)
    found = [item for item in driver.observe() if item.state == "current"]
    assert len(found) >= 4
    for item in found:
        assert item.size_bytes == GiB
        with open(os.path.join(driver.path, "volumes", item.name), "rb") as file:
            assert file.read(len(data)) == data


def test_it_works_on_green_threads(tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ROUND, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "8"), done.stderr


def test_a_link_that_appears_after_a_look_is_not_opened(tmp_path: pathlib.Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    store = Folder(str(tmp_path / "store"))
    (tmp_path / "store" / "link").symlink_to(tmp_path / "victim")
    for attempt in (
        lambda: store.write("link", 0, b"x"),
        lambda: store.resize("link", 1),
        lambda: store.read("link", 0, 8),
    ):
        with pytest.raises(exception.Inconsistent):
            attempt()
    assert (tmp_path / "victim").read_bytes() == b"precious"

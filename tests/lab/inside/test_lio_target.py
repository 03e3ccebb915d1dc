# SPDX-License-Identifier: Apache-2.0
"""The LIO target in a real kernel, as the kernel's initiator and libiscsi's see it: real disks, real bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.targets.initiators import Disk, inquire
from volmgr import exception, names
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import LioTarget, iscsi
from volmgr.targets.lio.configfs import Configfs, apply
from volmgr.targets.lio.tree import plan
from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.errors import CommandFailed
from volmgr.testing.lab.hanging import hanging_device
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.waiting import wait_until
from volmgr.types import Chap, ExportSpec, Grant, MiB, Portal, Secret

PREFIX = "iqn.2010-10.org.openstack:"
PORTAL, SECOND_PORTAL = Portal("127.0.0.1", 3260), Portal("127.0.0.1", 3261)
ONE = "iqn.1994-05.com.example:one"
SIZE = 16 * MiB
BLOCK = 4096


@pytest.fixture
def target(tmp_path: Path) -> Iterator[LioTarget]:
    made = LioTarget(TargetConfig(PREFIX, (PORTAL,), str(tmp_path), timeout=20))
    made.start()
    yield made
    made.stop(and_exports=True)
    left = lio.leftovers()
    assert not [path for path in left if PREFIX in path or "_1" in path], left


@pytest.fixture(params=["file", "block"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file, or a block device over one."""
    path = tmp_path / "storage"
    path.touch()
    os.truncate(path, SIZE)
    if request.param == "file":
        yield path
        return
    device = run("losetup", "--find", "--show", str(path)).strip()
    yield Path(device)
    run("losetup", "--detach", device)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return make_file(tmp_path)


def make_file(folder: Path) -> Path:
    path = folder / f"file-{uuid.uuid4()}"
    path.touch()
    os.truncate(path, SIZE)
    return path


def make_spec(path: Path, *initiators: str, mode: str = "rw", **more: Any) -> ExportSpec:
    resource = str(uuid.uuid4())
    fields: dict[str, Any] = {
        "path": str(path),
        "serial": names.new_serial(),
        "auth": Chap(f"u{resource[:8]}", Secret("a-password-of-16")),
        "grants": tuple(Grant(str(uuid.uuid4()), mode=mode, initiator=name) for name in initiators),
    }
    return ExportSpec("volume", resource, names.target_name(PREFIX, "volume", resource), **(fields | more))


def disk_of(spec: ExportSpec, password: str | None = None) -> Any:
    """Log the kernel's initiator in; a context manager that yields the disk."""
    assert spec.auth is not None
    chap = lio.Chap(spec.auth.username, password or spec.auth.password.reveal())
    return logged_in(lio.Export(spec.target_name, spec.lun, PORTAL.ip, PORTAL.port), chap)


def ask(target: LioTarget, spec: ExportSpec, *arguments: str, as_: str | None = None, password: str = "") -> str:
    """Log in by libiscsi as the spec's first initiator and ask INQUIRY."""
    name = as_ or str(spec.grants[0].initiator)
    chap = None
    if spec.auth is not None:
        chap = (spec.auth.username, password or spec.auth.password.reveal())
    return inquire(target.connection(spec, Grant("x", initiator=name)), name, *arguments, chap=chap)


def stored(storage: Path, length: int, offset: int = 0) -> bytes:
    """Return what is in the storage itself."""
    if storage.is_block_device():
        return read_device(storage, length, offset)
    with storage.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def size_of(disk: Path) -> int:
    return int(run("blockdev", "--getsize64", str(disk)))


def grow(storage: Path) -> None:
    if storage.is_block_device():
        os.truncate(run("losetup", "--noheadings", "-O", "BACK-FILE", str(storage)).strip(), 2 * SIZE)
        run("losetup", "--set-capacity", str(storage))
    else:
        os.truncate(storage, 2 * SIZE)


def test_disk_is_the_storage_and_grows_in_use(target: LioTarget, storage: Path) -> None:
    spec = make_spec(storage, initiator.initiator_name())
    assert target.sync(spec) is True
    with disk_of(spec) as disk:
        assert size_of(disk) == SIZE
        data = os.urandom(MiB)
        write_device(disk, data, offset=3 * MiB)
        assert stored(storage, MiB, 3 * MiB) == data
        about = Path("/sys/block") / disk.name / "device"
        assert spec.serial.encode() in (about / "vpd_pg80").read_bytes()
        assert f"naa.6001405{spec.serial[:25]}" == (about / "wwid").read_text().strip()
        assert 0 < int((about.parent / "queue/discard_max_bytes").read_text()) <= 512 * MiB
        assert [seen.sessions for seen in target.observe()] == [(initiator.initiator_name(),)]
        assert target.sync(spec) is False
        grow(storage)
        assert target.sync(spec) is (not storage.is_block_device())
        run("iscsiadm", "-m", "session", "--rescan")
        wait_until(lambda: size_of(disk) == 2 * SIZE, 10, "the initiator sees the new size")
        write_device(disk, data, offset=2 * SIZE - MiB)
        assert stored(storage, MiB, 2 * SIZE - MiB) == data
        assert read_device(disk, MiB, offset=3 * MiB) == data
    (seen,) = target.observe()
    assert (seen.target_name, seen.paths, seen.serials) == (spec.target_name, (str(storage),), (spec.serial,))
    assert (seen.initiators, seen.sessions) == ((initiator.initiator_name(),), ())
    assert target.sync(dataclasses.replace(spec, wanted=False)) is True
    assert lio.leftovers() == []
    assert target.sync(dataclasses.replace(spec, wanted=False)) is False


def test_only_who_is_granted_and_knows_the_password(target: LioTarget, file: Path) -> None:
    spec = make_spec(file, initiator.initiator_name())
    target.sync(spec)
    with pytest.raises(CommandFailed) as refused, disk_of(spec, password="another-password"):
        pytest.fail("the target let a wrong password in")
    assert refused.value.status == initiator.AUTH_FAILED
    assert initiator.sessions() == []
    with pytest.raises(PermissionError):
        ask(target, spec, as_=ONE)
    with pytest.raises(PermissionError):
        inquire(target.connection(spec, spec.grants[0]), initiator.initiator_name())
    spec = dataclasses.replace(spec, grants=(Grant("1", initiator=ONE),))
    target.sync(spec)
    # The target is not even shown to who has no grant.
    with pytest.raises(CommandFailed):
        run("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", str(PORTAL))
    assert spec.auth is not None
    changed = dataclasses.replace(spec, auth=Chap("another-user", Secret("the-next-password")))
    assert target.sync(changed) is True
    assert "DIRECT_ACCESS" in ask(target, changed)
    with pytest.raises(PermissionError):
        ask(target, spec)
    open_ = dataclasses.replace(spec, auth=None)
    assert target.sync(open_) is True
    assert "DIRECT_ACCESS" in ask(target, open_)
    assert target.sync(open_) is False
    assert target.sync(dataclasses.replace(open_, grants=())) is True
    with pytest.raises(PermissionError):
        ask(target, open_, as_=ONE)


def session_state() -> str:
    return "".join(path.read_text().strip() for path in Path("/sys/class/iscsi_session").glob("session*/state"))


def test_revoked_loses_its_session_and_the_other_stays(target: LioTarget, file: Path, tmp_path: Path) -> None:
    spec = make_spec(file, initiator.initiator_name(), ONE)
    target.sync(dataclasses.replace(spec, grants=spec.grants[1:]))
    with Disk(target.connection(spec, spec.grants[1]), ONE, tmp_path) as other:
        assert "failed" not in other.write(1, 0, BLOCK)
        # A second initiator's entry is made while the first one works.
        assert target.sync(spec) is True
        with disk_of(spec) as disk:
            assert read_device(disk, BLOCK) == b"\x01" * BLOCK
            assert len(target.observe()[0].sessions) == 2
            assert target.sync(dataclasses.replace(spec, grants=spec.grants[1:])) is True
            assert target.observe()[0].sessions == (ONE,)
            wait_until(lambda: session_state() != "LOGGED_IN", 10, "the kernel's initiator lost its session")
            assert "failed" not in other.write(2, 0, BLOCK)
            # Granted again it recovers by itself, and meets what is there now.
            target.sync(spec)
            wait_until(lambda: session_state() == "LOGGED_IN", 20, "the kernel's initiator is back")
            assert read_device(disk, BLOCK) == b"\x02" * BLOCK
            assert "failed" not in other.read(2, 0, BLOCK)


def test_read_only_grant_cannot_write(target: LioTarget, file: Path, tmp_path: Path) -> None:
    spec = make_spec(file, initiator.initiator_name(), mode="ro")
    spec = dataclasses.replace(spec, grants=(*spec.grants, Grant("writer", initiator=ONE)))
    target.sync(spec)
    reader, writer = (target.connection(spec, grant) for grant in spec.grants)
    assert (reader["access_mode"], writer["access_mode"]) == ("ro", "rw")
    with Disk(writer, ONE, tmp_path) as disk:
        assert "failed" not in disk.write(7, 0, BLOCK)
        with disk_of(spec) as kernel_disk:
            assert read_device(kernel_disk, BLOCK) == b"\x07" * BLOCK
            with pytest.raises(OSError, match=r"Read-only|not permitted"):
                write_device(kernel_disk, b"\x08" * BLOCK)
            # The kernel believes what it was told; sent all the same, the target refuses it.
            run("blockdev", "--setrw", str(kernel_disk))
            with pytest.raises(OSError):
                write_device(kernel_disk, b"\x08" * BLOCK)
        assert target.sync(dataclasses.replace(spec, read_only=True)) is True
        assert "failed" in disk.write(9, 0, BLOCK)
    assert file.read_bytes()[:BLOCK] == b"\x07" * BLOCK


WRITER = """
import mmap, os, select, sys
disk = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
number = errors = 0
while not select.select([0], [], [], 0)[0]:
    number += 1
    page[:8] = number.to_bytes(8, "big")
    try:
        os.pwrite(disk, page, 0)
    except OSError:
        errors += 1
print(number, errors)
"""


@contextlib.contextmanager
def writing(disk: Path) -> Iterator[Callable[[], tuple[int, int]]]:
    """Write growing numbers to a disk; yields what ends that and returns the last number and how many writes failed."""
    command = [sys.executable, "-I", "-S", "-c", WRITER, str(disk)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:

        def stop() -> tuple[int, int]:
            assert writer.stdout is not None
            assert not select.select([writer.stdout], [], [], 0)[0], "the writer ended by itself"
            last, errors = writer.communicate(b"stop\n", timeout=30)[0].split()
            return int(last), int(errors)

        try:
            yield stop
        finally:
            writer.kill()


def waits(disk: Path) -> bool:
    """Return whether a command of a disk is under way for so long that it must be with the target."""
    counts = Path("/sys/block", disk.name, "stat")
    before = counts.read_text().split()
    time.sleep(0.3)
    after = counts.read_text().split()
    return after[8] != "0" and after[4] == before[4]  # I/O in progress, writes completed: Documentation/block/stat.rst


def test_wiped_under_a_writing_initiator_is_rebuilt_without_an_error(target: LioTarget, storage: Path) -> None:
    spec = make_spec(storage, initiator.initiator_name())
    target.sync(spec)

    def number() -> int:
        return int.from_bytes(stored(storage, BLOCK)[:8], "big")

    with disk_of(spec) as disk, writing(disk) as stop:
        wait_until(lambda: number() > 10, 20, "the writer writes")
        lio.wipe()
        before = number()
        assert target.sync(spec) is True
        wait_until(lambda: number() > before + 10, 30, "the writer goes on")
        last, errors = stop()
        assert errors == 0, f"{errors} writes failed"
        assert number() == last
    assert target.sync(spec) is False


def test_storage_that_hangs_holds_nobody_for_ever(target: LioTarget, tmp_path: Path) -> None:
    hasty = LioTarget(dataclasses.replace(target.config, timeout=2.0))
    with hanging_device(tmp_path, "hanging", SIZE) as device, contextlib.ExitStack() as undo:
        spec, free = make_spec(device.node, initiator.initiator_name()), make_spec(make_file(tmp_path), ONE)
        revoked = dataclasses.replace(spec, grants=())
        undo.callback(target.stop, and_exports=True)
        target.sync(spec)

        def number() -> int:
            return int.from_bytes(stored(device.image, BLOCK)[:8], "big")

        with disk_of(spec) as disk, writing(disk) as stop:
            wait_until(lambda: number() > 10, 20, "the writer writes")
            with device.suspended():
                wait_until(lambda: waits(disk), 20, "a command waits for the storage")
                with pytest.raises(exception.Timeout, match="did not finish"):
                    hasty.sync(revoked)
                with pytest.raises(exception.Timeout, match="was busy"):
                    hasty.sync(revoked)
                with pytest.raises(exception.Timeout, match="list the exports"):
                    hasty.observe()
                # Others go on meanwhile.
                assert target.sync(free) is True
                assert "DIRECT_ACCESS" in ask(target, free)
            # The lock that the call held is given back when the kernel has ended it, and no earlier.
            wait_until(lambda: hasty.sync(revoked) in (True, False), 20, "it goes on", retry_on=exception.Timeout)
            assert {seen.target_name: seen.initiators for seen in hasty.observe()}[spec.target_name] == ()
            before = number()
            assert target.sync(spec) is True
            wait_until(lambda: number() > before, 30, "the writer writes again")
            assert stop()[1] == 0


def test_half_made_is_completed_after_any_step(target: LioTarget, file: Path) -> None:
    spec = make_spec(file, ONE)
    tree = Configfs()
    wanted = iscsi.wanted(spec, target.config.portals)
    length = len(plan(wanted, iscsi.read(tree, spec.target_name)))
    assert length > 15
    for cut in range(length):
        for step in plan(wanted, iscsi.read(tree, spec.target_name))[:cut]:
            apply(tree, step)
        assert target.sync(spec) is True
        assert spec.serial in ask(target, spec, "-e", "1", "-c", "128"), f"cut off after step {cut}"
        assert target.sync(spec) is False
        # And the removal, cut off likewise, first completed as an export, then as a removal.
        for step in plan(None, iscsi.read(tree, spec.target_name))[:cut]:
            apply(tree, step)
        target.sync(spec)
        assert plan(wanted, iscsi.read(tree, spec.target_name)) == []
        for step in plan(None, iscsi.read(tree, spec.target_name))[:cut]:
            apply(tree, step)
        target.sync(dataclasses.replace(spec, wanted=False))
        assert lio.leftovers() == []


def test_other_storage_takes_the_old_one_s_place(target: LioTarget, file: Path, tmp_path: Path) -> None:
    spec = make_spec(file, ONE)
    target.sync(spec)
    other = make_file(tmp_path)
    with Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        assert "failed" not in disk.write(3, 0, BLOCK)
        pivoted = dataclasses.replace(spec, path=str(other), serial=names.new_serial())
        assert target.sync(pivoted) is True
        assert [(seen.paths, seen.serials) for seen in target.observe()] == [((str(other),), (pivoted.serial,))]
    assert pivoted.serial in ask(target, pivoted, "-e", "1", "-c", "128")


def whole_tree() -> dict[str, str]:
    """Return every folder, link and settled attribute of LIO."""
    found = {}
    for folder, _, files in os.walk(lio.CONFIGFS):
        found[folder] = "folder"
        for name in files:
            path = Path(folder) / name
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif "attrib" in folder or name in ("enable", "udev_path", "userid", "password"):
                found[str(path)] = path.read_text()
    return found


def test_foreign_target_is_untouched(target: LioTarget, file: Path, tmp_path: Path) -> None:
    image = make_file(tmp_path)
    device = run("losetup", "--find", "--show", str(image)).strip()
    foreign = "iqn.2003-01.org.linux-iscsi.host:foreign"
    with lio.exported(Path(device), foreign, ONE, lio.Chap("f", "a-foreign-password"), uuid.uuid4().hex, port=3262):
        before = whole_tree()
        spec = make_spec(file, ONE)
        target.sync(spec)
        assert [seen.target_name for seen in target.observe()] == [spec.target_name]
        assert {key: value for key, value in whole_tree().items() if key in before} == before
        for name in (foreign, f"{PREFIX}../{foreign}"):
            with pytest.raises(exception.Invalid):
                target.sync(dataclasses.replace(spec, target_name=name, wanted=False))
        target.stop(and_exports=True)
        assert whole_tree() == before
        # The foreign target has the device: it is told, and once it is free the export can be made.
        taken = make_spec(Path(device), ONE)
        with pytest.raises(exception.Busy):
            target.sync(taken)
    assert target.sync(taken) is True
    target.stop(and_exports=True)
    run("losetup", "--detach", device)


def test_many_at_once_and_nothing_left(target: LioTarget, tmp_path: Path) -> None:
    specs = [make_spec(make_file(tmp_path), ONE, mode="ro" if index % 4 == 0 else "rw") for index in range(32)]
    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(target.sync, specs))
        observed = {seen.target_name: seen for seen in target.observe()}
        assert set(observed) == {spec.target_name for spec in specs}
        for spec in specs:
            seen = observed[spec.target_name]
            assert (seen.paths, seen.serials, seen.initiators) == ((spec.path,), (spec.serial,), (ONE,))
        assert not any(pool.map(target.sync, specs))
        assert "DIRECT_ACCESS" in ask(target, specs[7])
        assert all(pool.map(lambda spec: target.sync(dataclasses.replace(spec, wanted=False)), specs))
    assert target.observe() == []
    assert lio.leftovers() == []


def test_portals_as_configured(target: LioTarget, file: Path, tmp_path: Path) -> None:
    spec = make_spec(file, ONE)
    both = LioTarget(TargetConfig(PREFIX, (PORTAL, SECOND_PORTAL), str(tmp_path)))
    assert both.sync(spec) is True
    assert spec.auth is not None
    data = both.connection(spec, spec.grants[0])
    chap = (spec.auth.username, spec.auth.password.reveal())
    for portal in (PORTAL, SECOND_PORTAL):
        assert "DIRECT_ACCESS" in inquire(data | {"target_portal": str(portal)}, ONE, chap=chap)
    assert target.sync(spec) is True
    with pytest.raises(PermissionError):
        inquire(data | {"target_portal": str(SECOND_PORTAL)}, ONE, chap=chap)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        away = LioTarget(TargetConfig(PREFIX, (PORTAL, Portal(*taken.getsockname())), str(tmp_path)))
        with pytest.raises(exception.BackendDown, match=f"listen on 127.0.0.1:{taken.getsockname()[1]}"):
            away.sync(spec)
    assert "DIRECT_ACCESS" in ask(target, spec)


def test_a_kernel_without_lio_is_told(tmp_path: Path) -> None:
    config = TargetConfig(PREFIX, (PORTAL,), str(tmp_path), options={"lio_configfs": str(tmp_path / "none")})
    missing = LioTarget(config)
    for ask_it in (missing.start, missing.check, missing.observe):
        with pytest.raises(exception.BackendDown) as caught:
            ask_it()
        assert "modprobe target_core_mod" in caught.value.hint

# SPDX-License-Identifier: Apache-2.0
"""tgtd exports what it is told and nothing else: a real private tgtd, real initiators, real bytes."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, names
from volmgr.targets.base import TargetConfig
from volmgr.targets.tgt import TgtTarget
from volmgr.testing.waiting import wait_until
from volmgr.types import Chap, ExportSpec, GiB, Grant, MiB, Portal, Secret

sys.path.insert(0, str(Path(__file__).parent))
import initiators  # the folder is no package

PREFIX = "iqn.2010-10.org.openstack:"
ONE, TWO = "iqn.1994-05.com.example:one", "iqn.1994-05.com.example:two"
SIZE = 4 * MiB
REFUSED_LOGIN = "Target not found"


@pytest.fixture
def make(tmp_path: Path, require: Callable[..., str]) -> Iterator[Callable[..., TgtTarget]]:
    """Make a target on its own folder and port; the same ones again with ``again``, as after our restart."""
    require("tgtd", "tgt")
    require("iscsi-inq", "libiscsi-bin")
    require("qemu-io", "qemu-utils")
    port = initiators.free_port()
    made: list[TgtTarget] = []

    def build(**options: Any) -> TgtTarget:
        portals = (Portal("127.0.0.1", port), Portal("127.0.0.2", port))
        target = TgtTarget(TargetConfig(PREFIX, portals, str(tmp_path / "target"), timeout=20, options=options))
        made.append(target)
        target.start()
        return target

    yield build
    made[0].stop(and_exports=True)


@pytest.fixture
def target(make: Callable[..., TgtTarget]) -> TgtTarget:
    return make()


@pytest.fixture
def spec(tmp_path: Path) -> ExportSpec:
    return make_spec(tmp_path, ONE)


def make_spec(folder: Path, *initiator_names: str, mode: str = "rw", **more: Any) -> ExportSpec:
    resource = str(uuid.uuid4())
    path = folder / f"volume-{resource}"
    with path.open("wb") as file:
        file.truncate(SIZE)
    fields: dict[str, Any] = {
        "path": str(path),
        "serial": names.new_serial(),
        "size_bytes": SIZE,
        "auth": Chap(f"u{resource[:8]}", Secret("a-password-of-16")),
        "grants": tuple(Grant(str(uuid.uuid4()), mode=mode, initiator=name) for name in initiator_names),
    }
    return ExportSpec("volume", resource, names.target_name(PREFIX, "volume", resource), **(fields | more))


def inquire(target: TgtTarget, spec: ExportSpec, grant: Grant, password: str | None = None, **more: Any) -> str:
    data = target.connection(spec, grant)
    assert spec.auth is not None
    chap = (spec.auth.username, spec.auth.password.reveal() if password is None else password)
    return initiators.inquire(data, more.get("initiator", grant.initiator), *more.get("arguments", ()), chap=chap)


def sessions(target: TgtTarget) -> list[str]:
    return [session.initiator for one in target.client.targets() for session in one.sessions]


def tid_of(target: TgtTarget, name: str) -> int:
    return next(one.tid for one in target.client.targets() if one.name == name)


def test_right_password_only(target: TgtTarget, spec: ExportSpec) -> None:
    assert target.sync(spec) is True
    assert "DIRECT_ACCESS" in inquire(target, spec, spec.grants[0])
    with pytest.raises(PermissionError, match="Authentication failure"):
        inquire(target, spec, spec.grants[0], password="another-password")
    with pytest.raises(PermissionError, match="Authentication failure"):
        initiators.inquire(target.connection(spec, spec.grants[0]), ONE)


def test_other_initiator_is_refused(target: TgtTarget, spec: ExportSpec) -> None:
    target.sync(spec)
    with pytest.raises(PermissionError, match=REFUSED_LOGIN):
        inquire(target, spec, spec.grants[0], initiator=TWO)


def test_without_grants_nobody(target: TgtTarget, spec: ExportSpec) -> None:
    target.sync(dataclasses.replace(spec, grants=()))
    with pytest.raises(PermissionError, match=REFUSED_LOGIN):
        inquire(target, spec, spec.grants[0])


def test_serial_as_the_initiator_sees_it(target: TgtTarget, spec: ExportSpec) -> None:
    target.sync(spec)
    said = inquire(target, spec, spec.grants[0], arguments=("-e", "1", "-c", "128"))
    assert spec.serial in said
    identification = inquire(target, spec, spec.grants[0], arguments=("-e", "1", "-c", "131"))
    assert names.scsi_id(spec.serial) in identification


def test_repeat_changes_nothing_and_keeps_sessions(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    target.sync(spec)
    with initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        disk.write(1, 0, 4096)
        before = [session.sid for one in target.client.targets() for session in one.sessions]
        assert before
        assert target.sync(spec) is False
        assert [session.sid for one in target.client.targets() for session in one.sessions] == before


def test_bytes_are_the_files(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    target.sync(spec)
    with initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        assert "failed" not in disk.write(0xA7, 65536, 65536)
    content = Path(spec.path).read_bytes()
    assert content == bytes(65536) + b"\xa7" * 65536 + bytes(SIZE - 131072)


def test_both_portals_serve(target: TgtTarget, spec: ExportSpec) -> None:
    target.sync(spec)
    data = target.connection(spec, spec.grants[0])
    assert data["target_portals"] == [str(portal) for portal in target.config.portals]
    assert spec.auth is not None
    for portal in target.config.portals:
        data["target_portal"] = str(portal)
        chap = (spec.auth.username, spec.auth.password.reveal())
        assert "DIRECT_ACCESS" in initiators.inquire(data, ONE, chap=chap)
    assert sorted(target.client.portals()) == sorted(str(portal) for portal in target.config.portals)


def test_revoked_grant_loses_its_session_and_the_other_stays(target: TgtTarget, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, ONE, TWO)
    target.sync(spec)
    with (
        initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as first,
        initiators.Disk(target.connection(spec, spec.grants[1]), TWO, tmp_path) as second,
    ):
        first.write(1, 0, 4096)
        second.write(2, 4096, 4096)
        assert sorted(sessions(target)) == [ONE, TWO]
        assert target.sync(dataclasses.replace(spec, grants=spec.grants[1:])) is True
        assert sessions(target) == [TWO]
        assert "failed" not in second.read(2, 4096, 4096)
    with pytest.raises(PermissionError, match=REFUSED_LOGIN):
        inquire(target, spec, spec.grants[0])
    assert "DIRECT_ACCESS" in inquire(target, spec, spec.grants[1])


def test_last_revoked_grant_ends_all_sessions(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    target.sync(spec)
    with initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        disk.write(1, 0, 4096)
        target.sync(dataclasses.replace(spec, grants=()))
        assert sessions(target) == []
    assert [export.initiators for export in target.observe()] == [()]
    target.sync(spec)
    assert "DIRECT_ACCESS" in inquire(target, spec, spec.grants[0])


def test_read_only_grant_cannot_write_beside_a_writer(target: TgtTarget, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, ONE)
    reader = Grant("reader", mode="ro", initiator=TWO)
    spec = dataclasses.replace(spec, grants=(*spec.grants, reader))
    target.sync(spec)
    writer_data, reader_data = (target.connection(spec, grant) for grant in spec.grants)
    assert (writer_data["access_mode"], reader_data["access_mode"]) == ("rw", "ro")
    with initiators.Disk(writer_data, ONE, tmp_path) as disk:
        assert "failed" not in disk.write(7, 0, 4096)
    with initiators.Disk(reader_data, TWO, tmp_path, read_only=True) as disk:
        assert "failed" not in disk.read(7, 0, 4096)
    # The reader's disk is announced read-only, and the writer's target does not let the reader in.
    lun = next(one for one in target.client.targets() if one.name == reader_data["target_iqn"]).disks[0]
    assert lun.read_only and lun.path == spec.path
    with pytest.raises(PermissionError, match=REFUSED_LOGIN):
        inquire(target, spec, spec.grants[0], initiator=TWO)
    with pytest.raises((ConnectionError, AssertionError)), initiators.Disk(reader_data, TWO, tmp_path) as disk:
        assert "failed" not in disk.write(9, 0, 4096)
    assert Path(spec.path).read_bytes()[:4096] == b"\x07" * 4096
    assert target.sync(dataclasses.replace(spec, grants=spec.grants[:1])) is True
    assert [one.name for one in target.client.targets()] == [spec.target_name]


def test_export_turned_read_only_refuses_an_open_writer(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    target.sync(spec)
    with initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        assert "failed" not in disk.write(1, 0, 4096)
        assert target.sync(dataclasses.replace(spec, read_only=True)) is True
        assert "failed" in disk.write(2, 0, 4096)
    assert Path(spec.path).read_bytes()[:4096] == b"\x01" * 4096
    assert target.sync(spec) is True
    with initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        assert "failed" not in disk.write(3, 0, 4096)
    assert Path(spec.path).read_bytes()[:4096] == b"\x03" * 4096


def test_changed_password_is_applied(target: TgtTarget, spec: ExportSpec) -> None:
    target.sync(spec)
    assert spec.auth is not None
    changed = dataclasses.replace(spec, auth=Chap(spec.auth.username, Secret("the-next-password")))
    assert target.sync(changed) is True
    assert "DIRECT_ACCESS" in inquire(target, changed, spec.grants[0])
    with pytest.raises(PermissionError, match="Authentication failure"):
        inquire(target, spec, spec.grants[0])
    renamed = dataclasses.replace(spec, auth=Chap("another-user", Secret("the-third-password")))
    target.sync(renamed)
    assert target.client.accounts() == ("another-user",)
    assert "DIRECT_ACCESS" in inquire(target, renamed, spec.grants[0])


def test_account_of_another_target_is_not_taken(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    target.sync(spec)
    assert spec.auth is not None
    thief = make_spec(tmp_path, TWO, auth=Chap(spec.auth.username, Secret("a-thiefs-password")))
    with pytest.raises(exception.Conflict):
        target.sync(thief)
    assert "DIRECT_ACCESS" in inquire(target, spec, spec.grants[0])
    with pytest.raises(PermissionError, match=REFUSED_LOGIN):
        inquire(target, thief, thief.grants[0])


def test_other_storage_ends_sessions_of_the_old(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    """A pivot: the export's storage and serial are others now; nobody may go on writing to the old one."""
    target.sync(spec)
    other = make_spec(tmp_path)
    pivoted = dataclasses.replace(spec, path=other.path, serial=other.serial)
    with initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        disk.write(1, 0, 4096)
        assert target.sync(pivoted) is True
    assert other.serial in inquire(target, pivoted, spec.grants[0], arguments=("-e", "1", "-c", "128"))


def test_growth_shows_when_nobody_is_logged_in(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    target.sync(spec)
    with initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        disk.write(1, 0, 4096)
        os.truncate(spec.path, 2 * SIZE)
        assert target.sync(dataclasses.replace(spec, size_bytes=2 * SIZE)) is False
        assert "failed" not in disk.read(1, 0, 4096)
    wait_until(lambda: not sessions(target), 10, "the session to end")
    assert target.sync(dataclasses.replace(spec, size_bytes=2 * SIZE)) is True
    assert target.client.targets()[0].disks[0].size_mb == round(2 * SIZE / 10**6)


def test_removed_export_leaves_nothing(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    target.sync(spec)
    with initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        disk.write(1, 0, 4096)
        assert target.sync(dataclasses.replace(spec, wanted=False)) is True
        assert (target.client.targets(), target.client.accounts()) == ((), ())
    assert target.sync(dataclasses.replace(spec, wanted=False)) is False


def test_wiped_behind_our_back_is_rebuilt(target: TgtTarget, spec: ExportSpec) -> None:
    target.sync(spec)
    target.client.delete_target(tid_of(target, spec.target_name), force=True)
    assert target.sync(spec) is True
    assert "DIRECT_ACCESS" in inquire(target, spec, spec.grants[0])


def test_killed_tgtd_is_started_and_filled(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    other = make_spec(tmp_path, TWO)
    target.sync(spec)
    target.sync(other)
    os.kill(target.client.pid(), signal.SIGKILL)
    target.sync(spec)
    assert "DIRECT_ACCESS" in inquire(target, spec, spec.grants[0])
    assert "DIRECT_ACCESS" in inquire(target, other, other.grants[0])
    os.kill(target.client.pid(), signal.SIGKILL)
    target.check()
    assert {export.target_name for export in target.observe()} == {spec.target_name, other.target_name}


def test_restart_of_ours_adopts_and_keeps_sessions(
    make: Callable[..., TgtTarget], spec: ExportSpec, tmp_path: Path
) -> None:
    first = make()
    first.sync(spec)
    pid = first.client.pid()
    with initiators.Disk(first.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        disk.write(5, 0, 4096)
        first.stop()
        second = make()
        second.rebuild([spec])
        assert second.client.pid() == pid
        assert sessions(second) == [ONE]
        assert "failed" not in disk.read(5, 0, 4096)
    assert "DIRECT_ACCESS" in inquire(second, spec, spec.grants[0])
    assert second.sync(spec) is False


def told(request: Callable[..., None], done: list[str]) -> Callable[..., None]:
    """Return the same request, which notes its name once tgtd has done it."""

    def ask(*args: Any, **options: Any) -> None:
        request(*args, **options)
        done.append(request.__name__)

    return ask


@pytest.mark.parametrize("size", [SIZE, GiB, 2 * GiB, 3 * GiB, 1024 * GiB])
def test_a_restart_of_ours_refuses_nobody_at_any_moment(
    make: Callable[..., TgtTarget], tmp_path: Path, size: int
) -> None:
    """A new life cannot ask tgtd for a password; an account of ours that is bound here is right as it is.

    Neither is a LUN made anew which tgtd tells in units of its own to be as large as it should be.
    """
    spec = make_spec(tmp_path, ONE, auth=Chap(names.new_account(), Secret("a-password-of-16")), size_bytes=size)
    os.truncate(spec.path, size)
    first = make()
    first.sync(spec)
    first.stop()
    second = make()
    asked: list[str] = []
    changing = ("new_", "delete_", "allow_", "deny_", "bind_", "unbind_", "set_", "update_", "close_")
    for name in [name for name in dir(second.client) if name.startswith(changing)]:
        setattr(second.client, name, told(getattr(second.client, name), asked))
    assert second.sync(spec) is False
    assert asked == []
    assert "DIRECT_ACCESS" in inquire(second, spec, spec.grants[0])


@pytest.mark.parametrize("requests", range(8))
def test_half_made_export_is_completed(make: Callable[..., TgtTarget], spec: ExportSpec, requests: int) -> None:
    """What a kill after any request leaves is completed by the next life."""
    first = make()
    assert spec.auth is not None
    begun = [
        lambda: first.client.new_target(77, spec.target_name),
        lambda: first.client.new_lun(77, spec.lun, spec.path),
        lambda: first.client.update_lun(77, spec.lun, scsi_id=names.scsi_id(spec.serial), serial=spec.serial),
        lambda: first.client.new_account(spec.auth.username, Secret("not-its-password")),
        lambda: first.client.bind_account(77, spec.auth.username),
        lambda: first.client.allow_name(77, TWO),
        lambda: first.client.allow_address(77, "ALL"),
    ]
    for request in begun[:requests]:
        request()
    second = make()
    assert second.sync(spec) is True
    assert spec.serial in inquire(second, spec, spec.grants[0], arguments=("-e", "1", "-c", "128"))
    with pytest.raises(PermissionError, match=REFUSED_LOGIN):
        inquire(second, spec, spec.grants[0], initiator=TWO)
    assert [one.name for one in second.client.targets()] == [spec.target_name]
    assert second.sync(spec) is False


def test_foreign_target_is_untouched(make: Callable[..., TgtTarget], spec: ExportSpec, tmp_path: Path) -> None:
    own = make()
    own.client.new_target(3, "iqn.2020-01.com.example:foreign")
    own.client.new_lun(3, 1, make_spec(tmp_path).path)
    own.client.allow_address(3, "ALL")
    shared = TgtTarget(
        TargetConfig(PREFIX, own.config.portals, str(tmp_path / "x"), 20, {"tgt_socket": own.client.socket})
    )
    shared.start()
    foreign = own.client.targets()
    shared.sync(spec)
    assert "DIRECT_ACCESS" in inquire(shared, spec, spec.grants[0])
    assert [export.target_name for export in shared.observe()] == [spec.target_name]
    shared.stop(and_exports=True)
    assert own.client.targets() == foreign
    with pytest.raises(exception.Invalid):
        shared.sync(dataclasses.replace(spec, target_name="iqn.2020-01.com.example:foreign", wanted=False))
    assert own.client.targets() == foreign


def test_many_at_once(target: TgtTarget, tmp_path: Path) -> None:
    specs = [make_spec(tmp_path, ONE, mode="ro" if index % 4 == 0 else "rw") for index in range(32)]
    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(target.sync, specs))
    observed = {export.target_name: export for export in target.observe()}
    assert set(observed) == {spec.target_name for spec in specs}
    for spec in specs:
        seen = observed[spec.target_name]
        assert (seen.paths, seen.serials, seen.initiators) == ((spec.path,), (spec.serial,), (ONE,))
    threads = len(os.listdir(f"/proc/{target.client.pid()}/task"))
    luns = sum(len(one.disks) for one in target.client.targets())
    assert threads <= luns + 1
    with ThreadPoolExecutor(32) as pool:
        assert not any(pool.map(target.sync, specs))
        assert all(pool.map(lambda spec: target.sync(dataclasses.replace(spec, wanted=False)), specs))
    assert (target.client.targets(), target.client.accounts()) == ((), ())


def test_observe_tells_sessions(target: TgtTarget, spec: ExportSpec, tmp_path: Path) -> None:
    target.sync(spec)
    with initiators.Disk(target.connection(spec, spec.grants[0]), ONE, tmp_path) as disk:
        disk.write(1, 0, 4096)
        (seen,) = target.observe()
        assert (seen.sessions, seen.initiators, seen.serials) == ((ONE,), (ONE,), (spec.serial,))


def test_tampered_lun_is_mended_after_an_audit(target: TgtTarget, spec: ExportSpec) -> None:
    target.sync(spec)
    target.client.update_lun(tid_of(target, spec.target_name), spec.lun, serial="tampered")
    assert target.observe()[0].serials == ("tampered",)
    assert target.sync(spec) is True
    assert target.observe()[0].serials == (spec.serial,)


@pytest.mark.parametrize("bad", ["iqn.a:b,c", "not a name", "iqn.a:\nTarget 9: x", ""])
def test_bad_initiator_changes_nothing(target: TgtTarget, spec: ExportSpec, bad: str) -> None:
    with pytest.raises(exception.InvalidConnector):
        target.validate_connector({"initiator": bad})
    with pytest.raises(exception.InvalidConnector):
        target.sync(dataclasses.replace(spec, grants=(Grant("1", initiator=bad),)))
    assert target.client.targets() == ()


def test_missing_storage_is_not_found(target: TgtTarget, spec: ExportSpec) -> None:
    with pytest.raises(exception.NotFound, match="cannot be opened"):
        target.sync(dataclasses.replace(spec, path="/nonexistent/volume"))
    assert target.client.targets() == ()

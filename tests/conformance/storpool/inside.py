# SPDX-License-Identifier: Apache-2.0
"""What ``test_attach.py`` runs where ``/etc/storpool.conf`` and ``/dev`` are its own: attaching with os-brick.

The contract server plays StorPool's client, too: it makes a loop device for what is attached to client 1.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from os_brick.initiator import storpool_utils

from volmgr import exception
from volmgr.backups.copying import BackupService
from volmgr.backups.format import Manifest
from volmgr.connector import HostConnector
from volmgr.drivers import storpool_config
from volmgr.drivers.storpool import StorPoolDriver
from volmgr.initiator import storpool
from volmgr.testing.backups import MemoryStore
from volmgr.testing.storpool.process import StorPoolServer
from volmgr.types import Backup, GiB, MiB, Snapshot, Volume, VolumeType

CONF = Path("/etc/storpool.conf")
DATA, LATER = b"attached and written", b"written a good while later"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorPoolServer]:
    """A server whose client 1 is this host."""
    folder = tmp_path_factory.mktemp("server")
    with StorPoolServer(folder, ["--devices", "/dev", "--device-client", "1"]) as made:
        made.write_conf(CONF, hosts={platform.node(): 1, "elsewhere": 2})
        yield made


@pytest.fixture
def server(running: StorPoolServer) -> Iterator[StorPoolServer]:
    """An empty server; the test fails if it is sent anything that the API does not take."""
    running.reset()
    yield running
    assert running.refused() == []
    running.reset()


@pytest.fixture
def driver(server: StorPoolServer) -> StorPoolDriver:
    made = StorPoolDriver(host="node@storpool")
    made.do_setup(None)
    made.check_for_setup_error()
    return made


class Host:
    """This host as one that attaches volumes."""

    def __init__(self, driver: StorPoolDriver, connector: HostConnector, properties: dict[str, Any]) -> None:
        self.driver = driver
        self.connector = connector
        self.properties = properties

    def attach(self, volume: Volume) -> tuple[dict[str, Any], Path]:
        info = self.driver.initialize_connection(volume, self.properties)
        return info, Path(self.connector.connect(info))

    def detach(self, info: Mapping[str, Any]) -> None:
        self.connector.disconnect(info)

    def write(self, volume: Volume, data: bytes, offset: int = 0) -> None:
        info, path = self.attach(volume)
        put(path, data, offset)
        self.detach(info)

    def read(self, volume: Volume, length: int, offset: int = 0) -> bytes:
        info, path = self.attach(volume)
        try:
            return get(path, length, offset)
        finally:
            self.detach(info)


def put(path: Path, data: bytes, offset: int = 0) -> None:
    """Write to a device as its user does; conv=fsync: until it is on the disk."""
    subprocess.run(
        ["dd", f"of={path}", "bs=1M", "conv=notrunc,fsync", "oflag=seek_bytes", f"seek={offset}", "status=none"],
        input=data,
        check=True,
        timeout=30,
    )


def get(path: Path, length: int, offset: int = 0) -> bytes:
    with path.open("rb") as device:
        device.seek(offset)
        return device.read(length)


@pytest.fixture(scope="module")
def connector(tmp_path_factory: pytest.TempPathFactory) -> tuple[HostConnector, dict[str, Any]]:
    """os-brick's view of this host; it takes a while to find out."""
    made = HostConnector(str(tmp_path_factory.mktemp("locks")))
    return made, made.properties()


@pytest.fixture
def host(driver: StorPoolDriver, connector: tuple[HostConnector, dict[str, Any]]) -> Host:
    return Host(driver, *connector)


def a_volume(size: int = 1, template: str | None = None) -> Volume:
    kind = VolumeType(id="t", name="t", extra_specs={"storpool_template": template}) if template else None
    return Volume(id=str(uuid.uuid4()), size=size, volume_type=kind)


def created(driver: StorPoolDriver, size: int = 1, template: str | None = None) -> Volume:
    volume = a_volume(size, template)
    driver.create_volume(volume)
    return volume


def snapped(driver: StorPoolDriver, volume: Volume) -> Snapshot:
    snapshot = Snapshot(id=str(uuid.uuid4()), volume_id=volume.id, volume_size=volume.size, volume=volume)
    driver.create_snapshot(snapshot)
    return snapshot


def test_bytes_are_the_same_through_every_verb(driver: StorPoolDriver, host: Host) -> None:
    volume = created(driver, 1, "fast")
    assert host.read(volume, len(DATA)) == bytes(len(DATA))
    host.write(volume, DATA, 512 * MiB)
    snapshot = snapped(driver, volume)
    host.write(volume, LATER, 512 * MiB)
    clone, across, from_snapshot = a_volume(1, "fast"), a_volume(1, "hybrid"), a_volume(2)
    driver.create_cloned_volume(clone, volume)
    driver.create_cloned_volume(across, volume)
    driver.create_volume_from_snapshot(from_snapshot, snapshot)
    assert host.read(clone, len(LATER), 512 * MiB) == LATER
    assert host.read(across, len(LATER), 512 * MiB) == LATER
    assert host.read(from_snapshot, len(DATA), 512 * MiB) == DATA
    host.write(clone, DATA)
    assert host.read(volume, len(DATA)) == bytes(len(DATA))
    driver.revert_to_snapshot(None, volume, snapshot)
    assert host.read(volume, len(LATER), 512 * MiB) == DATA + bytes(len(LATER) - len(DATA))
    driver.extend_volume(volume, 2)
    assert host.read(volume, len(DATA), 2 * GiB - len(DATA)) == bytes(len(DATA))
    assert driver.retype(None, volume, {}, {"extra_specs": {"storpool_template": ("fast", "hybrid")}}, {}) is True
    place = {"host": "other@storpool#template_plain", "capabilities": driver.get_volume_stats(refresh=True)}
    assert driver.migrate_volume(None, volume, place) == (True, None)
    assert driver.update_migrated_volume(None, volume, clone, "available") == {"_name_id": None}
    assert host.read(clone, len(DATA), 512 * MiB) == DATA
    assert host.read(volume, len(DATA)) == DATA


def test_a_volume_grows_while_it_is_attached(driver: StorPoolDriver, host: Host) -> None:
    volume = created(driver)
    info, path = host.attach(volume)
    put(path, DATA)
    driver.extend_volume(volume, 3)
    assert host.connector.connector("storpool").extend_volume(info["data"]) == 3 * GiB
    put(path, LATER, 3 * GiB - len(LATER))
    assert get(path, len(DATA)) == DATA
    host.detach(info)
    assert host.read(volume, len(LATER), 3 * GiB - len(LATER)) == LATER


def test_what_is_detached_has_no_device(driver: StorPoolDriver, host: Host, server: StorPoolServer) -> None:
    volume = created(driver)
    info, path = host.attach(volume)
    name = driver.storpool_name(volume)
    assert path.is_block_device()
    assert Path(f"/dev/storpool/{name}").is_block_device()
    assert server.attached()[name] == {"1": "rw"}
    host.detach(info)
    assert not path.exists()
    assert server.attached()[name] == {}
    host.detach(info)
    driver.delete_volume(volume)
    # One that is gone already is success.
    host.detach(info)


def test_a_host_asks_again_where_an_answer_is_lost(driver: StorPoolDriver, host: Host, server: StorPoolServer) -> None:
    volume = created(driver)
    for kind in ("transient", "reset", "garbage"):
        for when in ("before", "after"):
            fault = {"call": "VolumesReassignWait", "kind": kind, "when": when}
            server.faults(fault, {"call": "VolumeGetInfo", "kind": kind, "when": when})
            info, path = host.attach(volume)
            assert path.is_block_device()
            server.faults(fault)
            host.detach(info)
            assert not path.exists()
            assert server.faults_left() == 0


def test_a_host_does_not_wait_for_an_answer_that_drips(
    driver: StorPoolDriver, host: Host, server: StorPoolServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storpool, "TIMEOUT", 1.0)
    volume = created(driver)
    drips = {"kind": "drip", "when": "after", "seconds": 0.1}
    server.faults({"call": "VolumesReassignWait", **drips}, {"call": "VolumeGetInfo", **drips})
    info, path = host.attach(volume)
    assert path.is_block_device()
    assert server.faults_left() == 0
    host.detach(info)
    assert not path.exists()


def test_what_a_host_left_that_died_at_it_is_let_go(driver: StorPoolDriver, host: Host, server: StorPoolServer) -> None:
    """Its call is under way when it is killed, and is done all the same: at once, or once its access has ended."""
    volume = created(driver)
    name = driver.storpool_name(volume)
    info = driver.initialize_connection(volume, host.properties)
    for act, call, when in (
        (host.connector.connect, "VolumesReassignWait", "before"),
        (host.connector.connect, "VolumeGetInfo", "before"),
        (host.connector.disconnect, "VolumesReassignWait", "before"),
        (host.connector.disconnect, "VolumesReassignWait", "after"),
    ):
        for late in (False, True):
            told = f"{act.__name__}, {call}, {when}, {late}"
            if act == host.connector.disconnect:
                host.connector.connect(info)
            server.forget_calls()
            server.faults({"call": call, "kind": "held", "when": when})
            killed(server, call, lambda act=act: act(info))  # type: ignore[misc]
            if late:
                driver.terminate_connection(volume, host.properties)
            server.release()
            left = server.attached()[name]
            connects = act == host.connector.connect and (call == "VolumesReassignWait" or not late)
            assert left == ({"1": "rw"} if connects else {}), told
            driver.terminate_connection(volume, host.properties)
            assert server.attached()[name] == {}, told
            assert not Path(f"/dev/storpool/{name}").exists(), told
    host.write(volume, DATA)
    assert host.read(volume, len(DATA)) == DATA


def killed(server: StorPoolServer, call: str, act: Callable[[], Any]) -> None:
    """Let a process do something, and kill it while a call of its is under way."""
    child = os.fork()
    if not child:
        try:
            act()
        finally:
            os._exit(1)
    server.wait_held(call)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_a_host_is_told_what_storpool_refuses(driver: StorPoolDriver, host: Host, server: StorPoolServer) -> None:
    volume = created(driver)
    server.forget_calls()
    server.faults({"call": "VolumesReassignWait", "kind": "error", "name": "whatever"})
    with pytest.raises(exception.BackendDown, match="whatever"):
        host.attach(volume)
    assert [call["call"] for call in server.calls()] == ["VolumesReassignWait"]


def test_a_read_only_volume_cannot_be_written(driver: StorPoolDriver, host: Host) -> None:
    volume = Volume(id=str(uuid.uuid4()), size=1, readonly=True)
    driver.create_volume(volume)
    info, path = host.attach(volume)
    with pytest.raises(subprocess.CalledProcessError):
        put(path, DATA)
    host.detach(info)


class Images:
    """An image store in memory, with the methods that drivers of this tree know."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.format = "raw"

    def show(self, context: Any, image_id: str) -> dict[str, Any]:
        return {"id": image_id, "disk_format": self.format}

    def download(self, context: Any, image_id: str, file: Any) -> None:
        for start in range(0, len(self.data[image_id]), MiB):
            file.write(self.data[image_id][start : start + MiB])

    def update(self, context: Any, image_id: str, metadata: Any, file: Any) -> None:
        # The beginning and the end will do: it is as large as the volume.
        begin = file.read(4 * MiB)
        file.seek(-MiB, os.SEEK_END)
        self.data[image_id] = begin + file.read(2 * MiB)
        assert file.tell() == GiB


class Backups:
    """A backup store in memory."""

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.during: Any = None

    def backup(self, backup: Mapping[str, Any], file: Any) -> None:
        if self.during is not None:
            self.during()
        self.data[backup["id"]] = file.read(len(DATA))


def test_images_go_in_and_out(driver: StorPoolDriver, host: Host, server: StorPoolServer) -> None:
    images, volume = Images(), created(driver)
    images.data["in"] = DATA + bytes(5 * MiB) + LATER
    driver.copy_image_to_volume(None, volume, images, "in")
    assert host.read(volume, len(DATA)) == DATA
    assert host.read(volume, len(LATER), 5 * MiB + len(DATA)) == LATER
    # While the volume is in use on this very host, and stays so.
    info, path = host.attach(volume)
    with path.open("rb"):
        driver.copy_volume_to_image(None, volume, images, {"id": "out", "disk_format": "raw"})
    assert images.data["out"] == DATA + bytes(5 * MiB - len(DATA))
    assert server.attached()[driver.storpool_name(volume)] == {"1": "rw"}
    host.detach(info)
    assert server.names() == {driver.storpool_name(volume)} | {n for n in server.names() if n.startswith("*")}


def test_images_that_do_not_fit_change_nothing(driver: StorPoolDriver, host: Host, server: StorPoolServer) -> None:
    images, volume = Images(), created(driver)
    images.format = "qcow2"
    server.forget_calls()
    with pytest.raises(exception.Unsupported):
        driver.copy_image_to_volume(None, volume, images, "in")
    with pytest.raises(exception.Unsupported):
        driver.copy_volume_to_image(None, volume, images, {"id": "out", "disk_format": "vmdk"})
    assert server.calls() == []

    class TooLarge(Images):
        def download(self, context: Any, image_id: str, file: Any) -> None:
            file.seek(GiB - 1)
            file.write(b"xx")

    with pytest.raises(exception.Invalid, match="larger"):
        driver.copy_image_to_volume(None, volume, TooLarge(), "in")
    assert server.attached()[driver.storpool_name(volume)] == {}


def test_a_backup_is_of_one_moment(driver: StorPoolDriver, host: Host, server: StorPoolServer) -> None:
    backups, volume = Backups(), created(driver)
    host.write(volume, DATA)
    backup = {"id": str(uuid.uuid4()), "volume_id": volume.id}
    backups.during = lambda: host.write(volume, LATER)
    driver.backup_volume(None, backup, backups)
    assert backups.data[backup["id"]] == DATA
    assert host.read(volume, len(LATER)) == LATER
    snapshot = snapped(driver, volume)
    backups.during = None
    of_snapshot = {"id": str(uuid.uuid4()), "volume_id": volume.id, "snapshot_id": snapshot.id}
    host.write(volume, DATA)
    driver.backup_volume(None, of_snapshot, backups)
    assert backups.data[of_snapshot["id"]] == LATER[: len(DATA)]
    visible = {name for name in server.names() if not name.startswith("*")}
    assert visible == {driver.storpool_name(volume), driver.storpool_name(snapshot)}


def test_a_backup_that_was_broken_off_is_made_anew(driver: StorPoolDriver, host: Host) -> None:
    backups, volume = Backups(), created(driver)
    host.write(volume, LATER)
    backup = {"id": str(uuid.uuid4()), "volume_id": volume.id}
    # What a worker that died has left: the snapshot, attached to this host.
    between = driver._name("backup", backup["id"])
    driver._snap(driver.storpool_name(volume), between)
    wish = {"reassign": [{"snapshot": between, "ro": [1]}]}
    driver.api.change("attach", lambda client: client.volumes_reassign_wait(wish))
    host.write(volume, DATA)
    driver.backup_volume(None, backup, backups)
    assert backups.data[backup["id"]] == DATA
    driver.delete_volume(volume)
    with pytest.raises(exception.VolumeNotFound):
        driver.backup_volume(None, backup, backups)


def test_a_backup_of_a_snapshot_is_restored_over_another_volume(driver: StorPoolDriver, host: Host) -> None:
    store, volume, target = MemoryStore(), created(driver), created(driver)
    host.write(volume, DATA, 5 * MiB)
    source = snapped(driver, volume)
    backup = Backup(str(uuid.uuid4()), volume.id, volume.size, "memory", source=source)
    draft = Manifest(backup.id, {}, volume.size_bytes, (backup.id,))
    driver.backup_volume(None, backup, BackupService(store, draft))
    for offset in (0, 5 * MiB, GiB - len(LATER)):
        host.write(target, LATER, offset)
    driver.restore_backup(None, backup, target, BackupService(store, size_bytes=target.size_bytes))
    assert host.read(target, len(DATA), 5 * MiB) == DATA
    assert host.read(target, len(LATER)) == host.read(target, len(LATER), GiB - len(LATER)) == bytes(len(LATER))


def test_os_brick_reads_the_same_configuration(server: StorPoolServer) -> None:
    folder = Path("/etc/storpool.conf.d")
    folder.mkdir()
    (folder / "10-more.conf").write_text(f"SP_API_HTTP_PORT=1\n[{platform.node()}]\nSP_OPENSTACK_VOLUME_PREFIX=more\n")
    try:
        theirs, ours = storpool_utils.get_conf(), storpool_config.read(CONF)
        told = (ours.host, str(ours.port), ours.token.reveal(), ours.prefix, str(ours.client_id(platform.node())))
        names = ("SP_API_HTTP_HOST", "SP_API_HTTP_PORT", "SP_AUTH_TOKEN", "SP_OPENSTACK_VOLUME_PREFIX", "SP_OURID")
        assert told == tuple(theirs[name] for name in names)
        assert ours.client_id("elsewhere") == int(storpool_utils.get_conf("elsewhere")["SP_OURID"])
    finally:
        (folder / "10-more.conf").unlink()
        folder.rmdir()

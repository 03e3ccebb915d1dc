# SPDX-License-Identifier: Apache-2.0
"""The whole of it in a real kernel: the daemon on LIO, and the kernel's initiator with what the daemon told it."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.errors import CommandFailed
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB, MiB

GROUP = "daemonlio"
MATRIX_TARGET = "lio"


@pytest.fixture(params=["file", "lvm"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The options of a backend that stores volumes in a folder, or in a volume group of its own."""
    if request.param == "file":
        yield {"volume_driver": "file"}
        return
    image = tmp_path / "group.img"
    image.touch()
    os.truncate(image, 8 * GiB)  # sparse: only what is written takes memory
    device = run("losetup", "--find", "--show", str(image)).strip()
    run("vgcreate", "-q", "-y", GROUP, device)
    yield {"volume_driver": "volmgr.drivers.lvm.LVMVolumeDriver", "volume_group": GROUP, "lvm_type": "thin"}
    run("udevadm", "settle")
    run("vgremove", "-q", "-f", "-y", GROUP)
    run("losetup", "--detach", device)


@pytest.fixture
def daemon(tmp_path: Path, storage: dict[str, Any]) -> Iterator[Daemon]:
    """A daemon on LIO, with this guest's only CPU for everything."""
    target = {
        "target_helper": "volmgr.targets.lio.LioTarget",
        "target_ip_address": "127.0.0.1",
        "target_port": 3270,
    }
    made = Daemon(tmp_path, backend=storage | target, forked=True)
    made.start()
    yield made
    made.stop()


def connector() -> dict[str, str]:
    return {"initiator": initiator.initiator_name(), "ip": "127.0.0.1", "host": "guest"}


def log_in(info: dict[str, Any]) -> contextlib.AbstractContextManager[Path]:
    """Use connection_info as it was answered."""
    assert info["driver_volume_type"] == "iscsi"
    data = info["data"]
    address, _, port = data["target_portal"].rpartition(":")
    export = lio.Export(data["target_iqn"], data["target_lun"], address, int(port))
    return logged_in(export, lio.Chap(data["auth_username"], data["auth_password"]))


def stored(daemon: Daemon, storage: dict[str, Any]) -> list[str]:
    """Return where volumes are, those that wait to be wiped too."""
    if "volume_group" not in storage:
        return [str(path) for path in (daemon.state / "file").rglob("*") if path.is_file()]
    rows = [line.split() for line in run("lvs", "--noheadings", "-o", "lv_name,lv_attr", GROUP).splitlines()]
    return [f"/dev/{GROUP}/{name}" for name, attributes in rows if not attributes.startswith("t")]  # t: a thin pool


def test_bytes_over_the_daemon_s_death(daemon: Daemon, storage: dict[str, Any]) -> None:
    volume_id = str(uuid.uuid4())
    data = os.urandom(MiB)
    with daemon.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = client.api.initialize_connection(client.context, volume_id, connector())
        with log_in(info) as disk:
            assert int(run("blockdev", "--getsize64", str(disk))) == GiB
            write_device(disk, data, offset=8 * MiB)
            daemon.kill()
            assert read_device(disk, MiB, offset=8 * MiB) == data, "an attachment must outlive the daemon"
            daemon.start()
            assert client.api.initialize_connection(client.context, volume_id, connector()) == info
            write_device(disk, data[::-1], offset=16 * MiB)
            _extend_in_use(client, volume_id, disk)
            assert read_device(disk, MiB, offset=8 * MiB) == data
            (path,) = stored(daemon, storage)
            assert _read(Path(path), MiB, 16 * MiB) == data[::-1]
        client.api.terminate_connection(client.context, volume_id, connector())
        with pytest.raises(CommandFailed), log_in(info):
            pytest.fail("access was not taken away")
        client.do("delete_volume", volume_id)
        assert lio.leftovers() == []
        wait_until(lambda: not stored(daemon, storage), 30, "its space is wiped and free")


def _extend_in_use(client: Client, volume_id: str, disk: Path) -> None:
    client.do("extend_volume", volume_id, 2)
    run("iscsiadm", "-m", "session", "--rescan")
    size = Path("/sys/class/block") / disk.name / "size"
    wait_until(lambda: int(size.read_text()) * 512 == 2 * GiB, 10, "the initiator sees the new size")


def _read(path: Path, length: int, offset: int) -> bytes:
    if path.is_block_device():
        return read_device(path, length, offset)
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)

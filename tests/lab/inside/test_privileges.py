# SPDX-License-Identifier: Apache-2.0
"""The daemon on LVM and LIO with the rights of its unit file with drop-ins/lvm-lio.conf, and no others."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr.testing import privileges
from volmgr.testing.daemon import Daemon
from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.waiting import WaitTimeout, wait_until
from volmgr.types import GiB, MiB

GROUP = "unprivileged"
MATRIX_TARGET = "lio"
MATRIX_DRIVER = "lvm"
FILES = [privileges.UNIT, privileges.UNITS / "drop-ins" / "lvm-lio.conf"]


@pytest.fixture(params=["thin", "default"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    image = tmp_path / "group.img"
    image.touch()
    os.truncate(image, 8 * GiB)
    device = run("losetup", "--find", "--show", str(image)).strip()
    run("vgcreate", "-q", "-y", GROUP, device)
    for module in ("target_core_mod", "target_core_iblock", "target_core_file", "iscsi_target_mod"):
        subprocess.run(["modprobe", module], check=False)  # as the unit asks systemd to; it may be built in
    yield {
        "volume_driver": "lvm", "volume_group": GROUP, "lvm_type": request.param, "target_helper": "lioadm",
        "target_ip_address": "127.0.0.1", "target_port": 3271,
    }  # fmt: skip
    run("udevadm", "settle")
    run("vgremove", "-q", "-f", "-y", GROUP)
    run("losetup", "--detach", device)


@pytest.fixture
def daemon(tmp_path: Path, backend: dict[str, Any]) -> Iterator[Daemon]:
    folder = tmp_path / "daemon"
    folder.mkdir()
    made = Daemon(folder, backend=backend, under=privileges.setpriv(FILES))
    try:
        made.start()
    except WaitTimeout as error:
        pytest.fail(f"{error}:\n{made.tail()}")
    yield made
    made.stop()


def test_a_volume_s_life_with_the_rights_of_the_unit(daemon: Daemon, backend: dict[str, Any]) -> None:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    sets = privileges.of_process(daemon.pid)
    assert sets["CapEff"] == sets["CapBnd"]
    assert sets["CapEff"].bit_count() == len(privileges.capabilities("CapabilityBoundingSet", *FILES))
    assert "NoNewPrivs:\t1" in status
    connector = {"initiator": initiator.initiator_name(), "ip": "127.0.0.1", "host": "guest"}
    volume_id, snapshot_id, copy_id = (str(uuid.uuid4()) for _ in range(3))
    data = os.urandom(MiB)
    with daemon.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = client.api.initialize_connection(client.context, volume_id, connector)["data"]
        address, _, port = info["target_portal"].rpartition(":")
        export = lio.Export(info["target_iqn"], info["target_lun"], address, int(port))
        with logged_in(export, lio.Chap(info["auth_username"], info["auth_password"])) as disk:
            write_device(disk, data, offset=8 * MiB)
            client.do("extend_volume", volume_id, 2)
            client.do("create_snapshot", volume_id, snapshot_id, force=True)
            write_device(disk, data[::-1], offset=8 * MiB)
            assert read_device(disk, MiB, offset=8 * MiB) == data[::-1]
        client.api.terminate_connection(client.context, volume_id, connector)
        client.do("create_volume", copy_id, snapshot_id=snapshot_id, size=2)
        info = client.api.initialize_connection(client.context, copy_id, connector)["data"]
        export = lio.Export(info["target_iqn"], info["target_lun"], address, int(port))
        with logged_in(export, lio.Chap(info["auth_username"], info["auth_password"])) as disk:
            assert read_device(disk, MiB, offset=8 * MiB) == data
        client.api.terminate_connection(client.context, copy_id, connector)
        client.do("delete_volume", copy_id)
        client.do("revert_to_snapshot", volume_id, snapshot_id)
        client.do("delete_snapshot", snapshot_id)
        client.do("delete_volume", volume_id)
        assert lio.leftovers() == []
        wait_until(lambda: not _volumes(), 60, "the space is wiped and free")
        assert client.api.audit(client.context)["findings"] == []


def _volumes() -> list[str]:
    rows = [line.split() for line in run("lvs", "--noheadings", "-o", "lv_name,lv_attr", GROUP).splitlines()]
    return [name for name, attributes in rows if not attributes.startswith("t")]

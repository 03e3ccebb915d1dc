# SPDX-License-Identifier: Apache-2.0
"""Random kills of a daemon on LVM and LIO: no volume, target, device or process is left, no byte is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr.testing.chaos.lvm_lio import LvmOutside
from volmgr.testing.chaos.raids import Raiders
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.daemon import Daemon
from volmgr.testing.lab.commands import run
from volmgr.types import GiB

GROUP = "kills"
KILLS = int(os.environ.get("VOLMGR_CHAOS_KILLS", "10"))
SEED = int(os.environ.get("VOLMGR_CHAOS_SEED", "1"))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    image = tmp_path / "group.img"
    image.touch()
    os.truncate(image, 16 * GiB)  # sparse: only what is written takes memory
    device = run("losetup", "--find", "--show", str(image)).strip()
    run("vgcreate", "-q", "-y", GROUP, device)
    backend = {
        "volume_driver": "volmgr.drivers.lvm.LVMVolumeDriver",
        "volume_group": GROUP,
        "lvm_type": "thin",
        "target_helper": "volmgr.targets.lio.LioTarget",
        "target_ip_address": "127.0.0.1",
        "target_port": 3275,
    }

    def outside(daemon: Daemon, url: str | None = None) -> LvmOutside:
        return LvmOutside(daemon, group=GROUP, url=url)

    made = Stage(tmp_path / "stage", backend=backend, outside=outside).start()
    yield made
    with made.daemon.client() as client:
        for volume in client.api.list_volumes(client.context):
            client.do("delete_volume", volume["id"], cascade=True, force=True)
        made.outside.wait_idle()
    made.close()
    run("udevadm", "settle")
    run("vgremove", "-q", "-f", "-y", GROUP)
    run("losetup", "--detach", device)


@pytest.mark.timeout(120 + 60 * KILLS)
def test_random_kills(stage: Stage) -> None:
    raiders = Raiders(stage, SEED, iscsi=False, tenants=1, vandals=1, snapshots=False, tell=print)
    raid = raiders.run(KILLS)
    assert raid.violations == []
    assert len(raid.kills) == KILLS

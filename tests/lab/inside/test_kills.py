# SPDX-License-Identifier: Apache-2.0
"""Random kills of a daemon on LVM and LIO: no volume, target, device or process is left, no byte is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from volmgr.testing.chaos.lvm_lio import LvmOutside
from volmgr.testing.chaos.raids import Raiders
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.chaos.tenants import PATIENCE_SECONDS, Tenant
from volmgr.testing.daemon import Daemon
from volmgr.testing.lab.commands import run
from volmgr.types import GiB

GROUP = "kills"
KILLS = int(os.environ.get("VOLMGR_CHAOS_KILLS", "10"))
#: a wipe or a copy passes no point for long where the guest is slow, and may fill both of the lanes that it has.
KILL_SECONDS = 180.0
SEED = int(os.environ.get("VOLMGR_CHAOS_SEED", "1"))


@pytest.fixture
def forked() -> bool:
    """Whether the daemon is forked from one that has loaded everything; loading takes half a minute in a busy guest."""
    return False


@pytest.fixture
def stage(tmp_path: Path, forked: bool) -> Iterator[Stage]:
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

    made = Stage(tmp_path / "stage", backend=backend, outside=outside, forked=forked, patience=KILL_SECONDS)
    made.start()
    yield made
    with made.daemon.client() as client:
        for volume in client.api.list_volumes(client.context):
            client.do("delete_volume", volume["id"], cascade=True, force=True)
        made.outside.wait_idle()
    made.close()
    run("udevadm", "settle")
    run("vgremove", "-q", "-f", "-y", GROUP)
    run("losetup", "--detach", device)


def story(tenant: Tenant) -> None:
    """Have every command of LVM run that a life of volumes needs."""
    one, two, snapshot = (tenant.new_id() for _ in range(3))
    tenant.must("create_volume", volume_id=one, size=1)
    tenant.must("create_snapshot", volume_id=one, snapshot_id=snapshot)
    tenant.must("create_volume", volume_id=two, snapshot_id=snapshot)
    tenant.must("extend_volume", volume_id=two, new_size=2)
    tenant.must("delete_volume", volume_id=two)
    tenant.must("delete_snapshot", snapshot_id=snapshot)
    tenant.must("delete_volume", volume_id=one)


COMMANDS = ("lvcreate", "lvrename", "lvextend", "lvremove")
MOMENTS = [(command, when) for command in COMMANDS for when in ("runs", "ended")]


@pytest.mark.timeout(480)
@pytest.mark.parametrize(
    ("command", "when"),
    [MOMENTS[0], *(pytest.param(*moment, marks=pytest.mark.extended) for moment in MOMENTS[1:])],
)
def test_a_death_while_a_child_runs(stage: Stage, command: str, when: str) -> None:
    """The command lives on without the daemon, or has done its work and nobody has heard of it."""
    tenant = Tenant(stage, f"{SEED}/{command}.{when}", "children", by_target=False)
    stage.aim(f"child/-/{command}.{when}")
    with ThreadPoolExecutor(1) as pool:
        told = pool.submit(story, tenant)
        # A wipe comes last, and is slow where the guest is.
        stage.wait_killed()
        stage.aim("")
        stage.start()
        told.result(PATIENCE_SECONDS)
    tenant.close()
    assert stage.outside.settle() == []
    assert stage.outside.strangers() == []


@pytest.mark.timeout(300 + 60 * KILLS)
@pytest.mark.parametrize("forked", [True])
def test_random_kills(stage: Stage) -> None:
    raiders = Raiders(stage, SEED, by_target=False, tenants=1, vandals=1, snapshots=False, tell=print)
    raid = raiders.run(KILLS)
    assert raid.violations == []
    assert len(raid.kills) == KILLS

# SPDX-License-Identifier: Apache-2.0
"""The audit over real logical volumes and a real LIO: what was broken by hand is found, what is ours is mended.

One test for each storage, because programs are slow to start in a guest; kinds that need no kernel are proved outside.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import names, types
from volmgr.drivers.lvm import LVMVolumeDriver
from volmgr.drivers.options import Configuration
from volmgr.operations import snapshots, volumes
from volmgr.reconcile.auditor import Auditor
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import LioTarget
from volmgr.testing.lab.commands import run
from volmgr.testing.rig import PREFIX, Rig

GROUP = "reconcile"
CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
STRANGER = "iqn.1993-08.org.debian:01:stranger"
LIO = Path("/sys/kernel/config/target/iscsi")


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture(params=["thin", "default"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, nothing_left: None) -> Iterator[Rig]:
    """A worker over a volume group of its own and the guest's LIO."""
    image = tmp_path / "group.img"
    image.touch()
    os.truncate(image, 12 << 30)  # sparse: only what is written takes memory
    device = run("losetup", "--find", "--show", str(image)).strip()
    run("vgcreate", "-q", "-y", "--addtag", "volmgr.clean", GROUP, device)
    target = LioTarget(TargetConfig(PREFIX, (types.Portal("127.0.0.1", 3271),), str(tmp_path)))

    def make_driver(host: str, target: Any) -> LVMVolumeDriver:
        options = {"volume_group": GROUP, "lvm_type": request.param, "volume_clear_size": 1}
        driver = LVMVolumeDriver(configuration=Configuration(options), host=host, target=target)
        driver.do_setup(None)
        return driver

    made = Rig(tmp_path, target=target, make_driver=make_driver)
    try:
        yield made
    finally:
        made.close()
        target.stop(and_exports=True)
        run("udevadm", "settle")
        run("vgremove", "-q", "-f", "-y", GROUP)
        run("losetup", "--detach", device)
        shutil.rmtree(tmp_path / "sim", ignore_errors=True)


def found(auditor: Auditor) -> dict[str, str]:
    return {item.kind.label: item.resource_id for item in auditor.run().findings}


def test_what_was_broken_by_hand_is_found_and_mended(rig: Rig) -> None:
    kept, other, gone, foreign = (new_id() for _ in range(4))
    for volume_id in (kept, other, gone):
        rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    rig.attachments.initialize("volume", kept, CONNECTOR)
    auditor = Auditor(rig.dispatcher, grace=0)
    assert found(auditor) == {}

    # LVM: suspended, in the trash, half built, and one of another program that names its volumes alike.
    run("dmsetup", "suspend", f"{GROUP}-{names.object_name('volume', kept).replace('-', '--')}")
    run("lvrename", "-q", GROUP, names.object_name("volume", other), names.trash_name(other))
    run("lvcreate", "-q", "-y", "-Wn", "-n", names.building_name(kept), "-L", "8m", GROUP)
    run("lvcreate", "-q", "-y", "-Wn", "-n", names.object_name("volume", foreign), "-L", "8m", GROUP)
    # LIO: somebody whom nobody let in, and an export of what should have none.
    kept_name = names.target_name(PREFIX, "volume", kept)
    (LIO / kept_name / "tpgt_1" / "acls" / STRANGER).mkdir()
    rig.target.sync(types.ExportSpec(
        "volume", gone, names.target_name(PREFIX, "volume", gone),
        path=rig.driver.vg.path(names.object_name("volume", gone)), serial="5" * 32, size_bytes=types.GiB,
    ))
    assert found(auditor) == {
        "device-suspended": kept, "storage-in-trash": other, "building-left": kept, "storage-orphan": foreign,
        "access-too-wide": kept, "export-orphan": gone,
    }
    report = auditor.run(fix=True)
    rig.run()
    assert [item.error for item in report.outcomes] == [""] * 5
    # What bears no mark of ours stays, even when it is named.
    (orphan,) = auditor.run().findings
    assert (orphan.kind.label, str(orphan.repair)) == ("storage-orphan", "operator")
    assert auditor.run(fix=True, only=[orphan.id_on(rig.settings.host)]).outcomes == []
    assert names.object_name("volume", foreign) in rig.driver.vg.report().volumes
    assert not (LIO / kept_name / "tpgt_1" / "acls" / STRANGER).exists()

    # The kernel's target is wiped under the daemon; the heartbeat makes it whole again.
    rig.target.stop(and_exports=True)
    assert rig.target.present() == frozenset()
    assert found(auditor) == {"storage-orphan": foreign, "export-missing": kept}
    assert rig.exports.restore_missing() == 1
    assert rig.target.present() == {kept_name}
    assert found(auditor) == {"storage-orphan": foreign}
    rig.attachments.terminate("volume", kept, CONNECTOR, False)
    rig.exports.remove("volume", kept)


@pytest.mark.parametrize("rig", ["default"], indirect=True)
def test_a_wipe_that_waits_for_a_snapshot_is_no_finding(rig: Rig) -> None:
    volume_id, snapshot_id = new_id(), new_id()
    rig.do(volumes.CreateVolume, volume_id=volume_id, size=1)
    rig.do(snapshots.CreateSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    rig.do(snapshots.RevertToSnapshot, volume_id=volume_id, snapshot_id=snapshot_id)
    auditor = Auditor(rig.dispatcher, grace=0)
    assert found(auditor) == {}
    rig.do(volumes.DeleteVolume, volume_id=volume_id, cascade=True)
    assert found(auditor) == {}
    assert rig.driver.observe() == []

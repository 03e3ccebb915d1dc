# SPDX-License-Identifier: Apache-2.0
"""LVM's volumes over each target, to the kernel's own initiator: thick, thin and mirrored, on LIO and on tgt."""

from __future__ import annotations

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from volmgr import exception
from volmgr.targets.base import Target, TargetConfig
from volmgr.targets.lio import LioTarget
from volmgr.targets.tgt import TgtTarget
from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.errors import CommandFailed
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.lab.lvm_factories import LvmMirrored, LvmThick, LvmThin
from volmgr.types import GiB, MiB, Portal, Secret, Snapshot, Volume

PREFIX = "iqn.2010-10.org.openstack:"
PORT = 3271
TARGETS: dict[str, type[Target]] = {"lio": LioTarget, "tgt": TgtTarget}
#: Each kind and each target once; all of them with each other are in the folder ``conformance``, and in the long run.
pytestmark = [
    pytest.mark.extended_on(kind, target)
    for kind, target in (("lvm-thick", "tgt"), ("lvm-thin", "lio"), ("lvm-mirrored", "lio"))
]


@pytest.fixture(scope="module", params=[LvmThick, LvmThin, LvmMirrored], ids=lambda factory: str(factory.name))
def world(
    nothing_left: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[type[LvmThick], pathlib.Path]]:
    kind: type[LvmThick] = request.param
    with kind().world(tmp_path_factory.mktemp(kind.name), neighbour=False) as folder:
        yield kind, folder


@pytest.fixture(params=list(TARGETS))
def driver(
    request: pytest.FixtureRequest, world: tuple[type[LvmThick], pathlib.Path], tmp_path: pathlib.Path
) -> Iterator[Any]:
    config = TargetConfig(PREFIX, (Portal("127.0.0.1", PORT),), str(tmp_path), timeout=60)
    target = TARGETS[request.param](config)
    target.start()
    kind, folder = world
    factory = kind(target)
    made = factory.make(folder)
    try:
        yield made
    finally:
        target.stop(and_exports=True)
        factory.end(made, folder)


def connector() -> dict[str, str]:
    return {"initiator": initiator.initiator_name(), "ip": "127.0.0.1", "host": "guest"}


def log_in(info: dict[str, Any]) -> contextlib.AbstractContextManager[pathlib.Path]:
    """Use connection_info as it was answered."""
    assert info["driver_volume_type"] == "iscsi"
    data = info["data"]
    address, _, port = data["target_portal"].rpartition(":")
    export = lio.Export(data["target_iqn"], data["target_lun"], address, int(port))
    return logged_in(export, lio.Chap(data["auth_username"], data["auth_password"]))


def test_a_volume_and_its_snapshot_are_used_over_the_target(driver: Any) -> None:
    volume = Volume(id=str(uuid.uuid4()), size=1, provider_auth=Secret("CHAP user 123456789012"))
    data = os.urandom(MiB)
    driver.create_volume(volume)
    assert driver.create_export(None, volume, connector())["provider_location"]
    info = driver.initialize_connection(volume, connector())
    with log_in(info) as disk:
        assert int(run("blockdev", "--getsize64", str(disk))) == GiB
        write_device(disk, data, 8 * MiB)
        assert read_device(pathlib.Path(driver.local_path(volume)), MiB, 8 * MiB) == data
        snapshot = Snapshot(
            id=str(uuid.uuid4()), volume_id=volume.id, volume_size=1, volume=volume, provider_auth=volume.provider_auth
        )
        driver.create_snapshot(snapshot)
        write_device(disk, bytes(MiB), 8 * MiB)
        with pytest.raises(exception.VolumeIsBusy):
            driver.trash_volume(volume)
    driver.create_export_snapshot(None, snapshot, connector())
    with log_in(driver.initialize_connection_snapshot(snapshot, connector())) as disk:
        assert read_device(disk, MiB, 8 * MiB) == data
        with pytest.raises(OSError, match=r"Read-only|not permitted"):
            write_device(disk, data, 0)
    driver.terminate_connection(volume, connector())
    with pytest.raises(CommandFailed), log_in(info):
        pytest.fail("access was not taken away")
    driver.remove_export_snapshot(None, snapshot)
    driver.remove_export(None, volume)
    driver.delete_snapshot(snapshot)
    driver.delete_volume(volume)
    assert driver.observe() == []

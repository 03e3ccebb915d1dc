# SPDX-License-Identifier: Apache-2.0
"""Every kind of LVM volume on each target, to the kernel's own initiator: what a driver and its target do together."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.targets.initiators import inquire
from tests.lab.inside.test_lvm_exports import (
    connector,
    driver,
    log_in,
    test_a_volume_and_its_snapshot_are_used_over_the_target,
)
from volmgr.testing.lab import initiator
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.lab.lvm_factories import ALL, LvmThick
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB, MiB, Secret, Volume

__all__ = ["driver", "test_a_volume_and_its_snapshot_are_used_over_the_target"]
OTHER = "iqn.1994-05.com.example:other"
PASSWORD = "123456789012"


@pytest.fixture(scope="module", params=ALL, ids=lambda factory: str(factory.name))
def world(
    nothing_left: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[type[LvmThick], pathlib.Path]]:
    kind: type[LvmThick] = request.param
    with kind().world(tmp_path_factory.mktemp(kind.name)) as folder:
        yield kind, folder


def exported(driver: Any, **fields: Any) -> tuple[Volume, dict[str, Any]]:
    """Return a new volume that this guest may connect to, and what it is told."""
    values = {"size": 1, "provider_auth": Secret(f"CHAP user {PASSWORD}"), **fields}
    volume = Volume(id=str(uuid.uuid4()), **values)
    driver.create_volume(volume)
    driver.create_export(None, volume, connector())
    return volume, driver.initialize_connection(volume, connector())


def ended(driver: Any, volume: Volume) -> None:
    driver.terminate_connection(volume, connector())
    driver.remove_export(None, volume)
    driver.delete_volume(volume)


def test_a_volume_grows_and_is_copied_while_it_is_connected(driver: Any) -> None:
    """The initiator sees the new size, zeros in it, and a copy has what was there at its instant."""
    volume, info = exported(driver)
    data = os.urandom(MiB)
    with log_in(info) as disk:
        write_device(disk, data, GiB - MiB)
        copy = Volume(id=str(uuid.uuid4()), size=1, source_volid=volume.id)
        driver.create_cloned_volume(copy, volume)
        write_device(disk, bytes(MiB), GiB - MiB)
        assert read_device(pathlib.Path(driver.local_path(copy)), MiB, GiB - MiB) == data
        driver.delete_volume(copy)
        if driver.target_driver.grows_in_use:
            driver.extend_volume(volume, 2)
            driver.ensure_export(None, dataclasses.replace(volume, size=2))
            run("iscsiadm", "-m", "session", "--rescan")
            size = pathlib.Path("/sys/class/block") / disk.name / "size"
            wait_until(lambda: int(size.read_text()) * 512 == 2 * GiB, 30, "the initiator sees the new size")
            assert read_device(disk, MiB, 2 * GiB - MiB) == bytes(MiB)
            write_device(disk, data, 2 * GiB - MiB)
            assert read_device(pathlib.Path(driver.local_path(volume)), MiB, 2 * GiB - MiB) == data
    ended(driver, volume)
    assert driver.observe() == []


def test_access_is_one_initiator_s_with_its_password(driver: Any) -> None:
    volume, info = exported(driver)
    name, data = initiator.initiator_name(), info["data"]
    right = ("user", PASSWORD)
    assert "DIRECT_ACCESS" in inquire(data, name, chap=right)
    for who, chap in ((OTHER, right), (name, ("user", "another-password")), (name, ("another", PASSWORD))):
        with pytest.raises(PermissionError):
            inquire(data, who, chap=chap)
    driver.terminate_connection(volume, connector())
    with pytest.raises(PermissionError):
        inquire(data, name, chap=right)
    # Granted again, its bytes are there as they were.
    with log_in(driver.initialize_connection(volume, connector())) as disk:
        assert read_device(disk, MiB) == bytes(MiB)
    ended(driver, volume)
    assert driver.observe() == []

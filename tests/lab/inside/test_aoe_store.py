# SPDX-License-Identifier: Apache-2.0
"""The first block store's tests in a real kernel: two nodes on LVM, vblade on a cable, and the kernel's own initiator.

The tests that are imported are those of ``tests/functional/aoe``, on logical volumes here instead of files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.aoe.nodes import Node, two_nodes
from tests.functional.aoe.test_block_store import (
    no_volume_left,
    node,
    test_multi_node,
    test_run_attach_detach_volume,
    test_run_create_volume,
    test_too_big_volume,
    test_too_many_volumes,
)
from tests.functional.db.conftest import database
from tests.functional.db.test_shelves import test_concurrent_creates_get_different_addresses, workers
from volmgr import exception
from volmgr.connector import HostConnector
from volmgr.privileged import modules
from volmgr.testing.aoe import cable
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB, MiB

#: two daemons take minutes here; on files the same tests are in the functional tier.
pytestmark = pytest.mark.extended
MATRIX_DRIVER, MATRIX_TARGET = "lvm-thin", "aoe"
__all__ = [
    "database",
    "no_volume_left",
    "node",
    "test_concurrent_creates_get_different_addresses",
    "test_multi_node",
    "test_run_attach_detach_volume",
    "test_run_create_volume",
    "test_too_big_volume",
    "test_too_many_volumes",
    "workers",
]


@contextlib.contextmanager
def group_on(folder: Path, name: str) -> Iterator[str]:
    """Make a volume group on a sparse file, for whoever wants all of it; yields its name."""
    image = folder / f"{name}.img"
    image.touch()
    os.truncate(image, 8 * GiB)
    device = run("losetup", "--find", "--show", str(image)).strip()
    run("vgcreate", "-q", "-y", name, device)
    yield name
    run("udevadm", "settle")
    run("vgremove", "-q", "-f", "-y", name)
    run("losetup", "--detach", device)


@pytest.fixture(scope="module")
def nodes(nothing_left: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    modules.ensure(["veth", "aoe"], timeout=60)
    folder = tmp_path_factory.mktemp("aoe")
    with contextlib.ExitStack() as stack:
        storage = {}
        for name in ("one", "two"):
            group = stack.enter_context(group_on(folder, f"aoe-{name}"))
            storage[name] = {"volume_driver": "lvm", "volume_group": group, "lvm_type": "thin"}
        ends = stack.enter_context(cable(keep=True))
        yield stack.enter_context(two_nodes(folder, ends, storage))


def test_the_kernels_disk_outlives_the_daemon(node: Node, tmp_path: Path) -> None:
    """A host writes, grows and reads on while nobody manages its volume; the bytes are the logical volume's."""
    host, volume_id = HostConnector(str(tmp_path)), node.create()
    mac = Path(f"/sys/class/net/{node.far}/address").read_text(encoding="ascii").strip()
    info = node.ask("initialize_connection", volume_id=volume_id, connector={"aoe_macs": [mac], "host": "guest"})
    disk = Path(host.connect(info))
    written = os.urandom(MiB)
    try:
        write_device(disk, written, offset=8 * MiB)
        assert read_device(node.storage_of(volume_id), MiB, offset=8 * MiB) == written
        node.client.do("extend_volume", volume_id, 2)
        assert host.extend(info) == 2 * GiB
        assert int(run("blockdev", "--getsize64", str(disk))) == 2 * GiB
        node.daemon.kill()
        write_device(disk, written, offset=2 * GiB - MiB)
        node.daemon.start(wait=False)
        wait_until(lambda: node.ask("get_capabilities"), 60, "it answers", retry_on=exception.BackendDown)
        assert read_device(node.storage_of(volume_id), MiB, offset=2 * GiB - MiB) == written
        assert read_device(disk, MiB, offset=8 * MiB) == written
    finally:
        host.disconnect(info)
    assert not disk.exists()

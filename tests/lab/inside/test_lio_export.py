# SPDX-License-Identifier: Apache-2.0
"""The lab's own proof: a logical volume, served by LIO, is byte for byte the disk of the kernel's initiator."""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.errors import CommandFailed
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.lio import Chap, Export, exported
from volmgr.testing.lab.loopgroup import LoopGroup, loop_group, read_device, write_device

CHAP = Chap("lab", secrets.token_hex(8))
MIB = 1 << 20


@pytest.fixture(params=["thick", "thin"])
def volume(request: pytest.FixtureRequest, group: LoopGroup) -> Iterator[Path]:
    """A logical volume of 64 MiB."""
    create = group.create_thick if request.param == "thick" else group.create_thin
    node = create("exported", 64)
    yield node
    group.remove("exported")


@pytest.fixture
def export(volume: Path) -> Iterator[Export]:
    iqn = f"iqn.2010-10.org.volmgr:{uuid.uuid4()}"
    with exported(volume, iqn, initiator.initiator_name(), CHAP, uuid.uuid4().hex) as made:
        yield made


def test_bytes_written_to_the_disk_are_the_volume_s(volume: Path, export: Export) -> None:
    data = os.urandom(8 * MIB)
    with logged_in(export, CHAP) as disk:
        assert int(run("blockdev", "--getsize64", str(disk))) == 64 * MIB
        write_device(disk, data, offset=3 * MIB)
        assert read_device(volume, len(data), offset=3 * MIB) == data
        write_device(volume, data[:MIB][::-1], offset=20 * MIB)
        assert read_device(disk, MIB, offset=20 * MIB) == data[:MIB][::-1]
    assert initiator.sessions() == []


def test_wrong_chap_secret_is_refused(export: Export) -> None:
    with pytest.raises(CommandFailed) as refused, logged_in(export, Chap(CHAP.user, secrets.token_hex(8))):
        pytest.fail("the target let a wrong secret in")
    assert refused.value.status == initiator.AUTH_FAILED
    assert initiator.sessions() == []
    assert not export.by_path.exists()


def test_another_initiator_is_refused(volume: Path) -> None:
    iqn = f"iqn.2010-10.org.volmgr:{uuid.uuid4()}"
    with exported(volume, iqn, "iqn.2010-10.org.volmgr:somebody-else", CHAP, uuid.uuid4().hex) as made:
        with pytest.raises(CommandFailed), logged_in(made, CHAP):
            pytest.fail("the target let in an initiator without an ACL")
        assert initiator.sessions() == []


def test_nothing_is_left_after_a_whole_life(tmp_path: Path) -> None:
    iqn = f"iqn.2010-10.org.volmgr:{uuid.uuid4()}"
    with loop_group(tmp_path, "short", size_mib=256, pool_mib=64) as made:
        node = made.create_thin("life", 32)
        with exported(node, iqn, initiator.initiator_name(), CHAP, uuid.uuid4().hex, port=3261) as served:
            with logged_in(served, CHAP) as disk:
                write_device(disk, b"\x5a" * MIB)
            assert any(iqn in path for path in lio.leftovers())
        assert made.volumes() == {"life"}
        assert "short-life" in run("dmsetup", "ls")
    assert lio.leftovers() == []
    assert not (lio.CONFIGFS / "iscsi").exists()
    assert "short" not in run("dmsetup", "ls")
    assert run("vgs", "--noheadings", "-o", "vg_name", "--select", "vg_name=short").strip() == ""
    assert list(tmp_path.iterdir()) == []

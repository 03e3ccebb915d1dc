# SPDX-License-Identifier: Apache-2.0
"""Images on logical volumes: qemu-img writes into a device, the cache's clones are thin, an upload is of a clone."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr.db import models
from volmgr.db.image_cache import CacheSettings
from volmgr.images.base import ImageInfo
from volmgr.operations import images, volumes
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.lvm_factories import GROUP, LvmThick, LvmThin
from volmgr.testing.rig import Rig
from volmgr.types import MiB

MATRIX_DRIVER = "lvm"
PATTERN = b"\xa5" * MiB


@pytest.fixture(params=[LvmThin, LvmThick], ids=lambda factory: str(factory.name))
def rig(request: pytest.FixtureRequest, nothing_left: None, tmp_path: Path) -> Iterator[Rig]:
    """A worker's inside over a volume group, with an image of 64 MiB that has data in its second MiB."""
    factory: LvmThick = request.param()
    with factory.world(tmp_path, neighbour=False):
        made = Rig(
            tmp_path, make_driver=lambda _host, _target: factory.make(tmp_path), pool=None, host="host@lvm",
            image_cache=CacheSettings("c"),
        )
        with (tmp_path / "disk.raw").open("wb") as file:
            file.truncate(64 * MiB)
            file.seek(MiB)
            file.write(PATTERN)
        argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw", "disk.qcow2"]
        subprocess.run(argv, cwd=tmp_path, check=True)
        upload = made.images.stores.by_name["local"].upload(ImageInfo("image", "local", "qcow2", "1"))
        upload.write((tmp_path / "disk.qcow2").read_bytes())
        upload.commit()
        yield made
        made.close()


def created(rig: Rig, image_id: str, size: int = 1) -> str:
    volume_id = str(uuid.uuid4())
    operation = rig.do(volumes.CreateVolume, volume_id=volume_id, image_id=image_id, size=size)
    assert operation is not None and operation.state == "done", operation.error
    return volume_id


def has_image(volume_id: str) -> bool:
    with open(f"/dev/{GROUP}/volume-{volume_id}", "rb") as device:
        return device.read(3 * MiB) == bytes(MiB) + PATTERN + bytes(MiB)


@pytest.mark.extended
def test_into_volumes_and_back(rig: Rig) -> None:
    thin = rig.driver.thin
    first = created(rig, "image", size=2)
    assert has_image(first)
    kept = rig.rows(models.image_cache)
    assert len(kept) == thin, "where a clone is a copy nothing is kept"
    second = created(rig, "image")
    assert has_image(second)
    if thin:
        origin = run("lvs", "--noheadings", "-o", "origin", f"{GROUP}/volume-{second}").strip()
        assert origin == f"volume-{kept[0]['volume_id']}"
    meta = {"id": "copy", "disk_format": "qcow2"}
    operation = rig.do(images.CopyVolumeToImage, volume_id=second, image_meta=meta)
    assert operation is not None and operation.state == "done", operation.error
    assert has_image(created(rig, "copy"))
    names = set(run("lvs", "--noheadings", "-o", "lv_name", GROUP).split())
    recorded = {f"volume-{row['id']}" for row in rig.rows(models.volumes)}
    assert {name for name in names if name.startswith("volume-")} == recorded

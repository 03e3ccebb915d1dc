# SPDX-License-Identifier: Apache-2.0
"""The general way of raw images to and from a volume, over the file driver."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.drivers import progress
from volmgr.drivers.file import FileDriver
from volmgr.drivers.options import Configuration
from volmgr.types import GiB, MiB, Volume

IMAGE = str(uuid.uuid4())


class Store:
    """An image service in memory, at the outer edge."""

    def __init__(self, data: bytes = b"", **meta: Any) -> None:
        self.data = data
        self.meta = {"id": IMAGE, "disk_format": "raw", "size": len(data), **meta}

    def show(self, context: Any, image_id: str) -> dict[str, Any]:
        assert image_id == IMAGE
        return self.meta

    def download(self, context: Any, image_id: str, file: Any) -> None:
        for start in range(0, len(self.data), 300_000):
            file.write(self.data[start : start + 300_000])

    def update(self, context: Any, image_id: str, image_meta: dict[str, Any], file: Any) -> None:
        self.meta = image_meta
        kept = []
        while part := file.read(1 << 20):
            kept.append(part.strip(b"\0"))
        self.data = b"".join(kept)


@pytest.fixture
def driver(tmp_path: Path) -> FileDriver:
    made = FileDriver(configuration=Configuration({"file_store_path": str(tmp_path)}), host="host@file")
    made.do_setup(None)
    return made


def created(driver: FileDriver) -> Volume:
    volume = Volume(id=str(uuid.uuid4()), size=1)
    driver.create_volume(volume)
    return volume


def without_zeros(count: int) -> bytes:
    """Return ``count`` random bytes none of which is zero: the store strips zeros from both ends of what it reads."""
    return os.urandom(count).replace(b"\0", b"\1")


def test_there_and_back(driver: FileDriver) -> None:
    data = without_zeros(MiB) + bytes(32 * MiB) + without_zeros(12345)
    volume, seen = created(driver), list[float]()
    with progress.reporting(seen.append):
        driver.copy_image_to_volume(None, volume, Store(data), IMAGE)
    path = Path(driver.local_path(volume))
    with path.open("rb") as file:
        assert file.read(len(data) + 4096) == data + bytes(4096)
    assert seen == sorted(seen) and seen[-1] == 1.0
    # Zeros were not written: they take no space.
    assert path.stat().st_blocks * 512 < 16 * MiB
    assert path.stat().st_size == GiB
    store, seen = Store(), []
    with progress.reporting(seen.append):
        driver.copy_volume_to_image(None, volume, store, {"id": IMAGE, "disk_format": "raw"})
    assert store.data == data.replace(bytes(32 * MiB), b"")
    assert seen == sorted(seen) and seen[-1] == 1.0


@pytest.mark.parametrize(
    ("meta", "error"),
    [
        ({"disk_format": "qcow2"}, exception.Unsupported),
        ({"disk_format": None}, exception.Unsupported),
        ({"size": 2 * GiB}, exception.Invalid),
        ({"size": 8000}, exception.Inconsistent),
    ],
)
def test_what_cannot_be_is_refused(driver: FileDriver, meta: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        driver.copy_image_to_volume(None, created(driver), Store(b"x" * 4096, **meta), IMAGE)


def test_an_image_that_lies_about_its_size_writes_nothing_behind_the_end(driver: FileDriver) -> None:
    class Endless(Store):
        def download(self, context: Any, image_id: str, file: Any) -> None:
            zeros = bytes(256 * MiB)
            for _ in range(4):
                file.write(zeros)
            file.write(b"too much")

    volume = created(driver)
    with pytest.raises(exception.Invalid, match="larger"):
        driver.copy_image_to_volume(None, volume, Endless(size=None), IMAGE)
    assert Path(driver.local_path(volume)).stat().st_size == GiB


def test_a_broken_off_copy_passes_the_reason_on(driver: FileDriver) -> None:
    def cancel(_fraction: float) -> None:
        raise exception.Cancelled

    with progress.reporting(cancel), pytest.raises(exception.Cancelled):
        driver.copy_image_to_volume(None, created(driver), Store(b"x" * 4096), IMAGE)


def test_an_absent_volume_is_not_found(driver: FileDriver) -> None:
    volume = Volume(id=str(uuid.uuid4()), size=1)
    with pytest.raises(exception.NotFound):
        driver.copy_image_to_volume(None, volume, Store(b"x" * 4096), IMAGE)
    with pytest.raises(exception.NotFound):
        driver.copy_volume_to_image(None, volume, Store(), {"id": IMAGE, "disk_format": "raw"})

# SPDX-License-Identifier: Apache-2.0
"""Images into volumes and back, byte for byte, without their holes, over the file driver and real stores."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.drivers import progress
from volmgr.drivers.file import FileDriver
from volmgr.drivers.options import Configuration
from volmgr.images.base import ImageInfo, ImageStore
from volmgr.images.directory import DirectoryStore
from volmgr.images.transfer import Download, Tools, Uploading
from volmgr.tools.qemu_img import Limits, QemuImg
from volmgr.types import GiB, MiB, Volume

#: nothing of it waits for anybody, so that one kind of threads is enough.
pytestmark = pytest.mark.once


@pytest.fixture
def driver(tmp_path: Path) -> FileDriver:
    (tmp_path / "volumes").mkdir()
    made = FileDriver(configuration=Configuration({"file_store_path": str(tmp_path / "volumes")}), host="host@file")
    made.do_setup(None)
    return made


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore("local", str(tmp_path / "store"))


@pytest.fixture
def volume(driver: FileDriver) -> Volume:
    made = Volume(id=str(uuid.uuid4()), size=1)
    driver.create_volume(made)
    return made


def put(store: ImageStore, path: Path, disk_format: str, image_id: str = "image") -> ImageInfo:
    upload = store.upload(ImageInfo(image_id, store.name, disk_format, "1"))
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            upload.write(data)
    return upload.commit()


def fetch(tools: Tools, driver: FileDriver, store: ImageStore, volume: Volume, image_id: str = "image") -> Path:
    with Download(tools, store, store.find(image_id), "key", volume.size_bytes).prepared() as image:
        driver.copy_image_to_volume(None, volume, image, image_id)
    return Path(driver.local_path(volume))


def same(path: Path, disk: Path) -> bool:
    with path.open("rb") as one, disk.open("rb") as other:
        return one.read(16 * MiB) == other.read() and not one.read(MiB).strip(b"\0")


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("made", ["raw", "qcow2", "vmdk", "vhdx"])
def test_into_a_volume(
    made: str, qemu_img: Callable[..., None], tools: Tools, driver: FileDriver, store: DirectoryStore, volume: Volume,
    disk: Path, tmp_path: Path,
) -> None:
    qemu_img("convert", "-f", "raw", "-O", made, disk, "image")
    put(store, tmp_path / "image", made)
    seen: list[float] = []
    with progress.reporting(seen.append):
        path = fetch(tools, driver, store, volume)
    assert same(path, disk) and path.stat().st_size == GiB
    assert used(path) < 3 * MiB
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_there_and_back(
    qemu_img: Callable[..., None], tools: Tools, driver: FileDriver, store: DirectoryStore, volume: Volume, disk: Path
) -> None:
    put(store, disk, "raw", "first")
    path = fetch(tools, driver, store, volume, "first")
    session = Uploading(tools, store, ImageInfo("second", "local", "qcow2", "v"), "key")
    driver.copy_volume_to_image(None, volume, session, {"id": "second", "disk_format": "raw"})
    assert session.made is not None and session.made.checksum
    assert used(Path(store.path) / "second.v.data") < 3 * MiB, "a volume with 2 MiB of data takes no more in the store"
    other = Volume(id=str(uuid.uuid4()), size=1)
    driver.create_volume(other)
    assert same(fetch(tools, driver, store, other, "second"), disk)
    assert path.stat().st_size == Path(driver.local_path(other)).stat().st_size == GiB
    assert not list(tools.staging.folder.entries())


def test_a_gibibyte_with_little_in_it_moves_little(
    tools: Tools, driver: FileDriver, store: DirectoryStore, volume: Volume, tmp_path: Path
) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        for number in range(25):
            file.seek(number * 40 * MiB)
            file.write(os.urandom(4 * MiB))
        file.truncate(GiB)
    with sparse.open("rb") as source:
        session = Uploading(tools, store, ImageInfo("image", "local", "raw", "1"), "key")
        session.update(None, "image", {}, source)
    moved = 0

    class Counting:
        """The driver's file, with what is written counted."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, data: bytes) -> int:
            nonlocal moved
            moved += len(data)
            return int(self.file.write(data))

        def seek(self, position: int) -> int:
            return int(self.file.seek(position))

    with Download(tools, store, store.find("image"), "key", GiB).prepared() as image:
        download = image.download
        counted = lambda context, image_id, file: download(context, image_id, Counting(file))  # noqa: E731
        setattr(image, "download", counted)  # noqa: B010
        driver.copy_image_to_volume(None, volume, image, "image")
    assert 100 * MiB <= moved <= 101 * MiB
    assert used(Path(driver.local_path(volume))) <= 101 * MiB
    assert used(Path(store.path) / "image.1.data") <= 101 * MiB


def test_wrong_bytes_are_found(
    qemu_img: Callable[..., None], tools: Tools, driver: FileDriver, store: DirectoryStore, volume: Volume, disk: Path,
    tmp_path: Path,
) -> None:
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, "image.qcow2")
    for name, path in (("raw", disk), ("qcow2", tmp_path / "image.qcow2")):
        put(store, path, name, name)
        data = Path(store.path) / f"{name}.1.data"
        with data.open("r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"\1wrong")
        with pytest.raises(exception.ImageCorrupt):
            fetch(tools, driver, store, volume, name)


def test_an_image_that_is_too_large_writes_nothing(
    qemu_img: Callable[..., None], tools: Tools, driver: FileDriver, store: DirectoryStore, volume: Volume,
    tmp_path: Path,
) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "bomb", "2G")
    put(store, tmp_path / "bomb", "qcow2")
    with pytest.raises(exception.ImageTooLarge):
        fetch(tools, driver, store, volume)
    assert used(Path(driver.local_path(volume))) == 0


def test_a_conversion_is_limited(
    qemu_img: Callable[..., None], tools: Tools, driver: FileDriver, store: DirectoryStore, volume: Volume, disk: Path,
    tmp_path: Path,
) -> None:
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, "image")
    put(store, tmp_path / "image", "qcow2")
    tight = Tools(tools.staging, _TightConversion())
    with pytest.raises(exception.ImageUnacceptable, match="qemu-img convert failed"):
        fetch(tight, driver, store, volume)


def test_the_threads_of_a_conversion_need_little_space(tmp_path: Path) -> None:
    """A quarter of what is allowed is enough for as many threads as qemu-img starts, on however many processors."""
    (tmp_path / "disk").write_bytes(os.urandom(64 * MiB))
    (tmp_path / "image").touch()
    qemu = QemuImg(Limits(memory=256 * MiB))
    with (tmp_path / "disk").open("rb") as disk, (tmp_path / "image").open("r+b") as image:
        for _ in range(3):
            qemu.from_raw(disk.fileno(), "vmdk", image.fileno(), 64 * MiB, lambda _: None)


class _TightConversion(QemuImg):
    def to_raw(self, *args: Any, **kwargs: Any) -> None:
        self.limits = Limits(memory=8 * MiB)
        super().to_raw(*args, **kwargs)


class Stop(Exception):
    pass


@pytest.mark.parametrize("made", ["raw", "qcow2"])
def test_it_stops_when_it_is_told_to(
    made: str, qemu_img: Callable[..., None], tools: Tools, driver: FileDriver, store: DirectoryStore, volume: Volume,
    disk: Path, tmp_path: Path,
) -> None:
    qemu_img("convert", "-f", "raw", "-O", made, disk, "image")
    put(store, tmp_path / "image", made)

    def stop(fraction: float) -> None:
        raise Stop

    with progress.reporting(stop), pytest.raises(Stop):
        fetch(tools, driver, store, volume)


class Remote(DirectoryStore):
    """A folder that is not at hand, as of another host; its transfer breaks off when told to."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        self.asked: list[int] = []
        self.break_at: int | None = None

    @contextlib.contextmanager
    def local(self, info: ImageInfo) -> Iterator[int | None]:
        yield None

    def stream(self, info: ImageInfo, offset: int = 0) -> Iterator[bytes]:
        self.asked.append(offset)
        with open(Path(self.path) / f"{info.id}.{info.version}.data", "rb") as file:
            file.seek(offset)
            while data := file.read(1 << 20):
                if self.break_at is not None and file.tell() > self.break_at:
                    raise exception.BackendDown("broken off")
                yield data


@pytest.mark.parametrize("made", ["raw", "qcow2"])
def test_a_transfer_goes_on_where_it_was(
    made: str, qemu_img: Callable[..., None], tools: Tools, driver: FileDriver, tmp_path: Path, volume: Volume,
    disk: Path,
) -> None:
    qemu_img("convert", "-f", "raw", "-O", made, disk, "image")
    remote = Remote("remote", str(tmp_path / "remote"))
    put(remote, tmp_path / "image", made)
    remote.break_at = 1 << 20
    with pytest.raises(exception.BackendDown):
        fetch(tools, driver, remote, volume)
    remote.break_at = None
    assert same(fetch(tools, driver, remote, volume), disk)
    assert remote.asked == [0, 1 << 20]
    tools.staging.forget("key")
    assert not list(Path(tools.staging.path).iterdir())


def test_what_is_kept_of_another_version_is_found_out(
    tools: Tools, driver: FileDriver, tmp_path: Path, volume: Volume, disk: Path
) -> None:
    remote = Remote("remote", str(tmp_path / "remote"))
    put(remote, disk, "raw")
    tools.staging.folder.create("key.image", 0)
    tools.staging.folder.write("key.image", 0, b"of something else")
    with pytest.raises(exception.ImageCorrupt):
        fetch(tools, driver, remote, volume)
    assert same(fetch(tools, driver, remote, volume), disk), "the wrong bytes were thrown away"

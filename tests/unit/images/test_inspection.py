# SPDX-License-Identifier: Apache-2.0
"""Images that would read other files, lie or burst are refused by what they are, before anything acts on them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from volmgr import exception
from volmgr.images.base import ImageInfo
from volmgr.images.inspection import Inspected, inspect
from volmgr.tools.qemu_img import Limits, QemuImg
from volmgr.types import GiB, MiB

#: nothing of it waits for anybody, so that one kind of threads is enough.
pytestmark = pytest.mark.once


def look(path: Path, told: str, qemu: QemuImg | None = None) -> Inspected:
    fd = os.open(path, os.O_RDONLY)
    try:
        return inspect(fd, ImageInfo("image", "local", told, "1"), qemu or QemuImg())
    finally:
        os.close(fd)


class NoQemu(QemuImg):
    """What is refused must be refused before qemu-img sees it."""

    def info(self, fd: int, image_format: str) -> object:  # type: ignore[override]
        raise AssertionError("qemu-img was shown the image")


@pytest.mark.parametrize("made", ["qcow2", "vmdk", "vhdx"])
def test_what_is_as_it_says(made: str, qemu_img: Callable[..., None], disk: Path, tmp_path: Path) -> None:
    qemu_img("convert", "-f", "raw", "-O", made, disk, f"image.{made}")
    assert look(tmp_path / f"image.{made}", made) == Inspected(made, 16 * MiB)


def test_a_raw_image_is_its_bytes(disk: Path) -> None:
    assert look(disk, "raw") == Inspected("raw", 16 * MiB)


def test_a_disk_with_partitions_is_raw(disk: Path) -> None:
    with disk.open("r+b") as file:
        file.seek(446)
        file.write(struct.pack("<B3BB3BII", 0x80, 0, 1, 0, 0x83, 0, 1, 0, 63, 1000) + bytes(48) + b"\x55\xaa")
    assert look(disk, "raw") == Inspected("raw", 16 * MiB)


def test_a_backing_file_is_refused(qemu_img: Callable[..., None], tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", "evil.qcow2", "1G")
    with pytest.raises(exception.ImageHasBackingFile):
        look(tmp_path / "evil.qcow2", "qcow2", NoQemu())


def test_an_external_data_file_is_refused(qemu_img: Callable[..., None], tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "-o", "data_file=data.raw,data_file_raw=on", "evil.qcow2", "64M")
    with pytest.raises(exception.ImageHasDataFile):
        look(tmp_path / "evil.qcow2", "qcow2", NoQemu())


@pytest.mark.parametrize("extent", ['RW 2048 FLAT "/etc/passwd" 0', 'RW 2048 SPARSE "other.vmdk"'])
def test_a_vmdk_of_other_files_is_refused(extent: str, tmp_path: Path) -> None:
    kind = "monolithicFlat" if "FLAT" in extent else "twoGbMaxExtentSparse"
    text = f'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="{kind}"\n{extent}\n'
    (tmp_path / "evil.vmdk").write_bytes(text.encode().ljust(64 * 1024, b"\0"))
    with pytest.raises(exception.ImageUnacceptable):
        look(tmp_path / "evil.vmdk", "vmdk", NoQemu())


@pytest.mark.parametrize(("made", "told"), [("qcow2", "raw"), ("vmdk", "qcow2"), ("vmdk", "raw"), ("qcow2", "vmdk")])
def test_a_lie_about_the_format_is_refused(
    made: str, told: str, qemu_img: Callable[..., None], disk: Path, tmp_path: Path
) -> None:
    qemu_img("convert", "-f", "raw", "-O", made, disk, "image")
    with pytest.raises(exception.ImageFormatMismatch) as error:
        look(tmp_path / "image", told, NoQemu())
    assert error.value.details["found"] == made


def test_raw_bytes_are_no_qcow2(disk: Path) -> None:
    with pytest.raises(exception.ImageFormatMismatch):
        look(disk, "qcow2", NoQemu())


@pytest.mark.parametrize("told", ["qed", "vdi", "vhd", "ploop", ""])
def test_formats_that_nobody_reads_here(told: str, disk: Path) -> None:
    with pytest.raises(exception.ImageUnacceptable):
        look(disk, told, NoQemu())


def test_unknown_features_are_refused(qemu_img: Callable[..., None], tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "evil.qcow2", "64M")
    with (tmp_path / "evil.qcow2").open("r+b") as file:
        file.seek(72)  # incompatible_features, docs/interop/qcow2.txt
        file.write(struct.pack(">Q", 1 << 40))
    with pytest.raises(exception.ImageUnacceptable):
        look(tmp_path / "evil.qcow2", "qcow2", NoQemu())


def test_the_size_of_a_bomb_is_what_it_says(qemu_img: Callable[..., None], tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "bomb.qcow2", "32T")
    assert (tmp_path / "bomb.qcow2").stat().st_size < 10 * MiB
    assert look(tmp_path / "bomb.qcow2", "qcow2").virtual_size == 32 * 1024 * GiB


def test_a_look_has_limits(qemu_img: Callable[..., None], tmp_path: Path) -> None:
    qemu_img("create", "-q", "-f", "qcow2", "image.qcow2", "64M")
    with pytest.raises(exception.ImageUnacceptable, match="qemu-img info"):
        look(tmp_path / "image.qcow2", "qcow2", QemuImg(Limits(memory=8 * MiB)))


def test_a_torn_image_is_refused(qemu_img: Callable[..., None], disk: Path, tmp_path: Path) -> None:
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, "image.qcow2")
    os.truncate(tmp_path / "image.qcow2", 100)
    with pytest.raises(exception.ImageUnacceptable):
        look(tmp_path / "image.qcow2", "qcow2")

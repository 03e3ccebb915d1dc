# SPDX-License-Identifier: Apache-2.0
"""Images of strangers: real headers with bytes changed are told for what they are, or refused, and never cost much."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.edges.strange import bent
from volmgr import exception
from volmgr.images.base import READABLE, ImageInfo
from volmgr.images.inspection import Inspected, inspect
from volmgr.tools.qemu_img import Described, QemuImg
from volmgr.types import MiB

#: nothing of it waits for anybody, so that one kind of threads is enough.
pytestmark = pytest.mark.once
#: bytes of an image that are bent: all headers lie in them.
HEAD = 4 * MiB


class Believing(QemuImg):
    """Says what the header said; what is looked at is what comes before qemu-img sees an image."""

    def info(self, fd: int, image_format: str) -> Described:
        return Described(image_format, MiB, ())


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory, require: Callable[..., str]) -> dict[str, bytes]:
    """The beginnings of real images, by format."""
    folder, program, found = tmp_path_factory.mktemp("images"), require("qemu-img", "qemu-utils"), {}
    for made in ("qcow2", "vmdk", "vhdx", "vpc", "vdi", "qed"):
        path = folder / made
        done = subprocess.run([program, "create", "-q", "-f", made, str(path), "16M"], check=False, capture_output=True)
        if done.returncode == 0:
            found[made] = path.read_bytes()[:HEAD]
    assert {"qcow2", "vmdk", "vhdx"} <= set(found)
    return found


def look(data: bytes, told: str) -> Inspected | None:
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        return inspect(fd, ImageInfo("image", "local", told, "1"), Believing())
    except (exception.ImageUnacceptable, exception.ImageFormatMismatch):
        return None
    finally:
        os.close(fd)


@given(st.data())
@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_header(heads: dict[str, bytes], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(heads)))
    # Few bytes matter: at the beginning, and where VHDX has its region table and its metadata.
    start = data.draw(st.sampled_from([0, 0, 192 * 1024, 2 * MiB])) if kind == "vhdx" else 0
    end = start + data.draw(st.sampled_from([64, 512, 4096, 65536 + 4096]))
    image = heads[kind][:start] + data.draw(bent(heads[kind][start:end])) + heads[kind][end:]
    other = data.draw(st.sampled_from(sorted(READABLE)))
    for told in (kind, other):
        found = look(image, told)
        assert found is None or found.virtual_size >= 0


@given(st.binary(max_size=600), st.sampled_from(sorted(READABLE)))
@example(b"QFI\xfb" + struct.pack(">I", 3) + b"\xff" * 96, "qcow2")
@example(b"KDMV" + b"\xff" * 508, "vmdk")
@example(b"vhdxfile" + b"\xff" * 500, "vhdx")
@example(b"# Disk DescriptorFile\n" + b"\xff" * 500, "vmdk")
@example(b"conectix" + b"\xff" * 504, "vhd")
@example(b"LUKS\xba\xbe" + b"\xff" * 500, "raw")
@example(b"QED\0" + b"\xff" * 60, "qcow2")
@settings(max_examples=300)
def test_any_bytes(data: bytes, told: str) -> None:
    look(data, told)


def test_the_images_that_others_are_made_of_are_right(heads: dict[str, bytes]) -> None:
    for kind in sorted(set(heads) & set(READABLE)):
        assert look(heads[kind], kind) is not None, kind

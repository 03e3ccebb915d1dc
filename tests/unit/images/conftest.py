# SPDX-License-Identifier: Apache-2.0
"""Real images, made by qemu-img, and what works with them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from volmgr.images.staging import Staging
from volmgr.images.transfer import Tools
from volmgr.tools.qemu_img import QemuImg


@pytest.fixture
def qemu_img(require: Callable[..., str], tmp_path: Path) -> Callable[..., None]:
    """Runs qemu-img in the test's folder."""
    program = require("qemu-img", "qemu-utils")

    def run(*arguments: object) -> None:
        subprocess.run([program, *map(str, arguments)], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)

    return run


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(Staging(str(tmp_path / "staging")), QemuImg())


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk of 16 MiB with data at its beginning, in its middle and at its end, the rest holes."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        for offset, length in ((0, 1 << 19), (7 << 20, 1 << 20), ((16 << 20) - 4096, 4096)):
            file.seek(offset)
            file.write(os.urandom(length))
    return path

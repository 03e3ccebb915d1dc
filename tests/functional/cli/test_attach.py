# SPDX-License-Identifier: Apache-2.0
"""``volmgr attach`` and ``volmgr detach`` with the kernel's own initiator; other kernels say what they lack.

The lab runs the first test too, in a kernel that has one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., dict[str, Any]]


@pytest.mark.kernel_initiator
def test_a_volume_becomes_a_block_device_and_goes_again(site: Any, volume: Make) -> None:
    row = volume("here", "--size", "1")
    made = site.volmgr("attach", "here", "-f", "json").json
    device = Path(made["device"])
    assert stat.S_ISBLK(device.stat().st_mode)
    assert site.volmgr("volume", "show", "here", "-f", "json").json["status"] == "in-use"

    pattern = os.urandom(1024**2)
    with device.open("r+b", buffering=0) as file:
        assert file.write(pattern) == len(pattern)
        os.fsync(file.fileno())
    stored = site.folder / "file" / "volumes" / f"volume-{row['id']}"
    with stored.open("rb") as file:
        assert file.read(len(pattern)) == pattern

    again = site.volmgr("attach", "here")
    assert again.code == 1
    assert "has an attachment already" in again.err
    assert stat.S_ISBLK(device.stat().st_mode), "a refused second attach must not touch the first one"

    done = site.volmgr("detach", "here")
    assert done.code == 0, done.err
    assert not device.exists()
    after = site.volmgr("volume", "show", "here", "-f", "json").json
    assert (after["status"], after["attachments"]) == ("available", [])
    assert site.volmgr("detach", "here").code == 1


@pytest.mark.no_kernel_initiator
def test_attach_says_what_the_kernel_lacks_and_takes_everything_back(site: Any, volume: Make) -> None:
    row = volume("--size", "1")
    done = site.volmgr("attach", row["id"])
    assert done.code == 1
    assert "initiator" in done.err
    assert "hint: " in done.err
    after = site.volmgr("volume", "show", row["id"], "-f", "json").json
    assert (after["status"], after["attachments"]) == ("available", [])
    assert site.volmgr("detach", row["id"]).code == 1

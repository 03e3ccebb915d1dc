# SPDX-License-Identifier: Apache-2.0
"""A backend without the service in a real kernel: thin volumes of LVM, exported by LIO, attached by the host itself."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from volmgr.cli import app
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.loopgroup import LoopGroup, read_device, write_device
from volmgr.types import MiB

MATRIX_DRIVER, MATRIX_TARGET = "lvm", "lio"


class Local:
    """``volmgr local`` over one configuration, in this process."""

    def __init__(self, folder: Path, group: LoopGroup) -> None:
        self.file = folder / "volmgr.conf"
        self.file.write_text(
            f"[DEFAULT]\nstate_path = {folder}\nhost = guest\nenabled_backends = b\n"
            f"[b]\nvolume_driver = lvm\nvolume_group = {group.name}\nlvm_type = thin\n"
            "target_helper = lioadm\ntarget_ip_address = 127.0.0.1\ntarget_port = 3275\n"
        )

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = app.VolmgrApp(stdout=out, stderr=err).run(["--config-file", str(self.file), "local", *argv])
        return code, out.getvalue(), err.getvalue()

    def json(self, *argv: str) -> Any:
        code, out, err = self(*argv, "-f", "json")
        assert code == 0, err
        return json.loads(out)


@pytest.mark.extended
def test_a_volume_becomes_a_block_device_without_a_daemon(tmp_path: Path, group: LoopGroup) -> None:
    local = Local(tmp_path, group)
    volume = local.json("create", "--size", "1")["id"]
    device = Path(local.json("attach", volume)["device"])
    assert stat.S_ISBLK(device.stat().st_mode)
    pattern = os.urandom(MiB)
    write_device(device, pattern)
    # A thin snapshot is of one moment, also of a volume in use.
    snapshot = local.json("snapshot", volume)["id"]
    code, _out, err = local("delete", volume)
    assert code == 1 and "hint: " in err, "it is attached"
    assert read_device(device, MiB) == pattern
    code, _out, err = local("detach", volume)
    assert code == 0, err
    assert not device.exists()
    clone = local.json("clone", snapshot)
    assert read_device(Path(clone["path"]), MiB) == pattern
    for item in (clone["id"], snapshot, volume):
        code, _out, err = local("delete", item)
        assert code == 0, err
    left = run("lvs", "--noheadings", "-o", "lv_name,lv_attr", group.name)
    assert [line for line in left.splitlines() if not line.split()[1].startswith("t")] == []

# SPDX-License-Identifier: Apache-2.0
"""Images through the real daemon: from a file to a disk that an initiator reads, and back; the death of the worker."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.functional.daemon.test_file_tgt import CONNECTOR, qemu_io, served
from volmgr import exception
from volmgr.db.engine import Database
from volmgr.testing.daemon import Daemon
from volmgr.testing.invariants import violations
from volmgr.testing.waiting import wait_until
from volmgr.types import MiB

__all__ = ["served"]


def run(daemon: Daemon, module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of volmgr's programs against the daemon."""
    argv = [sys.executable, "-m", module, "--config-file", str(daemon.config_file), *map(str, arguments)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)


def volmgr(daemon: Daemon, *arguments: object) -> Any:
    done = run(daemon, "volmgr.cli.app", *arguments, "-f", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def qcow2(folder: Path, pattern: int) -> Path:
    """Return an image of 64 MiB that has a byte over and over in its second MiB."""
    program, raw = require("qemu-img", "qemu-utils"), folder / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(64 * MiB)
        file.seek(MiB)
        file.write(bytes([pattern]) * MiB)
    subprocess.run([program, "convert", "-f", "raw", "-O", "qcow2", raw, folder / "disk.qcow2"], check=True)
    return folder / "disk.qcow2"


def is_whole(daemon: Daemon) -> None:
    database = Database(f"sqlite:///{daemon.state}/volmgr.sqlite")
    try:
        wait_until(lambda: violations(database) == [], 30, "everything has ended")
    finally:
        database.close()


def test_from_a_file_to_a_disk_and_back(served: Daemon, tmp_path: Path) -> None:
    image = qcow2(tmp_path, 0xA5)
    done = run(served, "volmgr.cmd.manage", "image", "import", "golden", image, "--format", "qcow2", "--name", "Gold")
    assert (done.returncode, done.stdout.strip()) == (0, "local/golden"), done.stderr
    assert [item["id"] for item in volmgr(served, "image", "list")] == ["golden"]
    assert volmgr(served, "image", "show", "golden")["virtual_size"] == 64 * MiB
    made = volmgr(served, "volume", "create", "root", "--image", "golden", "--wait")
    assert (made["status"], made["bootable"], made["size"], made["image_id"]) == ("available", True, 1, "local/golden")
    with served.client() as client:
        info = client.api.initialize_connection(client.context, made["id"], CONNECTOR)
        assert "verification failed" not in qemu_io(info, "read -P 0xa5 1M 1M").stdout
        assert "verification failed" in qemu_io(info, "read -P 0xa5 2M 1M").stdout
        client.api.terminate_connection(client.context, made["id"], CONNECTOR)
    shown = volmgr(served, "image", "upload", "root", "--id", "copy", "--disk-format", "qcow2", "--wait")
    assert (shown["image"], shown["status"]) == ("copy", "available")
    again = volmgr(served, "volume", "create", "second", "--image", "copy", "--wait")
    with served.client() as client:
        info = client.api.initialize_connection(client.context, again["id"], CONNECTOR)
        assert "verification failed" not in qemu_io(info, "read -P 0xa5 1M 1M").stdout
        client.api.terminate_connection(client.context, again["id"], CONNECTOR)
    is_whole(served)


def test_what_is_refused_and_why(daemon: Daemon, tmp_path: Path) -> None:
    program = require("qemu-img", "qemu-utils")
    evil = tmp_path / "evil.qcow2"
    subprocess.run([program, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", evil, "1G"], check=True)
    done = run(daemon, "volmgr.cmd.manage", "image", "import", "evil", evil, "--format", "qcow2")
    assert done.returncode == 1 and "based on another file" in done.stderr
    store = daemon.state / "images" / "store"
    store.mkdir(parents=True, exist_ok=True)
    (store / "evil.data").write_bytes(evil.read_bytes())
    (store / "evil.json").write_text(json.dumps({"data": "evil.data", "disk_format": "qcow2", "version": "1"}))
    with daemon.client() as client:
        with pytest.raises(exception.ImageHasBackingFile):
            client.do("create_volume", str(uuid.uuid4()), image_id="evil", size=1)
        with pytest.raises(exception.ImageNotFound):
            client.do("create_volume", str(uuid.uuid4()), image_id="absent", size=1)
        with pytest.raises(exception.ImageNotFound):
            client.api.get_image(client.context, "absent")
        (row,) = client.api.list_volumes(client.context)
        assert row["status"] == "error"
        client.do("delete_volume", row["id"])
    is_whole(daemon)


@pytest.mark.parametrize("point", ["create_volume/keep/after", "create_volume/clone/before"])
def test_the_death_of_the_worker(point: str, make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    backend = {
        "volume_driver": "sim", "target_helper": "fake", "sim_store_path": str(tmp_path / "sim"),
        "target_ip_address": "127.0.0.1", "image_volume_cache_enabled": "true",
    }
    daemon = make_daemon(backend=backend).start(VOLMGR_KILL_AT=point)
    image = qcow2(tmp_path, 0x5A)
    done = run(daemon, "volmgr.cmd.manage", "image", "import", "golden", image, "--format", "qcow2")
    assert done.returncode == 0, done.stderr
    ids = [str(uuid.uuid4()), str(uuid.uuid4())]
    with daemon.client() as client:
        for volume_id, dies in zip(ids, ("keep" in point, "clone" in point), strict=True):
            with contextlib.suppress(exception.BackendDown):  # its answer may die with it
                client.api.create_volume(client.context, volume_id, image_id="golden", size=2)
            if dies:
                daemon.wait_killed()
                daemon.start()
            wait_until(
                lambda wanted=volume_id: client.api.get_volume(client.context, wanted)["status"] == "available",
                60, "the volume is made",
            )
        rows = client.api.list_volumes(client.context)
        assert sorted(row["status"] for row in rows) == ["available"] * 3
        assert sorted(row["size"] for row in rows) == [1, 2, 2]
    for volume_id in ids:
        with open(tmp_path / "sim" / f"volume-{volume_id}", "rb") as file:
            assert os.pread(file.fileno(), MiB, MiB) == b"\x5a" * MiB
    is_whole(daemon)

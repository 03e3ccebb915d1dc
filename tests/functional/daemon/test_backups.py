# SPDX-License-Identifier: Apache-2.0
"""Backups through the real daemon: on files with tgt into a folder, on the simulator into S3; bytes are compared."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from volmgr import exception, names
from volmgr.testing.daemon import Client, Daemon, free_port
from volmgr.testing.servers.s3 import S3Server
from volmgr.types import GiB, MiB

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:b", "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


class Place:
    """A daemon, its store, and the files that its volumes are."""

    def __init__(self, daemon: Daemon, folder: Path, url: str, environment: dict[str, str]) -> None:
        self.daemon = daemon
        self.folder = folder
        self.url = url
        self.environment = environment

    def path(self, client: Client, volume_id: str) -> Path:
        assert client.api.get_volume(client.context, volume_id)["size"]
        return self.folder / names.object_name("volume", volume_id)

    def write(self, client: Client, volume_id: str, offset: int, data: bytes) -> None:
        with self.path(client, volume_id).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def read(self, client: Client, volume_id: str, offset: int, length: int) -> bytes:
        with self.path(client, volume_id).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def cli(self, *argv: str) -> str:
        """Run the command line where there is no daemon, no database and no configuration."""
        done = subprocess.run(
            [sys.executable, "-m", "volmgr.cli.app", "--state-path", "/nonexistent", *argv],
            env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=120, check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(params=["file-tgt-folder", "sim-s3"])
def place(request: pytest.FixtureRequest, make_daemon: Callable[..., Daemon], tmp_path: Path) -> Iterator[Place]:
    if request.param == "sim-s3":
        (tmp_path / "s3").mkdir()
        with S3Server(tmp_path / "s3") as server:
            url = f"{server.url}/backups/volmgr"
            daemon = make_daemon(options={"backup_store": url}, environment=server.environment).start()
            yield Place(daemon, daemon.folder / "sim", url, server.environment)
            daemon.stop()
        return
    require("tgtd", "tgt")
    (tmp_path / "store").mkdir()
    url = f"file://{tmp_path}/store"
    backend = {
        "volume_driver": "file",
        "target_helper": "tgtadm",
        "target_ip_address": "127.0.0.1",
        "target_port": free_port(),
    }
    daemon = make_daemon(backend=backend, options={"backup_store": url}).start()
    yield Place(daemon, daemon.state / "file" / "volumes", url, {})
    daemon.stop()


def test_a_volume_lost_and_restored(place: Place, tmp_path: Path) -> None:
    rng, volume_id, first, second = random.Random(1), new_id(), new_id(), new_id()
    data = {0: rng.randbytes(3 * MiB), 500 * MiB + 7: b"in the middle", GiB - 4096: rng.randbytes(4096)}
    with place.daemon.client() as client:
        api, context = client.api, client.context
        client.do("create_volume", volume_id, size=1, name="disk")
        for offset, part in data.items():
            place.write(client, volume_id, offset, part)
        client.do("create_backup", first, volume_id, name="full")
        place.write(client, volume_id, 10 * MiB, b"added")
        done = client.do("create_backup", second, volume_id, incremental=True)
        assert done["result"]["parent_id"] == first
        assert done["result"]["moved_bytes"] < MiB
        order = {"sort_keys": ["created_at"], "sort_dirs": ["asc"]}
        page = api.list_backups(context, filters={"volume_id": volume_id}, **order)
        assert [item["id"] for item in page] == [first, second]
        with pytest.raises(exception.BackupHasDependants):
            client.do("delete_backup", first)
        device = api.get_backup_device(context, first)
        assert (device["backup_device"]["id"], device["is_snapshot"]) == (volume_id, False)
        client.do("delete_volume", volume_id)
        again = new_id()
        client.do("restore_backup", second, again, name="again")
        for offset, part in {**data, 10 * MiB: b"added"}.items():
            assert place.read(client, again, offset, len(part)) == part
        assert api.get_volume(context, again)["name"] == "again"
        place.write(client, again, 10 * MiB, b"wrong")
        place.write(client, again, 700 * MiB, b"wrong")
        client.do("restore_backup", first, again)
        assert place.read(client, again, 10 * MiB, 5) + place.read(client, again, 700 * MiB, 5) == bytes(10)
        assert api.get_backup(context, first)["status"] == "available"
        assert api.secure_file_operations_enabled(context, again) in (True, False)
        assert api.list_backup_stores(context) == ["default"]
        assert "in the store default" in api.why(context, first)["text"]
    place.daemon.stop()
    listed = place.cli("store", "list", "-f", "value", "-c", "id", place.url)
    assert sorted(listed.split()) == sorted([first, second])
    out = tmp_path / "restored"
    place.cli("store", "restore", place.url, second, str(out))
    with out.open("rb") as file:
        for offset, part in {**data, 10 * MiB: b"added", 700 * MiB: bytes(5)}.items():
            file.seek(offset)
            assert file.read(len(part)) == part
    assert out.stat().st_size == GiB
    place.daemon.start()


def test_what_is_asked_in_the_wrong_order_is_refused(place: Place) -> None:
    volume_id, backup_id = new_id(), new_id()
    with place.daemon.client() as client:
        client.do("create_volume", volume_id, size=1)
        with pytest.raises(exception.Invalid):
            client.do("create_backup", backup_id, volume_id, incremental=True)
        with pytest.raises(exception.BackupNotFound):
            client.api.get_backup(client.context, backup_id)
        with pytest.raises(exception.BackupNotFound):
            client.do("restore_backup", backup_id, new_id())
        client.do("create_backup", backup_id, volume_id)
        client.api.initialize_connection(client.context, volume_id, CONNECTOR)
        with pytest.raises(exception.VolumeAttached):
            client.do("restore_backup", backup_id, volume_id)
        client.do("delete_backup", backup_id)
        client.do("delete_backup", backup_id)
        assert client.api.list_backups(client.context) == []

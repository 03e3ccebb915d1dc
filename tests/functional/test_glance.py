# SPDX-License-Identifier: Apache-2.0
"""Images in a real Glance: up, down, over broken lines and deaths, by the store alone and through the daemon."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from tests.functional.daemon.conftest import make_daemon
from tests.functional.daemon.test_images import is_whole, qcow2, run, volmgr
from volmgr import exception
from volmgr.images import base
from volmgr.images.base import ImageInfo
from volmgr.images.glance import GlanceStore
from volmgr.images.stores import Stores
from volmgr.testing.cutting_proxy import CuttingProxy
from volmgr.testing.daemon import Daemon
from volmgr.testing.servers.errors import ServerUnavailable
from volmgr.testing.servers.glance import CLOUD, GlanceServer
from volmgr.testing.servers.pytest_fixtures import unavailable
from volmgr.testing.waiting import wait_until
from volmgr.types import MiB

__all__ = ["make_daemon"]
pytestmark = pytest.mark.once
DATA = b"\x01" + os.urandom(3 * MiB) + bytes(2 * MiB) + os.urandom(100) + b"\x01"


@pytest.fixture(scope="module")
def glance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GlanceServer]:
    server = GlanceServer(tmp_path_factory.mktemp("glance"))
    try:
        server.start()
    except ServerUnavailable as error:
        unavailable(str(error))
    yield server
    server.stop()


@pytest.fixture
def store(glance: GlanceServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GlanceStore:
    monkeypatch.setattr(base, "PAUSE", 0.0)
    return make(monkeypatch, glance.clouds(glance.port), tmp_path)


def make(monkeypatch: pytest.MonkeyPatch, clouds: Path, staging: Path, cloud: str = CLOUD) -> GlanceStore:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
    return GlanceStore("cloud", cloud, staging=str(staging), timeout=20, tries=2)


def info(version: str = "1", name: str = "shown") -> ImageInfo:
    return ImageInfo(str(uuid.uuid4()), "cloud", "raw", version, name=name, min_disk=3, properties={"os": "plan9"})


def put(store: GlanceStore, wanted: ImageInfo, data: bytes = DATA) -> ImageInfo:
    upload = store.upload(wanted)
    upload.write(data[: 3 * MiB])
    zeros = len(data[3 * MiB :]) - len(data[3 * MiB :].lstrip(b"\0"))
    upload.skip(zeros)
    upload.write(data[3 * MiB + zeros :])
    return upload.commit()


def test_what_is_put_is_got(store: GlanceStore) -> None:
    wanted = info()
    made = put(store, wanted)
    assert made == store.find(wanted.id) == store.committed(wanted.id, "1")
    assert made == replace(
        wanted, size=len(DATA), virtual_size=len(DATA), checksum=hashlib.sha512(DATA).hexdigest(), hash_algo="sha512"
    )
    assert b"".join(store.stream(made)) == DATA
    for offset in (1, base.CHUNK, len(DATA) - 1, len(DATA)):
        assert b"".join(store.stream(made, offset)) == DATA[offset:]
    with pytest.raises(exception.ImageNotFound):
        store.committed(wanted.id, "2")


def test_all_pages_are_listed_in_their_order(store: GlanceStore, glance: GlanceServer) -> None:
    there = {found.id for found in store.list()}
    ids = {put(store, info(name="one name for all"), b"x").id for _ in range(30)}  # a page has 25
    found = [item.id for item in store.list()]
    assert set(found) - there == ids and found == sorted(found)
    for image_id in ids:
        store.delete(image_id)
        store.delete(image_id)
    assert {item.id for item in store.list()} == there


def test_ids_that_are_taken_or_none(store: GlanceStore) -> None:
    wanted = info()
    put(store, wanted)
    for version in ("1", "2"):
        with pytest.raises(exception.AlreadyExists):
            store.upload(replace(wanted, version=version))
    other = info("2")
    late = store.upload(other)
    put(store, replace(other, version="3"), b"first")
    late.write(b"second")
    with pytest.raises(exception.AlreadyExists):
        late.commit()
    assert b"".join(store.stream(store.find(other.id))) == b"first"
    for bad in ("golden", "../images", wanted.id.upper(), ""):
        with pytest.raises(exception.ImageNotFound):
            store.find(bad)
        with pytest.raises(exception.Invalid):
            store.upload(replace(wanted, id=bad))
    # What was deleted never comes back, and the error says what to do.
    store.delete(wanted.id)
    with pytest.raises(exception.AlreadyExists, match="Use a new id"):
        put(store, wanted)


def test_who_is_refused_hears_why(store: GlanceStore) -> None:
    with pytest.raises(exception.Invalid, match="'floppy' is not one of"):
        put(store, replace(info(), disk_format="floppy"))


def test_an_upload_that_broke_off_goes_on_with_its_image(
    store: GlanceStore, glance: GlanceServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The id is Glance's for ever once it was given, so that it must be of use to the next try."""
    wanted = info()
    proxy = CuttingProxy(glance.port, deliver=False)
    try:
        proxied = make(monkeypatch, glance.clouds(proxy.port), tmp_path)
        upload = proxied.upload(wanted)
        upload.write(DATA)
        proxy.cut_at = b"application/octet-stream"
        with pytest.raises(exception.BackendDown, match="os-cloud private image list"):
            upload.commit()
        assert proxy.cuts == 1
    finally:
        proxy.close()
    with pytest.raises(exception.ImageNotFound):
        store.find(wanted.id)
    with pytest.raises(exception.AlreadyExists):
        store.upload(replace(wanted, version="2"))
    assert b"".join(store.stream(put(store, wanted))) == DATA
    store.discard(wanted.id, "2")
    assert store.find(wanted.id)
    store.discard(wanted.id, "1")
    store.discard(wanted.id, "1")
    with pytest.raises(exception.ImageNotFound):
        store.find(wanted.id)


def test_a_transfer_that_broke_off_goes_on(
    store: GlanceStore, glance: GlanceServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = os.urandom(MiB) * 48
    made = put(store, info(), data)
    proxy = CuttingProxy(glance.port, deliver=False)
    try:
        proxied = make(monkeypatch, glance.clouds(proxy.port), tmp_path)
        transfer = proxied.stream(made)
        got = next(transfer)
        proxy.drop()
        got += next(transfer)
        proxy.drop()
        got += b"".join(transfer)
        assert got == data
        transfer = proxied.stream(made)
        next(transfer)
        store.delete(made.id)
        proxy.drop()
        with pytest.raises(exception.ImageCorrupt, match="deleted"):
            list(transfer)
    finally:
        proxy.close()


def test_a_service_that_is_away_is_waited_for(
    glance: GlanceServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(exception.InvalidConfiguration, match="os-cloud nowhere image list"):
        make(monkeypatch, glance.clouds(glance.port), tmp_path, cloud="nowhere")
    glance.stop()
    try:
        store = make(monkeypatch, glance.clouds(glance.port), tmp_path)
        for _ in range(2):
            with pytest.raises(exception.BackendDown):
                store.list()
    finally:
        glance.start()
    assert put(store, info(), b"x") in store.list()


class Options:
    http_timeout, http_tries, https_ca_file, default_store = 5, 2, None, "cloud"
    stores: ClassVar[dict[str, str]] = {"cloud": f"glance://{CLOUD}"}


def test_from_glance_to_a_volume_and_back_over_a_death(
    glance: GlanceServer, store: GlanceStore, make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    backend = {
        "volume_driver": "sim", "target_helper": "fake", "sim_store_path": str(tmp_path / "sim"),
        "target_ip_address": "127.0.0.1",
    }
    daemon = make_daemon(
        backend=backend, environment=glance.environment,
        sections={"images": {"stores": f"cloud:glance://{CLOUD}", "default_store": "cloud"}},
    )
    golden, copy = str(uuid.uuid4()), str(uuid.uuid4())
    done = run(daemon, "volmgr.cmd.manage", "image", "import", golden, qcow2(tmp_path, 0xA5), "--format", "qcow2")
    assert (done.returncode, done.stdout.strip()) == (0, f"cloud/{golden}"), done.stderr
    daemon.start(VOLMGR_KILL_AT="copy_volume_to_image/upload/after")
    assert golden in [item["id"] for item in volmgr(daemon, "image", "list")]
    made = volmgr(daemon, "volume", "create", "root", "--image", golden, "--wait")
    assert (made["status"], made["size"], made["image_id"]) == ("available", 1, f"cloud/{golden}")
    with open(tmp_path / "sim" / f"volume-{made['id']}", "rb") as file:
        assert os.pread(file.fileno(), 2 * MiB, MiB) == b"\xa5" * MiB + bytes(MiB)
    with daemon.client() as client:
        client.api.copy_volume_to_image(
            client.context, made["id"], {"id": copy, "disk_format": "qcow2", "container_format": "bare"}
        )
        daemon.wait_killed()
        daemon.start()
        wait_until(
            lambda: client.api.get_volume(client.context, made["id"])["status"] == "available", 60, "the upload ends"
        )
    stores = Stores.from_config(Options, str(tmp_path), str(tmp_path))
    found = stores.find(copy)
    assert (found.disk_format, found.min_disk) == ("qcow2", 1)
    data = b"".join(store.stream(found))
    assert data.startswith(b"QFI\xfb") and hashlib.sha512(data).hexdigest() == found.checksum
    is_whole(daemon)

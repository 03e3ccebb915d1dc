# SPDX-License-Identifier: Apache-2.0
"""Both stores keep one contract: a folder, and a bucket of a local S3 service over real HTTP."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr import conf, exception
from volmgr.backups.directory import DirectoryStore
from volmgr.backups.s3 import S3Store
from volmgr.backups.store import IDENTITY, BackupStore, Stored, open_store
from volmgr.backups.stores import Stores
from volmgr.testing.servers.s3 import S3Server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BackupStore:
    if request.param == "folder":
        return open_store(f"file://{tmp_path}")
    server: S3Server = request.getfixturevalue("s3")
    return open_store(f"{server.url}/backups/{uuid.uuid4()}", server.options)


def test_what_is_put_is_got(store: BackupStore) -> None:
    store.put("a/x/1", b"one")
    store.put("a/x/1", b"another")
    store.put("a/2", b"")
    store.put("ab/1", bytes(range(256)) * 20000)
    assert store.get("a/x/1") == b"another"
    assert store.get("a/2") == b""
    assert store.get("ab/1") == bytes(range(256)) * 20000
    assert sorted(store.list_objects("a")) == [Stored("a/2", 0), Stored("a/x/1", 7)]
    assert store.folders() == ["a", "ab"]


def test_what_is_deleted_is_gone_and_may_be_so_already(store: BackupStore) -> None:
    store.put("a/x/1", b"one")
    store.put("b/1", b"one")
    store.delete(["a/x/1", "a/x/2", "c/1"])
    with pytest.raises(exception.NotFound):
        store.get("a/x/1")
    assert list(store.list_objects("a")) == []
    assert list(store.list_objects("c")) == []
    assert store.folders() == ["b"]


def test_more_objects_than_one_request_may_name_are_deleted(
    store: BackupStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volmgr.backups.s3.DELETE_BATCH", 7)
    names = {f"many/{number:04x}" for number in range(30)}
    for name in names:
        store.put(name, b"1")
    assert {item.name for item in store.list_objects("many")} == names
    store.delete(iter(sorted(names)))
    assert list(store.list_objects("many")) == []


@pytest.mark.parametrize("name", ["", "/a", "a/../b", "../a", "a//b", "a/", ".a", "a\0b", "a b", "a" * 600, "a\n"])
def test_a_name_does_not_lead_out_of_the_store(store: BackupStore, name: str) -> None:
    for call in (store.get, lambda name: store.put(name, b""), lambda name: store.delete([name])):
        with pytest.raises(exception.Invalid):
            call(name)


def test_a_store_has_an_identity_of_its_own(store: BackupStore, tmp_path: Path) -> None:
    first = store.identity()
    assert store.identity() == first
    (tmp_path / "other").mkdir()
    assert open_store(str(tmp_path / "other")).identity() != first
    store.put(IDENTITY, b"[]")
    with pytest.raises(exception.Inconsistent):
        store.identity()


def test_a_folder_that_is_not_mounted_is_not_written_to(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path / "absent"))
    with pytest.raises(exception.BackendDown):
        store.put("a/1", b"one")
    with pytest.raises(exception.BackendDown):
        store.put("1", b"one")
    with pytest.raises(exception.BackendDown):
        store.folders()
    assert not (tmp_path / "absent").exists()


def test_a_write_that_was_broken_off_is_no_object_and_goes_with_its_folder(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    store.put("a/1", b"one")
    (tmp_path / "a" / f".part-{uuid.uuid4()}").write_bytes(b"half")
    assert list(store.list_objects("a")) == [Stored("a/1", 3)]
    store.delete(["a/1"])
    assert os.listdir(tmp_path) == []


def test_what_was_broken_off_goes_when_its_backup_goes_on(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    for name in ("a/1", "a/b/2", "other/1"):
        store.put(name, b"one")
    for folder in ("a", "a/b", "other"):
        (tmp_path / folder / f".part-{uuid.uuid4()}").write_bytes(b"half")
    assert store.sweep("a") == 2
    assert store.sweep("a") == store.sweep("absent") == 0
    assert store.sweep("other") == 1
    assert {item.name for item in store.list_objects("a")} == {"a/1", "a/b/2"}


def test_a_service_that_refuses_or_is_away_is_a_typed_error(s3: S3Server) -> None:
    with pytest.raises(exception.BackendDown, match="NoSuchBucket"):
        open_store(f"{s3.url}/no-such-bucket", s3.options).put("a/1", b"one")
    with pytest.raises(exception.BackendDown, match=r"InvalidAccessKeyId|AccessDenied|SignatureDoesNotMatch"):
        open_store(f"{s3.url}/backups", {**s3.options, "secret_key": "wrong"}).get("a/1")
    with pytest.raises(exception.BackendDown) as found:
        open_store("s3+http://127.0.0.1:1/backups", s3.options).get("a/1")
    assert str(s3.options["secret_key"]) not in str(found.value)


@pytest.mark.parametrize(
    "url", ["", "relative/folder", "ftp://host/x", "s3://", "s3+http://host", "file://host/x", "nonsense:"]
)
def test_what_is_no_url_of_a_store_is_refused(url: str) -> None:
    with pytest.raises(exception.InvalidConfiguration):
        open_store(url)


def test_stores_have_names(tmp_path: Path) -> None:
    file = tmp_path / "volmgr.conf"
    file.write_text(
        f"[DEFAULT]\nstate_path = {tmp_path}\nbackup_store = {tmp_path}\n"
        f"[backup]\nstores = far:s3+https://host/bucket/x,near:file://{tmp_path}\ncompression_level = 7\n"
        "s3_access_key = a\ns3_secret_key = b\n"
    )
    stores = Stores.from_conf(conf.load(["--config-file", str(file)]))
    assert (stores.names(), stores.level) == (["default", "far", "near"], 7)
    stores.get("near").put("a/1", b"one")
    assert stores.get("default").get("a/1") == b"one"
    assert stores.get("near") is stores.get("near")
    far = stores.get("far")
    assert isinstance(far, S3Store) and (far.bucket, far.prefix) == ("bucket", "x/")
    with pytest.raises(exception.Invalid, match="known is default, far, near"):
        stores.get("other")

# SPDX-License-Identifier: Apache-2.0
"""Stores: an image is there whole or not at all; a web server's is fetched however often the line breaks."""

from __future__ import annotations

import functools
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from volmgr import exception
from volmgr.images import base
from volmgr.images.base import ImageInfo, ImageStore
from volmgr.images.directory import DirectoryStore
from volmgr.images.http import HttpStore
from volmgr.images.stores import Stores, make
from volmgr.images.transfer import Tools
from volmgr.types import MiB

DATA = os.urandom(3 * MiB) + bytes(2 * MiB) + os.urandom(100)
NAME = "image.raw"


def info(image_id: str = "image", version: str = "1") -> ImageInfo:
    return ImageInfo(image_id, "local", "raw", version, name="shown", properties={"os": "plan9"})


def put(store: ImageStore, image_id: str = "image", version: str = "1", data: bytes = DATA) -> ImageInfo:
    upload = store.upload(info(image_id, version))
    upload.write(data)
    return upload.commit()


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore("local", str(tmp_path / "store"))


def names(store: DirectoryStore) -> list[str]:
    return sorted(os.listdir(store.path))


class TestDirectory:
    def test_what_is_put_there_is_found(self, store: DirectoryStore) -> None:
        made = put(store)
        assert store.find("image") == made and made.size == len(DATA) and made.properties == {"os": "plan9"}
        assert b"".join(store.stream(made)) == DATA and b"".join(store.stream(made, 1000)) == DATA[1000:]
        assert store.list() == [made]
        with store.local(made) as fd:
            assert fd is not None and os.fstat(fd).st_blocks * 512 < len(DATA) - MiB, "holes stay holes"

    def test_nobody_sees_half_an_upload(self, store: DirectoryStore) -> None:
        upload = store.upload(info())
        upload.write(DATA)
        assert store.list() == []
        with pytest.raises(exception.ImageNotFound):
            store.find("image")
        store.discard("image", "1")
        assert names(store) == []

    def test_of_two_uploads_one_wins(self, store: DirectoryStore) -> None:
        first, second = store.upload(info(version="1")), store.upload(info(version="2"))
        first.write(b"first")
        second.write(b"second")
        made = first.commit()
        with pytest.raises(exception.AlreadyExists):
            second.commit()
        store.discard("image", "2")
        assert b"".join(store.stream(made)) == b"first" and names(store) == ["image.1.data", "image.json"]
        with pytest.raises(exception.AlreadyExists):
            store.upload(info(version="3"))

    def test_an_upload_is_recognised(self, store: DirectoryStore) -> None:
        made = put(store)
        assert store.committed("image", "1") == made
        with pytest.raises(exception.ImageNotFound):
            store.committed("image", "2")
        store.discard("image", "2")
        assert store.find("image") == made, "another's image stays"
        store.discard("image", "1")
        assert names(store) == []

    def test_a_deleted_image_is_gone_and_may_come_again(self, store: DirectoryStore) -> None:
        old = put(store)
        store.delete("image")
        store.delete("image")
        assert names(store) == []
        put(store, version="2", data=b"new")
        with pytest.raises(exception.ImageCorrupt), store.local(old):
            pass

    @pytest.mark.parametrize("bad", ["../etc/passwd", "/etc/passwd", "..", "", "a/b", ".hidden", "x" * 200, "a\0b"])
    def test_no_id_leads_out(self, bad: str, store: DirectoryStore) -> None:
        with pytest.raises(exception.ImageNotFound):
            store.find(bad)
        with pytest.raises(exception.Invalid):
            store.upload(info(bad))

    @pytest.mark.parametrize(
        "manifest",
        ["", "[]", "{}", '{"data": "../../etc/passwd", "disk_format": "raw", "version": "1"}',
         '{"data": "x", "disk_format": 5, "version": "1"}',
         '{"data": "x", "disk_format": "raw", "version": "1", "size": "many"}'],
    )
    def test_a_manifest_that_says_nothing(self, manifest: str, store: DirectoryStore) -> None:
        put(store, "good")
        (Path(store.path) / "bad.json").write_text(manifest)
        with pytest.raises(exception.ImageUnacceptable):
            store.find("bad")
        assert [item.id for item in store.list()] == ["good"]

    def test_a_link_in_the_place_of_data_is_not_followed(self, store: DirectoryStore, tmp_path: Path) -> None:
        made = put(store)
        data = Path(store.path) / "image.1.data"
        data.unlink()
        data.symlink_to("/etc/passwd")
        with pytest.raises(exception.Inconsistent), store.local(made):
            pass

    def test_data_that_lost_its_end_is_found_out(self, store: DirectoryStore) -> None:
        made = put(store)
        os.truncate(Path(store.path) / "image.1.data", 1000)
        with pytest.raises(exception.ImageCorrupt), store.local(made):
            pass


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder with ETags and ranges; it drops the line and changes its mind when told to."""

    cut: ClassVar[list[int]] = []
    tag: ClassVar[str | None] = '"one"'
    seen: ClassVar[list[tuple[str, str | None]]] = []

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted = self.headers.get("Range")
        if body and path.suffix != ".json":
            self.seen.append((self.command, wanted))
        partial = wanted is not None and self.headers.get("If-Range") == self.tag
        start = int((wanted or "bytes=0-")[6:-1]) if partial else 0
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if self.tag is not None:
            self.send_header("ETag", self.tag)
        self.end_headers()
        if body:
            end = start + self.cut.pop(0) if self.cut and path.suffix != ".json" else len(data)
            self.wfile.write(data[start:end])

    def log_message(self, *_args: Any) -> None:
        return


@pytest.fixture
def handler() -> type[Handler]:
    class Own(Handler):
        cut: ClassVar[list[int]] = []
        seen: ClassVar[list[tuple[str, str | None]]] = []

    return Own


Serve = Callable[..., str]


@pytest.fixture
def serve(handler: type[Handler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves ``tmp_path/web``; returns the base URL."""
    monkeypatch.setattr(base, "PAUSE", 0.0)
    (tmp_path / "web").mkdir()
    servers = []

    def start(certificate: Path | None = None) -> str:
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path / "web"))
        )
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        servers.append(server)
        return f"{'https' if certificate else 'http'}://localhost:{server.server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def web(url: str, ca_file: str | None = None) -> HttpStore:
    return HttpStore("web", url, timeout=10, tries=2, ca_file=ca_file)


class TestHttp:
    def test_an_image_without_a_manifest(self, serve: Serve, tmp_path: Path) -> None:
        store = web(serve())
        (tmp_path / "web" / NAME).write_bytes(DATA)
        found = store.find(NAME)
        assert (found.disk_format, found.size, found.version) == ("raw", len(DATA), '"one"')
        assert b"".join(store.stream(found)) == DATA
        (tmp_path / "web" / "other.qcow2").write_bytes(b"x")
        assert store.find("other.qcow2").disk_format == "qcow2"

    def test_a_folder_store_behind_a_web_server(self, serve: Serve, tmp_path: Path) -> None:
        made = put(DirectoryStore("local", str(tmp_path / "web")))
        store = web(serve())
        found = store.find("image")
        assert (found.checksum, found.version, found.store) == (made.checksum, "1", "web")
        assert b"".join(store.stream(found)) == DATA

    def test_a_line_that_breaks_again_and_again(
        self, serve: Serve, handler: type[Handler], tmp_path: Path
    ) -> None:
        store = web(serve())
        (tmp_path / "web" / NAME).write_bytes(DATA)
        handler.cut[:] = [1_000_000, 500_000, 1, 2_000_000]
        assert b"".join(store.stream(store.find(NAME))) == DATA
        ranges = [None, "bytes=1000000-", "bytes=1500000-", "bytes=1500001-", "bytes=3500001-"]
        assert [wanted for _command, wanted in handler.seen] == ranges

    def test_a_line_that_brings_nothing_is_given_up(
        self, serve: Serve, handler: type[Handler], tmp_path: Path
    ) -> None:
        store = web(serve())
        (tmp_path / "web" / NAME).write_bytes(DATA)
        handler.cut[:] = [0, 0, 0]
        with pytest.raises(exception.BackendDown):
            list(store.stream(store.find(NAME)))
        assert len(handler.seen) == 2

    def test_bytes_of_two_versions_are_never_put_together(
        self, serve: Serve, handler: type[Handler], tmp_path: Path
    ) -> None:
        store = web(serve())
        (tmp_path / "web" / NAME).write_bytes(DATA)
        found = store.find(NAME)
        handler.cut[:] = [1_000_000]
        stream = store.stream(found)
        assert len(next(stream)) == 1_000_000
        handler.tag = '"two"'
        with pytest.raises(exception.ImageCorrupt):
            list(stream)
        with pytest.raises(exception.ImageCorrupt):
            list(store.stream(found))

    def test_without_a_strong_tag_nothing_is_resumed(
        self, serve: Serve, handler: type[Handler], tmp_path: Path
    ) -> None:
        handler.tag = 'W/"weak"'
        store = web(serve())
        (tmp_path / "web" / NAME).write_bytes(DATA)
        handler.cut[:] = [1_000_000]
        with pytest.raises(exception.ImageCorrupt):
            list(store.stream(store.find(NAME)))

    def test_what_is_not_there(self, serve: Serve) -> None:
        store = web(serve())
        for name in ("absent", "../etc/passwd", "a?b", "%2e%2e%2f"):
            with pytest.raises(exception.ImageNotFound):
                store.find(name)
        with pytest.raises(exception.Unsupported):
            store.list()
        with pytest.raises(exception.Unsupported):
            store.upload(info())

    def test_nobody_answers(self) -> None:
        with pytest.raises(exception.BackendDown):
            web("http://127.0.0.1:1/").find("image")

    def test_a_certificate_must_be_signed(self, serve: Serve, require: Callable[..., str], tmp_path: Path) -> None:
        openssl = require("openssl")
        key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out",
             str(certificate)],
            check=True, capture_output=True,
        )
        both = tmp_path / "both.pem"
        both.write_bytes(key.read_bytes() + certificate.read_bytes())
        (tmp_path / "web" / NAME).write_bytes(DATA)
        url = serve(both)
        with pytest.raises(exception.BackendDown, match="CERTIFICATE_VERIFY_FAILED"):
            web(url).find(NAME)
        store = web(url, str(certificate))
        assert b"".join(store.stream(store.find(NAME))) == DATA
        with pytest.raises(exception.BackendDown, match=r"(?i)hostname|IP address"):
            web(url.replace("localhost", "127.0.0.1"), str(certificate)).find(NAME)


class Options:
    http_timeout, http_tries, https_ca_file, default_store = 5, 2, None, "local"
    stores: ClassVar[dict[str, str]] = {}


class TestNames:
    def test_the_one_that_is_there_without_a_word(self, tmp_path: Path) -> None:
        stores = Stores.from_config(Options, str(tmp_path), str(tmp_path / "staging"))
        assert isinstance(stores.by_name["local"], DirectoryStore)
        put(stores.by_name["local"])
        assert stores.find("image") == stores.find("local/image") and stores.images() == [stores.find("image")]
        assert (tmp_path / "images" / "store" / "image.json").exists()
        for name in ("other/image", "/image", "local/", "a/b/c"):
            with pytest.raises(exception.ImageNotFound):
                stores.find(name)

    @pytest.mark.parametrize("url", ["", "ftp://host", "file://relative", "http://", "glance://", "http://u:p@host/"])
    def test_urls_that_mean_nothing(self, url: str) -> None:
        with pytest.raises(exception.InvalidConfiguration):
            make("bad", url, Options, "/nowhere")

    def test_glance_says_which_package_it_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "openstack", None)  # as if it were not installed
        with pytest.raises(exception.InvalidConfiguration, match="openstacksdk"):
            make("cloud", "glance://mycloud", Options, "/nowhere")


def test_a_manifest_is_for_people_too(store: DirectoryStore, tools: Tools) -> None:
    put(store)
    manifest = json.loads((Path(store.path) / "image.json").read_text())
    assert manifest["data"] == "image.1.data" and manifest["hash_algo"] == "sha256" and manifest["size"] == len(DATA)

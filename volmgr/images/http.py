# SPDX-License-Identifier: Apache-2.0
"""Images behind a web server, read only: ``BASE/ID``, or what a manifest ``BASE/ID.json`` names.

The manifest is the directory store's, so that a web server over such a folder is a store with checksums. Without one
the format follows from the name's suffix and the version from ETag or Last-Modified; then TLS is all that vouches for
the bytes. A transfer that breaks off goes on from where it was, with a range and ``If-Range`` (RFC 9110, section 14):
bytes of two versions are never put together. No redirect is followed: what the operator named is what is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import ssl
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from volmgr import exception
from volmgr.images.base import CHUNK, RAW, ImageInfo, ImageStore, going_on, is_image_id
from volmgr.images.directory import MANIFEST, MAX_MANIFEST, manifest_of

_SUFFIXES = {".qcow2": "qcow2", ".vmdk": "vmdk", ".vhdx": "vhdx", ".iso": "iso"}
_BROKEN = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class _Head:
    """What the server says of a file before its bytes. ``tag`` is empty where it has no strong validator."""

    status: int
    size: int | None
    version: str
    tag: str


class HttpStore(ImageStore):
    """See the module.

    :param url: the base, http or https. :param timeout: seconds without a byte. :param tries: how often a transfer that
        brings nothing is tried. :param ca_file: certificates to trust instead of the system's.
    :raises InvalidConfiguration: the URL or the file of certificates cannot be used.
    """

    def __init__(self, name: str, url: str, *, timeout: float, tries: int, ca_file: str | None = None) -> None:
        super().__init__(name)
        parts = urllib.parse.urlsplit(url)
        if not parts.hostname or parts.username or parts.query or parts.fragment:
            raise exception.InvalidConfiguration(reason=f"the image store {name} has no usable URL: {url!r}")
        self._host, self._port, self._base = parts.hostname, parts.port, parts.path.rstrip("/")
        self._timeout, self._tries = timeout, tries
        self._tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            try:
                self._tls = ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise exception.InvalidConfiguration(reason=f"https_ca_file {ca_file!r}: {error}") from error

    # --- requests -----------------------------------------------------------------------------------------------

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)

    @contextlib.contextmanager
    def _asked(self, method: str, name: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        connection = self._connect()
        try:
            # Encodings are refused, so that ranges and sizes are those of the image.
            told = {"Accept-Encoding": "identity", "User-Agent": "volmgr", **headers}
            connection.request(method, f"{self._base}/{urllib.parse.quote(name)}", headers=told)
            yield connection.getresponse()
        finally:
            connection.close()

    def _down(self, error: object) -> exception.BackendDown:
        return exception.BackendDown(
            f"The image store {self.name} ({self._host}) fails: {error}",
            hint="Ask it from this host with curl; if it is TLS, see [images] https_ca_file",
        )

    def _head(self, name: str) -> _Head:
        try:
            with self._asked("HEAD", name, {}) as response:
                head = _head_of(response)
        except _BROKEN as error:
            raise self._down(error) from error
        if head.status not in (200, 403, 404, 410):
            raise self._down(f"{name}: status {head.status}")
        return head

    def _get_small(self, name: str) -> bytes | None:
        try:
            with self._asked("GET", name, {}) as response:
                if response.status in (403, 404, 410):
                    return None
                if response.status != 200:
                    raise self._down(f"{name}: status {response.status}")
                return response.read(MAX_MANIFEST)
        except _BROKEN as error:
            raise self._down(error) from error

    # --- store --------------------------------------------------------------------------------------------------

    def find(self, image_id: str) -> ImageInfo:
        return self._located(image_id)[0]

    def _located(self, image_id: str) -> tuple[ImageInfo, str, _Head]:
        """Return (what is said of an image, its file's name on the server, what the server says of that)."""
        if not is_image_id(image_id):
            raise exception.ImageNotFound(id=str(image_id)[:128], store=self.name)
        manifest, name = self._get_small(image_id + MANIFEST), image_id
        info = None
        if manifest is not None:
            info, name = manifest_of(image_id, self.name, manifest)
            # A web server must not name volumes of ours to be cloned.
            info = dataclasses.replace(info, location=None)
        head = self._head(name)
        if head.status != 200:
            raise exception.ImageNotFound(id=image_id, store=self.name)
        if info is None:
            suffix = "." + image_id.rpartition(".")[2].lower()
            info = ImageInfo(image_id, self.name, _SUFFIXES.get(suffix, RAW), head.version, size=head.size)
        return info, name, head

    def list(self) -> Sequence[ImageInfo]:
        raise exception.Unsupported(
            f"The image store {self.name} is a web server, which has no list of its images",
            hint=f"Name the image: volmgr image show {self.name}/ID",
            verb="list_images",
        )

    def stream(self, info: ImageInfo, offset: int = 0) -> Iterator[bytes]:
        found, name, head = self._located(info.id)
        if found.version != info.version:
            raise exception.ImageCorrupt(id=info.id, reason="it was replaced by another version")
        yield from going_on(
            lambda start: self._from(name, head, start, info), info, offset=offset,
            size=info.size if info.size is not None else head.size, tries=self._tries, broken=_BROKEN, down=self._down,
        )

    def _from(self, name: str, head: _Head, offset: int, info: ImageInfo) -> Iterator[bytes]:
        headers = {}
        if offset:
            if not head.tag:
                raise exception.ImageCorrupt(
                    id=info.id, reason="its transfer broke off, and the server has no strong ETag to go on by"
                )
            headers = {"Range": f"bytes={offset}-", "If-Range": head.tag}
        with self._asked("GET", name, headers) as response:
            if response.status >= 500:
                raise http.client.HTTPException(f"status {response.status}")
            if response.status != (206 if offset else 200) or _head_of(response).version != head.version:
                raise exception.ImageCorrupt(id=info.id, reason="the server has another version of it now")
            while data := response.read(CHUNK):
                yield data


def _head_of(response: http.client.HTTPResponse) -> _Head:
    size, tag = response.headers.get("Content-Length"), response.headers.get("ETag") or ""
    version = tag or response.headers.get("Last-Modified") or f"size:{size}"
    strong = tag if tag.startswith('"') else ""
    return _Head(response.status, int(size) if size and size.isdigit() else None, version[:255], strong)

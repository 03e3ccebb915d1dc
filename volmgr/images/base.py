# SPDX-License-Identifier: Apache-2.0
"""What an image store is, and what is said of an image in one."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from volmgr import exception
from volmgr.types import MiB

LOG = logging.getLogger(__name__)

CHUNK = 4 * MiB
#: seconds until a transfer that broke off is tried again, times the tries that brought nothing.
PAUSE = 1.0
ZEROS = bytes(CHUNK)
RAW, QCOW2 = "raw", "qcow2"
#: formats that volumes are made from, and those that they are uploaded as.
READABLE, WRITABLE = frozenset({RAW, QCOW2, "vmdk", "vhdx", "iso"}), frozenset({RAW, QCOW2})
HASH_ALGO = "sha256"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def is_image_id(value: object) -> bool:
    """Return whether ``value`` can be an image's id in a store: it never leads out of a folder or a URL's path."""
    return isinstance(value, str) and _ID.match(value) is not None


@dataclass(frozen=True)
class ImageInfo:
    """What a store says of an image; none of it is believed before the image was inspected.

    :ivar id: unique in its store. :ivar store: the store's name.
    :ivar size: bytes as they are stored, None if the store does not tell.
    :ivar version: other bytes have another one. :ivar checksum: hexadecimal, by ``hash_algo``.
    :ivar virtual_size: bytes of the disk in the image, if that is told. :ivar min_disk: GiB that a volume needs.
    :ivar location: where a backend can reach the image by itself.
    """

    id: str
    store: str
    disk_format: str
    version: str
    size: int | None = None
    container_format: str = "bare"
    checksum: str | None = None
    hash_algo: str | None = None
    virtual_size: int | None = None
    min_disk: int = 0
    name: str | None = None
    location: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def full_id(self) -> str:
        """The image's name in the deployment: ``STORE/ID``."""
        return f"{self.store}/{self.id}"

    @property
    def disk_bytes(self) -> int | None:
        """How many bytes a volume needs at least, as far as it is told."""
        return self.virtual_size or (self.size if self.disk_format in (RAW, "iso") else None)

    def to_json(self) -> dict[str, Any]:
        """The form kept in the journal and sent to clients."""
        return {**dataclasses.asdict(self), "properties": dict(self.properties)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ImageInfo:
        """Return what :meth:`to_json` wrote, also by newer code."""
        known = {item.name for item in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


class Hasher:
    """The checksum of a stream that may skip zeros."""

    def __init__(self, algo: str) -> None:
        self._hash = hashlib.new(algo)

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._hash.update(data)

    def zeros(self, count: int) -> None:
        """Take ``count`` zeros."""
        while count:
            part = min(count, CHUNK)
            self._hash.update(memoryview(ZEROS)[:part])
            count -= part

    def hexdigest(self) -> str:
        """Return the checksum of what was taken."""
        return self._hash.hexdigest()


def going_on(
    read: Callable[[int], Iterator[bytes]],
    info: ImageInfo,
    *,
    offset: int,
    size: int | None,
    tries: int,
    broken: tuple[type[Exception], ...],
    down: Callable[[object], exception.BackendDown],
) -> Iterator[bytes]:
    """Yield an image's bytes over as many transfers as it takes.

    :param read: makes a transfer from an offset on. :param size: the image's bytes, None for what one transfer brings.
    :param tries: how many transfers in a row may bring nothing. :param broken: how a transfer ends that may be tried
        again. :param down: makes the error of a store that fails.
    :raises BackendDown: what ``down`` made.
    """
    failures = 0
    while size is None or offset < size:
        before = offset
        try:
            for data in read(offset):
                offset += len(data)
                yield data
            if size is None or offset >= size:
                return
            error: object = f"it ended after {offset} of {size} bytes"
        except broken as caught:
            error = caught
        failures = 0 if offset > before else failures + 1
        if failures >= tries:
            raise down(error)
        LOG.warning("The transfer of %s breaks off at byte %d and goes on: %s", info.full_id, offset, error)
        time.sleep(PAUSE * failures)


class Upload(abc.ABC):
    """An image that is being put into a store; nobody sees it before :meth:`commit`."""

    @abc.abstractmethod
    def write(self, data: bytes) -> None:
        """Add the next bytes."""

    @abc.abstractmethod
    def skip(self, count: int) -> None:
        """Add ``count`` zeros."""

    @abc.abstractmethod
    def commit(self) -> ImageInfo:
        """Make the image visible, whole and durable, at one instant.

        :raises AlreadyExists: another image has the id meanwhile.
        """


class ImageStore(abc.ABC):
    """Keeps images.

    :cvar writable: whether images can be uploaded.
    """

    writable: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.name = name

    @abc.abstractmethod
    def find(self, image_id: str) -> ImageInfo:
        """Return what the store says of an image.

        :raises ImageNotFound: there is none. :raises BackendDown: the store does not answer.
        """

    @abc.abstractmethod
    def list(self) -> Sequence[ImageInfo]:
        """Return all images of the store that it can enumerate, by id."""

    @contextlib.contextmanager
    def local(self, info: ImageInfo) -> Iterator[int | None]:
        """Yield a descriptor of the image's bytes if this host has them as a file, else None."""
        yield None

    @abc.abstractmethod
    def stream(self, info: ImageInfo, offset: int = 0) -> Iterator[bytes]:
        """Yield the image's bytes from ``offset`` on; a transfer that breaks off is resumed.

        :raises ImageCorrupt: the image is not the one of ``info`` any more. :raises BackendDown: the store fails.
        """

    def upload(self, info: ImageInfo) -> Upload:
        """Begin to put an image into the store; what an earlier try of the same version left is replaced.

        :param info: what is to be said of it; ``version`` is the uploader's own, ``size`` and ``checksum`` follow from
            the bytes.
        :raises AlreadyExists: the store has an image of that id. :raises Unsupported: the store is read only.
        """
        raise self._read_only()

    def committed(self, image_id: str, version: str) -> ImageInfo:
        """Return an image that an upload of this version has made.

        :raises ImageNotFound: it has not.
        """
        found = self.find(image_id)
        if found.version != version:
            raise exception.ImageNotFound(id=image_id, store=self.name)
        return found

    def discard(self, image_id: str, version: str) -> None:
        """Remove what an upload of this version has made, whole or half; another image of that id stays."""
        raise self._read_only()

    def delete(self, image_id: str) -> None:
        """Remove an image; absent is success."""
        raise self._read_only()

    def _read_only(self) -> exception.Unsupported:
        return exception.Unsupported(
            f"The image store {self.name} is read only", hint="Choose another: [images] default_store", verb="upload"
        )

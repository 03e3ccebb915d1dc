# SPDX-License-Identifier: Apache-2.0
"""Images of an OpenStack cloud, through openstacksdk, which only who uses this store needs to have installed.

Glance's own checksum (``os_hash_algo``, ``os_hash_value``) is the image's, and also its version. An image that is being
uploaded bears the uploader's version as a property, so that a half one can be told from anybody else's. Glance never
gives an id out twice, not even after a deletion, so that an upload which broke off goes on with the image that it made.

What is asked is the Image API (v2) itself; openstacksdk finds the cloud, authenticates, and reads what is told.
"""

from __future__ import annotations

import functools
import html
import importlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.drivers.folder import Folder
from volmgr.images.base import CHUNK, ImageInfo, ImageStore, Upload, going_on

OURS = "volmgr_version"


def _is_uuid(value: str) -> bool:
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False


class GlanceStore(ImageStore):
    """See the module.

    :param cloud: a cloud of ``clouds.yaml``. :param staging: a folder for images on their way there.
    :param timeout: seconds without an answer. :param tries: how often a transfer that brings nothing is tried.
    :raises InvalidConfiguration: openstacksdk is not installed, or does not know the cloud. That the cloud does not
        answer is no obstacle yet.
    """

    writable: ClassVar[bool] = True

    def __init__(self, name: str, cloud: str, *, staging: str, timeout: float, tries: int) -> None:
        super().__init__(name)
        try:
            self._sdk = importlib.import_module("openstack")
        except ImportError as error:
            raise exception.InvalidConfiguration(
                reason=f"the image store {name} needs the Python package openstacksdk, which is not installed",
                hint="Run: pip install 'volmgr[glance]'",
            ) from error
        self._cloud, self._staging, self._tries = cloud, staging, tries
        try:
            self._connection = self._sdk.connect(cloud=cloud, api_timeout=timeout)
        except Exception as error:
            raise exception.InvalidConfiguration(
                reason=f"the image store {name}: {error}", hint=f"Ask: openstack --os-cloud {cloud} image list"
            ) from error

    @functools.cached_property
    def _images(self) -> Any:
        # Asks the cloud for its endpoints and versions.
        return self._connection.image

    def _down(self, error: object) -> exception.BackendDown:
        told = html.unescape(str(error))
        return exception.BackendDown(
            f"The image store {self.name} fails: {told}", hint=f"Ask it: openstack --os-cloud {self._cloud} image list"
        )

    def _call(self, ask: Callable[[Any], Any], image_id: str = "") -> Any:
        """Return what ``ask`` gets from openstacksdk's proxy; ``image_id`` is for the errors."""
        errors = self._sdk.exceptions
        try:
            return ask(self._images)
        except errors.NotFoundException as error:
            raise exception.ImageNotFound(id=image_id, store=self.name) from error
        except errors.ConflictException as error:
            raise exception.AlreadyExists(resource="image", id=image_id) from error
        except errors.BadRequestException as error:
            told = html.unescape(str(error))
            raise exception.Invalid(f"The image store {self.name} refuses this: {told}", field="image") from error
        except Exception as error:
            raise self._down(error) from error

    def _get(self, image_id: str) -> Any:
        if not _is_uuid(image_id):
            raise exception.ImageNotFound(id=image_id, store=self.name)
        return self._call(lambda images: images.get_image(image_id), image_id)

    def _info(self, image: Any) -> ImageInfo:
        extra = {key: str(value) for key, value in (image.properties or {}).items()}
        return ImageInfo(
            id=image.id,
            store=self.name,
            name=image.name,
            disk_format=image.disk_format or "",
            container_format=image.container_format or "bare",
            version=extra.pop(OURS, "") or image.hash_value or image.checksum or str(image.updated_at),
            size=image.size,
            checksum=image.hash_value or image.checksum,
            hash_algo=image.hash_algo if image.hash_value else "md5",
            virtual_size=image.virtual_size,
            min_disk=image.min_disk or 0,
            location=getattr(image, "direct_url", None),
            properties=extra,
        )

    def find(self, image_id: str) -> ImageInfo:
        image = self._get(image_id)
        if image.status != "active":
            raise exception.ImageNotFound(id=image_id, store=self.name)
        return self._info(image)

    def list(self) -> Sequence[ImageInfo]:
        # Further pages are asked for while it is gone through.
        found = self._call(lambda images: list(images.images(status="active")))
        return sorted(map(self._info, found), key=lambda info: info.id)

    def stream(self, info: ImageInfo, offset: int = 0) -> Iterator[bytes]:
        # An image's bytes never change while it exists, so that any two transfers are of the same.
        yield from going_on(
            lambda start: self._from(info, start), info, offset=offset, size=info.size, tries=self._tries,
            broken=(OSError, self._sdk.exceptions.SDKException), down=self._down,
        )

    def _from(self, info: ImageInfo, offset: int) -> Iterator[bytes]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._images.get(f"/images/{info.id}/file", headers=headers, stream=True) as response:
            if response.status_code == 404:
                raise exception.ImageCorrupt(id=info.id, reason="it was deleted")
            self._checked(response)
            # Not every storage behind it can begin anywhere.
            skip = 0 if response.status_code == 206 else offset
            for data in response.iter_content(CHUNK):
                if len(data) > skip:
                    yield data[skip:]
                skip = max(0, skip - len(data))

    def upload(self, info: ImageInfo) -> Upload:
        if not _is_uuid(info.id):
            raise exception.Invalid(f"Glance names images by UUIDs, not {info.id!r}", field="image_id")
        self._begun(info)
        return _Upload(self, info, self._staging)

    def _begun(self, info: ImageInfo) -> bool:
        """Return whether an earlier try has made the image, which has no bytes yet.

        :raises AlreadyExists: there is one that is whole, or somebody else's, or that is being filled.
        """
        try:
            image = self._get(info.id)
        except exception.ImageNotFound:
            return False
        if image.status != "queued" or (image.properties or {}).get(OURS) != info.version:
            raise exception.AlreadyExists(resource="image", id=info.id)
        return True

    def put(self, info: ImageInfo, file: Any) -> ImageInfo:
        """Make an image of a whole file."""
        if not self._begun(info):
            said = {
                "name": info.name or info.id, "id": info.id, "disk_format": info.disk_format,
                "container_format": info.container_format, "min_disk": info.min_disk, **info.properties,
                OURS: info.version,
            }
            self._call(lambda images: self._checked(images.post("/images", json=said)), info.id)
        headers = {"Content-Type": "application/octet-stream"}
        path = f"/images/{info.id}/file"
        self._call(lambda images: self._checked(images.put(path, data=file, headers=headers)), info.id)
        return self.find(info.id)

    def _checked(self, response: Any) -> None:
        self._sdk.exceptions.raise_from_response(response)

    def discard(self, image_id: str, version: str) -> None:
        try:
            image = self._get(image_id)
        except exception.ImageNotFound:
            return
        if (image.properties or {}).get(OURS) == version:
            self.delete(image_id)

    def delete(self, image_id: str) -> None:
        self._call(lambda images: images.delete_image(image_id, ignore_missing=True), image_id)


class _Upload(Upload):
    def __init__(self, store: GlanceStore, info: ImageInfo, staging: str) -> None:
        self._store = store
        self._info = info
        self._file = tempfile.TemporaryFile(dir=Folder(staging).path)  # noqa: SIM115 (closed by commit, or with this object)
        self._size = 0

    def write(self, data: bytes) -> None:
        offload(self._file.write, data)
        self._size += len(data)

    def skip(self, count: int) -> None:
        self._size += count
        self._file.seek(count, os.SEEK_CUR)

    def commit(self) -> ImageInfo:
        self._file.truncate(self._size)
        self._file.seek(0)
        with self._file as file:
            return self._store.put(self._info, file)

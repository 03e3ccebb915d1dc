# SPDX-License-Identifier: Apache-2.0
"""Images of an OpenStack cloud, through openstacksdk, which only who uses this store needs to have installed.

Glance's own checksum (``os_hash_algo``, ``os_hash_value``) is the image's, and also its version. An image that is being
uploaded bears the uploader's version as a property, so that a half one can be told from anybody else's.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.images.base import CHUNK, ImageInfo, ImageStore, Upload

OURS = "volmgr_version"


class GlanceStore(ImageStore):
    """See the module.

    :param cloud: a cloud of ``clouds.yaml``. :param staging: a folder for images on their way there.
    :raises InvalidConfiguration: openstacksdk is not installed, or does not know the cloud.
    """

    writable: ClassVar[bool] = True

    def __init__(self, name: str, cloud: str, *, staging: str, timeout: float) -> None:
        super().__init__(name)
        try:
            sdk = importlib.import_module("openstack")
        except ImportError as error:
            raise exception.InvalidConfiguration(
                reason=f"the image store {name} needs the Python package openstacksdk, which is not installed",
                hint="Run: pip install openstacksdk",
            ) from error
        self._staging = staging
        try:
            self._sdk = sdk
            self._images = sdk.connect(cloud=cloud, api_timeout=timeout).image
        except Exception as error:
            raise exception.InvalidConfiguration(reason=f"the image store {name}: {error}") from error

    def _call(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except self._sdk.exceptions.NotFoundException as error:
            raise exception.ImageNotFound(id=str(args[0] if args else ""), store=self.name) from error
        except Exception as error:
            raise exception.BackendDown(
                f"The image store {self.name} fails: {error}", hint="Ask it: openstack image list"
            ) from error

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
        image = self._call(self._images.get_image, image_id)
        if image.status != "active":
            raise exception.ImageNotFound(id=image_id, store=self.name)
        return self._info(image)

    def list(self) -> Sequence[ImageInfo]:
        found = self._call(lambda: list(self._images.images(status="active")))
        return [self._info(item) for item in found]

    def stream(self, info: ImageInfo, offset: int = 0) -> Iterator[bytes]:
        response = self._call(self._images.download_image, info.id, stream=True)
        try:
            for data in response.iter_content(CHUNK):
                if offset >= len(data):
                    offset -= len(data)
                    continue
                yield data[offset:]
                offset = 0
        except OSError as error:
            raise exception.BackendDown(f"The transfer of {info.full_id} broke off: {error}") from error

    def upload(self, info: ImageInfo) -> Upload:
        self.discard(info.id, info.version)
        return _Upload(self, info, self._staging)

    def discard(self, image_id: str, version: str) -> None:
        try:
            image = self._call(self._images.get_image, image_id)
        except exception.ImageNotFound:
            return
        if (image.properties or {}).get(OURS) == version:
            self.delete(image_id)

    def delete(self, image_id: str) -> None:
        self._call(self._images.delete_image, image_id, ignore_missing=True)

    def put(self, info: ImageInfo, file: Any) -> ImageInfo:
        """Upload a whole file."""
        made = self._call(
            self._images.create_image,
            name=info.name or info.id,
            id=info.id,
            disk_format=info.disk_format,
            container_format=info.container_format,
            data=file,
            **{**info.properties, OURS: info.version},
        )
        return self.find(made.id)


class _Upload(Upload):
    def __init__(self, store: GlanceStore, info: ImageInfo, staging: str) -> None:
        self._store = store
        self._info = info
        self._file = tempfile.TemporaryFile(dir=staging)  # noqa: SIM115 (closed by commit, or with this object)
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

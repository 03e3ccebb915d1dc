# SPDX-License-Identifier: Apache-2.0
"""What a worker has to do with images: its stores and the tools for transfers, made from the configuration."""

from __future__ import annotations

from typing import Any

from volmgr.images.base import ImageInfo, ImageStore
from volmgr.images.staging import Staging
from volmgr.images.stores import Stores
from volmgr.images.transfer import Download, Tools, Uploading
from volmgr.tools.qemu_img import Limits, QemuImg
from volmgr.types import MiB


class Images:
    """Images of a deployment, as one worker reaches them."""

    def __init__(self, stores: Stores, tools: Tools) -> None:
        self.stores = stores
        self.tools = tools

    @classmethod
    def from_config(cls, options: Any, state_path: str, lock_fd: int | None = None) -> Images:
        """Return them as ``[images]`` says.

        :param lock_fd: a descriptor that every program which works for them holds open.
        :raises InvalidConfiguration: a store cannot be used.
        """
        staging = options.staging_path or f"{state_path}/images/staging"
        limits = Limits(
            memory=options.convert_memory_mb * MiB,
            info_cpu=options.inspect_cpu_seconds,
            convert_cpu=options.convert_cpu_seconds,
            timeout=float(options.convert_timeout),
        )
        return cls(
            Stores.from_config(options, state_path, staging), Tools(Staging(staging), QemuImg(limits, lock_fd=lock_fd))
        )

    def find(self, full_id: str) -> ImageInfo:
        """Return what the store of ``STORE/ID``, or of ``ID`` in the default store, says of an image.

        :raises ImageNotFound: there is none.
        """
        return self.stores.find(full_id)

    def store_of(self, info: ImageInfo) -> ImageStore:
        """Return the store that an image is in, or is to be put into."""
        return self.stores.split(info.full_id)[0]

    def download(self, info: ImageInfo, key: str, volume_bytes: int) -> Download:
        """Return a transfer to a volume of so many bytes; see :class:`Download`."""
        return Download(self.tools, self.store_of(info), info, key, volume_bytes)

    def upload(self, info: ImageInfo, key: str) -> Uploading:
        """Return a transfer of a volume to a new image; see :class:`Uploading`."""
        return Uploading(self.tools, self.store_of(info), info, key)

    def staged(self) -> set[str]:
        """Return the keys under which something is staged."""
        return self.tools.staging.keys()

    def forget(self, key: str) -> None:
        """Remove what was staged under a key; absent is success."""
        self.tools.staging.forget(key)

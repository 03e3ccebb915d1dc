# SPDX-License-Identifier: Apache-2.0
"""What is asked about images, as a table of contents. A part of :class:`volmgr.manager.VolumeManager`.

``create_volume`` with ``image_id`` is with the other creations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volmgr import validate
from volmgr.operations import images
from volmgr.rpc.endpoint import answered, journalled
from volmgr.validate import optional

if TYPE_CHECKING:
    from volmgr.context import RequestContext
    from volmgr.service import Worker

_word = validate.text(255, 1)


class ImageVerbs:
    """The verbs over images."""

    worker: Worker

    @journalled
    def copy_volume_to_image(
        self, context: RequestContext, volume_id: str, image_meta: dict[str, Any]
    ) -> dict[str, Any]:
        """Make an image of a volume; ``image_meta``: id, disk_format, container_format, name, properties."""
        arguments = {"volume_id": volume_id, "image_meta": image_meta}
        return self.worker.submit(context, images.CopyVolumeToImage, arguments)

    @answered(image_id=_word)
    def get_image(self, context: RequestContext, image_id: str) -> dict[str, Any]:
        """Return what its store says of an image, named ID or STORE/ID."""
        return images.view(self.worker.images.find(image_id))

    @answered(store=optional(_word))
    def list_images(self, context: RequestContext, store: str | None = None) -> list[dict[str, Any]]:
        """Return the images of a store, or of all stores that can list theirs."""
        return [images.view(item) for item in self.worker.images.stores.images(store)]

# SPDX-License-Identifier: Apache-2.0
"""The client's side of :mod:`volmgr.image_verbs`. A part of :class:`volmgr.rpc.client.VolumeAPI`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volmgr.context import RequestContext

Answer = dict[str, Any]


class ImagesAPI:
    """The verbs over images."""

    def call(self, context: RequestContext, method: str, **args: Any) -> Any:
        """Send a request and return its answer."""
        raise NotImplementedError

    def change(self, context: RequestContext, method: str, **args: Any) -> Answer:
        """Send a changing request under a key of its own."""
        raise NotImplementedError

    def copy_volume_to_image(self, context: RequestContext, volume_id: str, image_meta: dict[str, Any]) -> Answer:
        """Make an image of a volume.

        :param image_meta: ``id`` (ID or STORE/ID), ``disk_format`` (raw, qcow2), and ``name``, ``properties`` at will.
        """
        return self.change(context, "copy_volume_to_image", volume_id=volume_id, image_meta=image_meta)

    def get_image(self, context: RequestContext, image_id: str) -> Answer:
        """Return what its store says of an image."""
        answer: Answer = self.call(context, "get_image", image_id=image_id)
        return answer

    def list_images(self, context: RequestContext, store: str | None = None) -> list[Answer]:
        """Return the images of a store, or of all stores that can list theirs."""
        answer: list[Answer] = self.call(context, "list_images", **({"store": store} if store else {}))
        return answer

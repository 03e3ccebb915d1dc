# SPDX-License-Identifier: Apache-2.0
"""The image stores of a deployment by their names, and which one an image's id means."""

from __future__ import annotations

import os
import urllib.parse
from typing import Any

from volmgr import exception
from volmgr.images.base import ImageInfo, ImageStore


def make(name: str, url: str, options: Any, staging: str) -> ImageStore:
    """Return the store that a URL names; one of another scheme costs no import.

    :param options: the options of ``[images]``.
    :raises InvalidConfiguration: the URL, or what it needs, cannot be used.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "file" and os.path.isabs(rest):
        from volmgr.images.directory import DirectoryStore

        return DirectoryStore(name, urllib.parse.unquote(rest))
    if scheme in ("http", "https"):
        from volmgr.images.http import HttpStore

        return HttpStore(
            name, url, timeout=options.http_timeout, tries=options.http_tries, ca_file=options.https_ca_file
        )
    if scheme == "glance" and rest:
        from volmgr.images.glance import GlanceStore

        return GlanceStore(name, rest, staging=staging, timeout=options.http_timeout, tries=options.http_tries)
    raise exception.InvalidConfiguration(
        reason=f"[images] stores: {name}:{url} is none of file:///FOLDER, http(s)://HOST/PATH and glance://CLOUD"
    )


class Stores:
    """All stores.

    :param by_name: the stores. :param default: the name of the one that an id without a name means.
    """

    def __init__(self, by_name: dict[str, ImageStore], default: str) -> None:
        self.by_name = by_name
        self.default = default

    @classmethod
    def from_config(cls, options: Any, state_path: str, staging: str) -> Stores:
        """Return the configured ones; without any, one folder.

        :raises InvalidConfiguration: one cannot be used, or the default is none of them.
        """
        urls = dict(options.stores) or {"local": f"file://{urllib.parse.quote(state_path)}/images/store"}
        found = {name: make(name, url, options, staging) for name, url in urls.items()}
        if options.default_store not in found:
            raise exception.InvalidConfiguration(
                reason=f"[images] default_store is {options.default_store}, the stores are {', '.join(sorted(found))}"
            )
        return cls(found, options.default_store)

    def split(self, full_id: str) -> tuple[ImageStore, str]:
        """Return (the store, the image's id in it) of ``STORE/ID``, or of ``ID`` in the default store.

        :raises ImageNotFound: there is no such store.
        """
        name, slash, image_id = full_id.partition("/")
        if not slash:
            name, image_id = self.default, full_id
        store = self.by_name.get(name)
        if store is None:
            raise exception.ImageNotFound(id=image_id, store=name)
        return store, image_id

    def find(self, full_id: str) -> ImageInfo:
        """Return what the store of an image says of it.

        :raises ImageNotFound: there is none.
        """
        store, image_id = self.split(full_id)
        return store.find(image_id)

    def images(self, name: str | None = None) -> list[ImageInfo]:
        """Return the images of one store, or of all that can list theirs.

        :raises ImageNotFound: there is no such store. :raises Unsupported: that one store has no list.
        """
        if name is not None:
            return list(self.split(f"{name}/-")[0].list())
        found: list[ImageInfo] = []
        for store in self.by_name.values():
            try:
                found += store.list()
            except exception.Unsupported:
                continue
        return found

# SPDX-License-Identifier: Apache-2.0
"""The backup stores of a deployment, by name. Each is opened when it is wanted first."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from volmgr import exception
from volmgr.backups.store import BackupStore, open_store

DEFAULT = "default"


class Stores:
    """See the module.

    :param urls: by name. :param options: for S3, see :func:`volmgr.backups.store.open_store`.
    :param level: of the compression.
    """

    def __init__(
        self, urls: Mapping[str, str], options: Mapping[str, str | None] | None = None, level: int = 3
    ) -> None:
        self.urls = dict(urls)
        self.level = level
        self._options = dict(options or {})
        self._open: dict[str, BackupStore] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_conf(cls, conf: Any) -> Stores:
        """Return the stores of a configuration."""
        urls = {DEFAULT: conf.backup_store} if conf.backup_store else {}
        options = {
            "access_key": conf.backup.s3_access_key,
            "secret_key": conf.backup.s3_secret_key,
            "region": conf.backup.s3_region,
        }
        return cls({**urls, **conf.backup.stores}, options, conf.backup.compression_level)

    def add(self, name: str, store: BackupStore) -> None:
        """Take an open store, as tests and programs without a configuration have it."""
        self.urls.setdefault(name, "")
        self._open[name] = store

    def names(self) -> list[str]:
        """Return the names of all stores, sorted."""
        return sorted(self.urls)

    def check(self, name: str) -> str:
        """Return ``name`` if there is a store of that name.

        :raises Invalid: there is none.
        """
        if name not in self.urls:
            known = ", ".join(self.names()) or "none"
            raise exception.Invalid(
                f"There is no backup store {name} here; known is {known}",
                hint="Set backup_store in [DEFAULT], or stores in [backup]",
                field="store",
            )
        return name

    def get(self, name: str) -> BackupStore:
        """Return a store.

        :raises Invalid: there is none of that name. :raises InvalidConfiguration: it cannot be opened.
        """
        self.check(name)
        with self._lock:
            if name not in self._open:
                self._open[name] = open_store(self.urls[name], self._options)
            return self._open[name]

# SPDX-License-Identifier: Apache-2.0
"""Backups of the LVM driver: of a thin volume only what has changed is read, where that can be known.

It can be known while the snapshot that the parent backup was made of is there: the pool's metadata says which blocks
the two do not share. It knows no backup store.
"""

from __future__ import annotations

import io
import logging
import os
from pathlib import Path
from typing import Any

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.drivers import imaging
from volmgr.drivers.lvm_setup import LVMSetup
from volmgr.tools import thin_delta
from volmgr.types import Snapshot, Volume

LOG = logging.getLogger(__name__)


class LVMBackups(LVMSetup, abstract=True):
    """What is read for a backup."""

    def backup_volume(self, context: Any, backup: Any, backup_service: Any) -> None:
        source, _is_snapshot = self.get_backup_device(context, backup)
        base = backup.get("base")
        changed = self._changed(base, source) if base is not None else None
        with imaging.opened(self.local_path(source), os.O_RDONLY) as fd, _Device(fd, changed) as file:
            # What a target wrote past this host's cache is read from the device.
            offload(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED)
            backup_service.backup(backup, file)

    def _changed(self, base: Snapshot, source: Volume | Snapshot) -> thin_delta.Ranges | None:
        """Return in which bytes two objects may differ, None where only reading can tell."""
        if not self.thin:
            return None
        try:
            for name in (base.name, source.name):
                self._need_node(name)
            note = Path(self.configuration.state_path) / "thin-metadata" / f"{self.vg.name}-{self.pool}"
            found = self.vg.differing(self.pool, base.name, source.name, note)
        except (exception.VolmgrError, OSError) as error:
            LOG.warning("All of %s is read for its backup: %s", source.name, error)
            return None
        LOG.info("%s and %s differ in %d ranges", base.name, source.name, len(found.starts))
        return found


class _Device(io.FileIO):
    """A device that knows where its bytes may differ from what they were.

    :param changed: the ranges, None where nothing is known.
    """

    def __init__(self, fd: int, changed: thin_delta.Ranges | None) -> None:
        super().__init__(fd, "rb", closefd=False)
        self._changed = changed

    def is_same(self, offset: int, length: int) -> bool:
        return self._changed is not None and not self._changed.touch(offset, length)

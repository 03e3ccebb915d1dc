# SPDX-License-Identifier: Apache-2.0
"""The bytes of StorPool volumes on this host: images in and out, backups. Knows no image store and no backup store.

What is read is a snapshot that exists for that time only, so a volume may be in use meanwhile; its name follows from
the volume or the backup, so that a repeat after a crash finds and removes what the first try has left.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from os_brick.initiator import storpool_utils

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.drivers import making
from volmgr.drivers.storpool_setup import StorPoolSetup
from volmgr.types import Snapshot, Volume

LOG = logging.getLogger(__name__)

#: What tells our volumes and snapshots from others' of the same names.
OWN_TAGS = {"volmgr": "1"}
#: The tag that says by which work something was made, see :mod:`volmgr.drivers.making`.
WORK_TAG = "volmgr-work"
#: Seconds between two looks for a device, and how often a device that is open still is tried to be let go.
POLL, DETACH_TRIES = 0.1, 50


class StorPoolCopying(StorPoolSetup, abstract=True):
    """Snapshots for a while, attached to this host."""

    def copy_image_to_volume(self, context: Any, volume: Volume, image_service: Any, image_id: str) -> None:
        """Fetch a raw image and write it to ``volume``, which nobody uses.

        :param image_service: ``show(context, image_id)``, a mapping with ``disk_format``, and
            ``download(context, image_id, file)``, which writes the image to a file.
        :raises Unsupported: the image is not raw. :raises Invalid: it is larger than the volume.
        """
        _need_raw(image_service.show(context, image_id), "copy_image_to_volume")
        name = self.storpool_name(volume)
        with self._attached("volume", name, "rw") as path, _Device(path, os.O_WRONLY) as device:
            try:
                image_service.download(context, image_id, device)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise exception.Invalid(
                        f"The image {image_id} is larger than the volume", hint="Extend the volume", field="image_id"
                    ) from error
                raise
            device.sync()

    def copy_volume_to_image(
        self, context: Any, volume: Volume, image_service: Any, image_meta: Mapping[str, Any]
    ) -> None:
        """Upload ``volume`` as it is at one instant as the raw image ``image_meta['id']``.

        :param image_service: ``update(context, image_id, metadata, file)``, which reads the image from a file.
        :raises Unsupported: the image is not to be raw.
        """
        _need_raw(image_meta, "copy_volume_to_image")
        between = self._name("image", volume.name_id)
        with self._frozen(self.storpool_name(volume), between), _reading(self, between) as device:
            image_service.update(context, image_meta["id"], {}, device)

    def backup_volume(self, context: Any, backup: Any, backup_service: Any) -> None:
        """Back the volume or snapshot of ``backup`` up.

        :param backup: with ``id``, ``volume_id`` and, to back up a snapshot, ``snapshot_id``; or with ``source``, a
            snapshot that somebody else has made for it.
        :param backup_service: ``backup(backup, file)``, which reads the bytes from a file.
        """
        source = backup.get("source")
        if isinstance(source, Snapshot):
            with _reading(self, self.storpool_name(source)) as device:
                backup_service.backup(backup, device)
            return
        if snapshot_id := backup.get("snapshot_id"):
            with _reading(self, self._name("snapshot", snapshot_id)) as device:
                backup_service.backup(backup, device)
            return
        volume = backup.get("volume")
        origin = self._name("volume", volume.name_id if volume is not None else backup["volume_id"])
        between = self._name("backup", backup["id"])
        with self._frozen(origin, between), _reading(self, between) as device:
            backup_service.backup(backup, device)

    def restore_backup(self, context: Any, backup: Any, volume: Volume, backup_service: Any) -> None:
        """Let a backup service write a backup to ``volume``.

        :param backup_service: ``restore(backup, volume_id, file)``, which writes the bytes into a file.
        """
        with (
            self._attached("volume", self.storpool_name(volume), "rw") as path,
            _Device(path, os.O_RDWR) as device,
        ):
            backup_service.restore(backup, volume.id, device)

    # --- snapshots ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _frozen(self, source: str, between: str) -> Iterator[None]:
        """Hold a snapshot of a volume for a while.

        :raises VolumeNotFound: the volume is not there.
        """
        self._drop(between)
        try:
            self._snap(source, between)
        except exception.NotFound as error:
            raise exception.VolumeNotFound(id=source) from error
        try:
            yield
        finally:
            self._drop(between)

    def _drop(self, name: str) -> None:
        """Remove a snapshot that a try which was broken off may have left attached to this host."""
        if self.api.snapshot(name) is not None:
            self._detach("snapshot", name)
        self._delete_snapshot(name)

    def _snap(self, source: str, name: str) -> None:
        """Make a snapshot of the volume ``source``, unless this work has made it already.

        :raises NotFound: the volume is not. :raises ObjectExists: there is one that this work has not made.
        """
        work = making.mark()

        def is_made() -> bool:
            present = self.api.snapshot(name)
            if present is not None:
                making.expect(name, work_of(present), work)
            return present is not None

        self.api.change(
            f"VolumeSnapshot {source}",
            lambda client: client.snapshot_create(source, {"name": name, "tags": marked(work)}),
            is_made,
        )

    def _delete_snapshot(self, name: str) -> None:
        """Remove a snapshot; absent is success.

        :raises Busy: a host has it open.
        """
        present = self.api.snapshot(name)
        if present is None or making.spared(work_of(present)):
            return
        itself = global_name(present)
        with contextlib.suppress(exception.NotFound):
            self._detach_all("snapshot", itself)
            self.api.change(f"SnapshotDelete {name}", lambda client: client.snapshot_delete(itself))

    def _detach_all(self, kind: str, name: str) -> None:
        """Take something away from every host that does not have it open.

        :raises NotFound: it is not there. :raises Busy: a host has it open.
        """
        wish = [{kind: name, "detach": "all"}]
        self.api.change(f"VolumesReassign {name}", lambda client: client.volumes_reassign(wish))

    # --- attaching to this host ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _attached(self, kind: str, name: str, rights: str) -> Iterator[Path]:
        """Attach a volume or snapshot to this host for a while.

        :returns: its device. :raises NotFound: it is not there. :raises BackendDown: no device appears.
        """
        client = self.config.client_id(self.config.node)
        wish = {"reassign": [{kind: name, rights: [client]}], "attachTimeout": int(self._timeout)}
        try:
            self.api.change(f"VolumesReassignWait {name}", lambda api: api.volumes_reassign_wait(wish))
            yield self._device(kind, name)
        finally:
            self._detach(kind, name)

    def _device(self, kind: str, name: str) -> Path:
        found = self.api.volume(name) if kind == "volume" else self.api.snapshot(name)
        if found is None:
            raise exception.NotFound(resource=kind, id=name)
        path: Path = storpool_utils.DEV_STORPOOL_BYID / found["globalId"]
        deadline = time.monotonic() + self._timeout
        while not path.exists():
            if time.monotonic() >= deadline:
                raise exception.BackendDown(
                    f"StorPool's client on this host shows no device {path}",
                    hint="See: systemctl status storpool_block",
                )
            time.sleep(POLL)
        return path

    def _detach(self, kind: str, name: str) -> None:
        """Detach from this host; a device that something holds open for a moment, udev for one, is waited for."""
        client = self.config.client_id(self.config.node)
        wish = {"reassign": [{kind: name, "detach": [client]}]}
        for left in reversed(range(DETACH_TRIES)):
            try:
                self.api.change(f"VolumesReassignWait {name}", lambda api: api.volumes_reassign_wait(wish))
                return
            except exception.NotFound:
                return
            except exception.Busy:
                if not left:
                    raise
            time.sleep(POLL)


@contextlib.contextmanager
def _reading(driver: StorPoolCopying, snapshot: str) -> Iterator[_Device]:
    with driver._attached("snapshot", snapshot, "ro") as path, _Device(path, os.O_RDONLY) as device:
        yield device


class _Device(io.RawIOBase):
    """A block device as a file for others to read or write; it never holds up other green threads."""

    def __init__(self, path: Path, mode: int) -> None:
        self._descriptor = os.open(path, mode | os.O_CLOEXEC)
        self._readable, self._writable = mode != os.O_WRONLY, mode != os.O_RDONLY
        self._offset = 0

    def readable(self) -> bool:
        return self._readable

    def writable(self) -> bool:
        return self._writable

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    # pread and pwrite: eventlet replaces read and write by ones that wait for what a device never becomes.

    def readinto(self, buffer: Any) -> int:
        data = offload(os.pread, self._descriptor, len(buffer), self._offset)
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)

    def write(self, data: Any) -> int:
        view, done = memoryview(data).cast("B"), 0
        while done < len(view):
            done += offload(os.pwrite, self._descriptor, view[done:], self._offset + done)
        self._offset += done
        return done

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset}.get(whence)
        self._offset = offset + (os.lseek(self._descriptor, 0, os.SEEK_END) if start is None else start)
        return self._offset

    def tell(self) -> int:
        return self._offset

    def sync(self) -> None:
        """Return once everything that was written is on the disks."""
        offload(os.fsync, self._descriptor)

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
            super().close()


def marked(work: str) -> dict[str, str]:
    """Return the tags of what a work makes."""
    return {**OWN_TAGS, WORK_TAG: work}


def work_of(item: Mapping[str, Any]) -> str | None:
    """Return the mark of the work that made a volume or snapshot, None if its tags do not say it."""
    return (item.get("tags") or {}).get(WORK_TAG) or None


def is_ours(item: Mapping[str, Any]) -> bool:
    """Return whether a volume or snapshot has our tags."""
    return OWN_TAGS.items() <= dict(item.get("tags") or {}).items()


def global_name(item: Mapping[str, Any]) -> str:
    """Return the name of a volume or snapshot that nothing else ever bears.

    A request that is late can so never hit what bears the same name by then.
    """
    return f"~{item['globalId']}"


def _need_raw(image: Mapping[str, Any], verb: str) -> None:
    if (image.get("disk_format") or "raw") != "raw":
        raise exception.Unsupported(
            f"StorPool volumes are copied from and to raw images only, this one is {image['disk_format']}",
            hint="Convert it first: qemu-img convert -O raw",
            verb=verb,
        )

# SPDX-License-Identifier: Apache-2.0
"""Volumes as sparse raw files in a folder: the driver that needs nothing but a file system.

Where the file system shares blocks between files (XFS, btrfs, bcachefs: ioctl_ficlone(2)) snapshots and clones are
instant and of one moment; elsewhere they are sparse copies, and a volume that is attached cannot be copied because
the copy would not be of one moment. It knows no target and starts no process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from oslo_config import cfg

from volmgr import exception, names
from volmgr.concurrency import offload
from volmgr.drivers import making
from volmgr.drivers import progress as reports
from volmgr.drivers.exporting import TargetVD
from volmgr.drivers.file_groups import FileGroups
from volmgr.drivers.folder import Folder
from volmgr.drivers.interfaces import ExtendVD, ObserveVD, RetypeVD, SnapshotVD, TrashVD
from volmgr.drivers.interfaces.upkeep import Progress
from volmgr.drivers.naming import CREATING, DELETING, describe, missing, own_name
from volmgr.types import GiB, ModelUpdate, ObservedObject, Snapshot, Volume, VolumeType

LOG = logging.getLogger(__name__)

FILE_OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "file_store_path",
        help="Folder for the volumes; one that is set must exist. Default: file/ in state_path, which is made",
    ),
    cfg.StrOpt(
        "file_reflink",
        default="auto",
        choices=["auto", "never", "require"],
        help="Whether clones share blocks: where the file system can, never, or else the backend does not start",
    ),
]
MIN_INODES = 100
#: A wipe truncates in at most so many steps, of at least this many bytes.
WIPE_STEPS, WIPE_BYTES = 256, GiB
VOLUMES, TRASH = "volumes", "trash"


class FileDriver(FileGroups, SnapshotVD, ExtendVD, RetypeVD, TrashVD, ObserveVD, TargetVD):
    """Raw files ``<store>/volumes/<name>``; deleted ones lie in ``<store>/trash`` until they are wiped."""

    VERSION = "1.0.0"
    vendor_name = "volmgr"
    storage_protocol: ClassVar[str | None] = "file"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        configured = self.configuration.file_store_path
        self.path = os.path.abspath(configured or os.path.join(self.configuration.state_path, "file"))
        self._made_by_us = not configured
        self._folders: tuple[Folder, Folder, Folder] | None = None

    @classmethod
    def get_driver_options(cls) -> list[cfg.Opt]:
        return FILE_OPTS

    # --- setting up ---------------------------------------------------------------------------------------------

    def do_setup(self, context: Any) -> None:
        """Open the folders and try whether the file system shares blocks.

        :raises BackendDown: the folder is not there. :raises InvalidConfiguration: blocks must be shared and cannot be.
        """
        if not self._made_by_us and not os.path.isdir(self.path):
            raise exception.BackendDown(
                f"The folder {self.path} does not exist", hint=f"Mount it, or run: mkdir -m 0700 -p {self.path}"
            )
        store = Folder(self.path)
        self._folders = (store, store.folder(VOLUMES), store.folder(TRASH))
        wanted = self.configuration.file_reflink
        self.instant_clone = wanted != "never" and offload(self._volumes.can_reflink)
        if wanted == "require" and not self.instant_clone:
            raise exception.InvalidConfiguration(
                reason=f"file_reflink is require and the file system of {self.path} cannot share blocks",
                hint="Use XFS or btrfs, or set file_reflink = auto",
            )
        LOG.info("Folder %s: clones %s", self.path, "share blocks" if self.instant_clone else "are sparse copies")

    def _opened(self) -> tuple[Folder, Folder, Folder]:
        if self._folders is None:
            self.do_setup(None)
        assert self._folders is not None
        return self._folders

    @property
    def _volumes(self) -> Folder:
        return self._opened()[1]

    @property
    def _trash_folder(self) -> Folder:
        return self._opened()[2]

    def check_for_setup_error(self) -> None:
        """Check that files can be made here.

        :raises BackendDown: the folder is missing or read-only. :raises NoSpace: no inodes are left.
        """
        if not os.path.isdir(self.path) and not self._made_by_us:
            self.do_setup(None)
        offload(self._check)

    def _check(self) -> None:
        volumes = self._volumes
        for folder in self._opened():
            if not folder.in_place():
                raise exception.BackendDown(
                    f"{folder.path} was removed, or something was mounted over it, since it was opened",
                    hint=f"Mount what {self.path} is to be on; the backend then starts again by itself",
                )
        space = volumes.space()
        if space.f_flag & os.ST_RDONLY:
            raise exception.BackendDown(
                f"The file system of {self.path} is read-only", hint=f"Run: mount -o remount,rw {self.path}"
            )
        if space.f_files and space.f_favail < MIN_INODES:
            raise exception.NoSpace(
                f"The file system of {self.path} has {space.f_favail} inodes left", hint=f"Run: df -i {self.path}"
            )
        volumes.create(".write-probe", 0)
        volumes.remove(".write-probe")

    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        space, sizes, used = offload(self._measure)
        pool = {
            "pool_name": self.backend_name,
            "total_capacity_gb": space.f_blocks * space.f_frsize / GiB,
            "free_capacity_gb": space.f_bavail * space.f_frsize / GiB,
            "provisioned_capacity_gb": sizes / GiB,
            "allocated_capacity_gb": used / GiB,
            "reserved_percentage": self.configuration.reserved_percentage,
            "max_over_subscription_ratio": self.configuration.max_over_subscription_ratio,
            "thin_provisioning_support": True,
            "thick_provisioning_support": False,
            "multiattach": True,
            "consistencygroup_support": self.can_hold,
            "filter_function": self.get_filter_function(),
            "goodness_function": self.get_goodness_function(),
            **self.configuration.extra_capabilities,
        }
        protocol = self.target_driver.protocol if self.target_driver is not None else self.storage_protocol
        return {
            "volume_backend_name": self.backend_name,
            "vendor_name": self.vendor_name,
            "driver_version": self.VERSION,
            "storage_protocol": protocol,
            "pools": [pool],
        }

    def _measure(self) -> tuple[os.statvfs_result, int, int]:
        statuses = [status for folder in self._opened()[1:] for _name, status in folder.entries()]
        return (
            self._volumes.space(),
            sum(status.st_size for status in statuses),
            sum(status.st_blocks * 512 for status in statuses),
        )

    def get_pool(self, volume: Volume) -> str | None:
        return self.backend_name

    # --- create and delete --------------------------------------------------------------------------------------

    def create_volume(self, volume: Volume) -> ModelUpdate:
        def make(folder: Folder, name: str) -> None:
            offload(folder.create, name, volume.size_bytes)

        return self._build(volume, volume.size_bytes, make)

    def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        return self._copy(volume, src_vref.name, missing(src_vref), src_vref)

    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        return self._copy(volume, snapshot.name, missing(snapshot), None)

    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        return self._copy(
            snapshot, snapshot.volume_name, exception.VolumeNotFound(id=snapshot.volume_id), snapshot.volume
        )

    def _copy(
        self, resource: Volume | Snapshot, source: str, absent: exception.NotFound, live: Volume | None
    ) -> ModelUpdate:
        """Make ``resource`` from the file ``source``; ``live`` is the volume that may be written meanwhile."""

        def make(folder: Folder, name: str) -> None:
            size = folder.size(source)
            if size is None:
                raise absent
            if size > resource.size_bytes:
                raise exception.Invalid("It is smaller than its source", field="size")
            if self.instant_clone and offload(folder.reflink, source, name):
                offload(folder.resize, name, resource.size_bytes)
                return
            _refuse_attached(live)
            folder.copy_sparse(source, name, resource.size_bytes, reports.report, offload)

        return self._build(resource, resource.size_bytes, make)

    def _build(self, resource: Volume | Snapshot, size_bytes: int, make: Callable[[Folder, str], None]) -> ModelUpdate:
        folder, name, work = self._volumes, resource.name, making.mark()
        present = folder.size(name)
        if present is not None:
            making.expect(name, folder.mark_of(name), work)
            if present != size_bytes:
                raise exception.AlreadyExists(resource="object", id=name)
            return None
        building = names.building_name(resource.name_id)
        make(folder, building)
        folder.mark(building, work)
        offload(_finish, folder, building, name)
        return None

    def delete_volume(self, volume: Volume) -> None:
        self._delete(volume)

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self._delete(snapshot)

    def _delete(self, resource: Volume | Snapshot) -> None:
        if not (making.undoing() and making.spared(self._volumes.mark_of(resource.name))):
            offload(self._volumes.remove, resource.name)
        offload(self._volumes.remove, names.building_name(resource.name_id))

    # --- change -------------------------------------------------------------------------------------------------

    def extend_volume(self, volume: Volume, new_size: int) -> None:
        present = self._volumes.size(volume.name)
        if present is None:
            raise exception.VolumeNotFound(id=volume.id)
        if present > new_size * GiB:
            raise exception.Invalid("A volume cannot shrink", field="new_size")
        if present < new_size * GiB:
            offload(self._volumes.resize, volume.name, new_size * GiB)

    def revert_to_snapshot(self, context: Any, volume: Volume, snapshot: Snapshot) -> None:
        """Put a copy of the snapshot in the place of the volume's file, by one rename.

        A target that has the old file open goes on serving that one, so the volume must not be exported.
        """
        _refuse_attached(volume)
        present = self._volumes.size(volume.name)
        if present is None:
            raise exception.VolumeNotFound(id=volume.id)
        source_size = self._volumes.size(snapshot.name)
        if source_size is None:
            raise exception.SnapshotNotFound(id=snapshot.id)
        if source_size > present:
            raise exception.Invalid("The volume is smaller than the snapshot", field="snapshot_id")
        building = names.building_name(volume.name_id)
        if self.instant_clone and offload(self._volumes.reflink, snapshot.name, building):
            offload(self._volumes.resize, building, present)
        else:
            self._volumes.copy_sparse(snapshot.name, building, present, reports.report, offload)
        offload(_finish, self._volumes, building, volume.name)

    def retype(
        self,
        context: Any,
        volume: Volume,
        new_type: VolumeType | Mapping[str, Any],
        diff: Mapping[str, Any],
        host: Mapping[str, Any],
    ) -> bool | tuple[bool, ModelUpdate]:
        """Return whether the volume stays in this backend: its files know no types."""
        wanted, own = str(host.get("host") or self.host or ""), self.host or ""
        return names.service_of(wanted) == names.service_of(own)

    # --- trash --------------------------------------------------------------------------------------------------

    def trash_volume(self, volume: Volume) -> None:
        self._trash(volume)

    def trash_snapshot(self, snapshot: Snapshot) -> None:
        self._trash(snapshot)

    def _trash(self, resource: Volume | Snapshot) -> None:
        offload(self._volumes.remove, names.building_name(resource.name_id))
        offload(self._volumes.rename, resource.name, names.trash_name(resource.name_id), self._trash_folder)

    def restore_volume(self, volume: Volume) -> None:
        self._restore(volume)

    def restore_snapshot(self, snapshot: Snapshot) -> None:
        self._restore(snapshot)

    def _restore(self, resource: Volume | Snapshot) -> None:
        if self._volumes.size(resource.name) is not None:
            if making.first():
                raise exception.ObjectExists(id=resource.name)
            return
        trash = names.trash_name(resource.name_id)
        # A wipe shortens the file first of all, so one that has its full size has all its bytes.
        if self._trash_folder.size(trash) != resource.size_bytes:
            raise missing(resource)
        offload(self._trash_folder.rename, trash, resource.name, self._volumes)

    def wipe(self, kind: str, object_id: str, progress: Progress) -> None:
        self._shorten(self._trash_folder, names.trash_name(object_id), progress)

    def _shorten(self, folder: Folder, name: str, progress: Progress) -> None:
        """Shorten a file step by step, then remove it; the file system gives freed blocks to nobody unzeroed."""
        size = folder.size(name)
        if size is None:
            return
        step = max(WIPE_BYTES, size // WIPE_STEPS)
        for left in range(max(0, size - step), 0, -step):
            offload(folder.resize, name, left)
            progress(1 - left / size)
        offload(folder.remove, name)
        progress(1.0)

    # --- observe ------------------------------------------------------------------------------------------------

    def observe(self) -> Sequence[ObservedObject]:
        found = (describe(name, status.st_size) for name, status in offload(self._entries))
        return [item for item in found if item is not None]

    def _entries(self) -> list[tuple[str, os.stat_result]]:
        return [*self._volumes.entries(), *self._trash_folder.entries()]

    def discard(self, name: str, progress: Progress) -> None:
        self._shorten(self._trash_folder if own_name(name).state == "trash" else self._volumes, name, progress)

    def recognise(self, verb: str, resource: Volume | Snapshot) -> dict[str, Any] | None:
        size = self._volumes.size(resource.name)
        if verb in DELETING:
            done = size is None and self._volumes.size(names.building_name(resource.name_id)) is None
        elif verb == "extend_volume":
            done = size is not None and size >= resource.size_bytes
        elif verb in CREATING:
            done = size == resource.size_bytes
        else:
            done = False
        if not done:
            raise exception.NotFound(resource="object", id=resource.name)
        return None

    def local_path(self, volume: Volume | Snapshot) -> str:
        return os.path.join(self.path, VOLUMES, volume.name)


def _refuse_attached(volume: Volume | None) -> None:
    if volume is not None and (volume.attach_status == "attached" or volume.status == "in-use"):
        raise exception.Unsupported(
            "The file system cannot share blocks, so a copy of an attached volume would not be of one moment",
            hint="Detach the volume first, or put the folder on XFS or btrfs",
            verb="copy of an attached volume",
        )


def _finish(folder: Folder, building: str, name: str) -> None:
    folder.flush(building)
    folder.rename(building, name)

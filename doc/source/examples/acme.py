"""A driver: volumes are files in a folder that must be there. It can do snapshots, clones and growth."""

import errno
import os

from oslo_config import cfg

from volmgr import exception, names
from volmgr.drivers import making
from volmgr.drivers.exporting import TargetVD
from volmgr.drivers.interfaces import ExtendVD, SnapshotVD
from volmgr.drivers.naming import missing
from volmgr.types import GiB

MARK = "user.acme.work"
OPTIONS = [cfg.StrOpt("acme_folder", help="Folder for the volumes")]


class AcmeDriver(SnapshotVD, ExtendVD, TargetVD):
    VERSION = "1.0.0"
    vendor_name = "ACME"
    storage_protocol = "file"

    @classmethod
    def get_driver_options(cls):
        return OPTIONS

    def check_for_setup_error(self):
        folder = self.configuration.acme_folder
        if not folder or not os.path.isdir(folder):
            raise exception.BackendDown(f"There is no folder {folder}", hint="Mount it, or set acme_folder")

    def get_volume_stats(self, refresh=False):
        space = os.statvfs(self.configuration.acme_folder)
        sizes = [entry.stat().st_size for entry in os.scandir(self.configuration.acme_folder)]
        pool = {
            "pool_name": self.backend_name,
            "total_capacity_gb": space.f_blocks * space.f_frsize / GiB,
            "free_capacity_gb": space.f_bavail * space.f_frsize / GiB,
            "provisioned_capacity_gb": sum(sizes) / GiB,
            "thin_provisioning_support": True,
        }
        return {"volume_backend_name": self.backend_name, "vendor_name": self.vendor_name,
                "driver_version": self.VERSION, "storage_protocol": self.storage_protocol, "pools": [pool]}

    def local_path(self, volume):
        return os.path.join(self.configuration.acme_folder, volume.name)

    # --- what makes an object: whole or absent, repeatable, never over what this work has not made ---------------

    def create_volume(self, volume):
        self._make(volume, None)

    def create_snapshot(self, snapshot):
        if not os.path.exists(os.path.join(self.configuration.acme_folder, snapshot.volume_name)):
            raise exception.VolumeNotFound(id=snapshot.volume_id)
        self._make(snapshot, os.path.join(self.configuration.acme_folder, snapshot.volume_name))

    def create_volume_from_snapshot(self, volume, snapshot):
        if not os.path.exists(self.local_path(snapshot)):
            raise missing(snapshot)
        if volume.size < snapshot.size:
            raise exception.Invalid("It is smaller than its source", field="size")
        self._make(volume, self.local_path(snapshot))

    def _make(self, resource, source):
        path, building = self.local_path(resource), self.building(resource)
        if os.path.exists(path):
            making.expect(resource.name, self._mark(path), making.mark())
            if os.path.getsize(path) != resource.size_bytes:
                raise exception.AlreadyExists(resource="object", id=resource.name)
            return
        with open(building, "wb") as file:
            os.setxattr(building, MARK, making.mark().encode())
            if source is not None:
                with open(source, "rb") as original:
                    self._copy(original.fileno(), file.fileno())
            file.truncate(resource.size_bytes)
            file.flush()
            os.fsync(file.fileno())
        os.rename(building, path)

    @staticmethod
    def _copy(source, target):
        """Copy what was written; what was not stays a hole. The kernel says where the next bytes are: lseek(2)."""
        end, size = 0, os.fstat(source).st_size
        while end < size:
            try:
                start = os.lseek(source, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # only a hole is left
                raise
            end = os.lseek(source, start, os.SEEK_HOLE)
            while start < end:
                start += os.copy_file_range(source, target, end - start, start, start)

    # --- what ends and changes one -------------------------------------------------------------------------------

    def delete_volume(self, volume):
        self._remove(volume)

    def delete_snapshot(self, snapshot):
        self._remove(snapshot)

    def _remove(self, resource):
        path = self.local_path(resource)
        # What is being taken back was perhaps never made: then what has the name is somebody else's.
        own = [] if os.path.exists(path) and making.spared(self._mark(path)) else [path]
        for found in [*own, self.building(resource)]:
            if os.path.exists(found):
                os.remove(found)

    def extend_volume(self, volume, new_size):
        path = self.local_path(volume)
        if not os.path.exists(path):
            raise missing(volume)
        if os.path.getsize(path) > new_size * GiB:
            raise exception.Invalid("A volume cannot shrink", field="new_size")
        os.truncate(path, new_size * GiB)

    def building(self, resource):
        return os.path.join(self.configuration.acme_folder, names.building_name(resource.name_id))

    def _mark(self, path):
        return os.getxattr(path, MARK).decode() if MARK in os.listxattr(path) else None

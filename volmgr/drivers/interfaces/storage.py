# SPDX-License-Identifier: Apache-2.0
"""The mixins for what makes and changes storage beside plain volumes: snapshots, growth, image clones, local paths.

The rules for all of them stand in the package's docstring. This module knows no driver.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

from volmgr import exception
from volmgr.drivers.interfaces.capability import Interface, general_solution, marked_default
from volmgr.types import ModelUpdate, Snapshot, Volume


class LocalVD(Interface, interface=True):
    """The storage is a block device or a file of this host."""

    @abc.abstractmethod
    def local_path(self, volume: Volume | Snapshot) -> str:
        """Return the absolute path of the block device or file; it need not exist at this moment."""

    @general_solution("local_path")
    def export_path(self, resource: Volume | Snapshot) -> str:
        """Return what the target is to serve; the same as :meth:`local_path` unless something lies between.

        For an LVM volume that can be suspended in a group that is the path of a device above the logical volume.
        """
        return self.local_path(resource)


class SnapshotVD(Interface, interface=True):
    """Snapshots: the state of a volume at one instant, and volumes made from it."""

    @abc.abstractmethod
    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        """Make ``snapshot`` of ``snapshot.volume_name`` as it is at one instant within this call.

        :returns: None or changes to the snapshot's row.
        :raises VolumeNotFound: the volume's object is not there. :raises NoSpace: there is no room.
        """

    @abc.abstractmethod
    def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Remove a snapshot, and whatever an unfinished create left of it; absent is success.

        :raises SnapshotIsBusy: something uses its storage.
        """

    @abc.abstractmethod
    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        """Make ``volume`` with the bytes of ``snapshot``; what it has beyond the snapshot's size reads as zeros.

        With the extra spec ``replication: <is> True`` the replica is made and set up too.

        :returns: None or changes to the volume's row.
        :raises SnapshotNotFound: the snapshot's object is not there. :raises Invalid: the volume is smaller than it.
        """

    @general_solution("revert_to_snapshot")
    def check_revert(self, volume: Volume, snapshot: Snapshot) -> None:
        """Return if :meth:`revert_to_snapshot` could do its work now; for drivers with ``reverts_in_place``.

        The general solution finds nothing to check.

        :raises VolmgrError: it could not; nothing was changed.
        """

    @marked_default
    def revert_to_snapshot(self, context: Any, volume: Volume, snapshot: Snapshot) -> None:
        """Give ``volume`` the bytes of ``snapshot`` again, atomically: a crash leaves the one or the other.

        Where a backend cannot do so at once, the manager clones the snapshot and swaps the object.
        """
        raise exception.Unsupported(verb="revert_to_snapshot")


class ExtendVD(Interface, interface=True):
    """Volumes that can grow."""

    @abc.abstractmethod
    def extend_volume(self, volume: Volume, new_size: int) -> None:
        """Grow ``volume`` to ``new_size`` GiB; what is new reads as zeros. The present size is success.

        :raises VolumeNotFound: its object is not there. :raises Invalid: it is larger already.
        :raises NoSpace: there is no room.
        """


class CloneableImageVD(Interface, interface=True):
    """Volumes made from an image inside the backend, without a copy through this host."""

    @abc.abstractmethod
    def clone_image(
        self,
        context: Any,
        volume: Volume,
        image_location: Any,
        image_meta: Mapping[str, Any],
        image_service: Any,
    ) -> tuple[ModelUpdate, bool]:
        """Make ``volume`` from an image if the backend can reach the image itself.

        :param image_location: where the image lies; its form is the image store's.
        :param image_meta: ``id``, ``disk_format`` and the image's other properties.
        :param image_service: the image store, for drivers that fetch from it.
        :returns: (changes to the volume's row, whether it was cloned); (None, False) leaves it to the caller.
        """

# SPDX-License-Identifier: Apache-2.0
"""The mixins for what changes a volume's place, type, owner or keeper, and hardly its bytes.

The rules for all of them stand in the package's docstring. This module knows no driver.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

from volmgr import exception
from volmgr.drivers.interfaces.capability import Interface, marked_default
from volmgr.types import ModelUpdate, Snapshot, Volume, VolumeType


class MigrateVD(Interface, interface=True):
    """A backend that can move a volume to another backend by itself."""

    @abc.abstractmethod
    def migrate_volume(self, context: Any, volume: Volume, host: Mapping[str, Any]) -> tuple[bool, ModelUpdate]:
        """Move ``volume`` to ``host`` if the backend can do so better than a copy.

        :param host: ``host`` (host@backend#pool) and ``capabilities`` of the destination.
        :returns: (moved, changes to the volume's row); (False, None) leaves it to the caller.
        """


class RetypeVD(Interface, interface=True):
    """A backend that can give a volume another type in place."""

    @abc.abstractmethod
    def retype(
        self,
        context: Any,
        volume: Volume,
        new_type: VolumeType | Mapping[str, Any],
        diff: Mapping[str, Any],
        host: Mapping[str, Any],
    ) -> bool | tuple[bool, ModelUpdate]:
        """Make ``volume`` conform to ``new_type``.

        :param diff: what differs, by ``encryption``, ``qos_specs`` and ``extra_specs``: {key: (old, new)}.
        :param host: as for :meth:`MigrateVD.migrate_volume`; the same host when only the type changes.
        :returns: whether it conforms now, with changes to the volume's row if there are any.
        """


class TransferVD(Interface, interface=True):
    """A backend that records a volume's owner."""

    @abc.abstractmethod
    def accept_transfer(self, context: Any, volume: Volume, new_user: str, new_project: str) -> ModelUpdate:
        """Give ``volume`` to another user and project.

        :returns: None or changes to the volume's row.
        """


class ManageableVD(Interface, interface=True):
    """Storage that exists already can become a volume, and a volume can be let go."""

    @abc.abstractmethod
    def manage_existing(self, volume: Volume, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        """Make the object that ``existing_ref`` names the object of ``volume``, by renaming or by reference.

        :param existing_ref: as the caller gave it, ``source-name`` for most.
        :returns: None or changes to the volume's row.
        :raises ManageExistingInvalidReference: it names nothing that can be managed.
        :raises ManageExistingVolumeTypeMismatch: the object does not fit the volume's type.
        :raises ManageExistingAlreadyManaged: it is another volume's object.
        """

    @abc.abstractmethod
    def manage_existing_get_size(self, volume: Volume, existing_ref: Mapping[str, Any]) -> int:
        """Return the object's size in GiB, rounded up.

        :raises ManageExistingInvalidReference: it names nothing that can be managed.
        """

    @abc.abstractmethod
    def unmanage(self, volume: Volume) -> None:
        """Let go of a volume; its storage stays."""

    @marked_default
    def get_manageable_volumes(
        self,
        cinder_volumes: Sequence[Volume],
        marker: str | None,
        limit: int | None,
        offset: int | None,
        sort_keys: Sequence[str] | None,
        sort_dirs: Sequence[str] | None,
    ) -> list[dict[str, Any]]:
        """Return what could be managed: dicts of reference, size (GiB), safe_to_manage, reason_not_safe, cinder_id,
        extra_info.

        :param cinder_volumes: the backend's volumes that are managed already.
        """
        raise exception.Unsupported(verb="get_manageable_volumes")


class ManageableSnapshotsVD(Interface, interface=True):
    """The same for snapshots."""

    @abc.abstractmethod
    def manage_existing_snapshot(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        """Make the object that ``existing_ref`` names the object of ``snapshot``.

        :raises ManageExistingInvalidReference: it names nothing that can be managed.
        """

    @abc.abstractmethod
    def manage_existing_snapshot_get_size(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> int:
        """Return the object's size in GiB, rounded up."""

    @abc.abstractmethod
    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        """Let go of a snapshot; its storage stays."""

    @marked_default
    def get_manageable_snapshots(
        self,
        cinder_snapshots: Sequence[Snapshot],
        marker: str | None,
        limit: int | None,
        offset: int | None,
        sort_keys: Sequence[str] | None,
        sort_dirs: Sequence[str] | None,
    ) -> list[dict[str, Any]]:
        """Return what could be managed, as for volumes, with ``source_reference`` naming the volume."""
        raise exception.Unsupported(verb="get_manageable_snapshots")

# SPDX-License-Identifier: Apache-2.0
"""The base of drivers in the older form: every mixin at once, each verb marked until an heir implements it.

New drivers take :class:`volmgr.drivers.base.BaseVD` and just the mixins that they fulfil. Knows no storage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from volmgr import exception
from volmgr.drivers.base import BaseVD
from volmgr.drivers.interfaces import (
    CloneableImageVD,
    ConsistencyGroupVD,
    ExtendVD,
    LocalVD,
    ManageableSnapshotsVD,
    ManageableVD,
    MigrateVD,
    ReplicaVD,
    RetypeVD,
    SnapshotVD,
    TransferVD,
    marked_default,
)
from volmgr.drivers.interfaces.groups import Updates
from volmgr.types import ModelUpdate, Snapshot, Volume, VolumeType

Connector = Mapping[str, Any] | None


class VolumeDriver(
    ConsistencyGroupVD,
    TransferVD,
    ManageableVD,
    ExtendVD,
    CloneableImageVD,
    ManageableSnapshotsVD,
    SnapshotVD,
    ReplicaVD,
    LocalVD,
    MigrateVD,
    BaseVD,
    partial=(RetypeVD,),
):
    """A driver whose heirs may implement any part; what they leave out is refused as Unsupported."""

    @marked_default
    def check_for_setup_error(self) -> None:
        raise exception.Unsupported(verb="check_for_setup_error")

    @marked_default
    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        raise exception.Unsupported(verb="get_volume_stats")

    @marked_default
    def create_volume(self, volume: Volume) -> ModelUpdate:
        raise exception.Unsupported(verb="create_volume")

    @marked_default
    def delete_volume(self, volume: Volume) -> None:
        raise exception.Unsupported(verb="delete_volume")

    @marked_default
    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        raise exception.Unsupported(verb="create_snapshot")

    @marked_default
    def delete_snapshot(self, snapshot: Snapshot) -> None:
        raise exception.Unsupported(verb="delete_snapshot")

    @marked_default
    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        raise exception.Unsupported(verb="create_volume_from_snapshot")

    @marked_default
    def local_path(self, volume: Volume | Snapshot) -> str:
        raise exception.Unsupported(verb="local_path")

    @marked_default
    def clear_download(self, context: Any, volume: Volume) -> None:
        """Do nothing."""

    @marked_default
    def extend_volume(self, volume: Volume, new_size: int) -> None:
        raise exception.Unsupported(verb="extend_volume")

    @marked_default
    def manage_existing(self, volume: Volume, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        raise exception.Unsupported(verb="manage_existing")

    @marked_default
    def manage_existing_get_size(self, volume: Volume, existing_ref: Mapping[str, Any]) -> int:
        raise exception.Unsupported(verb="manage_existing_get_size")

    @marked_default
    def unmanage(self, volume: Volume) -> None:
        """Do nothing: the storage stays."""

    @marked_default
    def manage_existing_snapshot(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        raise exception.Unsupported(verb="manage_existing_snapshot")

    @marked_default
    def manage_existing_snapshot_get_size(self, snapshot: Snapshot, existing_ref: Mapping[str, Any]) -> int:
        raise exception.Unsupported(verb="manage_existing_snapshot_get_size")

    @marked_default
    def unmanage_snapshot(self, snapshot: Snapshot) -> None:
        """Do nothing: the storage stays."""

    @marked_default
    def retype(
        self,
        context: Any,
        volume: Volume,
        new_type: VolumeType | Mapping[str, Any],
        diff: Mapping[str, Any],
        host: Mapping[str, Any],
    ) -> bool | tuple[bool, ModelUpdate]:
        """Return (False, None): the type cannot be changed in place."""
        return False, None

    @marked_default
    def accept_transfer(self, context: Any, volume: Volume, new_user: str, new_project: str) -> ModelUpdate:
        """Do nothing: the backend records no owner."""
        return None

    @marked_default
    def migrate_volume(self, context: Any, volume: Volume, host: Mapping[str, Any]) -> tuple[bool, ModelUpdate]:
        """Return (False, None): the caller is to copy."""
        return False, None

    @marked_default
    def clone_image(
        self, context: Any, volume: Volume, image_location: Any, image_meta: Mapping[str, Any], image_service: Any
    ) -> tuple[ModelUpdate, bool]:
        """Return (None, False): the caller is to copy the image."""
        return None, False

    # --- replication and groups ---------------------------------------------------------------------------------

    @marked_default
    def reenable_replication(self, context: Any, volume: Volume) -> ModelUpdate:
        raise exception.Unsupported(verb="reenable_replication")

    @marked_default
    def get_replication_status(self, context: Any, volume: Volume) -> ModelUpdate:
        """Return None: there is nothing to say."""
        return None

    @marked_default
    def promote_replica(self, context: Any, volume: Volume) -> ModelUpdate:
        raise exception.Unsupported(verb="promote_replica")

    @marked_default
    def create_replica_test_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        raise exception.Unsupported(verb="create_replica_test_volume")

    @marked_default
    def create_consistencygroup(self, context: Any, group: Any) -> ModelUpdate:
        raise exception.Unsupported(verb="create_consistencygroup")

    @marked_default
    def delete_consistencygroup(
        self, context: Any, group: Any, volumes: Sequence[Volume]
    ) -> tuple[ModelUpdate, Updates]:
        raise exception.Unsupported(verb="delete_consistencygroup")

    @marked_default
    def create_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        raise exception.Unsupported(verb="create_cgsnapshot")

    @marked_default
    def delete_cgsnapshot(
        self, context: Any, cgsnapshot: Any, snapshots: Sequence[Snapshot]
    ) -> tuple[ModelUpdate, Updates]:
        raise exception.Unsupported(verb="delete_cgsnapshot")

    # --- connections --------------------------------------------------------------------------------------------
    # initialize_connection is wider here than in BaseVD (any keyword), as heirs of this class have it.

    @marked_default
    def ensure_export(self, context: Any, volume: Volume) -> ModelUpdate:
        raise exception.Unsupported(verb="ensure_export")

    @marked_default
    def create_export(self, context: Any, volume: Volume, connector: Connector) -> ModelUpdate:
        raise exception.Unsupported(verb="create_export")

    @marked_default
    def create_export_snapshot(self, context: Any, snapshot: Snapshot, connector: Connector) -> ModelUpdate:
        raise exception.Unsupported(verb="create_export_snapshot")

    @marked_default
    def remove_export(self, context: Any, volume: Volume) -> None:
        raise exception.Unsupported(verb="remove_export")

    @marked_default
    def remove_export_snapshot(self, context: Any, snapshot: Snapshot) -> None:
        raise exception.Unsupported(verb="remove_export_snapshot")

    @marked_default
    def initialize_connection(  # type: ignore[override]
        self, volume: Volume, connector: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        raise exception.Unsupported(verb="initialize_connection")

    @marked_default
    def terminate_connection(self, volume: Volume, connector: Connector, **kwargs: Any) -> None:
        """Do nothing: what was exported may be connected to until the export ends."""

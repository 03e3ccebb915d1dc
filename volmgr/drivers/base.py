# SPDX-License-Identifier: Apache-2.0
"""What every driver has: its options, its target, and a body for each verb that has a general solution.

A driver HAS a target (``target_driver``), given to its constructor. This module knows no storage, no manager and no
database.
"""

from __future__ import annotations

import abc
import io
import logging
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

from oslo_config import cfg

from volmgr import exception
from volmgr.concurrency import offload
from volmgr.drivers import imaging
from volmgr.drivers import progress as reports
from volmgr.drivers.interfaces import Interface, LocalVD, SnapshotVD, general_solution, marked_default
from volmgr.drivers.options import Configuration
from volmgr.types import ModelUpdate, Snapshot, Volume, VolumeType

if TYPE_CHECKING:
    from volmgr.targets.base import Target

LOG = logging.getLogger(__name__)
_CLONING = uuid.UUID("7f1c9a52-5d0e-4c7e-9b1a-3e6f0d2b8a44")
_STANDARD_CAPABILITIES = {
    "thin_provisioning": "Space is taken when it is written",
    "compression": "Bytes are stored compressed",
    "qos": "Limits of speed are kept by the backend",
    "replication_enabled": "Volumes can have a replica",
}


class BaseVD(Interface, interface=True):
    """Base of all drivers.

    :param execute: runs a command, for drivers that need one: ``execute(*argv, **options) -> (stdout, stderr)``.
    :param configuration: the backend's options; without it every option has its default.
    :param host: ``host@backend``, the worker's name.
    :param active_backend_id: the replication target in use after a failover, None before one.
    :param target: what shows the storage to initiators, None for a driver that never exports.

    Further arguments are accepted and ignored, as drivers of this tree expect.
    """

    VERSION: ClassVar[str] = "0.0.0"
    CI_WIKI_NAME: ClassVar[str | None] = None
    vendor_name: ClassVar[str] = "Open Source"
    storage_protocol: ClassVar[str | None] = None
    #: whether a clone or a volume from a snapshot takes no time that grows with its size.
    instant_clone: bool = False
    #: whether initiators reach the storage through a target; a driver without one answers connections itself.
    needs_target: ClassVar[bool] = True
    #: how it is known that a dead worker of a cluster writes no more: ``host``, ``api`` or ``none``.
    fencing: ClassVar[str] = "none"
    #: whether ``revert_to_snapshot`` changes the volume itself; once begun it can only be brought to its end.
    reverts_in_place: bool = False

    @property
    def exports_members_apart(self) -> bool:
        """Whether a member of a group is exported in another way, so that nobody may be connected when it joins."""
        return False

    @property
    def lacks(self) -> Mapping[str, str]:
        """Verbs that drivers of this class can do and this backend cannot, as it is set up, each with what could."""
        return {}

    def __init__(
        self,
        *args: Any,
        execute: Callable[..., tuple[Any, Any]] | None = None,
        configuration: Configuration | None = None,
        host: str | None = None,
        active_backend_id: str | None = None,
        target: Target | None = None,
        **kwargs: Any,
    ) -> None:
        self.configuration = configuration if configuration is not None else Configuration()
        self.configuration.append_config_values(self.get_driver_options())
        self.host = host
        self.active_backend_id = active_backend_id
        self.target_driver = target
        self.capabilities: dict[str, Any] = {}
        self._execute = execute
        self._initialized = False
        self._vendor_prefix: str | None = None

    @classmethod
    def get_driver_options(cls) -> list[cfg.Opt]:
        """Return the definitions of the options that this driver adds."""
        return []

    # --- life ---------------------------------------------------------------------------------------------------

    @property
    def initialized(self) -> bool:
        """Whether the driver has been set up and may be used."""
        return self._initialized

    def set_initialized(self) -> None:
        """Say that the driver has been set up."""
        self._initialized = True

    @marked_default
    def do_setup(self, context: Any) -> None:
        """Make ready what the driver needs; called once, before :meth:`check_for_setup_error`."""

    @abc.abstractmethod
    def check_for_setup_error(self) -> None:
        """Check that the storage can be used.

        :raises VolmgrError: it cannot; the hint says how to mend it.
        """

    @marked_default
    def set_throttle(self) -> None:
        """Read the limit of copies (``volume_copy_bps_limit``); called once the driver has been set up."""

    def get_version(self) -> str:
        """Return the driver's version."""
        return self.VERSION

    @property
    def backend_name(self) -> str:
        """The name in capabilities: option ``volume_backend_name``, else the group's name."""
        return str(self.configuration.volume_backend_name or self.configuration.config_group)

    # --- capabilities -------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        """Return what the scheduler needs to know: names, protocol, and ``pools`` with sizes in GiB.

        :param refresh: ask the storage; else the last answer may be given again.
        """

    def init_capabilities(self) -> None:
        """Fill ``capabilities``: the statistics, and under ``properties`` what extra specs may refer to."""
        stats = self.get_volume_stats(refresh=True)
        properties: dict[str, Any] = {
            name: {"title": name.replace("_", " ").capitalize(), "description": text, "type": "boolean"}
            for name, text in _STANDARD_CAPABILITIES.items()
        }
        vendor, self._vendor_prefix = self._init_vendor_properties()
        for name, value in vendor.items():
            if self._vendor_prefix and name.startswith(f"{self._vendor_prefix}:"):
                properties[name] = value
            else:
                LOG.warning("Property %s of %s lacks its vendor's prefix and is left out", name, type(self).__name__)
        self.capabilities = {**stats, "properties": properties}

    def _init_vendor_properties(self) -> tuple[dict[str, Any], str | None]:
        """Return (properties whose names begin with ``prefix:``, prefix)."""
        return {}, None

    def get_prefixed_property(self, property: str) -> str | None:
        """Return ``prefix:property``, or None without a vendor's prefix."""
        return f"{self._vendor_prefix}:{property}" if self._vendor_prefix and property else None

    def get_filter_function(self) -> str | None:
        """Return the expression that filters this backend: the option, else the driver's own."""
        return self.configuration.safe_get("filter_function") or self.get_default_filter_function()

    def get_goodness_function(self) -> str | None:
        """Return the expression that weighs this backend: the option, else the driver's own."""
        return self.configuration.safe_get("goodness_function") or self.get_default_goodness_function()

    def get_default_filter_function(self) -> str | None:
        """Return the driver's own filter expression, None for none."""
        return None

    def get_default_goodness_function(self) -> str | None:
        """Return the driver's own goodness expression, None for none."""
        return None

    def get_pool(self, volume: Volume) -> str | None:
        """Return the name of the pool that ``volume`` is in, None if the backend has only one."""
        return None

    def secure_file_operations_enabled(self) -> bool:
        """Return whether the driver works on files without root's rights."""
        return False

    # --- volumes ------------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def create_volume(self, volume: Volume) -> ModelUpdate:
        """Make ``volume`` of ``volume.size`` GiB, all zeros; returns None or changes to its row.

        Whatever makes an object marks it with its work, see :mod:`volmgr.drivers.making`; what the same work has made
        before is success.

        :raises NoSpace: there is no room. :raises ObjectExists: its name is given to what this work has not made.
        :raises AlreadyExists: its object is there with another size.
        """

    @abc.abstractmethod
    def delete_volume(self, volume: Volume) -> None:
        """Remove ``volume``, and whatever an unfinished create left of it; absent is success.

        :raises VolumeIsBusy: something uses its storage.
        """

    @general_solution("create_snapshot", "delete_snapshot", "create_volume_from_snapshot")
    def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        """Make ``volume`` with the bytes of ``src_vref`` at one instant; returns None or changes to its row.

        The general solution goes through a snapshot whose id follows from the new volume's, so that a repeat after a
        crash finds and removes what the first try left.
        """
        driver = cast(SnapshotVD, self)
        between = Snapshot(
            id=BaseVD.helper_ids(self, volume.name_id)[0],
            volume_id=src_vref.id,
            volume_size=src_vref.size,
            volume=src_vref,
        )
        driver.delete_snapshot(between)
        driver.create_snapshot(between)
        try:
            return driver.create_volume_from_snapshot(volume, between)
        finally:
            driver.delete_snapshot(between)

    def helper_ids(self, object_id: str) -> tuple[str, ...]:
        """Return the ids of the objects that exist only while this object is being made."""
        return (str(uuid.uuid5(_CLONING, object_id)),)

    @marked_default
    def retype(
        self,
        context: Any,
        volume: Volume,
        new_type: VolumeType | Mapping[str, Any],
        diff: Mapping[str, Any],
        host: Mapping[str, Any],
    ) -> bool | tuple[bool, ModelUpdate]:
        """Return False: the type cannot be changed in place."""
        return False

    @marked_default
    def migrate_volume(self, context: Any, volume: Volume, host: Mapping[str, Any]) -> tuple[bool, ModelUpdate]:
        """Return (False, None): the caller is to copy."""
        return False, None

    @marked_default
    def manage_existing(self, volume: Volume, existing_ref: Mapping[str, Any]) -> ModelUpdate:
        """Refuse."""
        raise exception.Unsupported(verb="manage_existing")

    @marked_default
    def unmanage(self, volume: Volume) -> None:
        """Do nothing: the storage stays."""

    def update_migrated_volume(
        self, ctxt: Any, volume: Volume, new_volume: Volume, original_volume_status: str
    ) -> ModelUpdate:
        """Return what the row of ``volume`` says once the storage of ``new_volume`` is its own."""
        return {"_name_id": new_volume.name_id, "provider_location": new_volume.provider_location}

    @marked_default
    def before_volume_copy(self, context: Any, src_vol: Volume, dest_vol: Volume, remote: str | None = None) -> None:
        """Called before the bytes of a volume are copied for a migration."""

    @marked_default
    def after_volume_copy(self, context: Any, src_vol: Volume, dest_vol: Volume, remote: str | None = None) -> None:
        """Called after the bytes of a volume were copied for a migration."""

    @marked_default
    def update_provider_info(
        self, volumes: Sequence[Volume], snapshots: Sequence[Snapshot]
    ) -> tuple[list[dict[str, Any]] | None, list[dict[str, Any]] | None]:
        """Return lists of {'id', 'provider_id'} for volumes and snapshots whose provider id has changed."""
        return None, None

    # --- images and backups -------------------------------------------------------------------------------------

    @general_solution("local_path")
    def copy_image_to_volume(self, context: Any, volume: Volume, image_service: Any, image_id: str) -> None:
        """Fetch the image and write it to ``volume``, which is new and reads as zeros.

        The general solution writes a raw image through ``local_path``.

        :raises Unsupported: the image is not a raw one. :raises Invalid: it is larger than the volume.
        """
        path = cast(LocalVD, self).local_path(volume)
        imaging.fetch(context, image_service, image_id, path, volume.size_bytes, reports.report)

    @general_solution("local_path")
    def copy_volume_to_image(
        self, context: Any, volume: Volume, image_service: Any, image_meta: Mapping[str, Any]
    ) -> None:
        """Upload the bytes of ``volume`` as an image.

        The general solution reads through ``local_path`` and makes a raw image.

        :raises Unsupported: another format is wanted.
        """
        path = cast(LocalVD, self).local_path(volume)
        imaging.upload(context, image_service, image_meta, path, volume.size_bytes, reports.report)

    @marked_default
    def clone_image(
        self, context: Any, volume: Volume, image_location: Any, image_meta: Mapping[str, Any], image_service: Any
    ) -> tuple[ModelUpdate, bool]:
        """Return (None, False): the caller is to copy the image."""
        return None, False

    @marked_default
    def clear_download(self, context: Any, volume: Volume) -> None:
        """Clean up after a copy from an image that was broken off."""

    def backup_use_temp_snapshot(self) -> bool:
        """Return whether a backup of a volume in use goes through a snapshot, not through a clone."""
        return False

    def snapshot_remote_attachable(self) -> bool:
        """Return whether a snapshot can be connected to another host."""
        return False

    @general_solution()
    def get_backup_device(self, context: Any, backup: Any) -> tuple[Volume | Snapshot, bool]:
        """Return (what a backup reads, whether that is a snapshot).

        :raises NotFound: nobody is making the backup.
        """
        source = backup.get("source")
        if source is None:
            raise exception.NotFound(f"Nothing is read for the backup {backup['id']} now", id=backup["id"])
        return source, isinstance(source, Snapshot)

    @general_solution("local_path")
    def backup_volume(self, context: Any, backup: Any, backup_service: Any) -> None:
        """Give the bytes of ``backup.source``, which nobody changes meanwhile, to a backup service.

        :param backup_service: ``backup(backup, file)`` reads a binary file.
        """
        source, _is_snapshot = self.get_backup_device(context, backup)
        path = cast(LocalVD, self).local_path(source)
        with imaging.opened(path, os.O_RDONLY) as fd, io.FileIO(fd, "rb", closefd=False) as file:
            # What a target wrote past this host's cache is read from the device.
            offload(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED)
            backup_service.backup(backup, file)

    @general_solution("local_path")
    def restore_backup(self, context: Any, backup: Any, volume: Volume, backup_service: Any) -> None:
        """Let a backup service write a backup to ``volume``, which nobody uses meanwhile.

        :param backup_service: ``restore(backup, volume_id, file)`` writes into a binary file.
        """
        path = cast(LocalVD, self).local_path(volume)
        with imaging.opened(path, os.O_RDWR) as fd, io.FileIO(fd, "r+b", closefd=False) as file:
            backup_service.restore(backup, volume.id, file)

    # --- connections --------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def ensure_export(self, context: Any, volume: Volume) -> ModelUpdate:
        """Make the export of ``volume`` again if it is not there; returns None or changes to the volume's row."""

    @abc.abstractmethod
    def create_export(self, context: Any, volume: Volume, connector: Mapping[str, Any] | None) -> ModelUpdate:
        """Export ``volume``; returns None or changes to its row (provider_location, provider_auth)."""

    @abc.abstractmethod
    def remove_export(self, context: Any, volume: Volume) -> None:
        """End the export of ``volume``; absent is success."""

    @abc.abstractmethod
    def initialize_connection(
        self, volume: Volume, connector: Mapping[str, Any], initiator_data: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Let ``connector`` use ``volume``.

        :param initiator_data: what the driver had stored for this initiator by ``initiator_updates``.
        :returns: {'driver_volume_type': …, 'data': {…}}, and 'initiator_updates' {set_values, remove_values} at will.
        """

    @abc.abstractmethod
    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None, **kwargs: Any) -> None:
        """End the use by ``connector`` (None: by all, with ``force``); absent is success."""

    @marked_default
    def create_export_snapshot(
        self, context: Any, snapshot: Snapshot, connector: Mapping[str, Any] | None
    ) -> ModelUpdate:
        """Export ``snapshot``; returns None or changes to its row."""
        raise exception.Unsupported(verb="create_export_snapshot")

    @marked_default
    def remove_export_snapshot(self, context: Any, snapshot: Snapshot) -> None:
        """End the export of ``snapshot``; absent is success."""
        raise exception.Unsupported(verb="remove_export_snapshot")

    @marked_default
    def initialize_connection_snapshot(
        self, snapshot: Snapshot, connector: Mapping[str, Any], **kwargs: Any
    ) -> dict[str, Any]:
        """Let ``connector`` use ``snapshot``."""
        raise exception.Unsupported(verb="initialize_connection_snapshot")

    @marked_default
    def terminate_connection_snapshot(
        self, snapshot: Snapshot, connector: Mapping[str, Any] | None, **kwargs: Any
    ) -> None:
        """End the use of ``snapshot`` by ``connector``."""
        raise exception.Unsupported(verb="terminate_connection_snapshot")

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        """Check that ``connector`` has what the transport needs.

        :raises InvalidConnector: naming what is missing.
        """
        if self.target_driver is not None:
            self.target_driver.validate_connector(dict(connector))

    @staticmethod
    def validate_connector_has_setting(connector: Mapping[str, Any], setting: str) -> None:
        """Check that ``connector`` has a value for ``setting`` that is not empty.

        :raises InvalidConnector: it has none.
        """
        if not connector.get(setting):
            raise exception.InvalidConnector(missing=setting)

    @marked_default
    def attach_volume(
        self, context: Any, volume: Volume, instance_uuid: str | None, host_name: str | None, mountpoint: str | None
    ) -> None:
        """Called when ``volume`` was attached to an instance or host."""

    @marked_default
    def detach_volume(self, context: Any, volume: Volume, attachment: Any = None) -> None:
        """Called when ``volume`` was detached."""

    # --- the backend as a whole ---------------------------------------------------------------------------------

    @marked_default
    def freeze_backend(self, context: Any) -> bool:
        """Called when the backend takes no changes any more; returns whether that is so."""
        return True

    @marked_default
    def thaw_backend(self, context: Any) -> bool:
        """Called when the backend takes changes again; returns whether that is so."""
        return True

    @marked_default
    def failover_host(
        self, context: Any, volumes: Sequence[Volume], secondary_id: str | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """Go over to the replication target; returns (its id, [{'volume_id', 'updates'}])."""
        raise exception.Unsupported(verb="failover_host")

    @marked_default
    def get_replication_updates(self, context: Any) -> list[dict[str, Any]]:
        """Return changes of replication that nobody asked for."""
        return []

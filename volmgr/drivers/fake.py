# SPDX-License-Identifier: Apache-2.0
"""Drivers that log what they are asked and touch nothing: for a service without any storage.

Whoever needs objects with bytes takes :mod:`volmgr.drivers.sim`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from volmgr.drivers.iscsi import ISCSIDriver
from volmgr.types import ModelUpdate, Snapshot, Volume

LOG = logging.getLogger(__name__)
CAPACITY_GB = 10_000


class FakeISCSIDriver(ISCSIDriver):
    """Logs calls instead of executing."""

    vendor_name = "volmgr"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["execute"] = self.fake_execute
        super().__init__(*args, **kwargs)

    @staticmethod
    def fake_execute(cmd: str, *args: Any, **kwargs: Any) -> tuple[None, None]:
        """Log the command and return (None, None)."""
        LOG.debug("FAKE EXECUTE: %s", " ".join(map(str, (cmd, *args))))
        return None, None

    def check_for_setup_error(self) -> None:
        """No setup is necessary."""

    def _update_volume_stats(self) -> None:
        super()._update_volume_stats()
        self._stats["pools"][0].update(
            total_capacity_gb=CAPACITY_GB,
            free_capacity_gb=CAPACITY_GB,
            provisioned_capacity_gb=0,
            allocated_capacity_gb=0,
            thin_provisioning_support=True,
            thick_provisioning_support=False,
            multiattach=True,
        )

    def create_volume(self, volume: Volume) -> ModelUpdate:
        self.fake_execute("create_volume", volume.name)
        return None

    def create_volume_from_snapshot(self, volume: Volume, snapshot: Snapshot) -> ModelUpdate:
        self.fake_execute("create_volume_from_snapshot", volume.name, snapshot.name)
        return None

    def create_cloned_volume(self, volume: Volume, src_vref: Volume) -> ModelUpdate:
        self.fake_execute("create_cloned_volume", volume.name, src_vref.name)
        return None

    def delete_volume(self, volume: Volume) -> None:
        self.fake_execute("delete_volume", volume.name)

    def create_snapshot(self, snapshot: Snapshot) -> ModelUpdate:
        self.fake_execute("create_snapshot", snapshot.name)
        return None

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        self.fake_execute("delete_snapshot", snapshot.name)

    def local_path(self, volume: Volume | Snapshot) -> str:
        """Return a path where nothing is."""
        return f"/nonexistent/{volume.name}"

    def ensure_export(self, context: Any, volume: Volume) -> ModelUpdate:
        self.fake_execute("ensure_export", volume.name)
        return None

    def create_export(self, context: Any, volume: Volume, connector: Mapping[str, Any] | None) -> ModelUpdate:
        self.fake_execute("create_export", volume.name)
        return {}

    def create_export_snapshot(
        self, context: Any, snapshot: Snapshot, connector: Mapping[str, Any] | None
    ) -> ModelUpdate:
        self.fake_execute("create_export_snapshot", snapshot.name)
        return {}

    def remove_export(self, context: Any, volume: Volume) -> None:
        self.fake_execute("remove_export", volume.name)

    def remove_export_snapshot(self, context: Any, snapshot: Snapshot) -> None:
        self.fake_execute("remove_export_snapshot", snapshot.name)

    def initialize_connection(  # type: ignore[override]
        self, volume: Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {"driver_volume_type": self.driver_volume_type, "data": {"volume_id": volume.id}}

    def initialize_connection_snapshot(  # type: ignore[override]
        self, snapshot: Snapshot, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        return {"driver_volume_type": self.driver_volume_type, "data": {"snapshot_id": snapshot.id}}

    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None, **kwargs: Any) -> None:
        self.fake_execute("terminate_connection", volume.name)

    def terminate_connection_snapshot(
        self, snapshot: Snapshot, connector: Mapping[str, Any] | None, **kwargs: Any
    ) -> None:
        self.fake_execute("terminate_connection_snapshot", snapshot.name)


class FakeISERDriver(FakeISCSIDriver):
    """Logs calls instead of executing."""

    storage_protocol: ClassVar[str | None] = "iSER"
    driver_volume_type: ClassVar[str] = "iser"

    def initialize_connection(  # type: ignore[override]
        self, volume: Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        return super().initialize_connection(volume, connector)

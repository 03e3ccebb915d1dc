# SPDX-License-Identifier: Apache-2.0
"""Base of drivers whose backend is a Fibre Channel target by itself. It knows no storage and no fabric."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from volmgr import exception
from volmgr.drivers.driver import VolumeDriver
from volmgr.drivers.interfaces import marked_default
from volmgr.types import Volume


class FibreChannelDriver(VolumeDriver):
    """Checks connectors; what is connected to is the heir's to say."""

    VERSION = "1.0.0"
    storage_protocol: ClassVar[str | None] = "FC"
    needs_target: ClassVar[bool] = False

    @marked_default
    def initialize_connection(  # type: ignore[override]
        self, volume: Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return {'driver_volume_type': 'fibre_channel', 'data': {target_discovered, target_lun, target_wwn, discard}}.

        ``target_wwn`` is one name or the list of those that serve the volume.
        """
        raise exception.Unsupported(verb="initialize_connection")

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        """Check that the connector has port and node names.

        :raises InvalidConnector: it lacks one of them.
        """
        for setting in ("wwpns", "wwnns"):
            self.validate_connector_has_setting(connector, setting)

    @staticmethod
    def validate_connector_has_setting(connector: Mapping[str, Any], setting: str) -> None:
        """Check that ``connector`` has a value for ``setting`` that is not empty.

        :raises InvalidConnector: it has none.
        """
        if not connector.get(setting):
            raise exception.InvalidConnector(missing=setting)

    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        """Return the names and the protocol; heirs add ``pools``."""
        return {
            "volume_backend_name": self.backend_name,
            "vendor_name": self.vendor_name,
            "driver_version": self.VERSION,
            "storage_protocol": self.storage_protocol,
            "pools": [],
        }

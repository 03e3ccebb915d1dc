# SPDX-License-Identifier: Apache-2.0
"""The same as :mod:`volmgr.drivers.iscsi` for backends that are reached by iSCSI over RDMA."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from volmgr.drivers.iscsi import ISCSIDriver
from volmgr.types import Volume


class ISERDriver(ISCSIDriver):
    """Reads connections from ``provider_location`` and ``provider_auth``."""

    storage_protocol: ClassVar[str | None] = "iSER"
    driver_volume_type: ClassVar[str] = "iser"

    def _get_iser_properties(self, volume: Volume, multipath: bool = False) -> dict[str, Any]:
        """Return the ``data`` of connection_info; it has the form of iSCSI's, without ``discard``."""
        properties = self._get_iscsi_properties(volume, multipath)
        del properties["discard"]
        return properties

    def initialize_connection(  # type: ignore[override]
        self, volume: Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return where the volume is; {'driver_volume_type': 'iser', 'data': {…}}."""
        properties = self._get_iser_properties(volume, bool(connector.get("multipath")))
        return {"driver_volume_type": self.driver_volume_type, "data": properties}

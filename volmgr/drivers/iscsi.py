# SPDX-License-Identifier: Apache-2.0
"""Base of drivers whose backend is an iSCSI target by itself: what a client needs is read from the volume's row.

``provider_location`` is ``ip:port[;ip:port],tid iqn lun``, ``provider_auth`` is ``CHAP user secret``. Drivers whose
storage is a local device or file have a target instead. This module knows no storage.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from volmgr import exception, names
from volmgr.drivers.driver import VolumeDriver
from volmgr.drivers.exporting import parse_auth
from volmgr.types import Volume

LOG = logging.getLogger(__name__)
DEFAULT_LUN = 1


@dataclass(frozen=True)
class Location:
    """The parts of ``provider_location``."""

    portals: tuple[str, ...]
    iqn: str
    lun: int


def parse_location(text: str) -> Location:
    """Return the parts of ``ip:port[;ip:port],tid iqn lun``; without a number the LUN is 1.

    :raises Inconsistent: it has another form.
    """
    parts = text.split()
    portals = tuple(portal for portal in parts[0].rpartition(",")[0].split(";") if portal) if parts else ()
    lun = parts[2] if len(parts) > 2 else str(DEFAULT_LUN)
    if len(parts) not in (2, 3) or not portals or not lun.isdecimal():
        raise exception.Inconsistent(f"provider_location {text!r} has not the form ip:port[;ip:port],tid iqn lun")
    return Location(portals, parts[1], int(lun))


class ISCSIDriver(VolumeDriver):
    """Reads connections from ``provider_location`` and ``provider_auth``."""

    VERSION = "1.0.0"
    storage_protocol: ClassVar[str | None] = "iSCSI"
    driver_volume_type: ClassVar[str] = "iscsi"
    needs_target: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stats: dict[str, Any] = {}

    def _do_iscsi_discovery(self, volume: Volume) -> str | None:
        """Return the location of the volume's target as discovery on its host tells it, None if it is not there."""
        if self._execute is None or not volume.host:
            return None
        host = names.parse_host(volume.host).host
        out, _err = self._execute("iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", host, run_as_root=True)
        for line in str(out or "").splitlines():
            if line.rstrip().endswith(volume.name):
                return line.strip()
        return None

    def _get_iscsi_properties(self, volume: Volume, multipath: bool = False) -> dict[str, Any]:
        """Return the ``data`` of connection_info.

        With several portals ``target_portals``, ``target_iqns`` and ``target_luns`` are there too, for multipath and
        for a single path that may fail over.

        :param multipath: whether the client asked for several paths; a volume with one portal has one.
        :raises Inconsistent: the row has no location and discovery finds no target either.
        """
        text, discovered = volume.provider_location, False
        if not text:
            text, discovered = self._do_iscsi_discovery(volume), True
        if not text:
            raise exception.Inconsistent(f"The volume {volume.id} has no provider_location and no target is found")
        location = parse_location(text)
        properties: dict[str, Any] = {
            "target_discovered": discovered,
            "target_portal": location.portals[0],
            "target_iqn": location.iqn,
            "target_lun": location.lun,
            "volume_id": volume.id,
            "discard": bool(self.configuration.safe_get("report_discard_supported")),
        }
        if len(location.portals) > 1:
            count = len(location.portals)
            properties["target_portals"] = list(location.portals)
            properties["target_iqns"] = [location.iqn] * count
            properties["target_luns"] = [location.lun] * count
        elif multipath:
            LOG.debug("Volume %s has a single portal, several paths were asked for", volume.id)
        account = parse_auth(volume.provider_auth)
        if account is not None:
            properties["auth_method"] = "CHAP"
            properties["auth_username"] = account.username
            properties["auth_password"] = account.password.reveal()
        return properties

    def initialize_connection(  # type: ignore[override]
        self, volume: Volume, connector: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return where the volume is; {'driver_volume_type': 'iscsi', 'data': {…}}."""
        properties = self._get_iscsi_properties(volume, bool(connector.get("multipath")))
        return {"driver_volume_type": self.driver_volume_type, "data": properties}

    def validate_connector(self, connector: Mapping[str, Any]) -> None:
        """Check that the connector has an initiator name.

        :raises InvalidConnector: it has none.
        """
        self.validate_connector_has_setting(connector, "initiator")

    def terminate_connection(self, volume: Volume, connector: Mapping[str, Any] | None, **kwargs: Any) -> None:
        """Nothing is to be done: whoever knows the account may connect until the export ends."""

    def get_volume_stats(self, refresh: bool = False) -> dict[str, Any]:
        if refresh or not self._stats:
            self._update_volume_stats()
        return self._stats

    def _update_volume_stats(self) -> None:
        """Set ``_stats``; drivers that know their capacity override it."""
        self._stats = {
            "volume_backend_name": self.backend_name,
            "vendor_name": self.vendor_name,
            "driver_version": self.VERSION,
            "storage_protocol": self.storage_protocol,
            "pools": [
                {
                    "pool_name": self.backend_name,
                    "total_capacity_gb": "unknown",
                    "free_capacity_gb": "unknown",
                    "reserved_percentage": self.configuration.reserved_percentage,
                    "filter_function": self.get_filter_function(),
                    "goodness_function": self.get_goodness_function(),
                }
            ],
        }

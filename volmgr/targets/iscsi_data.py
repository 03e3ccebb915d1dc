# SPDX-License-Identifier: Apache-2.0
"""What every target that speaks iSCSI has in common: the data of connection_info, and what a connector must have.

Pure functions; they ask nobody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from volmgr import exception
from volmgr.types import ExportSpec, Grant, Json, Portal

#: An iSCSI name (RFC 7143, 4.2.7): its type, then at most 223 bytes without spaces or separators.
_NAME = re.compile(r"\A(iqn|eui|naa)\.[^\s,;=\x00-\x1f\x7f]{1,219}\Z", re.IGNORECASE)


def validate_connector(connector: dict[str, Any]) -> None:
    """Check that a connector names its initiator.

    :raises InvalidConnector: ``initiator`` is missing or no iSCSI name.
    """
    check_initiator(connector.get("initiator"))


def check_initiator(value: object) -> str:
    """Return the initiator name if it is one.

    :raises InvalidConnector: it is missing, or no iSCSI name.
    """
    if not value:
        raise exception.InvalidConnector(missing="initiator", hint="Install open-iscsi on the host that connects")
    if not isinstance(value, str) or not _NAME.match(value) or len(value.encode()) > 223:
        raise exception.InvalidConnector(
            "The connector's initiator is not an iSCSI name", missing="initiator", initiator=value
        )
    return value


def connection(portals: Sequence[Portal], spec: ExportSpec, grant: Grant, target_name: str) -> dict[str, Json]:
    """Return the ``data`` of connection_info of one grant.

    :param target_name: the target that serves this grant.
    """
    data: dict[str, Json] = {
        "target_discovered": False,
        "target_iqn": target_name,
        "target_portal": str(portals[0]),
        "target_lun": spec.lun,
        "volume_id": spec.resource_id,
        "access_mode": "ro" if spec.read_only else grant.mode,
        "discard": spec.discard and not spec.read_only,
    }
    if len(portals) > 1:
        data["target_iqns"] = [target_name for _ in portals]
        data["target_portals"] = [str(portal) for portal in portals]
        data["target_luns"] = [spec.lun for _ in portals]
    if spec.auth is not None:
        data["auth_method"] = "CHAP"
        data["auth_username"] = spec.auth.username
        data["auth_password"] = spec.auth.password.reveal()
    return data

# SPDX-License-Identifier: Apache-2.0
"""Zoning of a Fibre Channel fabric: a hook for whoever manages the switches. None does unless one is configured.

It knows no switch, no target and no volume.
"""

from __future__ import annotations

import abc
import importlib
from collections.abc import Mapping

from volmgr import exception

#: By an initiator's WWPN: the WWPNs of the ports that it is to reach.
Map = Mapping[str, list[str]]


class ZoneManager(abc.ABC):
    """Opens and closes ways through a fabric. Both methods may be called again with what is so already."""

    @abc.abstractmethod
    def add(self, initiator_target_map: Map) -> None:
        """Let initiators reach ports; called before anything is mapped for them.

        :raises BackendDown: the fabric does not answer; nothing is attached then.
        """

    @abc.abstractmethod
    def remove(self, initiator_target_map: Map) -> None:
        """Close the ways of initiators that have nothing left there; called after that is so."""


class NoZoneManager(ZoneManager):
    """For fabrics without zones, or with zones that somebody keeps by hand."""

    def add(self, initiator_target_map: Map) -> None:
        """Do nothing."""

    def remove(self, initiator_target_map: Map) -> None:
        """Do nothing."""


def load(path: str | None) -> ZoneManager:
    """Return the zone manager whose class has this dotted path, or the one that does nothing.

    :raises InvalidConfiguration: there is no such class.
    """
    if not path:
        return NoZoneManager()
    module, _, name = path.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise exception.InvalidConfiguration(
            reason=f"the zone manager {path!r} cannot be loaded: {error}", hint="Correct fc_zone_manager, or remove it"
        ) from error
    if not isinstance(made, ZoneManager):
        raise exception.InvalidConfiguration(
            reason=f"{path} is no ZoneManager", hint="Correct fc_zone_manager, or remove it"
        )
    return made

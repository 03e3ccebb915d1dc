# SPDX-License-Identifier: Apache-2.0
"""Chaos over ATA over Ethernet: a cable for the daemons, writes as a host sends them, and what runs seen from outside.

It needs root, vblade and a kernel with veth.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from volmgr.db import models
from volmgr.testing.aoe import Initiator, Refused, Unanswered
from volmgr.testing.chaos.outside import Outside
from volmgr.testing.daemon import Daemon
from volmgr.tools import vblade
from volmgr.types import ObservedExport

MAC = "02:00:00:00:00:01"
CONNECTOR = {"aoe_macs": [MAC], "ip": "127.0.0.1", "host": "compute"}


class Wire:
    """A host at one end of the cable."""

    def __init__(self, interface: str) -> None:
        self.interface = interface

    def write(self, info: dict[str, Any], offset: int, block: bytes) -> bool:
        """Write a block; returns whether the target acknowledged all of it.

        :param info: connection_info.
        """
        data = info["data"]
        with Initiator(self.interface, data["target_shelf"], data["target_lun"]) as host:
            try:
                host.write(MAC, offset, block)
            except (Refused, Unanswered):
                return False
        return True


class AoeOutside(Outside):
    """See the module."""

    #: nothing runs for what nobody is let in to.
    ungranted = False

    def __init__(self, daemon: Daemon, **options: Any) -> None:
        super().__init__(daemon, targets=self._served, **options)

    def _processes(self) -> list[vblade.Process]:
        return [one for path in self.daemon.state.rglob("vblade") for one in vblade.found(str(path))]

    def _served(self) -> list[ObservedExport]:
        """Return what the processes serve, those of one export together."""
        blades = [one.blade for one in self._processes()]
        return [
            ObservedExport(
                target_name=name,
                paths=tuple(sorted({blade.path for blade in blades if blade.name == name})),
                initiators=tuple(sorted({mac for blade in blades if blade.name == name for mac in blade.macs})),
            )
            for name in sorted({blade.name for blade in blades})
        ]

    def strangers(self) -> list[str]:
        """Return processes at another address than SQL's, and what is served twice."""
        known = {row.target_name: (row.shelf, row.blade) for row in self.rows(models.exports)}
        blades = [one.blade for one in self._processes()]
        found = [
            f"{blade.name} is served at e{blade.shelf}.{blade.slot}, SQL says {known.get(blade.name)}"
            for blade in blades
            if known.get(blade.name) != (blade.shelf, blade.slot)
        ]
        found += [f"{blade.name} is served {count} times" for blade, count in Counter(blades).items() if count > 1]
        return [*super().strangers(), *found]

    def own(self) -> set[int | None]:
        return super().own() | {one.pid for one in self._processes()}

    def close(self) -> None:
        """End what the daemon left serving, too."""
        for process in self._processes():
            vblade.end(process, 20)
        super().close()

# SPDX-License-Identifier: Apache-2.0
"""iSER exports by LIO: iSCSI whose data goes by RDMA. All as in the iSCSI target, but for the portals.

It knows nothing of drivers, databases or RPC.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from volmgr import exception
from volmgr.privileged import modules
from volmgr.targets.base import TargetConfig
from volmgr.targets.lio import MODULES, LioTarget
from volmgr.types import ExportSpec, Grant, Json

_DEVICES = "/sys/class/infiniband"
_HINT = (
    "For an adapter load its driver; for RDMA over Ethernet run as root: modprobe rdma_rxe && "
    "rdma link add rxe0 type rxe netdev INTERFACE; then set iser_ip_address to an address of that interface"
)


class IserTarget(LioTarget):
    """The exports of one backend on this host's LIO, reached by RDMA."""

    protocol: ClassVar[str] = "iser"
    is_rdma: ClassVar[bool] = True

    def __init__(self, config: TargetConfig) -> None:
        super().__init__(config)
        self._devices = Path(str(config.options.get("rdma_devices", _DEVICES)))

    def start(self) -> None:
        """Load the modules and make sure that there is an RDMA device.

        :raises BackendDown: there is none; the hint names the commands.
        """
        super().start()
        with self._told("start"):
            modules.ensure((*MODULES, "ib_isert"), timeout=self.config.timeout)
        self._check_devices()

    def check(self) -> None:
        """Return if LIO is there and the host has an RDMA device.

        :raises BackendDown: it is not, or has not.
        """
        super().check()
        self._check_devices()

    def _check_devices(self) -> None:
        if not any(self._devices.glob("*")):
            raise exception.BackendDown("This host has no RDMA device", hint=_HINT)

    def connection(self, spec: ExportSpec, grant: Grant) -> dict[str, Json]:
        """Return the connection's data: that of iSCSI, without ``discard``."""
        data = super().connection(dataclasses.replace(spec, discard=False), grant)
        del data["discard"]
        return data

    def _refused(self, step: Any, error: OSError) -> exception.VolmgrError:
        if getattr(step, "path", "").endswith("/iser"):
            portal = step.path.split("/")[-2]
            return exception.BackendDown(f"LIO cannot use RDMA at {portal}: {error.strerror}", hint=_HINT)
        return super()._refused(step, error)

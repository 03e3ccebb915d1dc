# SPDX-License-Identifier: Apache-2.0
"""Kill runs on StorPool: what is in the cluster, seen by nobody's driver, and a stage whose daemon works on one."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

from volmgr import names
from volmgr.testing.chaos.outside import Outside
from volmgr.testing.chaos.pair import Pair
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.daemon import Daemon
from volmgr.testing.storpool.process import StorPoolServer
from volmgr.types import ObservedObject

PREFIX = "os"


class Cluster(Outside):
    """A cluster as its contract server knows it."""

    def __init__(self, daemon: Daemon, server: StorPoolServer, **arguments: Any) -> None:
        self.server = server
        super().__init__(daemon, storage=self._objects, **arguments)

    def _objects(self) -> list[ObservedObject]:
        found = []
        for name, path in self.server.files().items():
            parsed = names.parse_storpool_name(PREFIX, name)
            if parsed is not None and parsed.kind in names.KINDS:
                ours = names.object_name(parsed.kind, parsed.object_id)
                found.append(ObservedObject(ours, parsed.object_id, parsed.kind, "current", path.stat().st_size))
        return found

    def path_of(self, object_id: str, kind: str = "volume") -> Path:
        return self.server.file(names.storpool_name(PREFIX, kind, object_id))

    def strangers(self) -> list[str]:
        """Return what was left between two calls of a copy, and what is still attached to the daemon's own host."""
        found = []
        for name in self.server.names():
            parsed = names.parse_storpool_name(PREFIX, name)
            let_go = names.parse_unmanaged_name(name) is not None
            if not name.startswith("*") and not let_go and (parsed is None or parsed.kind not in names.KINDS):
                found.append(f"{name} is nobody's")
        attached = self.server.attached().items()
        return found + [f"{name} is still attached to {sorted(clients)}" for name, clients in attached if clients]


def stage(server: StorPoolServer, folder: Path, *, pair: bool = False, **options: Any) -> Stage:
    """Return a stage whose daemon, or two of them, work on a cluster; nothing is started yet."""
    folder.mkdir(parents=True, exist_ok=True)
    conf = server.write_conf(folder / "storpool.conf", prefix=PREFIX, hosts={platform.node(): 1, "compute": 2})
    backend = {"volume_driver": "storpool", "storpool_config_file": str(conf), "storpool_template": "hybrid"}
    outside = functools.partial(Cluster, server=server)
    if pair:
        return Pair(folder / "daemon", backend=backend, second=backend, outside=outside, **options)
    return Stage(folder / "daemon", backend=backend, outside=outside, **options)

# SPDX-License-Identifier: Apache-2.0
"""An initiator for tests without a network: what another host exports is a file of its simulator, found by its name.

It stands for the kernel's: what it has attached stays attached when its worker dies, and is known by a file of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from volmgr import exception, names
from volmgr.initiator.writing import Info, Initiator

#: In the state folder: one line for each folder of storage that is reached, and a file for each session.
REACHED, SESSIONS = "reached", "sessions"


class FolderInitiator(Initiator):
    """Attaches the files of simulators."""

    def require(self, protocol: str) -> None:
        """Return: files are reached by any."""

    def properties(self) -> dict[str, Any]:
        return {"initiator": f"{self.prefix}{self.host}", "host": self.host, "ip": self.ip, "multipath": False}

    @contextlib.contextmanager
    def attached(self, info: Info) -> Iterator[str]:
        session, path = self._session(info), self._path(info)
        session.parent.mkdir(exist_ok=True)
        session.touch()
        self.reach("attached")
        try:
            yield path
        except Exception:
            session.unlink()
            raise
        session.unlink()
        self.reach("detached")

    def forget(self, info: Info) -> None:
        self._session(info).unlink(missing_ok=True)

    def _session(self, info: Info) -> Path:
        return Path(self.state_path, SESSIONS, info["data"]["target_iqn"])

    def _path(self, info: Info) -> str:
        parsed = names.parse_target_name(self.prefix, info["data"]["target_iqn"])
        if parsed is None or parsed[0] != names.INCOMING:
            raise exception.BackendDown(f"{info['data']['target_iqn']} is no incoming object's target")
        for folder in Path(self.state_path, REACHED).read_text(encoding="utf-8").splitlines():
            path = Path(folder, names.object_name("volume", parsed[1]))
            if path.exists():
                return str(path)
        raise exception.BackendDown(f"No storage is reached that has {parsed[1]}")

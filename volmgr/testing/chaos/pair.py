# SPDX-License-Identifier: Apache-2.0
"""Two workers on one database that can be aimed at: whichever passes the point dies, and lives again."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volmgr import exception, names
from volmgr.testing.chaos.stage import Stage
from volmgr.testing.daemon import Daemon
from volmgr.testing.initiator import REACHED, FolderInitiator
from volmgr.testing.waiting import wait_until

BOTH_SECONDS = 60.0


class Pair(Stage):
    """A stage with a second daemon, ``node@two``, beside ``node@b``.

    :param shared: both over one store, so that the driver moves volumes by itself.
    :param far: the second one is of another machine, ``other@two``: what it exports is attached, see
        :mod:`volmgr.testing.initiator`.
    :param second: options of the second one's backend; the simulator by default.
    """

    def __init__(
        self, folder: Path, *, shared: bool = False, far: bool = False, second: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if far:
            options["volume_copy_initiator"] = f"{FolderInitiator.__module__}.{FolderInitiator.__qualname__}"
        # What is made without a place goes to the first.
        super().__init__(folder, goodness_function="100", **options)
        store = folder / ("sim" if shared else "other/sim")
        self.hosts = {"node@b", "other@two" if far else "node@two"}
        if far:
            self.daemon.state.mkdir(exist_ok=True)
            (self.daemon.state / REACHED).write_text(f"{store}\n", encoding="utf-8")
        self.other = Daemon(
            folder / "other",
            options={
                "state_path": str(self.daemon.state), "enabled_backends": "two", "report_interval": 1,
                **({"host": "other"} if far else {}),
            },
            sections={"two": second or {
                "volume_driver": "sim", "target_helper": "fake", "sim_store_path": str(store),
                "sim_faults_file": str(self._faults), "target_ip_address": "127.0.0.1",
            }},
            environment=self.daemon.environment,
            forked=self.daemon.forked,
        )
        self.outside.beside = [self.other]

    @property
    def daemons(self) -> list[Daemon]:
        """Both."""
        return [self.daemon, self.other]

    def start(self) -> Pair:
        """Start what does not live; returns once each knows that both take volumes."""
        self.restart()
        wait_until(self._together, BOTH_SECONDS, "both workers serve", retry_on=exception.VolmgrError)
        return self

    def restart(self) -> None:
        for daemon in self.daemons:
            if daemon.process is None:
                daemon.start(wait=False)

    def _together(self) -> bool:
        for host in self.hosts:
            answer = self.client.api.call(self.client.context, "explain_placement", host=host, request={"size": 1})
            # A pool may be kept for volumes of another type.
            if {names.service_of(item["host"]) for item in answer["backends"] if item["passed"]} != self.hosts:
                return False
        return True

    def wait_killed(self, seconds: float | None = None) -> None:
        """Wait until either has ended itself."""
        seconds = seconds or self.patience
        dead: Callable[[], list[Daemon]] = lambda: [  # noqa: E731 - a name for what is waited for
            item for item in self.daemons if item.process is not None and item.process.poll() is not None
        ]
        deadline = time.monotonic() + seconds
        while not (found := dead()):
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("volmgr-volume", seconds)
            time.sleep(0.01)
        for daemon in found:
            assert daemon.process is not None
            assert daemon.process.returncode == -signal.SIGKILL, daemon.tail()
            daemon.process = None
        self.kills += 1

    def close(self) -> None:
        if self.other.process is not None and self.other.process.poll() is None:
            self.other.kill()
        super().close()

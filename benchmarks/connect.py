# SPDX-License-Identifier: Apache-2.0
"""Short never waits for long: initialize_connection while every bulk slot copies and 50 driver calls sleep.

The simulator's faults make the bulk work hang and the creations sleep; every call is for an
initiator that is new to the volume, which a terminate_connection takes away again.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.agent import Agent
from benchmarks.figures import Figure, Scale, main, ratios, tell

GROUP = "initialize_connection: both bulk slots busy, 50 driver calls asleep for 2 s each"
SLEEPERS = 50
VOLUMES = 50
SLEEP_SECONDS = 2.0
#: a round goes through all that the sleepers do so many times: 50 endings and 50 admissions in one moment.
CYCLES = 2.5
FAULTS: list[dict[str, Any]] = [
    {"verb": "wipe", "action": "hang", "when": "building", "times": None, "deadline": 3600.0},
    {"verb": "create_volume", "action": "delay", "seconds": SLEEP_SECONDS, "times": None},
]


class _Scene:
    """A daemon under that load, and the two agents.

    :param loaded: False for the same without any load, to compare with.
    """

    def __init__(self, folder: Path, loaded: bool) -> None:
        from volmgr.testing.daemon import Daemon

        folder.mkdir()
        self._faults = folder / "faults.json"
        self._faults.write_text("[]")
        backend = {"volume_driver": "sim", "target_helper": "fake", "target_ip_address": "127.0.0.1",
                   "sim_faults_file": str(self._faults)}
        self._loaded = loaded
        self._daemon = Daemon(folder, backend=backend)
        self._caller, self._sleeper = Agent("eventlet"), Agent("eventlet")

    def __enter__(self) -> _Scene:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self._daemon.start()
        for agent in (self._caller, self._sleeper):
            agent.do("benchmarks.workload:open_client", config_file=str(self._daemon.config_file))
        self.ids = self._caller.do("benchmarks.workload:create", count=VOLUMES)
        if self._loaded:
            doomed = self._caller.do("benchmarks.workload:create", count=2)
            self._faults.write_text(json.dumps(FAULTS))
            self._caller.do("benchmarks.workload:delete", ids=doomed)
            self._sleeper.do("benchmarks.workload:keep_creating", at_once=SLEEPERS)
        self.call(50, 4)

    def __exit__(self, *_: object) -> None:
        for agent in (self._caller, self._sleeper):
            agent.kill()
        if self._daemon.process is not None:
            self._daemon.kill()

    def call(self, calls: int, callers: int, seconds: float = 0.0) -> dict[str, Any]:
        found: dict[str, Any] = self._caller.do(
            "benchmarks.workload:initialize",
            ids=self.ids,
            calls=calls,
            callers=callers,
            worker=self._daemon.pid,
            seconds=seconds,
        )
        return found


def run(scale: Scale) -> list[Figure]:
    """Measure in rounds: one caller, four, fifty, and one without the load."""
    medians, worst, busiest, few, many, idle = [], [], [], [], [], []
    with (
        tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder,
        _Scene(Path(folder) / "loaded", True) as loaded,
        _Scene(Path(folder) / "idle", False) as quiet,
    ):
        for number in range(scale.rounds):
            tell(f"connect: round {number + 1} of {scale.rounds}")
            alone = loaded.call(scale.of(300, 20), 1, CYCLES * SLEEP_SECONDS)
            medians.append(statistics.median(alone["times"]))
            worst.append(max(alone["times"]))
            busiest.append(max(alone["busy"]))
            idle.append(statistics.median(quiet.call(scale.of(300, 20), 1)["times"]))
            few.append(loaded.call(scale.of(600, 40), 4)["rate"])
            many.append(loaded.call(scale.of(600, 100), 50)["rate"])
    return [
        Figure("median call", medians, "ms", 3, group=GROUP),
        Figure("worst call of a round", worst, "ms", 20, group=GROUP,
               note=f"the worst of all rounds together: {max(worst):.1f} ms"),
        Figure("the same in processor time of the worker", busiest, "ms", group=GROUP,
               note="it depends far less than the time on what else the machine does"),
        Figure("calls of 50 callers against calls of 4", ratios(many, few), "x", 1, ">=", group=GROUP),
        Figure("calls of 4 callers, initialize and terminate", few, "/s", group=GROUP),
        Figure("calls of 50 callers, initialize and terminate", many, "/s", group=GROUP),
        Figure("median call of a daemon without that load", idle, "ms", group=GROUP),
    ]


if __name__ == "__main__":
    main(run)

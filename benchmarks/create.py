# SPDX-License-Identifier: Apache-2.0
"""Many volumes at once: the daemon, the simulator, SQLite with synchronous=FULL, casts from many callers.

Time runs from the first cast to the moment when the last volume became available; a second client reads all back.
Each round has a daemon and a database of its own.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.agent import Agent
from benchmarks.figures import Figure, Scale, main, tell

GROUP = "create_volume: blank, simulator, SQLite synchronous=FULL, one worker, eventlet"
CALLERS = 8
WARM_UP = 20
EDGE = 100
TIMEOUT = 240.0


def measure(folder: Path, count: int) -> dict[str, Any]:
    """Create ``count`` volumes in a new daemon; see :func:`benchmarks.workload.read_back` for the result."""
    from volmgr.testing.daemon import Daemon

    backend = {"volume_driver": "sim", "target_helper": "fake", "target_ip_address": "127.0.0.1"}
    daemon = Daemon(folder, backend=backend)
    with Agent("eventlet") as caster, Agent("threading") as reader:
        try:
            daemon.start()
            for agent in (caster, reader):
                agent.do("benchmarks.workload:open_client", config_file=str(daemon.config_file))
            caster.do("benchmarks.workload:create", count=WARM_UP)
            cast = caster.do("benchmarks.workload:cast_volumes", count=count, callers=CALLERS, host=daemon.host,
                             timeout=TIMEOUT)
            found: dict[str, Any] = reader.do(
                "benchmarks.workload:read_back", ids=cast["ids"], within=TIMEOUT
            )
            return {**found, "first": cast["first"], "busy": cast["busy"], "refused": count - len(cast["ids"])}
        finally:
            if daemon.process is not None:
                daemon.kill()


def edges(launched: list[float], edge: int) -> float:
    """Return how many times as long the last volumes took as the first ones."""
    return (launched[-1] - launched[-edge - 1]) / (launched[edge] - launched[0])


def run(scale: Scale) -> list[Figure]:
    """Measure the rate in rounds, then one burst."""
    count, burst, edge = scale.of(2000, 200), scale.of(5000, 400), scale.of(EDGE, 50)
    rates, growth = [], []
    for number in range(scale.rounds):
        tell(f"create: round {number + 1} of {scale.rounds}, {count} volumes")
        with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder:
            found = measure(Path(folder) / "node", count)
        if found["lost"]:
            raise RuntimeError(f"{found['lost']} volumes are not available")
        rates.append(count / (found["launched"][-1] - found["first"]))
        growth.append(edges(found["launched"], edge))
    tell(f"create: a burst of {burst} casts")
    with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder:
        found = measure(Path(folder) / "node", burst)
    return [
        Figure(f"{count} volumes, first cast to last available", rates, "/s", 300, ">=", group=GROUP,
               note=f"casts of {CALLERS} callers; the simulator's objects lie in memory"),
        Figure(f"the last {edge} against the first {edge}", growth, "x", 1.2, group=GROUP),
        Figure(f"lost of a burst of {burst} casts", [found["lost"] + found["refused"]], "", 0, group=GROUP,
               note=f"casts that were told to come again: {found['busy']}"),
        Figure(f"{burst} volumes in a burst", [burst / (found["launched"][-1] - found["first"])], "/s", group=GROUP),
    ]


if __name__ == "__main__":
    main(run)

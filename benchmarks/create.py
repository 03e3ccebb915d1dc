# SPDX-License-Identifier: Apache-2.0
"""Many volumes at once: the daemon, the simulator, SQLite with synchronous=FULL, casts from many callers.

Time runs from the first cast to the moment when the last volume became available; a second client reads all back.
Each round has a daemon and a database of its own.
"""

from __future__ import annotations

import os
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
            before = cpu_seconds(daemon.pid)
            cast = caster.do("benchmarks.workload:cast_volumes", count=count, callers=CALLERS, host=daemon.host,
                             timeout=TIMEOUT)
            found: dict[str, Any] = reader.do(
                "benchmarks.workload:read_back", ids=cast["ids"], within=TIMEOUT
            )
            cpu = cpu_seconds(daemon.pid) - before
            refused = count - len(cast["ids"])
            return {**found, "cpu": cpu, "first": cast["first"], "busy": cast["busy"], "refused": refused}
        finally:
            if daemon.process is not None:
                daemon.kill()


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, user and system (proc(5), stat fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def edges(launched: list[float], edge: int) -> float:
    """Return how many times as long the last volumes took as the first ones."""
    return (launched[-1] - launched[-edge - 1]) / (launched[edge] - launched[0])


def run(scale: Scale) -> list[Figure]:
    """Measure the rate in rounds, then one burst."""
    count, burst, edge = scale.of(2000, 200), scale.of(5000, 400), scale.of(EDGE, 50)
    rates, growth, cpu = [], [], []
    for number in range(scale.rounds):
        tell(f"create: round {number + 1} of {scale.rounds}, {count} volumes")
        with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder:
            found = measure(Path(folder) / "node", count)
        if found["lost"]:
            raise RuntimeError(f"{found['lost']} volumes are not available")
        rates.append(count / (found["launched"][-1] - found["first"]))
        cpu.append(found["cpu"] * 1000 / count)
        growth.append(edges(found["launched"], edge))
    tell(f"create: a burst of {burst} casts")
    with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder:
        found = measure(Path(folder) / "node", burst)
    return [
        Figure(f"{count} volumes, first cast to last available", rates, "/s", 300, ">=", group=GROUP,
               note=f"casts of {CALLERS} callers; the simulator's objects lie in memory"),
        Figure("processor time of the worker for each volume", cpu, "ms", group=GROUP,
               note="with the reading back; it depends far less than the rate on what else the machine does"),
        Figure(f"the last {edge} against the first {edge}", growth, "x", 1.2, group=GROUP),
        Figure(f"lost of a burst of {burst} casts", [found["lost"] + found["refused"]], "", 0, group=GROUP,
               note=f"casts that were told to come again: {found['busy']}"),
        Figure(f"{burst} volumes in a burst", [burst / (found["launched"][-1] - found["first"])], "/s", group=GROUP),
    ]


if __name__ == "__main__":
    main(run)

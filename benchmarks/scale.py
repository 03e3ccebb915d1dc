# SPDX-License-Identifier: Apache-2.0
"""Whether a full worker is as quick as an empty one: 10,000 volumes, 30,000 snapshots, 5,000 attachments.

Two daemons of one machine and one PostgreSQL, an empty and a full one, live the same lives of volumes in turns, so that
whatever else the machine does meets both alike. The simulator keeps its objects as files.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.agent import Agent
from benchmarks.create import cpu_seconds
from benchmarks.figures import Figure, Scale, main, ratios, tell
from benchmarks.footprint import first_answer, smaps
from benchmarks.node import node, postgresql, unfinished

CALLERS = 8
CLIENTS = 200
#: calls of each of the clients in a second: two hundred hosts that boot a machine every other second.
PACE = 0.5
SNAPSHOTS_EACH = 3
TIMEOUT = 1800.0


class _Full:
    """The daemon that is filled."""

    def __init__(self, daemon: Any, agent: Agent, url: str) -> None:
        self.daemon, self.agent, self.url = daemon, agent, url
        self.ids: list[str] = []

    def cast(self, requests: list[list[Any]]) -> None:
        self.agent.do("benchmarks.crowd:cast_all", requests=requests, callers=CALLERS, host=self.daemon.host,
                      timeout=TIMEOUT)  # fmt: skip
        end = time.monotonic() + TIMEOUT
        while (left := unfinished(self.url)) and time.monotonic() < end:
            time.sleep(0.2)
        if left:
            raise RuntimeError(f"{left} operations have not ended")

    def fill(self, volumes: int, attached: int) -> None:
        self.ids = [str(uuid.uuid4()) for _ in range(volumes)]
        tell(f"scale: {volumes} volumes")
        self.cast([["create_volume", {"volume_id": item, "size": 1}] for item in self.ids])
        tell(f"scale: {SNAPSHOTS_EACH * volumes} snapshots")
        self.cast([
            ["create_snapshot", {"volume_id": item, "snapshot_id": str(uuid.uuid4())}]
            for _ in range(SNAPSHOTS_EACH) for item in self.ids
        ])
        tell(f"scale: {attached} attachments")
        self.agent.do("benchmarks.crowd:attach", ids=self.ids[:attached], callers=CALLERS, timeout=TIMEOUT)


def run(scale: Scale) -> list[Figure]:
    """Fill one daemon, then measure both in turns."""
    volumes, attached, share = scale.of(10_000, 40), scale.of(5000, 20), scale.of(20, 3)
    taken: dict[str, dict[str, list[float]]] = {"empty": {}, "full": {}}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="volmgr-bench-")))
        server = stack.enter_context(postgresql())
        agents, daemons = {}, {}
        for name in taken:
            url = server.create_database(f"volmgr_{name}")
            daemons[name] = stack.enter_context(node(folder / name, url, keeps=True))
            agents[name] = stack.enter_context(Agent("threading"))
            agents[name].do("benchmarks.workload:open_client", config_file=str(daemons[name].config_file))
        full = _Full(daemons["full"], agents["full"], url)
        full.fill(volumes, attached)
        memory = smaps(full.daemon.pid)["Rss"]
        for number in range(scale.rounds):
            tell(f"scale: round {number + 1} of {scale.rounds}")
            for verb, (one, other) in _round(agents, share).items():
                taken["empty"].setdefault(verb, []).append(one)
                taken["full"].setdefault(verb, []).append(other)
        free = full.ids[attached : attached + CLIENTS * scale.of(10, 1)] or full.ids
        tell(f"scale: {CLIENTS} clients")
        late = agents["full"].do("benchmarks.crowd:paced", ids=free, callers=min(CLIENTS, len(free)), per_second=PACE)
        pages = agents["full"].do("benchmarks.crowd:listing")
        if pages["count"] < volumes:
            raise RuntimeError(f"{pages['count']} of {volumes} volumes are listed")
        before = cpu_seconds(full.daemon.pid)
        audit = agents["full"].do("benchmarks.crowd:audit", timeout=TIMEOUT)
        audit["cpu"] = cpu_seconds(full.daemon.pid) - before
        if audit["found"]:
            raise RuntimeError(f"{audit['found']} findings where there is nothing to find")
        starts = {name: _starts(daemon, scale.rounds) for name, daemon in daemons.items()}
        rested = smaps(full.daemon.pid)["Rss"]
    return _figures(scale, taken, late, pages, audit, starts, (memory, rested))


def _round(agents: dict[str, Agent], share: int) -> dict[str, tuple[float, float]]:
    """Return by verb the medians, empty and full, of lives that take turns."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in agents}
    for _ in range(4):
        for name, agent in agents.items():
            for verb, values in agent.do("benchmarks.crowd:lives", count=max(1, share // 4)).items():
                found[name].setdefault(verb, []).extend(values)
    return {
        verb: (statistics.median(values), statistics.median(found["full"][verb]))
        for verb, values in found["empty"].items()
    }


def _starts(daemon: Any, rounds: int) -> list[float]:
    """Return the seconds from exec to the first answer, of a daemon that is killed before each start."""
    found = []
    for _ in range(rounds):
        daemon.kill()
        with daemon.client() as client:
            found.append(first_answer(daemon, client))
    return found


def _figures(
    scale: Scale,
    taken: dict[str, dict[str, list[float]]],
    late: list[float],
    pages: dict[str, Any],
    audit: dict[str, Any],
    starts: dict[str, list[float]],
    memory: tuple[float, float],
) -> list[Figure]:
    volumes = scale.of(10_000, 40)
    group = f"{volumes} volumes, {SNAPSHOTS_EACH * volumes} snapshots, {scale.of(5000, 20)} attachments; PostgreSQL"
    found = [
        Figure(f"{verb}: full against empty", ratios(values, taken["empty"][verb]), "x", 1.2, group=group,
               note=f"{statistics.median(taken['empty'][verb]):.1f} ms empty, {statistics.median(values):.1f} ms full")
        for verb, values in taken["full"].items()
    ]  # fmt: skip
    late.sort()
    for name, part in (("p50", 0.5), ("p99", 0.99)):
        found.append(Figure(f"{CLIENTS} clients, {CLIENTS * PACE:.0f} initialize_connection a second: {name}",
                            [late[int(part * (len(late) - 1))]], "ms", group=group, note="from when each was due"))
    return [
        *found,
        Figure("a page of 1,000 volumes", [pages["page"]], "ms", group=group),
        Figure("all volumes, page by page", [pages["all"]], "ms", group=group),
        Figure("an audit", [audit["seconds"]], "s", group=group),
        Figure("an audit, processor time", [audit["cpu"]], "s", group=group),
        Figure("first answer of a start", starts["full"], "s", group=group),
        Figure("first answer of an empty one's start", starts["empty"], "s", group=group),
        Figure("worker after it was filled, RSS", [memory[0]], "MiB", 150, group=group),
        Figure("worker after a start, RSS", [memory[1]], "MiB", 150, group=group),
    ]


if __name__ == "__main__":
    main(run)

# SPDX-License-Identifier: Apache-2.0
"""What a second daemon of a cluster adds where storage is what is waited for: RabbitMQ, PostgreSQL, the simulator.

The driver sleeps 200 ms in each creation and a daemon has few lanes, so that those are the limit and no processor is.
In each round one daemon works alone, then both.
"""

from __future__ import annotations

import contextlib
import datetime
import tempfile
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.agent import Agent
from benchmarks.create import CALLERS, TIMEOUT, cpu_seconds
from benchmarks.figures import Figure, Scale, main, ratios, tell
from benchmarks.node import UNLIMITED, postgresql, rabbitmq

LATENCY, LANES = 0.2, 4
GROUP = f"two daemons of a cluster, {LANES} lanes each, {LATENCY * 1000:.0f} ms in the driver for each creation"
POLL, WARM_UP = 0.05, 60
#: no daemon is to lose its lease to a busy machine.
LEASE, GRACE = 120.0, 10.0


def run(scale: Scale) -> list[Figure]:
    """Each round: volumes by casts to the cluster, with one daemon and with two."""
    from volmgr.testing.rack import Rack

    count = scale.of(240, 40)
    found: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="volmgr-bench-")))
        server, broker = stack.enter_context(postgresql()), stack.enter_context(rabbitmq())
        rack = Rack(
            folder, ("one", "two"), database=server.create_database("volmgr"), broker=broker, lease=LEASE, grace=GRACE,
            backend={"sim_latency": LATENCY}, options={"control_threads": LANES, "report_interval": 10},
            sections={"quota": UNLIMITED},
        )  # fmt: skip
        stack.callback(rack.close)
        caster = stack.enter_context(Agent("eventlet"))
        rack.start(["one"])
        caster.do("benchmarks.workload:open_client", config_file=str(rack.config_file))
        for number in range(scale.rounds):
            for daemons in (1, 2):
                tell(f"cluster: round {number + 1} of {scale.rounds}, {daemons} of 2 daemons")
                rack.start(("one", "two")[:daemons])
                _create(rack, caster, WARM_UP)  # whoever has just started opens its connections
                found[daemons].append(_create(rack, caster, count))
            rack.daemons["two"].stop()
    return _figures(count, found)


def _create(rack: Any, caster: Agent, count: int) -> dict[str, float]:
    """Cast creations; returns their rate, and the daemons' processor time for each in ms."""
    pids = [daemon.pid for daemon in rack.daemons.values() if daemon.process is not None]
    before = sum(map(cpu_seconds, pids))
    cast = caster.do(
        "benchmarks.workload:cast_volumes", count=count, callers=CALLERS, host=rack.service, timeout=TIMEOUT
    )
    last = _all_available(rack, cast["ids"])
    return {"rate": count / (last - cast["first"]), "cpu": (sum(map(cpu_seconds, pids)) - before) * 1000 / count}


def _all_available(rack: Any, ids: list[str]) -> float:
    """Wait until all volumes are available; returns when the last one was, in seconds since the epoch.

    SQL is asked, so that no daemon works for who waits.
    """
    from volmgr.db import models

    table, deadline = models.volumes, time.monotonic() + TIMEOUT
    query = sa.select(sa.func.count(), sa.func.max(table.c.launched_at))
    query = query.where(table.c.id.in_(ids), table.c.status == "available")
    while time.monotonic() < deadline:
        with rack.database.reader() as conn:
            count, last = conn.execute(query).one()
        if count == len(ids):
            return float(last.replace(tzinfo=datetime.UTC).timestamp())
        time.sleep(POLL)
    raise RuntimeError(f"{len(ids) - count} volumes are not available")


def _figures(count: int, found: dict[int, list[dict[str, float]]]) -> list[Figure]:
    def of(daemons: int, what: str) -> list[float]:
        return [item[what] for item in found[daemons]]

    return [
        Figure(f"{count} volumes, one daemon", of(1, "rate"), "/s", group=GROUP,
               note=f"at most {LANES / LATENCY:.0f} a second by its lanes"),
        Figure(f"{count} volumes, two daemons", of(2, "rate"), "/s", group=GROUP),
        Figure("what two do against one", ratios(of(2, "rate"), of(1, "rate")), "x", 1.6, ">=", group=GROUP),
        Figure("processor time of all daemons for each volume, one", of(1, "cpu"), "ms", group=GROUP),
        Figure("processor time of all daemons for each volume, two", of(2, "cpu"), "ms", group=GROUP),
        Figure("processor time, two against one", ratios(of(2, "cpu"), of(1, "cpu")), "x", 1.15, group=GROUP),
    ]  # fmt: skip


if __name__ == "__main__":
    main(run)

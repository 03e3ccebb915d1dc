# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ with quorum queues and PostgreSQL that keeps every commit: one worker, the simulator, many clients."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.agent import Agent
from benchmarks.create import CALLERS as CASTERS
from benchmarks.create import TIMEOUT, cpu_seconds
from benchmarks.figures import Figure, Scale, main, ratios, tell
from benchmarks.node import node, postgresql, rabbitmq

GROUP = "RabbitMQ (quorum queues), PostgreSQL (fsync on), one worker, simulator, eventlet"
CLIENTS = 50
PACE = 4.0


def run(scale: Scale) -> list[Figure]:
    """Each round: creations by casts, 50 clients that connect at a pace, 50 that repeat it as fast as they can."""
    count, calls = scale.of(1000, 100), scale.of(2000, 100)
    rates, cpu, ninety_nine, loops, echoes = [], [], [], [], []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="volmgr-bench-")))
        server, broker = stack.enter_context(postgresql()), stack.enter_context(rabbitmq())
        echo = _echo(stack, broker)
        daemon = stack.enter_context(node(folder / "node", server.create_database("volmgr"), transport_url=broker))
        caller, reader = stack.enter_context(Agent("eventlet")), stack.enter_context(Agent("threading"))
        for agent in (caller, reader):
            agent.do("benchmarks.workload:open_client", config_file=str(daemon.config_file))
        caller.do("benchmarks.workload:create", count=10)
        for number in range(scale.rounds):
            tell(f"fleet: round {number + 1} of {scale.rounds}")
            made = _create(daemon, caller, reader, count)
            rates.append(made["rate"])
            cpu.append(made["cpu"])
            share = made["ids"][: CLIENTS * scale.of(20, 2)]
            late = sorted(caller.do("benchmarks.crowd:paced", ids=share, callers=CLIENTS, per_second=PACE))
            ninety_nine.append(late[int(0.99 * (len(late) - 1))])
            loops.append(caller.do("benchmarks.crowd:again", ids=share, callers=CLIENTS, calls=calls))
            echoes.append(echo.do("benchmarks.rpc:rate", calls=calls))
    return [
        Figure(f"{count} volumes, first cast to last available", rates, "/s", 150, ">=", group=GROUP),
        Figure("processor time of the worker for each volume", cpu, "ms", group=GROUP),
        Figure(f"{CLIENTS} clients, {PACE:.0f} initialize_connection a second each: p99", ninety_nine, "ms", 50,
               group=GROUP, note="from when each was due; a volume each, whose grant is new"),
        Figure("repeated initialize_connection against the bare echo", ratios(loops, echoes), "x", 0.6, ">=",
               group=GROUP, note=f"{CLIENTS} callers, as fast as they are answered"),
    ]  # fmt: skip


def _echo(stack: contextlib.ExitStack, url: str) -> Agent:
    server = stack.enter_context(Agent("eventlet"))
    server.do("benchmarks.rpc:serve", url=url, ours=False)
    client = stack.enter_context(Agent("eventlet"))
    client.do("benchmarks.rpc:connect", url=url, kind="bare")
    return client


def _create(daemon: Any, caller: Agent, reader: Agent, count: int) -> dict[str, Any]:
    """Cast creations; returns their ids, the rate, and the worker's processor time for each in ms."""
    before = cpu_seconds(daemon.pid)
    cast = caller.do("benchmarks.workload:cast_volumes", count=count, callers=CASTERS, host=daemon.host,
                     timeout=TIMEOUT)  # fmt: skip
    found = reader.do("benchmarks.workload:read_back", ids=cast["ids"], within=TIMEOUT)
    if found["lost"]:
        raise RuntimeError(f"{found['lost']} volumes are not available")
    cpu = (cpu_seconds(daemon.pid) - before) * 1000 / count
    return {"ids": cast["ids"], "rate": count / (found["launched"][-1] - cast["first"]), "cpu": cpu}


if __name__ == "__main__":
    main(run)

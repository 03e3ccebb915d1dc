# SPDX-License-Identifier: Apache-2.0
"""The audit of many volumes, and a start with much that is unfinished.

The audit runs in a process of its own on the simulator's inside of a worker, real SQLite included; processor time is
what counts. The start is that of the real daemon: time runs from the moment at which it answers.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.agent import Agent
from benchmarks.figures import Figure, Scale, main, tell

GROUP = "Reconcile: simulator, SQLite synchronous=FULL, eventlet"
TIMEOUT = 240.0


def audit(_state: dict[str, Any], folder: str, count: int) -> dict[str, float]:
    """Fill a rig and audit it; returns seconds of processor time and of the clock, and statements; runs in an agent."""
    from volmgr.drivers.sim.store import MemoryStore
    from volmgr.reconcile.auditor import findings_of
    from volmgr.testing.filling import fill
    from volmgr.testing.rig import Rig

    rig = Rig(Path(folder))
    rig.driver.store = MemoryStore()
    fill(rig, count)
    findings_of(rig.dispatcher)
    begun, cpu = time.perf_counter(), time.process_time()
    with rig.database.counting() as asked:
        found = findings_of(rig.dispatcher)
    result = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - begun, "found": len(found),
              "statements": asked.statements}
    rig.close()
    return result


def start(folder: Path, count: int) -> dict[str, float]:
    """Kill a daemon with ``count`` unfinished operations; how soon do they, and new requests, go on after a start?"""
    from volmgr.testing.daemon import Daemon

    backend = {"volume_driver": "sim", "target_helper": "fake", "target_ip_address": "127.0.0.1",
               "sim_store_path": str(folder / "sim")}
    daemon = Daemon(folder, backend=backend)
    with Agent("threading") as agent:
        try:
            daemon.start()
            agent.do("benchmarks.workload:open_client", config_file=str(daemon.config_file))
            agent.do("benchmarks.workload:create", count=1)
            daemon.kill()
            _unfinish(daemon.state / "volmgr.sqlite", count)
            begun = time.perf_counter()
            daemon.start()
            answers = time.perf_counter()
            agent.begin("benchmarks.workload:create", count=1)
            first = _wait(daemon.state / "volmgr.sqlite", lambda left: left < count)
            agent.end()
            served = time.perf_counter()
            _wait(daemon.state / "volmgr.sqlite", lambda left: left == 0)
            return {"answers": answers - begun, "first": max(0.0, first - answers), "served": served - answers,
                    "all": time.perf_counter() - answers}
        finally:
            if daemon.process is not None:
                daemon.kill()


def _unfinish(path: Path, count: int) -> None:
    """Copy the one creation, running, as a worker that was killed leaves it."""
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.row_factory = sqlite3.Row
        rows = {
            table: dict(conn.execute(f"SELECT * FROM {table} LIMIT 1").fetchone())
            for table in ("volumes", "objects", "operations")
        }
        template = rows["volumes"]["id"]
        for _ in range(count):
            volume_id, operation_id = str(uuid.uuid4()), str(uuid.uuid4())
            changes: dict[str, dict[str, Any]] = {
                "volumes": {"id": volume_id, "object_id": volume_id, "status": "creating",
                            "operation_id": operation_id},
                "objects": {"id": volume_id, "resource_id": volume_id, "serial": uuid.uuid4().hex},
                "operations": {
                    "id": operation_id, "request_key": operation_id, "resource_id": volume_id, "state": "running",
                    "result": None, "finished_at": None, "incarnation": str(uuid.uuid4()), "step": None, "data": None,
                    "args": rows["operations"]["args"].replace(template, volume_id),
                    "claims": rows["operations"]["claims"].replace(template, volume_id),
                },
            }
            for table, values in changes.items():
                row = rows[table] | values
                marks = ", ".join("?" * len(row))
                conn.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))


def _wait(path: Path, enough: Any) -> float:
    """Wait until few enough operations are unfinished; returns when it was."""
    end = time.monotonic() + TIMEOUT
    with closing(sqlite3.connect(path, timeout=30)) as conn:
        while time.monotonic() < end:
            left = conn.execute("SELECT count(*) FROM operations WHERE finished_at IS NULL").fetchone()[0]
            if enough(left):
                return time.perf_counter()
            time.sleep(0.02)
    raise RuntimeError("the operations did not go on in time")


def run(scale: Scale) -> list[Figure]:
    """Measure both in rounds."""
    count, unfinished = scale.of(5000, 500), scale.of(1000, 50)
    audits, starts = [], []
    for number in range(scale.rounds):
        tell(f"reconcile: round {number + 1} of {scale.rounds}")
        with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder, Agent("eventlet") as agent:
            audits.append(agent.do("benchmarks.reconcile:audit", folder=folder, count=count))
        if audits[-1]["found"]:
            raise RuntimeError(f"{audits[-1]['found']} findings where there is nothing to find")
        with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder:
            starts.append(start(Path(folder) / "node", unfinished))
    return [
        Figure(f"audit of {count} volumes, a third exported: processor time", [item["cpu"] for item in audits], "s", 3,
               group=GROUP),
        Figure("the same, on the clock", [item["wall"] for item in audits], "s", group=GROUP),
        Figure("its statements for each thousand volumes", [item["statements"] * 1000 / count for item in audits],
               group=GROUP),
        Figure(f"start with {unfinished} unfinished operations: until it answers", [item["answers"] for item in starts],
               "s", group=GROUP, note="the start of the process itself, imports included"),
        Figure("from the first answer until one of them has ended", [item["first"] for item in starts], "s", 2,
               group=GROUP),
        Figure("from the first answer until a new create was done", [item["served"] for item in starts], "s", 2,
               group=GROUP, note="sent at once, by a client of its own"),
        Figure("from the first answer until all have ended", [item["all"] for item in starts], "s", group=GROUP),
    ]


if __name__ == "__main__":
    main(run)

# SPDX-License-Identifier: Apache-2.0
"""From exec to the first answer, when every export is gone: volumes in files, tgt; and until all exports are back.

:mod:`benchmarks.lab_restart` does the same on LVM and LIO, in a guest of the lab.
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.create import cpu_seconds
from benchmarks.figures import Figure, Scale, main, tell
from benchmarks.footprint import first_answer

TIMEOUT = 300.0
GROUP = "start with every export missing: files and tgt, half of the volumes in use"


@dataclass
class Start:
    """One start: seconds to the first answer, processor time of the worker until then, seconds to all exports."""

    answered: float
    cpu: float
    complete: float


def fill(client: Any, count: int, used: int) -> None:
    """Make volumes through RPC and connect the first ``used`` of them."""
    for number in range(count):
        volume_id = str(uuid.uuid4())
        client.do("create_volume", volume_id, size=1)
        if number < used:
            name = f"iqn.1993-08.org.debian:01:{uuid.uuid4().hex[:12]}"
            connector = {"initiator": name, "ip": "127.0.0.1", "host": "compute"}
            client.api.initialize_connection(client.context, volume_id, connector)


def start(daemon: Any, exports: Callable[[], int], used: int) -> Start:
    """Start a daemon that does not run.

    :param exports: counts what the target serves now. :param used: how many it should serve in the end.
    """
    begun = time.perf_counter()
    with daemon.client() as client:
        answered = first_answer(daemon, client)
        cpu = cpu_seconds(daemon.pid)
    while exports() < used:
        if time.perf_counter() - begun > TIMEOUT:
            raise RuntimeError(f"{exports()} of {used} exports are back:\n{daemon.tail()}")
        time.sleep(0.02)
    return Start(answered, cpu, time.perf_counter() - begun)


def run(scale: Scale) -> list[Figure]:
    """Start one daemon in rounds; its tgtd is ended with it."""
    from volmgr.testing.daemon import Daemon, free_port
    from volmgr.tools.tgtd import Tgtd
    from volmgr.types import Portal

    count, used, port = scale.of(1000, 40), scale.of(500, 20), free_port()
    found: list[Start] = []
    empty: list[Start] = []
    with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder:
        backend = {"volume_driver": "file", "target_helper": "tgtadm", "target_ip_address": "127.0.0.1",
                   "target_port": port}  # fmt: skip
        daemon = Daemon(Path(folder) / "node", backend=backend)
        target = Tgtd(str(daemon.state / "b" / "target"), (Portal("127.0.0.1", port),))
        try:
            daemon.start()
            for _ in range(scale.rounds):
                daemon.kill()
                empty.append(start(daemon, lambda: _targets(target), 0))
            tell(f"restart: {count} volumes, {used} in use")
            with daemon.client() as client:
                fill(client, count, used)
            for number in range(scale.rounds):
                tell(f"restart: round {number + 1} of {scale.rounds}")
                daemon.kill()
                target.stop()
                found.append(start(daemon, lambda: _targets(target), used))
        finally:
            if daemon.process is not None:
                daemon.kill()
            target.stop()
    note = "tgtd is started again as well"
    return [
        Figure(f"first answer with {count} volumes, {used} in use", [one.answered for one in found], "s", 2,
               group=GROUP, note=note),
        Figure("the same of a start with nothing", [one.answered for one in empty], "s", group=GROUP),
        Figure("processor time until the first answer", [one.cpu for one in found], "s", group=GROUP,
               note="which depends far less on what else the machine does"),
        Figure("the same of a start with nothing, by processor", [one.cpu for one in empty], "s", group=GROUP),
        Figure("until every export is back", [one.complete for one in found], "s", group=GROUP),
    ]  # fmt: skip


def _targets(target: Any) -> int:
    from volmgr.tools.tgt import errors

    try:
        return len(target.client.targets())
    except errors.TgtDown:
        return 0


if __name__ == "__main__":
    main(run)

# SPDX-License-Identifier: Apache-2.0
"""From exec to the first answer when every export is gone, LVM and LIO, against a start with nothing: in one guest."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Scale, main, ratios, tell
from benchmarks.lab_lvm import ALONE, backend, group
from benchmarks.processes import Counter
from benchmarks.restart import fill, start

GROUP = "start with every export missing: thin volumes and LIO, one guest"
LIO = Path("/sys/kernel/config/target/iscsi")


def exports() -> int:
    """Return how many targets have their portal, which comes last."""
    return len(list(LIO.glob("iqn.*/tpgt_1/np/*")))


def run(scale: Scale) -> list[Figure]:
    """Start a daemon with nothing, fill it, and start it again and again without its exports."""
    from volmgr.testing.daemon import Daemon
    from volmgr.testing.lab import lio

    count, used = scale.of(200, 12), scale.of(100, 6)
    empty, full, programs = [], [], []
    with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder, group(Path(folder)):
        counter = Counter(Path(folder))
        daemon = Daemon(Path(folder) / "node", backend=backend(), options=ALONE, environment=counter.environment)
        with contextlib.ExitStack() as undo:
            undo.callback(lio.wipe)
            undo.callback(daemon.stop)
            daemon.start()
            for number in range(scale.rounds):
                tell(f"lab_restart: empty, round {number + 1} of {scale.rounds}")
                daemon.kill()
                empty.append(start(daemon, exports, 0))
            tell(f"lab_restart: {count} volumes, {used} in use")
            with daemon.client() as client:
                fill(client, count, used)
            for number in range(scale.rounds):
                tell(f"lab_restart: full, round {number + 1} of {scale.rounds}")
                programs.append(_again(daemon, counter, used, full))
    name = f"first answer with {count} volumes, {used} in use"
    return [
        Figure(f"{name}, against an empty start", ratios(*_pairs(full, empty, "answered")), "x", 1.2, group=GROUP),
        Figure("the same in processor time of the worker", ratios(*_pairs(full, empty, "cpu")), "x", 1.2, group=GROUP,
               note="which depends far less on what else the machine does"),
        Figure("programs run until every export is back", [len(one) for one in programs], "", 5, group=GROUP,
               note=", ".join(programs[-1])),
        Figure("until every export is back", [one.complete for one in full], "s", group=GROUP),
        Figure("first answer of an empty start", [one.answered for one in empty], "s", group=GROUP),
    ]  # fmt: skip


def _pairs(full: list[Any], empty: list[Any], what: str) -> tuple[list[float], list[float]]:
    return [getattr(one, what) for one in full], [getattr(one, what) for one in empty]


def _again(daemon: Any, counter: Counter, used: int, full: list[Any]) -> list[str]:
    """Start once more; return the programs that the daemon ran meanwhile."""
    from volmgr.testing.lab import lio

    daemon.kill()
    lio.wipe()
    with counter.counted() as found:
        full.append(start(daemon, exports, used))
    return found.names


if __name__ == "__main__":
    main(run)

# SPDX-License-Identifier: Apache-2.0
"""From exec to the first answer when every export is gone, LVM and LIO, against a start with nothing: in one guest."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Scale, main, ratios, tell
from benchmarks.lab_lvm import ALONE, NAME, backend, group
from benchmarks.processes import Counter
from benchmarks.restart import Start, fill, start

GROUP = "start with every export missing: thin volumes and LIO, one guest"
EMPTY = "empty"
LIO = Path("/sys/kernel/config/target/iscsi")


def exports() -> int:
    """Return how many targets have their portal, which comes last."""
    return len(list(LIO.glob("iqn.*/tpgt_1/np/*")))


def run(scale: Scale) -> list[Figure]:
    """Start a daemon that has nothing, and one whose exports are gone, in turns."""
    from volmgr.testing.daemon import Daemon
    from volmgr.testing.lab import lio

    count, used = scale.of(200, 12), scale.of(100, 6)
    empty, full, programs = [], [], []
    with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as name, contextlib.ExitStack() as undo:
        folder = Path(name)
        counter = Counter(folder)
        daemons = []
        for group_name in (EMPTY, NAME):
            undo.enter_context(group(folder, group_name))
            daemon = Daemon(
                folder / group_name, backend=backend(group_name), options=ALONE, environment=counter.environment
            )
            undo.callback(lio.wipe)
            undo.callback(daemon.stop)
            daemons.append(daemon.start())
            tell(f"lab_restart: {count} volumes, {used} in use" if group_name == NAME else "lab_restart: none")
            if group_name == NAME:
                with daemon.client() as client:
                    fill(client, count, used)
            daemon.kill()
        # Whatever starts first finds nothing in the guest's caches, and would pay for all that come after it.
        _again(daemons[0], counter, 0)
        for number in range(scale.rounds):
            tell(f"lab_restart: round {number + 1} of {scale.rounds}")
            empty.append(_again(daemons[0], counter, 0)[0])
            measured, names = _again(daemons[1], counter, used)
            full.append(measured)
            programs.append(names)
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


def _again(daemon: Any, counter: Counter, used: int) -> tuple[Start, list[str]]:
    """Start a daemon once more, without any export; return the programs that it ran until it had them again."""
    from volmgr.testing.lab import lio

    lio.wipe()
    with counter.counted() as found:
        measured = start(daemon, exports, used)
    daemon.kill()
    return measured, found.names


if __name__ == "__main__":
    main(run)

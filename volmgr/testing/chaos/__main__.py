# SPDX-License-Identifier: Apache-2.0
"""``python -m volmgr.testing.chaos``: random kills under load, or every kill point once; the list is printed."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from volmgr import concurrency


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m volmgr.testing.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first series; the others follow (%(default)s)")
    parser.add_argument("--kills", type=int, default=60, help="how many in all (%(default)s)")
    parser.add_argument("--backend", choices=("sim", "file"), default="file", help="file has tgt (%(default)s)")
    parser.add_argument("--lanes", type=int, default=2, help="daemons side by side (%(default)s)")
    parser.add_argument("--points", action="store_true", help="instead: every kill point of every story, on sim")
    parser.add_argument("--folder", type=Path, help="where the daemons work; kept. Else a temporary folder")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 1 when anything was wrong."""
    options = _parser().parse_args(arguments)
    concurrency.setup()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="volmgr-chaos-"))
    try:
        wrong = _points(folder, options.lanes) if options.points else _random(folder, options)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    for line in wrong:
        print(f"WRONG: {line}")
    print(f"{len(wrong)} violations")
    return 1 if wrong else 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _points(folder: Path, lanes: int) -> list[str]:
    from volmgr.testing.chaos import points, strikes
    from volmgr.testing.chaos.scenarios import SCENARIOS

    results = strikes.lanes(folder, SCENARIOS, lanes, _tell, whole=True)
    print(f"{sum(result.kills for result in results.values())} kills in {len(results)} stories")
    reached = {point for result in results.values() for point in result.reached}
    return [text for result in results.values() for text in result.violations] + points.missing(reached)


def _random(folder: Path, options: argparse.Namespace) -> list[str]:
    from volmgr.testing.chaos.raids import series

    raids = series(
        folder, options.seed, options.kills, backend=options.backend, lanes=options.lanes, tell=_tell
    )
    where: Counter[str] = sum((raid.where for raid in raids), Counter())
    for point, count in where.most_common():
        print(f"{count:6} at {point}")
    print(
        f"{sum(len(raid.kills) for raid in raids)} kills, {sum(raid.requests for raid in raids)} requests, "
        f"{sum(raid.written for raid in raids)} blocks written"
    )
    return [text for raid in raids for text in raid.violations]


if __name__ == "__main__":
    sys.exit(main())

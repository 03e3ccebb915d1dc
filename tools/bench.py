#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the benchmarks and prints one table: figure, measured median, range of the rounds, bound, met or not.

A figure that misses its bound is no failure, since times depend on the machine; a benchmark that could not run is one.
Each benchmark is a process of its own. What they measure is their affair (benchmarks/), this module knows only how to
run them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.figures import Figure, Scale, table  # noqa: E402  (a checkout need not be installed)

NAMES = ("budgets", "placement", "footprint", "rpc", "connect", "create", "reconcile", "restart")
LAB_NAMES = ("lab_lvm", "lab_lio", "lab_restart")
SCALE_NAMES = ("fleet", "cluster", "scale")
TIMEOUT_SECONDS = 3600.0


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, small numbers: only whether it runs")
    names = (*NAMES, *LAB_NAMES, *SCALE_NAMES)
    parser.add_argument("--lab", action="store_true", help=f"in a guest, with a kernel: {', '.join(LAB_NAMES)}")
    parser.add_argument("--scale", action="store_true", help=f"what a fleet needs: {', '.join(SCALE_NAMES)}")
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=f"one of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=Scale().rounds, help="repetitions (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser.parse_args()


def measure(name: str, rounds: int, quick: bool) -> list[Figure]:
    """Run one benchmark.

    :raises RuntimeError: it could not run.
    """
    command = [sys.executable, "-m", f"benchmarks.{name}", "--rounds", str(rounds), *(["--quick"] if quick else [])]
    # A session of its own, so that nothing of it is left behind when it is cut short.
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it took more than {TIMEOUT_SECONDS:.0f} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing is left, as it should be
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise RuntimeError(f"it ended with {process.returncode}")
    return [Figure(**values) for values in json.loads(out)]


def measure_in_guest(name: str, rounds: int, quick: bool) -> list[Figure]:
    """Run one benchmark in a guest of the lab: its kernel has what this machine may lack.

    :raises RuntimeError: it could not run.
    """
    from volmgr.testing.lab import errors, guest

    module = (f"benchmarks.{name}", "--rounds", str(rounds), *(["--quick"] if quick else []))
    spec = guest.GuestSpec(module=module, timeout_seconds=TIMEOUT_SECONDS, cwd=ROOT)
    try:
        result = guest.run_guest(spec, lambda said: os.write(sys.stderr.fileno(), said))
    except errors.LabError as error:
        raise RuntimeError(str(error)) from error
    if result.status or result.output is None:
        raise RuntimeError(f"it ended with {result.status}")
    return [Figure(**values) for values in json.loads(result.output)]


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processors, memory, versions, how fast a small write reaches the disk."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().split()
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.machine(),
        "processors": os.cpu_count(),
        "memory_gib": round(int(memory[1]) / 2**20, 1),
        "linux": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "fdatasync_ms": round(_fdatasync() * 1000, 3),
    }


def _fdatasync() -> float:
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(100):
            file.write(bytes(4096))
            file.flush()
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> int:
    """Run what was asked for; returns the exit status."""
    options = arguments()
    rounds = 1 if options.quick else options.rounds
    figures: list[Figure] = []
    broken: dict[str, str] = {}
    about = machine()
    for name in options.only or (LAB_NAMES if options.lab else SCALE_NAMES if options.scale else NAMES):
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            figures += (measure_in_guest if name in LAB_NAMES else measure)(name, rounds, options.quick)
        except (RuntimeError, ValueError) as error:
            broken[name] = str(error)
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(table(figures))
    judged = [figure.met for figure in figures if figure.met is not None]
    print(f"\n{sum(judged)} of {len(judged)} bounds met, medians of {rounds} rounds")
    for name, reason in broken.items():
        print(f"could not run: {name}: {reason}")
    if options.json:
        kept = {"machine": about, "rounds": rounds, "quick": options.quick, "broken": broken}
        options.json.write_text(json.dumps({**kept, "figures": [item.to_json() for item in figures]}, indent=1) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

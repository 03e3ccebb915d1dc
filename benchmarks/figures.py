# SPDX-License-Identifier: Apache-2.0
"""What a benchmark answers: figures with their rounds, their bound and whether it was met.

This module knows nothing of what is measured; it must not import volmgr, so that the runner stays light.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AT_MOST, AT_LEAST = "<=", ">="


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    :ivar rounds: repetitions; what is compared is measured in turns within each.
    :ivar quick: small numbers: whether it runs matters, not what comes out.
    """

    rounds: int = 5
    quick: bool = False

    def of(self, full: int, quick: int) -> int:
        """Return how many of something to do."""
        return quick if self.quick else full


@dataclass
class Figure:
    """One line of the table.

    :param name: what it is. :param values: one per round. :param unit: of the values and of the bound.
    :param bound: what it should keep to; None for a figure that is only shown. :param sense: ``<=`` or ``>=``.
    :param text: shown instead of the median, for a figure that is not one number.
    :param note: what a reader must know to judge it.
    """

    name: str
    values: Sequence[float] = ()
    unit: str = ""
    bound: float | None = None
    sense: str = AT_MOST
    text: str = ""
    note: str = ""
    group: str = field(default="", kw_only=True)

    @property
    def median(self) -> float | None:
        """The median of the rounds, None without any."""
        return statistics.median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """Whether the median keeps to the bound, None where there is none."""
        median = self.median
        if self.bound is None or median is None:
            return None
        return median <= self.bound if self.sense == AT_MOST else median >= self.bound

    def to_json(self) -> dict[str, Any]:
        """Return the figure as JSON, with what follows from it."""
        return {**dataclasses.asdict(self), "values": list(self.values), "median": self.median, "met": self.met}


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as text, a line each, under their groups."""
    lines = [f"{'figure':58} {'measured':>14} {'rounds':>17} {'bound':>12}  met"]
    group = ""
    for figure in figures:
        if figure.group != group:
            group = figure.group
            lines += ["", group]
        lines.append(_line(figure))
        if figure.note:
            lines.append(f"      {figure.note}")
    return "\n".join(lines)


def _line(figure: Figure) -> str:
    median = figure.median
    measured = figure.text or ("" if median is None else f"{_number(median)} {figure.unit}".strip())
    spread = f"{_number(min(figure.values))}..{_number(max(figure.values))}" if len(figure.values) > 1 else ""
    bound = "" if figure.bound is None else f"{figure.sense} {_number(figure.bound)}"
    met = {True: "yes", False: "NO", None: "-"}[figure.met]
    return f"  {figure.name:56} {measured:>14} {spread:>17} {bound:>12}  {met}"


def _number(value: float) -> str:
    if value == int(value):
        return str(int(value))
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 1000 else f"{value:.0f}"


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return round by round how many times ``below`` goes into ``above``."""
    return [one / other for one, other in zip(above, below, strict=True)]


def main(run: Callable[[Scale], Sequence[Figure]]) -> None:
    """Run one benchmark as a process: its figures go to standard output as one line of JSON, or to a file.

    The file is the one that ``VOLMGR_LAB_OUTPUT`` names, inside a guest of the lab.

    :param run: the benchmark.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    figures = run(Scale(options.rounds, options.quick))
    text = json.dumps([dataclasses.asdict(figure) for figure in figures])
    if path := os.environ.get("VOLMGR_LAB_OUTPUT"):
        Path(path).write_text(text, encoding="utf-8")
    else:
        print(text, flush=True)


def tell(text: str) -> None:
    """Say on standard error how far it is."""
    print(f"  {text}", file=sys.stderr, flush=True)

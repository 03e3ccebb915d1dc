# SPDX-License-Identifier: Apache-2.0
"""The order among the pools that pass every check, and the whole story of each pool, by the same checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from volmgr.scheduler import checks, expression
from volmgr.scheduler.model import Pool, Request, Verdict

WORST, BEST = 0.0, 100.0


@dataclass
class Judged:
    """A pool with what was found of it.

    :param verdicts: of the checks that were asked. :param goodness: 0 to 100. :param why: where that comes from.
    :param rank: its place among those that passed, from 1; None for one that did not.
    """

    pool: Pool
    verdicts: Sequence[Verdict]
    goodness: float = WORST
    why: str = ""
    rank: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the volume could go there."""
        return all(verdict.passed for verdict in self.verdicts)

    @property
    def room(self) -> float:
        """GiB for which there is room, more than the volume needs."""
        for verdict in self.verdicts:
            if verdict.check == "capacity":
                return float(verdict.numbers.get("room_gb", 0.0))
        return 0.0

    def to_json(self) -> dict[str, Any]:
        """The form in which it is answered."""
        return {
            "host": self.pool.host,
            "passed": self.passed,
            "rank": self.rank,
            "goodness": self.goodness,
            "goodness_why": self.why,
            "checks": [
                {"check": item.check, "passed": item.passed, "why": item.why, "numbers": _plain(item.numbers)}
                for item in self.verdicts
            ],
        }


def _plain(numbers: Any) -> dict[str, Any]:
    """Return numbers as JSON has them, which knows no infinity."""
    return {key: "infinite" if value == float("inf") else value for key, value in numbers.items()}


def goodness(request: Request, pool: Pool) -> tuple[float, str]:
    """Return how well a pool suits a volume, 0 to 100, and why; one without ``goodness_function`` is the worst."""
    text = pool.capabilities.get("goodness_function")
    if not text:
        return WORST, "it has no goodness_function"
    try:
        value = expression.evaluate(text, checks.scopes_of(request, pool))
    except expression.ExpressionError as error:
        return WORST, error.message
    if isinstance(value, str):
        return WORST, f"{text} is {value!r}, which is no number"
    if not WORST <= value <= BEST:
        return WORST, f"{text} is {value:g}, not from 0 to 100"
    return float(value), text


def _prepared(request: Request) -> Request:
    return dataclasses.replace(request, volume={**request.volume, "size": request.size})


def rank(request: Request, pools: Iterable[Pool]) -> list[Judged]:
    """Return the pools that pass, the best first: by goodness, then by room, then by name."""
    request = _prepared(request)
    passed: list[Judged] = []
    for pool in pools:
        verdicts = []
        for check in checks.CHECKS:
            verdict = check(request, pool)
            if not verdict.passed:
                break
            verdicts.append(verdict)
        else:
            passed.append(Judged(pool, verdicts, *goodness(request, pool)))
    return _ordered(passed)


def explain(request: Request, pools: Iterable[Pool]) -> list[Judged]:
    """Return every pool with the verdict of every check: those that pass in their order, then the others by name."""
    request = _prepared(request)
    passed: list[Judged] = []
    others: list[Judged] = []
    for pool in pools:
        judged = Judged(pool, [check(request, pool) for check in checks.CHECKS], *goodness(request, pool))
        (passed if judged.passed else others).append(judged)
    return [*_ordered(passed), *sorted(others, key=lambda item: item.pool.host)]


def _ordered(passed: list[Judged]) -> list[Judged]:
    passed.sort(key=lambda item: (-item.goodness, -item.room, item.pool.host))
    for place, item in enumerate(passed, 1):
        item.rank = place
    return passed

# SPDX-License-Identifier: Apache-2.0
"""The one place that knows taskflow: runs steps in order and, when one fails, their undoings in reverse.

taskflow orders and reverts; it remembers nothing, that is the journal's work. Its import costs a quarter of a second,
so this module is imported when the first operation of several steps runs. It knows no volume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from taskflow import engines, task
from taskflow.patterns import linear_flow


@dataclass(frozen=True)
class Link:
    """One step: ``execute`` raises what went wrong, ``revert`` takes it back and must not raise."""

    name: str
    execute: Callable[[], None]
    revert: Callable[[], None]


class _Task(task.Task):  # type: ignore[misc]
    def __init__(self, link: Link) -> None:
        super().__init__(name=link.name)
        self._link = link

    def execute(self) -> None:
        self._link.execute()

    def revert(self, **_: object) -> None:
        self._link.revert()


def run(name: str, links: Sequence[Link]) -> None:
    """Run the links one after the other in this thread.

    :raises BaseException: what the failing link raised, after the reverts of it and all before it have run.
    """
    flow = linear_flow.Flow(name)
    flow.add(*(_Task(link) for link in links))
    engines.run(flow, engine="serial")

# SPDX-License-Identifier: Apache-2.0
"""How a driver's verb tells how far it is, although the verbs' signatures have no place for that.

The caller says where reports go for the length of a call; a driver that copies reports. What the receiver raises
(Cancelled, LeaseLost) passes through the driver and so stops the copy. A caller with a memory also keeps values for the
next run of the same work, after a crash for one. This module knows neither side.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol


class Memory(Protocol):
    """What keeps values of a piece of work."""

    @property
    def checkpoints(self) -> Mapping[str, Any]:
        """What was kept, by an earlier run too."""

    def keep(self, **data: Any) -> None:
        """Remember JSON values; they are safe once the next report of progress has returned, or a later one."""


_receiver: contextvars.ContextVar[Callable[[float], None] | None] = contextvars.ContextVar("progress", default=None)
_memory: contextvars.ContextVar[Memory | None] = contextvars.ContextVar("memory", default=None)


@contextlib.contextmanager
def reporting(receiver: Callable[[float], None], memory: Memory | None = None) -> Iterator[None]:
    """Send the reports of drivers called inside to ``receiver``; for this thread (or green thread) only.

    :param memory: where they keep how far they are, None for nowhere: they then begin anew.
    """
    token, kept_token = _receiver.set(receiver), _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(kept_token)
        _receiver.reset(token)


def kept(name: str) -> Any:
    """Return the value that an earlier run of this work kept under ``name``, or None."""
    memory = _memory.get()
    return None if memory is None else memory.checkpoints.get(name)


def keep(name: str, value: Any) -> None:
    """Keep a JSON value for a later run of this work, if the caller has a memory."""
    memory = _memory.get()
    if memory is not None:
        memory.keep(**{name: value})


def report(fraction: float) -> None:
    """Say that ``fraction`` (0 to 1) of the work is done; without a receiver nothing happens."""
    receiver = _receiver.get()
    if receiver is not None:
        receiver(fraction)

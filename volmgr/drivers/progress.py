# SPDX-License-Identifier: Apache-2.0
"""How a driver's verb tells how far it is, although the verbs' signatures have no place for that.

The caller says where reports go for the length of a call; a driver that copies reports. What the receiver raises
(Cancelled, LeaseLost) passes through the driver and so stops the copy. This module knows neither side.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator

_receiver: contextvars.ContextVar[Callable[[float], None] | None] = contextvars.ContextVar("progress", default=None)


@contextlib.contextmanager
def reporting(receiver: Callable[[float], None]) -> Iterator[None]:
    """Send the reports of drivers called inside to ``receiver``; for this thread (or green thread) only."""
    token = _receiver.set(receiver)
    try:
        yield
    finally:
        _receiver.reset(token)


def report(fraction: float) -> None:
    """Say that ``fraction`` (0 to 1) of the work is done; without a receiver nothing happens."""
    receiver = _receiver.get()
    if receiver is not None:
        receiver(fraction)

# SPDX-License-Identifier: Apache-2.0
"""Waiting in tests: poll a condition until it holds, with a deadline and an error that tells what was last seen.

A test that sleeps is either slow or unreliable. This module knows nothing of what is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

FIRST_PAUSE_SECONDS = 0.005
LONGEST_PAUSE_SECONDS = 0.1


class WaitTimeout(AssertionError):
    """The condition did not hold in time; an assertion error, so that a test that waits *fails*.

    :param what: what was waited for, in words.
    :param timeout_seconds: how long.
    :param last: the last value of the condition, or the last exception that it was allowed to raise.
    """

    def __init__(self, what: str, timeout_seconds: float, last: object) -> None:
        self.what = what
        self.timeout_seconds = timeout_seconds
        self.last = last
        super().__init__(f"{what}: not within {timeout_seconds:g} s; last seen: {last!r}")


def wait_until(
    condition: Callable[[], Value],
    timeout_seconds: float,
    what: str,
    *,
    retry_on: type[Exception] | tuple[type[Exception], ...] = (),
) -> Value:
    """Call ``condition`` until its value is true, and return that value.

    The pauses grow from 5 ms to 100 ms. The condition is called at least once, and once more after the deadline has
    passed in a pause, so a machine that stalls does not fail a condition that holds by then.

    :param condition: cheap, or with a deadline of its own: it is never interrupted.
    :param timeout_seconds: the deadline, from now.
    :param what: what is waited for, in words, for the error.
    :param retry_on: exceptions of the condition that mean "not yet"; every other one is raised at once.
    :raises WaitTimeout: the deadline passed; its ``last`` is the last value or the last allowed exception.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        final = time.monotonic() >= deadline
        last: object
        cause: Exception | None = None
        try:
            value = condition()
        except retry_on as error:
            last = cause = error
        else:
            if value:
                return value
            last = value
        if final:
            raise WaitTimeout(what, timeout_seconds, last) from cause
        time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

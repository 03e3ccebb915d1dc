# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: what goes wrong, at which call, before or after its work. Knows no call.

A fault is a JSON object:

``call``
    the call's name, or ``*``.
``kind``
    ``transient`` (an error that says that it may be tried again), ``error`` (with ``name``, ``descr``, ``status``),
    ``reset`` (the connection is reset without an answer), ``slow`` (``seconds`` pass first), ``held`` (it waits for
    ``POST /contract/release``), ``garbage`` (an answer that is no JSON), ``empty`` (JSON without data), ``hangup``
    (half an answer), ``drip`` (an answer without end, a byte every ``seconds``).
``when``
    ``before`` the work is done (the default), so that it is not; or ``after``, so that only the answer is lost.
``times``, ``skip``
    how often it happens (1 by default), and how many matching calls pass before.
"""

from __future__ import annotations

import threading
from typing import Any

KINDS = ("transient", "error", "reset", "slow", "held", "garbage", "empty", "hangup", "drip")
_KEYS = {"call", "kind", "when", "times", "skip", "name", "descr", "status", "seconds"}


class Faults:
    """The faults that are still to come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[dict[str, Any]] = []

    def set(self, faults: list[dict[str, Any]]) -> None:
        """Replace the faults that are to come.

        :raises ValueError: one has a key or a kind that there is not.
        """
        for fault in faults:
            if set(fault) - _KEYS or fault.get("kind") not in KINDS or fault.get("when", "before") not in _WHEN:
                raise ValueError(f"no such fault: {fault}")
        with self._lock:
            self._faults = [dict(fault) for fault in faults]

    def take(self, call: str, when: str) -> dict[str, Any] | None:
        """Return the fault that happens now, None for none."""
        with self._lock:
            for fault in self._faults:
                if fault.get("call", "*") not in ("*", call) or fault.get("when", "before") != when:
                    continue
                if fault.get("skip", 0) > 0:
                    fault["skip"] -= 1
                    continue
                fault["times"] = fault.get("times", 1) - 1
                if fault["times"] <= 0:
                    self._faults.remove(fault)
                return fault
        return None

    def left(self) -> int:
        """Return how many faults have not happened yet."""
        with self._lock:
            return len(self._faults)


_WHEN = ("before", "after")

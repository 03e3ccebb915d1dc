# SPDX-License-Identifier: Apache-2.0
"""Finds the class of a verb, for the journal's recovery."""

from __future__ import annotations

from typing import Any

from volmgr.operations.base import Operation

_KNOWN: dict[str, type[Operation[Any]]] = {}


def register(cls: type[Operation[Any]]) -> type[Operation[Any]]:
    """Class decorator: make a verb known under its name."""
    if cls.verb in _KNOWN:
        raise TypeError(f"two operations are called {cls.verb}")
    _KNOWN[cls.verb] = cls
    return cls


def find(verb: str, version: int) -> type[Operation[Any]] | None:
    """Return the class that can run a journal row, or None: then the row is left to newer code."""
    cls = _KNOWN.get(verb)
    return cls if cls is not None and version <= cls.version else None


def while_down() -> tuple[str, ...]:
    """Return the verbs that run while their backend is down."""
    return tuple(sorted(verb for verb, cls in _KNOWN.items() if cls.while_down))


def verbs() -> tuple[str, ...]:
    """Return every known verb, sorted."""
    return tuple(sorted(_KNOWN))

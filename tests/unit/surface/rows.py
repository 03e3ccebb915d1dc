# SPDX-License-Identifier: Apache-2.0
"""The promised names, as data: what volmgr must offer under exactly these names. It knows nothing of how it does.

Each row has a section, a kind and a name. ``arguments`` are in order: ``name`` is promised at this place,
``name=value`` with this default (``=?`` with any), what comes after ``*`` by keyword only, ``**`` takes any
further keyword.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "surface.json").read_text(encoding="utf-8"))
ANY = object()


def of(kind: str) -> list[dict[str, Any]]:
    """Return the rows of a kind."""
    return [row for row in ROWS if row["kind"] == kind]


def named(kind: str) -> dict[str, dict[str, Any]]:
    """Return the rows of a kind by name."""
    return {row["name"]: row for row in of(kind)}


@dataclass(frozen=True)
class Promised:
    """What a row says of a verb's arguments.

    :ivar places: the names in order, without those by keyword only. :ivar defaults: by name, ``ANY`` for whatever.
    """

    places: tuple[str, ...]
    keywords: frozenset[str]
    defaults: dict[str, Any]
    more: bool

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.places) | self.keywords


def promised(row: dict[str, Any]) -> Promised:
    """Return a row's arguments, parsed."""
    places: list[str] = []
    keywords: set[str] = set()
    defaults: dict[str, Any] = {}
    only, more = False, False
    for item in row["arguments"]:
        if item.startswith("*"):
            only, more = only or item == "*", more or item.startswith("**")
            continue
        name, given, value = item.partition("=")
        if only:
            keywords.add(name)
        else:
            places.append(name)
        if given:
            defaults[name] = ANY if value == "?" else ast.literal_eval(value)
    return Promised(tuple(places), frozenset(keywords), defaults, more)

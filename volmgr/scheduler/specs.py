# SPDX-License-Identifier: Apache-2.0
"""Extra specs against capabilities: what a spec's text demands of a reported value.

A text without an operator must be equal to the value. Operators, as the field knows them: ``=`` (at least), ``==``,
``!=``, ``>=``, ``<=``, ``>``, ``<`` on numbers; ``s==``, ``s!=``, ``s>=``, ``s>``, ``s<=``, ``s<`` on texts; ``<is>``
on truths; ``<in>`` (the value contains the text); ``<or> a <or> b`` (the value is one of them); ``<all-in> a b`` (the
value, a list, has all of them); ``<range-in> [ 1 10 ]`` with ``(`` or ``)`` for an end that is left out.
A value that is a list passes where one of its items does.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

Predicate = Callable[[Any], bool]

#: keys that are asked of a backend: without a scope, or with this one. Other scopes are the drivers' own.
SCOPE = "capabilities"
_MISSING = object()
_NUMERIC: dict[str, Callable[[float, float], bool]] = {
    "=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_TEXTUAL: dict[str, Callable[[str, str], bool]] = {
    "s==": operator.eq,
    "s!=": operator.ne,
    "s>=": operator.ge,
    "s>": operator.gt,
    "s<=": operator.le,
    "s<": operator.lt,
}
_TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
_RANGE = re.compile(r"\A(?P<left>[\[(])\s*(?P<low>\S+)\s+(?P<high>\S+?)\s*(?P<right>[\])])\Z")


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().lower() in _TRUE


def _numeric(compare: Callable[[float, float], bool], text: str) -> Predicate:
    try:
        wanted = float(text)
    except ValueError:
        return lambda _value: False

    def predicate(value: Any) -> bool:
        try:
            return compare(float(value), wanted)
        except (TypeError, ValueError, OverflowError):
            return False

    return predicate


def _range(text: str) -> Predicate:
    match = _RANGE.match(text)
    if match is None:
        return lambda _value: False
    low = _numeric(operator.ge if match["left"] == "[" else operator.gt, match["low"])
    high = _numeric(operator.le if match["right"] == "]" else operator.lt, match["high"])
    return lambda value: low(value) and high(value)


@functools.lru_cache(4096)
def compiled(text: str) -> Predicate:
    """Return what tells whether a value meets a spec."""
    text = text.strip()
    word, _space, rest = text.partition(" ")
    rest = rest.strip()
    if word == "<or>":
        allowed = frozenset(item.strip() for item in rest.split("<or>"))
        return lambda value: str(value) in allowed
    if word == "<in>":
        return lambda value: rest in str(value)
    if word == "<is>":
        return lambda value: _truth(value) is _truth(rest)
    if word == "<all-in>":
        every = frozenset(rest.split())
        return lambda value: isinstance(value, list | tuple | set | frozenset) and every <= {str(i) for i in value}
    if word == "<range-in>":
        return _range(rest)
    if word in _NUMERIC:
        return _numeric(_NUMERIC[word], rest)
    if word in _TEXTUAL:
        compare = _TEXTUAL[word]
        return lambda value: compare(str(value), rest)
    return lambda value: str(value) == text or (isinstance(value, bool) and _is_truth(text) and _truth(text) is value)


def _is_truth(text: str) -> bool:
    return text.lower() in ("true", "false")


def met(text: str, value: Any) -> bool:
    """Return whether a reported value meets a spec."""
    return _met(compiled(text), value, text)


def _met(predicate: Predicate, value: Any, text: str) -> bool:
    if isinstance(value, list | tuple) and not text.lstrip().startswith("<all-in>"):
        return any(predicate(item) for item in value)
    return predicate(value)


@functools.lru_cache(256)
def _wanted(items: tuple[tuple[str, str], ...]) -> list[tuple[str, tuple[str, ...], str, Predicate]]:
    found = []
    for key, text in items:
        path = tuple(key.split(":"))
        if len(path) > 1:
            if path[0] != SCOPE:
                continue
            path = path[1:]
        found.append((key, path, str(text), compiled(str(text))))
    return found


def wanted(extra_specs: Mapping[str, str]) -> list[tuple[str, tuple[str, ...], str, Predicate]]:
    """Return the specs that a backend must meet: (key, where its value is, text, predicate)."""
    return _wanted(tuple(sorted(extra_specs.items())))


def unmet(extra_specs: Mapping[str, str], capabilities: Mapping[str, Any]) -> tuple[str, str, Any] | None:
    """Return (key, what it demands, what there is) of the first spec that is not met, None where all are.

    A capability that is not reported meets nothing; it is shown as None.
    """
    for key, path, text, predicate in wanted(extra_specs):
        value: Any = capabilities
        for part in path:
            value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is _MISSING or value is None or not _met(predicate, value, text):
            return key, text, None if value is _MISSING else value
    return None

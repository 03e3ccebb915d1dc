# SPDX-License-Identifier: Apache-2.0
"""Strange data for the outer edges: any JSON, and what is nearly right."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

#: texts that have broken parsers: huge numbers, digits of other scripts, ends of lines and of texts, nothing.
WORDS = st.sampled_from([
    "", " ", "\0", "\n", "-", "-1", "0", "1", "1e400", "inf", "nan", "9" * 5000, "٣", "²", "1_0", "0x10", "[]", "{}",
    "[lvol0]", "a" * 300, "\ud800", "None", "True", "iqn.2010-10.org.openstack:volume-x", "\u2028", "%s", "../..",
])  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=20)
    | st.sampled_from([2**63, -(2**63), 10**400, float("inf"), float("nan")])
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | WORDS, inner, max_size=4),
    max_leaves=12,
)
#: JSON that is valid and deeper than any reader's stack.
DEEP = ["[" * 100_000 + "]" * 100_000, '{"report":' * 50_000 + "1" + "}" * 50_000]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, item in value.items():
            found += _places(item, (*path, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            found += _places(item, (*path, index))
    return found


@st.composite
def nearly(draw: st.DrawFn, right: Any) -> Any:
    """Return ``right`` with a few parts replaced by anything, or left out."""
    value = copy.deepcopy(right)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(value)))
        if not path:
            return draw(VALUES)
        inside = value
        for step in path[:-1]:
            inside = inside[step]
        if isinstance(inside, dict) and draw(st.booleans()):
            del inside[path[-1]]
        else:
            inside[path[-1]] = draw(VALUES)
    return value


def dumped(value: Any) -> str:
    """Return JSON as Python writes it, with its NaN and Infinity, which its reader takes as well."""
    return json.dumps(value)


@st.composite
def bent(draw: st.DrawFn, right: bytes) -> bytes:
    """Return ``right`` with bytes changed, put in, cut out, or with its end missing."""
    data = bytearray(right)
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["set", "word", "insert", "cut", "end"])):
            case "set" if data:
                data[place] = draw(st.integers(0, 255))
            case "word":
                word = draw(st.sampled_from([b"\xff" * 4, b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7, b"\x80" * 4]))
                data[place : place + len(word)] = word
            case "insert":
                data[place:place] = draw(st.binary(max_size=16))
            case "cut":
                del data[place : place + draw(st.integers(1, 64))]
            case "end":
                del data[place:]
    return bytes(data)

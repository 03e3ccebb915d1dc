# SPDX-License-Identifier: Apache-2.0
"""What operators and backends say in free text: extra specs, filter and goodness expressions, capabilities."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.edges.strange import VALUES, WORDS
from volmgr import exception
from volmgr.policy.guard import _rules_of
from volmgr.scheduler import expression, specs

#: nothing of it waits for anybody, so that one kind of threads is enough.
pytestmark = pytest.mark.once
OPERATORS = st.sampled_from([
    "<or> ", "<in> ", "<is> ", "<all-in> ", "<range-in> [ ", "<range-in> ( ", "= ", "== ", ">= ", "s== ", "s< ", "< ",
    "",
])  # fmt: skip
SPECS = st.builds("{}{}{}".format, OPERATORS, WORDS | st.text(max_size=12) | st.floats().map(str), OPERATORS | WORDS)
KEYS = st.lists(WORDS | st.sampled_from(["capabilities", "a", "b"]), min_size=1, max_size=5).map(":".join)
CAPABILITIES = st.dictionaries(WORDS | st.sampled_from(["a", "b"]), VALUES, max_size=4)


@given(st.dictionaries(KEYS, SPECS, max_size=4), CAPABILITIES)
@example({"a": "= 1"}, {"a": 10**400})
@example({"a": "<range-in> [ 1 10 ]"}, {"a": [10**400, float("nan")]})
@example({"capabilities:a:b": "<in> x"}, {"a": {"b": [[["x"]]]}})
@settings(max_examples=400)
def test_any_extra_spec_against_any_capability(wanted: dict[str, str], capabilities: dict[str, Any]) -> None:
    missing = specs.unmet(wanted, capabilities)
    assert missing is None or missing[0] in wanted


TOKENS = st.sampled_from([
    "(", ")", "[", "]", "?", ":", ",", ".", "+", "-", "*", "/", "^", "<", "<=", "==", "<>", "!=", "!", "&", "|", "and",
    "or", "not", "abs", "min", "max", "stats", "extra", "volume", "stats.a", "stats.b", 'extra["c:d"]', "volume.size",
    "1", "0", "9" * 30, "1e308", "1e999", "0.1", "'text'", '"1"', "true", "false", "٣", "²", "\0", "__class__",
    "x" * 50,
])  # fmt: skip


@given(
    st.lists(TOKENS, max_size=40).map(" ".join) | st.lists(TOKENS, max_size=12).map("".join) | st.text(max_size=60),
    st.dictionaries(st.sampled_from(["a", "b", "c:d", "size"]), VALUES, max_size=4),
)
@example("(" * 5000, {})
@example("-" * 4000 + "1", {})
@example("not " * 1000 + "1", {})
@example("1" + "^1" * 2000, {})
@example("*".join(["9" * 30] * 130), {})
@example("stats.a * stats.a * stats.a < 'x'", {"a": 10**4000})
@example("9^9^9^9", {})
@example("abs(stats.a) + 1.5", {"a": 10**400})
@example("? 1 : 2" * 300, {})
@settings(max_examples=500)
def test_any_expression(text: str, known: dict[str, Any]) -> None:
    try:
        value = expression.evaluate(text, dict.fromkeys(expression.SCOPES, known))
    except exception.Invalid:
        return
    assert isinstance(value, bool | int | float | str)


@given(st.text(max_size=80) | st.builds("{}: {}".format, WORDS, WORDS) | st.builds("'volume:audit': {}".format, WORDS))
@example("[" * 5000)
@example("a: " + "(" * 5000 + "role:x" + ")" * 5000)
@example("a: &a [*a, *a]\nb: *a")
@example("a: 'not not not role:x'")
@settings(max_examples=200)
def test_any_policy_file(text: str) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="replace") as file:
        file.write(text)
        file.flush()
        try:
            _rules_of(file.name, frozenset({"volume:audit"}))
        except exception.InvalidConfiguration:
            return

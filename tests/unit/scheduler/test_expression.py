# SPDX-License-Identifier: Apache-2.0
"""The language of filter and goodness functions: what it means, that it ends, and that it lets nothing out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volmgr.scheduler import expression

SCOPES: dict[str, dict[str, Any]] = {
    "stats": {"free": 60, "total": 100.0, "name": "fast", "flag": True, "nothing": None, "list": [1]},
    "capabilities": {"total": 200},
    "extra": {"iops": "500", "vendor:tier": "gold"},
    "qos": {"total_iops_sec": "5"},
    "volume": {"size": 10},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 ^ 3 ^ 2", 512.0),
        ("-2 ^ 2", -4.0),
        ("2 ^ -1", 0.5),
        ("7 - 2 - 1", 4),
        ("8 / 4 / 2", 1.0),
        ("--5", 5),
        ("abs(-5) + min(3, 1, 2) + max(1)", 7),
        ("1 < 2 < 3", True),
        ("1 < 3 < 2", False),
        ("1 <> 2 and not 1 == 2", True),
        ("!true | true & false", False),
        ("not not true", True),
        ("true ? 1 : 2", 1),
        ("false ? 1 : true ? 2 : 3", 2),
        ("stats.free / stats.total", 0.6),
        ("capabilities.total > stats.total", True),
        ("extra.iops >= 500", True),
        ("extra['vendor:tier'] == \"gold\"", True),
        ("stats.name == 'fast'", True),
        ("stats.name == 5", False),
        ("stats.flag and volume.size <= 10", True),
        ("qos.total_iops_sec + 1", 6.0),
        ("volume.size < 100 ? 100 : 0", 100),
        ("1.5e2", 150.0),
    ],
)
def test_it_means(text: str, value: Any) -> None:
    assert expression.evaluate(text, SCOPES) == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it ends"),
        ("1 +", "it ends"),
        ("1 2", "too much"),
        ("(1", "')' is missing"),
        ("1 ? 2", "':' is missing"),
        ("stats", "'.' is missing"),
        ("stats.", "a name is missing"),
        ("stats.free.real", "too much"),
        ("stats.__class__", "stats.__class__ is not known"),
        ("os.system('x')", "'os' is not known"),
        ("__import__('os')", "'__import__' is not known"),
        ("[1]", "'[' stands where a value should"),
        ("1 ; 2", "cannot be read"),
        ("'open", "cannot be read"),
        ("abs()", "stands where a value should"),
        ("abs(1, 2)", "abs takes 1 values"),
        ("1 / 0", "zero"),
        ("10 ^ 999", "out of range"),
        ("1e300 * 1e300", "not finite"),
        ("(0 - 8) ^ 0.5", "root of a negative"),
        ("stats.name + 1", "is no number"),
        ("stats.name < 1", "cannot be compared"),
        ("stats.nothing > 1", "neither a number nor a text"),
        ("stats.list", "neither a number nor a text"),
        ("9" * 31, "too much"),
        ("1 + " * 1100 + "1", "characters"),
        ("(" * 50 + "1" + ")" * 50, "levels deep"),
        ("2 ^ " * 50 + "2", "levels deep"),
    ],
)
def test_what_is_wrong_is_told(text: str, told: str) -> None:
    with pytest.raises(expression.ExpressionError) as refused:
        expression.evaluate(text, SCOPES)
    assert told in refused.value.message


NUMBER = st.integers(0, 50).map(str)


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(" ".join),
        st.tuples(inner, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), inner).map(lambda p: f"({' '.join(p)})"),
        inner.map(lambda text: f"(not {text})"),
        inner.map(lambda text: f"(-{text})"),
        inner.map(lambda text: f"abs({text})"),
        st.tuples(inner, inner).map(lambda pair: f"max({pair[0]}, {pair[1]})"),
    )


PARTS = st.recursive(NUMBER, grown, max_leaves=10)


@given(PARTS)
def test_what_python_can_read_too_means_the_same(text: str) -> None:
    wanted = eval(text, {"__builtins__": {}}, {"abs": abs, "max": max})  # made above, of numbers alone
    assert expression.evaluate(text, SCOPES) == wanted


@given(st.lists(PARTS, min_size=1, max_size=5), st.data())
def test_and_binds_more_than_or_and_not_more_than_both(parts: list[str], data: st.DataObject) -> None:
    text = parts[0]
    for part in parts[1:]:
        text += data.draw(st.sampled_from([" and ", " or ", " and not ", " or not "])) + part
    assert bool(expression.evaluate(text, SCOPES)) is bool(eval(text, {"__builtins__": {}}, {"abs": abs, "max": max}))


@given(st.text("0123456789.eE+-*/^<>=!&|?:(),[]'\" statsvolume_freeanrot", max_size=80))
@settings(max_examples=500)
def test_no_text_does_anything_but_have_a_value_or_be_wrong(text: str) -> None:
    try:
        value = expression.evaluate(text, SCOPES)
    except expression.ExpressionError:
        return
    assert isinstance(value, bool | int | float | str)

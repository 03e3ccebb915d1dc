# SPDX-License-Identifier: Apache-2.0
"""Extra specs against capabilities, compared with oslo.utils' own reading of the same language."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oslo_utils import specs_matcher

from volmgr.scheduler import specs

NUMBERS = st.integers(-1000, 1000) | st.floats(-1000, 1000, allow_nan=False).map(lambda value: round(value, 3))
WORDS = st.text("abc123", min_size=1, max_size=4)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, str]:
    """A value and a spec that both libraries can read."""
    kind = draw(st.sampled_from(["number", "text", "or", "in", "all", "range", "plain"]))
    if kind == "number":
        sign = draw(st.sampled_from(["=", "==", "!=", ">=", "<=", ">", "<"]))
        return draw(NUMBERS), f"{sign} {draw(NUMBERS)}"
    if kind == "text":
        return draw(WORDS), f"{draw(st.sampled_from(['s==', 's!=', 's>=', 's>', 's<=', 's<']))} {draw(WORDS)}"
    if kind == "or":
        return draw(WORDS), " ".join(f"<or> {word}" for word in draw(st.lists(WORDS, min_size=1, max_size=4)))
    if kind == "in":
        return draw(WORDS), f"<in> {draw(WORDS)}"
    if kind == "all":
        words = draw(st.lists(WORDS, min_size=1, max_size=3))
        return draw(st.lists(WORDS, max_size=4)), f"<all-in> {' '.join(words)}"
    if kind == "range":
        low, high = sorted([draw(NUMBERS), draw(NUMBERS)])
        left, right = draw(st.sampled_from("[(")), draw(st.sampled_from("])"))
        return draw(NUMBERS), f"<range-in> {left} {low} {high} {right}"
    return draw(WORDS), draw(WORDS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:oslo_utils")
@given(cases())
@example((5, "= 5"))
@example((5, "<range-in> ( 5 9 ]"))
def test_it_reads_as_the_library_does(case: tuple[Any, str]) -> None:
    value, text = case
    assert specs.compiled(text)(value) == bool(specs_matcher.match(str(value), text))


@pytest.mark.parametrize(
    ("text", "value", "met"),
    [
        ("<is> True", True, True),
        ("<is> True", "true", True),
        ("<is> True", "no", False),
        ("<is> False", False, True),
        ("<is> False", True, False),
        ("True", True, True),
        ("False", True, False),
        ("true", "True", False),
        (">= 5", "fast", False),
        (">= fast", 5, False),
        ("<range-in> 1 10", 5, False),
        ("<or> iSCSI <or> FC", ["NVMe", "FC"], True),
        ("<or> iSCSI <or> FC", ["NVMe"], False),
        ("<all-in> a b", ["b", "a", "c"], True),
        ("<all-in> a d", ["b", "a", "c"], False),
        ("<all-in> a", "a", False),
        ("", "", True),
    ],
)
def test_what_the_library_does_not_read(text: str, value: Any, met: bool) -> None:
    assert specs.met(text, value) is met


@given(st.text(max_size=40), st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.lists(WORDS, max_size=2))
def test_no_spec_is_an_error(text: str, value: Any) -> None:
    assert isinstance(specs.met(text, value), bool)


def test_the_first_unmet_one_is_told() -> None:
    reported = {"tier": 3, "qos": {"support": {"iops": True}}, "none": None}
    assert specs.unmet({"tier": ">= 3", "capabilities:qos:support:iops": "<is> True"}, reported) is None
    assert specs.unmet({"tier": ">= 4"}, reported) == ("tier", ">= 4", 3)
    assert specs.unmet({"lacking": "<is> False"}, reported) == ("lacking", "<is> False", None)
    assert specs.unmet({"none": "<is> False"}, reported) == ("none", "<is> False", None)
    assert specs.unmet({"capabilities:tier:deep": "1"}, reported) == ("capabilities:tier:deep", "1", None)
    # Another scope is a driver's own affair.
    assert specs.unmet({"sim:tier": "9", "provisioning:type": "thick"}, reported) is None

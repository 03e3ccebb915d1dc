# SPDX-License-Identifier: Apache-2.0
"""Reads the report that pytest wrote inside a guest, so that the machine's own run can tell each test's outcome.

Source: the JUnit XML that ``pytest --junitxml`` writes. This module must not know where the file came from.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass

PASSED = "passed"
FAILED = "failed"
ERROR = "error"
SKIPPED = "skipped"
_TAGS = {"failure": FAILED, "error": ERROR, "skipped": SKIPPED}
_WORST_FIRST = (ERROR, FAILED, SKIPPED)


@dataclass(frozen=True)
class Case:
    """One test.

    :param name: its class or module, and its name.
    :param outcome: one of the constants of this module.
    :param seconds: duration by the guest's clock, with its fixtures.
    :param detail: why it failed or was skipped.
    """

    name: str
    outcome: str
    seconds: float
    detail: str = ""


def parse(junit_xml: bytes) -> tuple[Case, ...]:
    """Return the tests of a report, in their order.

    :param junit_xml: the content of the file.
    :raises xml.etree.ElementTree.ParseError: it is not XML.
    """
    return tuple(_case(element) for element in ElementTree.fromstring(junit_xml).iter("testcase"))


def table(cases: tuple[Case, ...]) -> str:
    """Return one line per test: outcome, seconds, name."""
    return "\n".join(f"{case.outcome:8} {case.seconds:7.1f} s  {case.name}" for case in cases)


def _case(element: ElementTree.Element) -> Case:
    name = f"{element.get('classname', '')}::{element.get('name', '')}"
    found = {_TAGS[child.tag]: child for child in element if child.tag in _TAGS}
    outcome = next((outcome for outcome in _WORST_FIRST if outcome in found), PASSED)
    detail = ""
    if outcome in found:
        detail = f"{found[outcome].get('message', '')}\n{found[outcome].text or ''}".strip()
    return Case(name, outcome, float(element.get("time", "0")), detail)

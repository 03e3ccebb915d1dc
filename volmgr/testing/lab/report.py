# SPDX-License-Identifier: Apache-2.0
"""Reads the report that pytest wrote inside a guest, so that the machine's own run can tell each test's outcome.

Source: the JUnit XML that ``pytest --junitxml`` writes. This module must not know where the file came from.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

PASSED = "passed"
FAILED = "failed"
ERROR = "error"
SKIPPED = "skipped"
_TAGS = {"failure": FAILED, "error": ERROR, "skipped": SKIPPED}
NOT_APPLICABLE = "does not apply: "
"""How the reason of a skip begins that says something of the driver; no machine could run such a test."""
ALONE = "alone"
DRIVERS, TARGETS = ("file", "sim"), ("lio", "tgt", "aoe", "iser", "fc")
_LVM = re.compile(r"\blvm\b(?:-(thin-mirrored|thick|thin|mirrored))?")
_WORST_FIRST = (ERROR, FAILED, SKIPPED)


@dataclass(frozen=True)
class Case:
    """One test.

    :param name: its class or module, and its name.
    :param outcome: one of the constants of this module.
    :param seconds: duration by the guest's clock, with its fixtures.
    :param detail: why it failed or was skipped.
    :param properties: what it said of itself by pytest's ``record_property``.
    """

    name: str
    outcome: str
    seconds: float
    detail: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)


def parse(junit_xml: bytes) -> tuple[Case, ...]:
    """Return the tests of a report, in their order.

    :param junit_xml: the content of the file.
    :raises xml.etree.ElementTree.ParseError: it is not XML.
    """
    return tuple(_case(element) for element in ElementTree.fromstring(junit_xml).iter("testcase"))


def table(cases: tuple[Case, ...]) -> str:
    """Return one line per test: outcome, seconds, name."""
    return "\n".join(f"{case.outcome:8} {case.seconds:7.1f} s  {case.name}" for case in cases)


def matrix(cases: tuple[Case, ...]) -> str:
    """Return a table of driver and target, empty if no test tells of a driver.

    A cell counts the tests that passed, failed, and do not apply to the driver; those that were skipped for another
    reason, so that nothing is known, are told beside them. A test tells by its properties ``driver`` and ``target``, or
    by the ids of its parameters: file, lvm-thin, lvm-thick, lvm-mirrored, lvm-thin-mirrored; lio, tgt. Without a
    target the driver is by itself.
    """
    cells: dict[tuple[str, str], Counter[str]] = {}
    for case in cases:
        driver, target = _told(case)
        if driver:
            cells.setdefault((driver, target or ALONE), Counter())[_counted(case)] += 1
    if not cells:
        return ""
    drivers = sorted({driver for driver, _ in cells})
    targets = [name for name in (ALONE, *TARGETS) if any(name == target for _, target in cells)]
    rows = [[driver, *(_cell(cells.get((driver, name))) for name in targets)] for driver in drivers]
    widths = [max(map(len, column)) for column in zip(*rows, ["driver", *targets], strict=True)]
    lines = [
        row[0].ljust(widths[0]) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in [["driver", *targets], *rows]
    ]
    return "\n".join(["passed / failed / does not apply, by driver and target:", *lines])


def _counted(case: Case) -> str:
    if case.outcome == SKIPPED:
        return NOT_APPLICABLE if case.detail.startswith(NOT_APPLICABLE) else SKIPPED
    return PASSED if case.outcome == PASSED else FAILED


def _cell(counts: Counter[str] | None) -> str:
    if counts is None:
        return "-"
    told = f"{counts[PASSED]} / {counts[FAILED]} / {counts[NOT_APPLICABLE]}"
    return f"{told} ({counts[SKIPPED]} skipped)" if counts[SKIPPED] else told


def _told(case: Case) -> tuple[str, str]:
    driver, target = case.properties.get("driver", ""), case.properties.get("target", "")
    parameters = case.name.partition("[")[2].rstrip("]")
    words = parameters.split("-")
    if match := _LVM.search(parameters):
        driver = f"lvm-{match[1] or 'thin'}"
    driver = next((word for word in words if word in DRIVERS), driver)
    return driver, next((word for word in words if word in TARGETS), target)


def _case(element: ElementTree.Element) -> Case:
    name = f"{element.get('classname', '')}::{element.get('name', '')}"
    found = {_TAGS[child.tag]: child for child in element if child.tag in _TAGS}
    outcome = next((outcome for outcome in _WORST_FIRST if outcome in found), PASSED)
    detail = ""
    if outcome in found:
        detail = f"{found[outcome].get('message', '')}\n{found[outcome].text or ''}".strip()
    properties = {item.get("name", ""): item.get("value", "") for item in element.iter("property")}
    return Case(name, outcome, float(element.get("time", "0")), detail, properties)

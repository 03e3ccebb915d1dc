# SPDX-License-Identifier: Apache-2.0
"""Reads the report that pytest wrote inside a guest, so that the machine's own run can tell each test's outcome.

Source: the JUnit XML that ``pytest --junitxml`` writes. This module must not know where the file came from.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field

PASSED = "passed"
FAILED = "failed"
ERROR = "error"
SKIPPED = "skipped"
_TAGS = {"failure": FAILED, "error": ERROR, "skipped": SKIPPED}
ALONE = "alone"
DRIVERS, TARGETS = ("file", "sim"), ("lio", "tgt", "aoe", "iser", "fc")
LVM_KINDS = ("thin", "thick", "mirror", "mirrored")
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
    """Return a table of driver and target: how many tests passed of those that ran; empty if none tells of a driver.

    A test tells by its properties ``driver`` and ``target``, or by words in the ids of its parameters: file, lvm-thin,
    lvm-thick, lvm-mirror; lio, tgt. Without a target the driver is by itself.
    """
    cells: dict[tuple[str, str], list[bool]] = {}
    for case in cases:
        driver, target = _told(case)
        if driver and case.outcome != SKIPPED:
            cells.setdefault((driver, target or ALONE), []).append(case.outcome == PASSED)
    if not cells:
        return ""
    drivers = sorted({driver for driver, _ in cells})
    targets = [name for name in (ALONE, *TARGETS) if any(name == target for _, target in cells)]
    lines = [f"{'driver':14}" + "".join(f"{name:>12}" for name in targets)]
    for driver in drivers:
        lines.append(f"{driver:14}" + "".join(f"{_cell(cells.get((driver, name))):>12}" for name in targets))
    return "\n".join(["passed of run, by driver and target:", *lines])


def _cell(results: list[bool] | None) -> str:
    if results is None:
        return "-"
    return f"{sum(results)}/{len(results)}" + ("" if all(results) else " FAILED")


def _told(case: Case) -> tuple[str, str]:
    words = case.name.partition("[")[2].rstrip("]").split("-")
    driver, target = case.properties.get("driver", ""), case.properties.get("target", "")
    for index, word in enumerate(words):
        if word == "lvm":
            kind = words[index + 1] if index + 1 < len(words) and words[index + 1] in LVM_KINDS else LVM_KINDS[0]
            driver = f"lvm-{kind}"
        elif word in DRIVERS:
            driver = word
        elif word in TARGETS:
            target = word
    return driver, target


def _case(element: ElementTree.Element) -> Case:
    name = f"{element.get('classname', '')}::{element.get('name', '')}"
    found = {_TAGS[child.tag]: child for child in element if child.tag in _TAGS}
    outcome = next((outcome for outcome in _WORST_FIRST if outcome in found), PASSED)
    detail = ""
    if outcome in found:
        detail = f"{found[outcome].get('message', '')}\n{found[outcome].text or ''}".strip()
    properties = {item.get("name", ""): item.get("value", "") for item in element.iter("property")}
    return Case(name, outcome, float(element.get("time", "0")), detail, properties)

# SPDX-License-Identifier: Apache-2.0
"""The matrix of transports is made of what each test came to, and of nothing else."""

from __future__ import annotations

from volmgr.testing.fabric.__main__ import matrix
from volmgr.testing.lab.report import FAILED, PASSED, SKIPPED, Case


def case(name: str, outcome: str) -> Case:
    return Case(f"tests.fabric.inside.test_transports::{name}", outcome, 1.0)


def test_each_cell_is_a_tests_outcome() -> None:
    table = matrix(
        [
            case("test_login[fibre_channel]", PASSED),
            case("test_login[aoe]", FAILED),
            case("test_grows_in_use[fibre_channel]", SKIPPED),
            case("test_of_no_transport", PASSED),
        ]
    )
    rows = [line.split("  ") for line in table.splitlines()]
    assert [[cell.strip() for cell in row if cell.strip()] for row in rows] == [
        ["check", "aoe", "fibre_channel"],
        ["login", "failed", "passed"],
        ["grows in use", "-", "skipped"],
    ]

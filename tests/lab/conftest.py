# SPDX-License-Identifier: Apache-2.0
"""Divides the lab's tests: those of ``inside`` and ``faults`` run in a guest only, the others on the machine only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from volmgr.testing.lab.guest import GUEST_ENV

_HERE = Path(__file__).parent

collect_ignore = ["test_guest.py", "test_harness.py"] if os.environ.get(GUEST_ENV) else ["inside", "faults"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lab: needs a kernel that the harness boots (Debian package user-mode-linux)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.lab)

# SPDX-License-Identifier: Apache-2.0
"""Pages of workers, which are sorted and cut in memory."""

from __future__ import annotations

from typing import Any

import pytest

from volmgr.db.services import page

WORKERS = [
    {"host": "c@x", "state": "up", "availability_zone": None},
    {"host": "a@x", "state": "up", "availability_zone": "two"},
    {"host": "d@x", "state": "down", "availability_zone": "one"},
    {"host": "b@x", "state": "up", "availability_zone": "one"},
]


@pytest.mark.parametrize(
    ("asked", "hosts"),
    [
        ({}, "abcd"),
        ({"sort_dirs": ["desc"]}, "dcba"),
        ({"filters": {"state": "up"}}, "abc"),
        ({"filters": {"state": "up", "availability_zone": "one"}}, "b"),
        ({"sort_keys": ["availability_zone"]}, "cbda"),
        ({"sort_keys": ["availability_zone", "host"], "sort_dirs": ["asc", "desc"]}, "cdba"),
        ({"limit": 2}, "ab"),
        ({"limit": 2, "marker": "b@x"}, "cd"),
        ({"marker": "d@x"}, ""),
        ({"marker": "gone@x"}, ""),
    ],
)
def test_a_page_is_what_was_asked_for(asked: dict[str, Any], hosts: str) -> None:
    assert [item["host"][0] for item in page(WORKERS, **asked)] == list(hosts)

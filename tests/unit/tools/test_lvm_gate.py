# SPDX-License-Identifier: Apache-2.0
"""What keeps LVM from gates, what gates are called, and what the kernel is asked. The rest is proved in the lab."""

from __future__ import annotations

import re

import pytest

from volmgr import names
from volmgr.tools import lvm_dm, lvm_gate
from volmgr.tools.guardian_main import dm_request

OBJECT = "0e2d1c3a-7d55-4f59-9b0a-3d1f3c5d7e11"


@pytest.mark.parametrize(
    ("configured", "kept"),
    [
        ("", []),
        ('global_filter=["a|.*|"]\n', ["a|.*|"]),
        ('global_filter=["a|^/dev/sd[ab]$|","r|.*|"]\n', ["a|^/dev/sd[ab]$|", "r|.*|"]),
        (f'global_filter=["{lvm_gate.FILTER}","r|^/dev/drbd|"]\n', ["r|^/dev/drbd|"]),
    ],
)
def test_lvm_is_kept_from_gates_and_else_looks_where_it_did(configured: str, kept: list[str]) -> None:
    setting = lvm_gate.filter_setting(configured)
    name, _, value = setting.partition("=")
    assert name == "devices/global_filter"
    assert re.findall(r'"([^"]*)"', value) == [lvm_gate.FILTER, *kept]


def test_the_filter_is_for_gates_and_nothing_else() -> None:
    pattern = re.compile(lvm_gate.FILTER.removeprefix("r|").removesuffix("|"))
    assert pattern.search(f"/dev/mapper/{names.gate_name('vg-one', OBJECT)}")
    for other in ("/dev/mapper/vg-volume--1", "/dev/sda", "/dev/vg/volmgr-gate-1"):
        assert not pattern.search(other)


def test_a_gate_is_told_from_those_of_other_groups() -> None:
    assert names.gate_name("vg", OBJECT) == f"{names.gate_prefix('vg')}{OBJECT}"
    assert not names.gate_name("other", OBJECT).startswith(names.gate_prefix("vg"))
    with pytest.raises(ValueError, match="no gate name"):
        names.gate_name("vg", "../x")


@pytest.mark.parametrize(("major", "minor"), [(253, 0), (253, 255), (253, 256), (254, 4097)])
def test_the_guardian_asks_for_a_device_as_the_kernel_numbers_it(major: int, minor: int) -> None:
    header = lvm_dm._HEADER.unpack(dm_request(major, minor, 2))
    assert header[:3] == (4, 0, 0)
    assert header[7] == 2
    number = header[10]
    assert ((number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)) == (major, minor)

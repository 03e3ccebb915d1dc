# SPDX-License-Identifier: Apache-2.0
"""What thin_delta says, as ranges of bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volmgr import exception
from volmgr.tools.thin_delta import Ranges, parse

#: as version 0.9.0 of thin-provisioning-tools prints it.
TEXT = """<superblock uuid="" time="2" transaction="3" data_block_size="128" nr_data_blocks="1600">
  <diff left="1" right="2">
    <same begin="0" length="10"/>
    <different begin="10" length="2"/>
    <right_only begin="12" length="1"/>
    <same begin="13" length="7"/>
    <left_only begin="40" length="1"/>
  </diff>
</superblock>
"""
KIB64 = 64 * 1024


def test_runs_that_touch_are_one_range() -> None:
    found = parse(TEXT)
    assert found == Ranges((10 * KIB64, 40 * KIB64), (13 * KIB64, 41 * KIB64))
    assert not found.touch(0, 10 * KIB64)
    assert found.touch(0, 10 * KIB64 + 1)
    assert found.touch(13 * KIB64 - 1, 1)
    assert not found.touch(13 * KIB64, 27 * KIB64)
    assert found.touch(0, 100 * KIB64)
    assert not found.touch(41 * KIB64, KIB64)


@pytest.mark.parametrize("text", ["", "no", "<superblock/>", TEXT.replace('begin="10"', 'begin="x"'), TEXT[:200]])
def test_another_form_is_not_taken_for_no_change(text: str) -> None:
    with pytest.raises(exception.Inconsistent):
        parse(text)


@given(st.sets(st.integers(0, 40)), st.integers(0, 45), st.integers(1, 9))
def test_a_range_is_touched_where_a_block_is(blocks: set[int], offset: int, length: int) -> None:
    runs = "".join(f'<different begin="{block}" length="1"/>' for block in blocks)
    found = parse(f'<superblock data_block_size="1"><diff left="1" right="2">{runs}</diff></superblock>')
    wanted = any(offset <= block < offset + length for block in blocks)
    assert found.touch(offset * 512, length * 512) == wanted

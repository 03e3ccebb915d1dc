# SPDX-License-Identifier: Apache-2.0
"""The contract server's bytes: files and memory hold the same, whatever is done to them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from volmgr.testing.storpool.blocks import Blocks, MemoryBlocks

UNIT, NUMBERS, LARGEST = 512, st.integers(1, 3), 40
SIZES = st.integers(1, LARGEST).map(lambda count: count * UNIT)
ACTS = st.one_of(
    st.tuples(st.just("create"), NUMBERS, SIZES),
    st.tuples(st.just("grow"), NUMBERS, SIZES),
    st.tuples(st.just("write"), NUMBERS, st.integers(0, LARGEST * UNIT - 1), st.binary(min_size=1, max_size=3 * UNIT)),
    st.tuples(st.just("copy"), NUMBERS, NUMBERS, SIZES),
    st.tuples(st.just("remove"), NUMBERS),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTS, max_size=12))
def test_files_and_memory_hold_the_same(acts: list[tuple[str, int, int, int | bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files, memory, sizes = Blocks(Path(folder)), MemoryBlocks(), dict[int, int]()
        for act in acts:
            _do(act, files, sizes)
            _do(act, memory, sizes)
            _note(act, sizes)
            assert files.numbers() == memory.numbers() == set(sizes)
        twin = memory.twin()
        for number, size in sizes.items():
            whole = files.path(number).read_bytes()
            assert len(whole) == size
            assert whole == memory.read(number, 0, size) == twin.read(number, 0, size)
            memory.write(number, 0, b"not the twin's")
            assert twin.read(number, 0, size) == whole


def _do(act: tuple[object, ...], blocks: Blocks | MemoryBlocks, sizes: dict[int, int]) -> None:
    """Do what makes sense: what is not there is not changed, and nothing is written behind an end."""
    match act:
        case ("create", int(number), int(size)) if number not in sizes:
            blocks.create(number, size)
        case ("grow", int(number), int(size)) if sizes.get(number, size) < size:
            blocks.resize(number, size)
        case ("write", int(number), int(offset), bytes(data)) if offset + len(data) <= sizes.get(number, 0):
            blocks.write(number, offset, data)
        case ("copy", int(source), int(number), int(size)) if source != number and sizes.get(source, size + 1) <= size:
            blocks.copy(source, number, size)
        case ("remove", int(number)):
            blocks.remove(number)


def _note(act: tuple[object, ...], sizes: dict[int, int]) -> None:
    match act:
        case ("create", int(number), int(size)):
            sizes.setdefault(number, size)
        case ("grow", int(number), int(size)) if number in sizes:
            sizes[number] = max(sizes[number], size)
        case ("copy", int(source), int(number), int(size)) if source != number and sizes.get(source, size + 1) <= size:
            sizes[number] = size
        case ("remove", int(number)):
            sizes.pop(number, None)

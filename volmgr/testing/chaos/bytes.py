# SPDX-License-Identifier: Apache-2.0
"""What tenants write into volumes, and the proof that nothing else is in them.

A volume has a few slots of a block each, some behind the first GiB; a block is one text over and over. All else must be
zeros, of which a sparse file has none to read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from volmgr.types import GiB, MiB

BLOCK = 4096
SLOTS = 8
_CHUNK = 4 * MiB


def offset_of(slot: int) -> int:
    """Return where a slot lies: some beside each other, some far apart, some behind the first GiB."""
    return (slot // 4) * GiB + (0, BLOCK, 17 * MiB, GiB - BLOCK)[slot % 4]


def block_of(text: str) -> bytes:
    """Return the block that holds a text."""
    raw = text.encode()
    return (raw * (BLOCK // len(raw) + 1))[:BLOCK]


def wrong_bytes(path: Path, wanted: dict[int, str]) -> list[str]:
    """Return how a volume's file or device differs from what was written, in words.

    :param wanted: the text in each slot that was written.
    """
    left = {offset_of(slot): text for slot, text in wanted.items()}
    found: list[str] = []
    for offset, data in _data(path):
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            text = left.pop(offset + start, None)
            if text is not None and block != block_of(text):
                found.append(f"{path.name} at {offset + start} has {block[:60]!r}, {text!r} was written")
            elif text is None and block.strip(b"\0"):
                found.append(f"{path.name} at {offset + start} has {block[:60]!r}, nobody wrote there")
    return found + [f"{path.name} at {offset} has nothing, {text!r} was written" for offset, text in left.items()]


def _data(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) of what is no hole, from block to block."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if path.is_block_device():
            # A device has no holes to skip: only the slots are read, written or not.
            for slot in range(SLOTS):
                if data := os.pread(fd, BLOCK, offset_of(slot)):
                    yield offset_of(slot), data
            return
        end, position = os.lseek(fd, 0, os.SEEK_END), 0
        while position < end:
            try:
                position = os.lseek(fd, position, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                return  # nothing but a hole is left
            stop = os.lseek(fd, position, os.SEEK_HOLE)
            while position < stop:
                data = os.pread(fd, min(_CHUNK, stop - position), position)
                yield position, data
                position += max(BLOCK, len(data))
    finally:
        os.close(fd)

# SPDX-License-Identifier: Apache-2.0
"""Which bytes of two thin volumes of one pool may differ, as the pool's own metadata tells, without reading the bytes.

The kernel keeps a frozen copy of the metadata for the time (a "metadata snapshot": its admin-guide/device-mapper,
thin-provisioning), and ``thin_delta`` of thin-provisioning-tools compares two mapping trees in it. Two blocks that
share their space are the same; of any others nothing is promised. It knows no volumes and no backups.
"""

from __future__ import annotations

import bisect
import contextlib
import logging
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from volmgr import exception
from volmgr.tools import lvm_dm, process

LOG = logging.getLogger(__name__)

SECTOR = 512
_RESERVE, _RELEASE = "reserve_metadata_snap", "release_metadata_snap"
#: A pool has one metadata snapshot at a time.
_one = threading.Lock()


@dataclass(frozen=True)
class Ranges:
    """Ranges of bytes that may differ, in order, none touching the next.

    :ivar starts: where each begins. :ivar ends: where each ends.
    """

    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def touch(self, offset: int, length: int) -> bool:
        """Return whether any of these bytes is in one of the ranges."""
        place = bisect.bisect_right(self.ends, offset)
        return place < len(self.starts) and self.starts[place] < offset + length


def parse(text: str) -> Ranges:
    """Return what ``thin_delta`` prints: an XML tree of runs of blocks.

    :raises Inconsistent: it has another form.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314 - of a program of this machine, not of a stranger
        block = int(root.attrib["data_block_size"]) * SECTOR
        (diff,) = root.findall("diff")
        runs = [(int(run.attrib["begin"]), int(run.attrib["length"])) for run in diff if run.tag != "same"]
    except (ET.ParseError, KeyError, ValueError) as error:
        raise exception.Inconsistent(f"thin_delta's answer is not understood: {error}") from error
    starts: list[int] = []
    ends: list[int] = []
    for begin, length in sorted(runs):
        start, end = begin * block, (begin + length) * block
        if ends and start <= ends[-1]:
            ends[-1] = max(end, ends[-1])
        else:
            starts.append(start)
            ends.append(end)
    return Ranges(tuple(starts), tuple(ends))


def compare(
    group: str, pool: str, volumes: Sequence[str], *, note: Path, timeout: float, lock_fd: int | None = None
) -> Ranges:
    """Return in which bytes two active thin volumes of a pool may differ.

    :param volumes: the names of the two. :param note: a file that exists while the pool's metadata is frozen for us,
        so that whoever comes after a death lets it go. :param timeout: seconds.
    :param lock_fd: a descriptor that the tool holds open while it runs.
    :raises Unsupported: they are not both of this pool. :raises Busy: somebody else has the metadata frozen.
    :raises Inconsistent: the tool has failed.
    """
    found = [lvm_dm.thin_device(group, volume) for volume in volumes]
    if None in found or len({item.pool for item in found if item is not None}) != 1:
        raise exception.Unsupported(f"{' and '.join(volumes)} are not thin volumes of one pool", verb="thin_delta")
    first, second = (str(item.number) for item in found if item is not None)
    device = f"/dev/mapper/{lvm_dm.device_name(group, f'{pool}_tmeta')}"
    with _one, _frozen(lvm_dm.pool_device(group, pool), note):
        argv = ["thin_delta", "--metadata-snap", "--thin1", first, "--thin2", second, device]
        done = process.run(argv, timeout=timeout, stdin=lock_fd)
    if done.status != 0:
        raise exception.Inconsistent(f"thin_delta failed with {done.status}: {done.stderr.strip()[:300]}")
    return parse(done.stdout)


@contextlib.contextmanager
def _frozen(pool: str, note: Path) -> Iterator[None]:
    """Keep a copy of a pool's metadata as it is now, for readers outside the kernel."""
    if note.exists():
        LOG.warning("The metadata of %s was left frozen by an earlier life and is let go", pool)
        _let_go(pool, note)
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    note.touch(mode=0o600)
    try:
        lvm_dm.message(pool, _RESERVE)
    except OSError as error:
        note.unlink()
        raise exception.Busy(
            f"The metadata of {pool} cannot be frozen: {error.strerror}",
            hint=f"If nobody reads it: dmsetup message {pool} 0 {_RELEASE}", resource="pool", id=pool,
        ) from error
    try:
        yield
    finally:
        _let_go(pool, note)


def _let_go(pool: str, note: Path) -> None:
    try:
        lvm_dm.message(pool, _RELEASE)
    except OSError as error:
        LOG.info("The metadata of %s was not frozen any more: %s", pool, error.strerror)
    note.unlink(missing_ok=True)

# SPDX-License-Identifier: Apache-2.0
"""No byte of an earlier tenant, with files: a secret is written, deleted, and looked for by who comes next."""

from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest

from volmgr.testing.conformance.factories import DriverFactory, FileBtrfs, FileXfs
from volmgr.types import MiB, Snapshot, Volume

SECRET = b"an earlier tenant's bytes".ljust(4096, b"!")
FILLED = 64 * MiB
CHUNK = 64 * 1024


@pytest.mark.parametrize("made", [FileXfs, FileBtrfs], ids=lambda made: str(made.name))
def test_who_comes_next_reads_zeros(made: type[DriverFactory], tmp_path: Path) -> None:
    factory = made()
    if (reason := factory.unavailable()) is not None:
        pytest.skip(reason)
    with factory.world(tmp_path) as folder:
        driver = factory.make(folder)
        volume, later = (Volume(id=str(uuid.uuid4()), size=1) for _ in range(2))
        snapshot = Snapshot(id=str(uuid.uuid4()), volume_id=volume.id, volume_size=1, volume=volume)
        driver.create_volume(volume)
        factory.write(driver, volume, 0, SECRET * (FILLED // len(SECRET)))
        driver.create_snapshot(snapshot)
        # Its own bytes by now, while the secret is the snapshot's alone.
        factory.write(driver, volume, 0, bytes(FILLED))
        assert factory.read(driver, snapshot, FILLED - len(SECRET), len(SECRET)) == SECRET
        for kind, resource in (("snapshot", snapshot), ("volume", volume)):
            getattr(driver, f"trash_{kind}")(resource)
            driver.wipe(kind, resource.id, lambda _fraction: None)
        assert driver.observe() == []
        driver.create_volume(later)
        assert factory.read(driver, later, 0, FILLED) == bytes(FILLED)
        # Small writes take blocks that held the secret; around them there is none of it.
        for place in range(0, 4 * FILLED, CHUNK):
            factory.write(driver, later, place + 512, b"x" * 100)
        read = factory.read(driver, later, 0, 4 * FILLED)
        assert read.count(b"x") == 4 * FILLED // CHUNK * 100
        assert read.count(0) == len(read) - read.count(b"x")
        # And what is free can be told to the disk below: nothing of it is left there. Only a frozen file system has
        # surely let go of what was deleted; XFS trims nothing that its log holds, up to half a minute after a sync.
        for command in (["fsfreeze", "-f"], ["fsfreeze", "-u"], ["fstrim"]):
            subprocess.run([*command, str(folder)], check=True)
        left = (tmp_path / "image").read_bytes().count(SECRET)
        assert left == 0
        factory.end(driver, folder)

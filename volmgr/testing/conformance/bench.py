# SPDX-License-Identifier: Apache-2.0
"""What a test of the conformance suite works with: a driver, and records of volumes for it. Knows no driver."""

from __future__ import annotations

import pathlib
import uuid
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pytest

from volmgr.drivers.interfaces import supports
from volmgr.testing.conformance.factories import DriverFactory
from volmgr.types import ObservedObject, Snapshot, Volume

NOT_APPLICABLE = "does not apply: "
"""How the reason of a skip begins that says something of the driver, not of the machine: nothing could be tested."""


def does_not_apply(reason: str) -> NoReturn:
    """End the running test, which is about something that the driver does not have."""
    pytest.skip(NOT_APPLICABLE + reason)


@dataclass
class Bench:
    """A driver under test and what a test needs around it."""

    driver: Any
    factory: DriverFactory
    folder: pathlib.Path
    progress: list[float] = field(default_factory=list)

    def volume(self, size: int = 1, **fields: Any) -> Volume:
        """Return a record of a new volume of ``size`` GiB; nothing is created."""
        identity = fields.pop("id", None) or str(uuid.uuid4())
        return Volume(id=identity, size=size, host=f"{self.driver.host}#{self.driver.backend_name}", **fields)

    def created(self, size: int = 1, data: bytes = b"", offset: int = 0) -> Volume:
        """Return a volume that is there, with ``data`` at ``offset``."""
        volume = self.volume(size)
        self.driver.create_volume(volume)
        if data:
            self.write(volume, offset, data)
        return volume

    def snapshot(self, volume: Volume) -> Snapshot:
        """Return a record of a new snapshot; nothing is created."""
        return Snapshot(id=str(uuid.uuid4()), volume_id=volume.id, volume_size=volume.size, volume=volume)

    def snapped(self, volume: Volume) -> Snapshot:
        """Return a snapshot that is there."""
        snapshot = self.snapshot(volume)
        self.driver.create_snapshot(snapshot)
        return snapshot

    def read(self, resource: Volume | Snapshot, offset: int, length: int) -> bytes:
        return self.factory.read(self.driver, resource, offset, length)

    def write(self, resource: Volume | Snapshot, offset: int, data: bytes) -> None:
        self.factory.write(self.driver, resource, offset, data)

    def need(self, *verbs: str) -> None:
        """Skip the test unless the driver supports all ``verbs``."""
        for verb in verbs:
            if not supports(self.driver, verb):
                does_not_apply(f"{self.factory.name} does not support {verb}")

    def half_build(self, resource: Volume | Snapshot, data: bytes) -> None:
        """Leave a half-made building object, or skip the test where the driver has none."""
        if not self.factory.half_build(self.driver, resource, data):
            does_not_apply(f"{self.factory.name} builds nothing under a building name")

    def seen(self, state: str | None = None) -> dict[str, ObservedObject]:
        """Return what the driver observes, by object id; skips where it cannot."""
        self.need("observe")
        return {item.object_id: item for item in self.driver.observe() if state in (None, item.state)}

# SPDX-License-Identifier: Apache-2.0
"""The contract server as a process for all tests of the folder, empty for each; and drivers over it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr.drivers import storpool_config
from volmgr.drivers.options import Configuration
from volmgr.drivers.storpool import StorPoolDriver
from volmgr.drivers.storpool_api import StorPoolAPI
from volmgr.testing.storpool.process import StorPoolServer
from volmgr.types import Snapshot, Volume, VolumeType

#: Tries without a pause between them: what is counted is how many there are.
PAUSES = (0.0, 0.0, 0.0)
TIMEOUT = 10.0


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StorPoolServer]:
    """A server for the whole session."""
    with StorPoolServer(tmp_path_factory.mktemp("storpool")) as server:
        yield server


@pytest.fixture
def server(running: StorPoolServer) -> Iterator[StorPoolServer]:
    """An empty server without faults."""
    running.reset()
    yield running
    running.reset()


class Bench:
    """A driver over a server, and records for it."""

    def __init__(self, server: StorPoolServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.conf = server.write_conf(folder / "storpool.conf", hosts={"compute": 2, "node": 1})
        self.driver = self.make()

    def make(self, host: str = "node@storpool", *, timeout: float = TIMEOUT, **options: Any) -> StorPoolDriver:
        """Return a driver of its own."""
        options = {"storpool_config_file": str(self.conf), **options}
        api = StorPoolAPI(storpool_config.read(self.conf), timeout, PAUSES)
        driver = StorPoolDriver(configuration=Configuration(options), host=host, api=api)
        driver.do_setup(None)
        return driver

    def volume(self, size: int = 1, template: str | None = None, **fields: Any) -> Volume:
        """Return a record; nothing is created."""
        if template is not None:
            fields["volume_type"] = volume_type(template)
        return Volume(id=fields.pop("id", None) or str(uuid.uuid4()), size=size, **fields)

    def created(self, size: int = 1, template: str | None = None, data: bytes = b"") -> Volume:
        """Return a volume that is there."""
        volume = self.volume(size, template)
        self.driver.create_volume(volume)
        if data:
            self.write(volume, data)
        return volume

    def snapshot(self, volume: Volume) -> Snapshot:
        """Return a record; nothing is created."""
        return Snapshot(id=str(uuid.uuid4()), volume_id=volume.id, volume_size=volume.size, volume=volume)

    def snapped(self, volume: Volume) -> Snapshot:
        """Return a snapshot that is there."""
        snapshot = self.snapshot(volume)
        self.driver.create_snapshot(snapshot)
        return snapshot

    def name(self, resource: Volume | Snapshot) -> str:
        return self.driver.storpool_name(resource)

    def shown(self, resource: Volume | Snapshot) -> dict[str, Any]:
        """Return what StorPool says of a volume or snapshot."""
        api = self.driver.api
        name = self.name(resource)
        found = api.snapshot(name) if isinstance(resource, Snapshot) else api.volume(name)
        assert found is not None
        return found

    def write(self, resource: Volume | Snapshot, data: bytes, offset: int = 0) -> None:
        with self.server.file(self.name(resource)).open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def read(self, resource: Volume | Snapshot, length: int, offset: int = 0) -> bytes:
        with self.server.file(self.name(resource)).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def calls(self) -> list[str]:
        """Return the names of the calls since the last time that they were forgotten."""
        return [call["call"] for call in self.server.calls()]


def volume_type(template: str) -> VolumeType:
    """Return a type whose volumes are of a template."""
    return VolumeType(id=str(uuid.uuid4()), name=template, extra_specs={"storpool_template": template})


@pytest.fixture
def bench(server: StorPoolServer, tmp_path: Path) -> Iterator[Bench]:
    """A driver over an empty server; the test fails if it sends anything that the API does not take."""
    yield Bench(server, tmp_path)
    assert server.refused() == []


@pytest.fixture
def made_type() -> Callable[[str], VolumeType]:
    """:func:`volume_type`."""
    return volume_type

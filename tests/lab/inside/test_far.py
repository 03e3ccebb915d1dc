# SPDX-License-Identifier: Apache-2.0
"""A move between two machines in a real kernel: LIO serves the new object, the source attaches it by os-brick.

One guest plays both: two daemons with two hosts' names, one database, one transport.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.db import operations
from volmgr.db.engine import Database
from volmgr.runtime import SystemClock
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.loopgroup import read_device
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB, MiB

pytestmark = [pytest.mark.extended, pytest.mark.timeout(900)]
MATRIX_TARGET = "lio"

TIMEOUT = 300.0
HERE, THERE = "node@b", "other@two"
GROUP = "farther"
PLACES = (0, 300 * MiB + 4096, GiB - MiB)


class Machines:
    """The source's daemon, which attaches by the kernel, and the destination's, on LIO.

    :param stores: options of the destination's storage.
    """

    def __init__(self, folder: Path, stores: dict[str, Any]) -> None:
        self.store = folder / "one"
        self.store.mkdir()
        options = {"report_interval": 1}
        self.here = Daemon(
            folder / "here", options=options,
            backend={
                "volume_driver": "file", "file_store_path": str(self.store), "target_helper": "fake",
                "target_ip_address": "127.0.0.1", "volume_copy_initiator": "kernel",
            },
        )
        self.there = Daemon(
            folder / "there",
            options={**options, "host": "other", "state_path": str(self.here.state), "enabled_backends": "two"},
            sections={"two": {
                **stores, "target_helper": "lioadm", "target_ip_address": "127.0.0.1", "target_port": 3271,
            }},
        )

    def start(self, client: Client) -> None:
        """Start both; returns once each knows that both take volumes."""
        self.here.start(wait=False)
        self.there.start(wait=False)
        wait_until(lambda: self._together(client), TIMEOUT, "each knows the other", retry_on=exception.VolmgrError)

    def _together(self, client: Client) -> bool:
        for daemon in (self.here, self.there):
            assert daemon.process is not None and daemon.process.poll() is None, daemon.tail()
        answers = [
            client.api.call(client.context, "explain_placement", host=host, request={"size": 1})
            for host in (HERE, THERE)
        ]
        return all([item["passed"] for item in answer["backends"]] == [True, True] for answer in answers)

    def end(self) -> None:
        if initiator.sessions():
            run("iscsiadm", "-m", "node", "--logoutall=all")
        for daemon in (self.here, self.there):
            daemon.stop()


@pytest.fixture(params=["file", "lvm"])
def stores(request: pytest.FixtureRequest, nothing_left: None, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The options of the destination's storage: a folder, or a volume group of its own."""
    if request.param == "file":
        (tmp_path / "two").mkdir()
        yield {"volume_driver": "file", "file_store_path": str(tmp_path / "two")}
        return
    image = tmp_path / "group.img"
    image.touch()
    os.truncate(image, 4 * GiB)  # sparse: only what is written takes memory
    device = run("losetup", "--find", "--show", str(image)).strip()
    run("vgcreate", "-q", "-y", GROUP, device)
    yield {"volume_driver": "lvm", "volume_group": GROUP, "lvm_type": "thin"}
    run("udevadm", "settle")
    run("vgremove", "-q", "-f", "-y", GROUP)
    run("losetup", "--detach", device)


@pytest.fixture
def machines(stores: dict[str, Any], tmp_path: Path) -> Iterator[Machines]:
    made = Machines(tmp_path, stores)
    try:
        yield made
    finally:
        made.end()


def taken(stores: dict[str, Any]) -> list[int]:
    """Return how many bytes each volume on the destination takes."""
    if "file_store_path" in stores:
        return [path.stat().st_blocks * 512 for path in Path(stores["file_store_path"], "volumes").iterdir()]
    rows = [line.split() for line in run("lvs", "--noheadings", "-o", "lv_name,data_percent", GROUP).splitlines()]
    # One that is on its way out is not active, and has no figure.
    return [int(float((*used, "0")[0]) * GiB / 100) for name, *used in rows if name != f"{GROUP}-pool"]


def properties() -> dict[str, str]:
    return {"initiator": initiator.initiator_name(), "ip": "127.0.0.1", "host": "guest"}


def filled(machines: Machines, client: Client) -> tuple[str, str, bytes]:
    """Make a volume on the source; returns its id, its serial, and what stands at :data:`PLACES`."""
    volume_id, data = str(uuid.uuid4()), os.urandom(MiB)
    client.do("create_volume", volume_id, size=1, host=HERE, timeout=TIMEOUT)
    with (machines.store / "volumes" / f"volume-{volume_id}").open("r+b") as file:
        for place in PLACES:
            os.pwrite(file.fileno(), data, place)
    serial = client.api.initialize_connection(client.context, volume_id, properties())["data"]["serial"]
    client.api.terminate_connection(client.context, volume_id, properties())
    return volume_id, serial, data


def begun(client: Client, volume_id: str) -> str:
    """Ask for the move; returns the operation's id."""
    return str(wait_until(
        lambda: client.api.call(client.context, "migrate_volume", volume_id=volume_id, host=THERE),
        TIMEOUT, "the move is admitted", retry_on=exception.VolmgrError,
    )["operation_id"])


def ended(client: Client, operation_id: str) -> dict[str, Any]:
    """Return an operation once it has ended, whatever as."""
    def look() -> dict[str, Any] | None:
        found: dict[str, Any] = client.api.get_operation(client.context, operation_id)
        return found if found["state"] in ("done", "failed") else None

    return wait_until(look, TIMEOUT, "the move has ended", retry_on=exception.VolmgrError) or {}


def killed_while_attached(machines: Machines, client: Client, volume_id: str) -> str:
    """Let the source's worker die while it has the disk; returns the operation's id."""
    machines.here.kill()
    machines.here.start(wait=False, VOLMGR_KILL_AT="initiator/-/attached")
    operation_id = begun(client, volume_id)
    machines.here.wait_killed(TIMEOUT)
    assert len(initiator.sessions()) == 1, "the dead one had it attached"
    return operation_id


def there_now(client: Client, volume_id: str, serial: str, data: bytes) -> None:
    """Look, as a client of the destination, whether the volume is what it was."""
    view = client.api.get_volume(client.context, volume_id)
    assert (view["status"], view["migration_status"]) == ("available", "success")
    told = client.api.initialize_connection(client.context, volume_id, properties())["data"]
    assert "incoming" not in told["target_iqn"]
    assert told["serial"] == serial
    address, _, port = told["target_portal"].rpartition(":")
    export = lio.Export(told["target_iqn"], told["target_lun"], address, int(port))
    with logged_in(export, lio.Chap(told["auth_username"], told["auth_password"])) as disk:
        for place in PLACES:
            assert read_device(disk, MiB, offset=place) == data
    client.api.terminate_connection(client.context, volume_id, properties())


@pytest.mark.parametrize("dies", [False, True])
def test_bytes_go_over_the_kernel_s_initiator(machines: Machines, stores: dict[str, Any], dies: bool) -> None:
    """And over a death of the source's worker while it has the disk: the next life takes the session over."""
    with machines.here.client() as client:
        machines.start(client)
        volume_id, serial, data = filled(machines, client)
        if dies:
            moving = killed_while_attached(machines, client, volume_id)
            machines.here.start(wait=False)
        else:
            moving = begun(client, volume_id)
        done = ended(client, moving)
        assert done["state"] == "done" and done["result"]["host"].startswith(THERE), done
        assert not initiator.sessions(), "the source is logged in still"
        (written,) = taken(stores)
        assert written < 8 * MiB, "holes went over the wire"
        there_now(client, volume_id, serial, data)
        client.do("delete_volume", volume_id, timeout=TIMEOUT)
        assert lio.leftovers() == []


def test_a_move_that_is_called_off_while_the_kernel_has_the_disk(machines: Machines, stores: dict[str, Any]) -> None:
    """The source detaches first, whatever becomes of the new bytes, then the destination takes its object away."""
    with machines.here.client() as client:
        machines.start(client)
        volume_id, _serial, data = filled(machines, client)
        moving = killed_while_attached(machines, client, volume_id)
        database = Database(f"sqlite:///{machines.here.state}/volmgr.sqlite")
        with database.writer() as conn:  # as the dead one would have written it
            assert operations.request_cancel(conn, moving, SystemClock().now())
        database.close()
        machines.here.start(wait=False)
        assert ended(client, moving)["state"] == "failed"
        assert not initiator.sessions(), "the source is logged in still"
        wait_until(lambda: not lio.leftovers() and not taken(stores), TIMEOUT, "the destination has nothing of it")
        view = client.api.get_volume(client.context, volume_id)
        assert (view["status"], view["migration_status"]) == ("available", "error")
        assert view["host"].startswith(HERE)
        with (machines.store / "volumes" / f"volume-{volume_id}").open("rb") as file:
            assert [os.pread(file.fileno(), MiB, place) for place in PLACES] == [data] * 3
        client.do("delete_volume", volume_id, timeout=TIMEOUT)

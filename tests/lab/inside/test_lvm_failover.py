# SPDX-License-Identifier: Apache-2.0
"""A whole backend loses its volume group under a connected host, goes over to the second group, and comes back.

The real daemon on thin LVM with a ``replication_device``, LIO, and the kernel's initiator, which stays logged in all
the time: what it reads after a failover is what was shipped, under the same name and serial.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception, killpoints
from volmgr.drivers import lvm_points
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.failing import FailingDisk, failing_disk
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.loopgroup import read_device, write_device
from volmgr.testing.lab.lvm_pair import volumes_of
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB, MiB

pytestmark = [pytest.mark.extended, pytest.mark.timeout(1200)]
MATRIX_DRIVER, MATRIX_TARGET = "lvm-thin", "lio"

TIMEOUT = 300.0
FIRST, SECOND = "attic", "cellar"
PLACE = 8 * MiB
CONNECTOR = {"ip": "127.0.0.1", "host": "guest"}


class Site:
    """The daemon, a client of it, and the first group's disk."""

    def __init__(self, daemon: Daemon, client: Client, disk: FailingDisk) -> None:
        self.daemon = daemon
        self.client = client
        self.disk = disk
        self._aim = Path(daemon.environment[killpoints.FILE_ENVIRONMENT])

    def api(self, verb: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.client.api, verb)(self.client.context, *args, **kwargs)

    def do(self, verb: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return self.client.do(verb, *args, timeout=TIMEOUT, **kwargs)

    def wait(self, condition: Any, what: str) -> Any:
        return wait_until(condition, TIMEOUT, what, retry_on=exception.VolmgrError)

    @property
    def properties(self) -> dict[str, str]:
        return {**CONNECTOR, "initiator": initiator.initiator_name()}

    def service(self) -> dict[str, Any]:
        (found,) = self.api("list_services")
        return dict(found)

    def is_up(self) -> None:
        self.wait(lambda: self.service()["state"] == "up", "the backend is up")

    def go_over(self, to: str | None, dies: str | None) -> dict[str, Any]:
        """Fail over, or back, and over a death of the worker at a moment of that; returns the result."""
        if dies is not None:
            self._aim.write_text(dies)
        before = {item["operation_id"] for item in self._failovers()}
        with contextlib.suppress(exception.VolmgrError) if dies else contextlib.nullcontext():
            self.api("failover_host", host=self.daemon.host, secondary_backend_id=to)  # it may die before it answers
        if dies is not None:
            self.daemon.wait_killed(TIMEOUT)
            self._aim.unlink()
            self.daemon.start(wait=False)
        (mine,) = [
            item["operation_id"] for item in self.wait(self._failovers, "it answers")
            if item["operation_id"] not in before
        ]
        done = self.wait(lambda: self.api("wait_operation", mine, TIMEOUT), "it has gone over")
        assert done["state"] == "done", done
        return dict(done["result"])

    def _failovers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("list_operations", filters={"verb": "failover_host"})
        return found

    def follows(self, volume_id: str, group: str, data: bytes, offset: int) -> None:
        """Wait until a group has a whole point of the volume with these bytes, and the volume says that it follows."""
        def shipped() -> bool:
            return any(read_device(Path(f"/dev/{group}/{name}"), len(data), offset) == data for name in _whole(group))

        # A point may go while it is looked at.
        wait_until(shipped, TIMEOUT, "what was written is shipped", retry_on=OSError)
        self.wait(lambda: self.api("get_volume", volume_id)["replication_status"] == "active", "it says so")


def _whole(group: str) -> list[str]:
    rows = [line.split() for line in run("lvs", "--noheadings", "-o", "lv_name,lv_tags", group).splitlines()]
    whole = lvm_points.point_tag(lvm_points.WHOLE)
    return [row[0] for row in rows if row[0].startswith("_point-") and whole in row[-1].split(",")]


@pytest.fixture
def site(nothing_left: None, tmp_path: Path) -> Iterator[Site]:
    with contextlib.ExitStack() as undo:
        disks = [undo.enter_context(failing_disk(tmp_path, f"disk-{name}", 4 * GiB)) for name in (FIRST, SECOND)]
        for group, disk in zip((FIRST, SECOND), disks, strict=True):
            run("vgcreate", "-q", "-y", group, str(disk.node))
            undo.callback(run, "vgremove", "-q", "-f", "-y", group)
        undo.callback(run, "udevadm", "settle")
        daemon = Daemon(
            tmp_path / "node",
            options={"report_interval": 1, "backend_stats_polling_interval": 2},
            backend={
                "volume_driver": "lvm", "volume_group": FIRST, "lvm_type": "thin",
                "replication_device": f"backend_id:{SECOND},volume_group:{SECOND}",
                "target_helper": "lioadm", "target_ip_address": "127.0.0.1", "target_port": 3279,
            },
            environment={killpoints.FILE_ENVIRONMENT: str(tmp_path / "aim")},
        )
        undo.callback(daemon.stop)
        daemon.start(wait=False)
        with daemon.client() as client:
            made = Site(daemon, client, disks[0])
            try:
                made.is_up()
                yield made
            finally:
                print(daemon.tail(80))  # shown where the test fails
                disks[0].find()


@contextlib.contextmanager
def attached(info: dict[str, Any]) -> Iterator[Path]:
    data = info["data"]
    address, _, port = data["target_portal"].rpartition(":")
    export = lio.Export(data["target_iqn"], data["target_lun"], address, int(port))
    with logged_in(export, lio.Chap(data["auth_username"], data["auth_password"])) as disk:
        yield disk


def lost(site: Site, disk: Path) -> None:
    """Lose the first group under the host that is connected, and wait until the worker has seen it."""
    site.disk.lose()
    with pytest.raises(OSError, match="Input/output error"):
        read_device(disk, MiB, offset=PLACE)
    site.wait(lambda: site.service()["state"] == "down", "the worker misses its group")


def found(site: Site) -> None:
    """Let the disk be there again, and do what its operator does."""
    site.disk.find()
    run("udevadm", "settle")
    run("vgchange", "-q", "-an", FIRST)
    run("vgchange", "-q", "-ay", FIRST)


# The worker dies where the second group has its volumes and SQL does not know, or where only the target is behind.
@pytest.mark.parametrize(
    ("over", "back"),
    [(None, None), ("lvm/failover/entered#2", "failover_host/switch/pivoted")],
    ids=["lives", "dies"],
)
def test_a_connected_host_goes_over_with_its_backend(site: Site, over: str | None, back: str | None) -> None:
    volume_id, plain, (first, later) = str(uuid.uuid4()), str(uuid.uuid4()), (os.urandom(MiB), os.urandom(MiB))
    site.api("type_create", str(uuid.uuid4()), "replicated", extra_specs={"replication": "<is> True"})
    site.do("create_volume", volume_id, size=1, volume_type="replicated")
    site.do("create_volume", plain, size=1)
    info = site.api("initialize_connection", volume_id, site.properties)
    with attached(info) as disk:
        write_device(disk, first, offset=PLACE)
        site.follows(volume_id, SECOND, first, PLACE)
        lost(site, disk)
        assert site.go_over(None, over) == {"active_backend_id": SECOND, "lost": [plain]}
        site.is_up()
        assert read_device(disk, MiB, offset=PLACE) == first, "the host does not read what was shipped"
        assert site.api("initialize_connection", volume_id, site.properties) == info
        _frozen(site, volume_id, info)
        write_device(disk, later, offset=PLACE + MiB)
        found(site)
        site.do("reenable_replication", volume_id)
        site.follows(volume_id, FIRST, later, PLACE + MiB)
        assert site.go_over("default", back) == {"active_backend_id": "default", "lost": []}
        site.is_up()
        assert read_device(disk, 2 * MiB, offset=PLACE) == first + later, "what was written meanwhile is lost"
        assert site.api("initialize_connection", volume_id, site.properties) == info
        write_device(disk, later, offset=PLACE)
        assert read_device(Path(f"/dev/{FIRST}/volume-{volume_id}"), MiB, offset=PLACE) == later
    site.api("terminate_connection", volume_id, site.properties)
    assert site.api("get_volume", plain)["status"] == "available"
    for each in (volume_id, plain):
        site.do("delete_volume", each)
    site.wait(lambda: not volumes_of(FIRST) and not volumes_of(SECOND), "nothing is left in either group")
    assert lio.leftovers() == []


def _frozen(site: Site, volume_id: str, info: dict[str, Any]) -> None:
    """A frozen backend that has failed over takes no change, and connects."""
    other = {**CONNECTOR, "initiator": "iqn.1994-05.com.example:other"}
    assert site.api("freeze_host", host=site.daemon.host) is True
    with pytest.raises(exception.Conflict, match="frozen"):
        site.do("extend_volume", volume_id, 2)
    told = site.api("initialize_connection", volume_id, other)["data"]
    assert told["serial"] == info["data"]["serial"]
    site.api("terminate_connection", volume_id, other)
    assert site.api("thaw_host", host=site.daemon.host) is True

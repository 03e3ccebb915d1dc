# SPDX-License-Identifier: Apache-2.0
"""Two daemons of two machines: a volume goes from one to the other, its bytes over real iSCSI, and either may die.

The source attaches in user space, so nothing of the kernel takes part; the lab does the same with LIO and the kernel.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.functional.daemon.test_file_tgt import connect, disconnect, holds, new_id
from volmgr import exception
from volmgr.incarnation import holders
from volmgr.testing.daemon import Daemon, free_port, tgtds
from volmgr.testing.waiting import wait_until
from volmgr.tools.tgt import TgtClient
from volmgr.types import GiB, MiB

TIMEOUT = 90.0
HERE, THERE = "node@b", "other@two"
PLACES = (0, 300 * MiB + 4096, GiB - MiB)


class Machines:
    """Two daemons on one database and one transport; the second one's volumes are served by a real tgtd."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "one"
        options = {"report_interval": 1}
        files = {"volume_driver": "file", "target_ip_address": "127.0.0.1"}
        self.here = Daemon(
            folder / "here", options=options,
            backend={
                **files, "target_helper": "fake", "file_store_path": str(self.store), "volume_copy_initiator": "user",
            },
        )
        self.there = Daemon(
            folder / "there",
            options={
                **options, "host": "other", "state_path": str(self.here.state), "enabled_backends": "two",
            },
            sections={"two": {
                **files, "target_helper": "tgtadm", "target_port": free_port(), "file_store_path": str(folder / "two"),
            }},
        )
        for name in ("one", "two"):
            (folder / name).mkdir()
        self.client = self.here.client()

    def start(self) -> None:
        """Start both; returns once each knows that both take volumes."""
        self.here.start(wait=False)
        self.there.start(wait=False)
        wait_until(self._together, TIMEOUT, "each knows the other", retry_on=exception.VolmgrError)

    def _together(self) -> bool:
        for host in (HERE, THERE):
            answer = self.client.api.call(self.client.context, "explain_placement", host=host, request={"size": 1})
            if [item["passed"] for item in answer["backends"]] != [True, True]:
                return False
        return True

    def created(self) -> tuple[str, str]:
        """Make a volume with bytes at three places; returns its id and its serial."""
        volume_id = new_id()
        self.client.do("create_volume", volume_id, size=1, host=HERE, timeout=TIMEOUT)
        with (self.store / "volumes" / f"volume-{volume_id}").open("r+b") as file:
            for place in PLACES:
                os.pwrite(file.fileno(), b"\x11" * MiB, place)
        return volume_id, str(connect(self.client, volume_id)["data"]["serial"])

    def moved(self, volume_id: str, serial: str, operation_id: str) -> None:
        """Wait for the end of a move, and look at what is where."""
        api, context = self.client.api, self.client.context
        done = api.wait_operation(context, operation_id, timeout=TIMEOUT)
        assert done["result"] == {"volume_id": volume_id, "moved": True, "host": done["result"]["host"]}
        view = api.get_volume(context, volume_id)
        assert (view["status"], view["migration_status"]) == ("available", "success")
        assert view["host"].startswith(f"{THERE}#")
        info = connect(self.client, volume_id)
        assert info["data"]["serial"] == serial and holds(info, 0x11), "the bytes did not come along"
        disconnect(self.client, volume_id)
        assert self.incoming() == [], "the copy's target is served still"

    def incoming(self) -> list[str]:
        """Return what the second machine serves of objects on their way."""
        (socket,) = self.here.state.rglob("socket.0")
        return [target.name for target in TgtClient(str(socket)).targets() if "incoming" in target.name]

    def end(self) -> None:
        self.client.api.close()
        for daemon in (self.here, self.there):
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.kill()
        for pid in tgtds(self.here):  # both have one folder of state
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    for tool, package in (("tgtd", "tgt"), ("qemu-nbd", "qemu-utils"), ("iscsi-inq", "libiscsi-bin")):
        require(tool, package)
    made = Machines(tmp_path_factory.mktemp("machines"))
    try:
        made.start()
        yield made
    finally:
        made.end()


def test_bytes_go_to_another_machine(machines: Machines) -> None:
    volume_id, serial = machines.created()
    disconnect(machines.client, volume_id)
    api, context = machines.client.api, machines.client.context
    moving = api.migrate_volume(context, volume_id, THERE)["operation_id"]
    machines.moved(volume_id, serial, moving)
    (copy,) = (machines.store.parent / "two" / "volumes").iterdir()
    assert copy.stat().st_blocks * 512 < 8 * MiB, "holes went over the wire"
    wait_until(lambda: not list((machines.store / "trash").iterdir()), TIMEOUT, "the source's space is free")


@pytest.mark.parametrize(
    ("victim", "point"), [("here", "initiator/-/attached"), ("there", "receive_volume/withdraw/before")]
)
def test_a_machine_whose_worker_is_killed_goes_on(machines: Machines, victim: str, point: str) -> None:
    volume_id, serial = machines.created()
    disconnect(machines.client, volume_id)
    daemon: Daemon = getattr(machines, victim)
    daemon.kill()
    daemon.start(VOLMGR_KILL_AT=point, wait=False)
    answer = wait_until(
        lambda: machines.client.api.call(machines.client.context, "migrate_volume", volume_id=volume_id, host=THERE),
        TIMEOUT, "the move is admitted", retry_on=exception.VolmgrError,
    )
    daemon.wait_killed(TIMEOUT)
    daemon.start(wait=False)
    wait_until(
        lambda: machines.client.api.get_operation(machines.client.context, answer["operation_id"])["state"] == "done",
        TIMEOUT, "the move has ended", retry_on=exception.VolmgrError,
    )
    machines.moved(volume_id, serial, answer["operation_id"])
    locks = list((machines.here.state / "locks").glob(f"{HERE}*"))
    wait_until(
        lambda: [holders(path) for path in locks] == [[machines.here.pid]], TIMEOUT, "what had attached has ended"
    )

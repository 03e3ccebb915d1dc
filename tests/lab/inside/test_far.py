# SPDX-License-Identifier: Apache-2.0
"""A move between two machines in a real kernel: LIO serves the new object, the source attaches it by os-brick.

One guest plays both: two daemons with two hosts' names, one database, one transport.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from volmgr import exception
from volmgr.testing.daemon import Daemon
from volmgr.testing.lab import initiator, lio
from volmgr.testing.lab.commands import run
from volmgr.testing.lab.initiator import logged_in
from volmgr.testing.lab.loopgroup import read_device
from volmgr.testing.waiting import wait_until
from volmgr.types import GiB, MiB

TIMEOUT = 120.0
HERE, THERE = "node@b", "other@two"
PLACES = (0, 300 * MiB + 4096, GiB - MiB)


@pytest.fixture
def machines(nothing_left: None, tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """The source's daemon, which attaches by the kernel, and the destination's, on LIO."""
    options = {"report_interval": 1}
    files = {"volume_driver": "file", "target_ip_address": "127.0.0.1"}
    here = Daemon(
        tmp_path / "here", options=options,
        backend={
            **files, "target_helper": "fake", "file_store_path": str(tmp_path / "one"),
            "volume_copy_initiator": "kernel",
        },
    )
    there = Daemon(
        tmp_path / "there",
        options={**options, "host": "other", "state_path": str(here.state), "enabled_backends": "two"},
        sections={"two": {
            **files, "target_helper": "lioadm", "target_port": 3271, "file_store_path": str(tmp_path / "two"),
        }},
    )
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    try:
        here.start(wait=False)
        there.start(wait=False)
        yield here, there
    finally:
        if initiator.sessions():
            run("iscsiadm", "-m", "node", "--logoutall=all")
        for daemon in (here, there):
            daemon.stop()


@pytest.mark.extended
@pytest.mark.parametrize("dies", [False, True])
def test_bytes_go_over_the_kernel_s_initiator(machines: tuple[Daemon, Daemon], tmp_path: Path, dies: bool) -> None:
    """And over a death of the source's worker while it has the disk: the next life takes the session over."""
    here, there = machines
    volume_id = str(uuid.uuid4())
    with here.client() as client:

        def together() -> bool:
            for daemon in (here, there):
                assert daemon.process is not None and daemon.process.poll() is None, daemon.tail()
            answers = [
                client.api.call(client.context, "explain_placement", host=host, request={"size": 1})
                for host in (HERE, THERE)
            ]
            return all([item["passed"] for item in answer["backends"]] == [True, True] for answer in answers)

        wait_until(together, TIMEOUT, "each knows the other", retry_on=exception.VolmgrError)
        client.do("create_volume", volume_id, size=1, host=HERE, timeout=TIMEOUT)
        data = os.urandom(MiB)
        with (tmp_path / "one" / "volumes" / f"volume-{volume_id}").open("r+b") as file:
            for place in PLACES:
                os.pwrite(file.fileno(), data, place)
        if dies:
            here.kill()
            here.start(wait=False, VOLMGR_KILL_AT="initiator/-/attached")
        moving = wait_until(
            lambda: client.api.call(client.context, "migrate_volume", volume_id=volume_id, host=THERE),
            TIMEOUT, "the move is admitted", retry_on=exception.VolmgrError,
        )["operation_id"]
        if dies:
            here.wait_killed(TIMEOUT)
            assert initiator.sessions(), "the dead one had it attached"
            here.start(wait=False)
        done = wait_until(
            lambda: client.api.wait_operation(client.context, moving, TIMEOUT),
            TIMEOUT, "the move has ended", retry_on=(exception.BackendDown, exception.Timeout),
        )
        assert done["state"] == "done" and done["result"]["host"].startswith(THERE)
        assert not initiator.sessions(), "the source is logged in still"
        (copy,) = (tmp_path / "two" / "volumes").iterdir()
        assert copy.stat().st_blocks * 512 < 8 * MiB, "holes went over the wire"
        properties = {"initiator": initiator.initiator_name(), "ip": "127.0.0.1", "host": "guest"}
        info = client.api.initialize_connection(client.context, volume_id, properties)
        told = info["data"]
        assert "incoming" not in told["target_iqn"]
        address, _, port = told["target_portal"].rpartition(":")
        export = lio.Export(told["target_iqn"], told["target_lun"], address, int(port))
        with logged_in(export, lio.Chap(told["auth_username"], told["auth_password"])) as disk:
            for place in PLACES:
                assert read_device(Path(disk), MiB, offset=place) == data
        client.api.terminate_connection(client.context, volume_id, properties)
        client.do("delete_volume", volume_id)

# SPDX-License-Identifier: Apache-2.0
"""What volmgr leans on fails: tgtd dies, hangs, says nonsense; the disk is full."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from volmgr import exception
from volmgr.db import models
from volmgr.testing.chaos.garbler import MODES, Garbler
from volmgr.testing.chaos.outside import Outside, exports_of
from volmgr.testing.chaos.raids import Raiders, backend_of
from volmgr.testing.chaos.stage import Stage, must
from volmgr.testing.chaos.story import CONNECTOR
from volmgr.testing.daemon import Daemon, free_port
from volmgr.testing.waiting import wait_until
from volmgr.tools.tgtd import Tgtd
from volmgr.types import MiB, Portal

pytestmark = pytest.mark.timeout(600)

PROJECT = "chaos"
TGTD_KILLS, REQUESTS = 3, 12
WAIT = 60.0


def new_id() -> str:
    return str(uuid.uuid4())


def test_tgtd_dies_under_load(make_stage: Callable[..., Stage]) -> None:
    require("tgtd", "tgt")
    require("qemu-io", "qemu-utils")
    stage = make_stage(backend=backend_of("file", free_port())).start()
    raiders = Raiders(stage, 3, by_target=True)
    for tenant in raiders.tenants:
        tenant.patient = True
    for _ in range(TGTD_KILLS):
        with raiders.working():
            raiders.work(REQUESTS)
            pid = stage.outside.tgtd_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            raiders.work(REQUESTS)
        assert raiders.look() == []
    assert raiders.close().violations == []


WRAPPER = """#!/bin/sh
case "$(cat {mode})" in
    die) kill -9 $$ ;;
    garbage) head -c 4096 /dev/urandom; exit 3 ;;
    hang) exec sleep 600 ;;
esac
exec {real} "$@"
"""


@pytest.mark.parametrize("mode", ["die", "garbage", "hang"])
def test_a_tgtd_that_does_not_start_is_reported_and_tried_again(
    make_stage: Callable[..., Stage], tmp_path: Path, mode: str
) -> None:
    real, tools, state = require("tgtd", "tgt"), tmp_path / "tools", tmp_path / "mode"
    tools.mkdir()
    state.write_text(mode)
    (tools / "tgtd").write_text(WRAPPER.format(mode=state, real=real))
    (tools / "tgtd").chmod(0o700)
    path = os.pathsep.join([str(tools), os.environ["PATH"]])
    stage = make_stage(backend=backend_of("file", free_port()), environment={"PATH": path})
    stage.daemon.start(wait=False)
    volume_id = new_id()

    def asked() -> dict[str, Any]:
        return stage.ask("create_volume", {"volume_id": volume_id, "size": 1}, project=PROJECT)

    answer = wait_until(asked, WAIT, "the daemon takes requests", retry_on=exception.BackendDown)
    (service,) = stage.client.api.list_services(stage.client.context)
    assert (service["state"], bool(service["reason"])) == ("down", True)
    with pytest.raises(exception.BackendDown):
        stage.ask("initialize_connection", {"volume_id": volume_id, "connector": CONNECTOR}, project=PROJECT)
    state.write_text("work")
    must(stage.client.api.wait_operation(stage.client.context, answer["operation_id"], WAIT))
    must(stage.do("initialize_connection", {"volume_id": volume_id, "connector": CONNECTOR}, project=PROJECT))
    assert stage.outside.settle() == []


@pytest.fixture
def garbled(make_stage: Callable[..., Stage], tmp_path: Path) -> Iterator[tuple[Stage, Garbler]]:
    """A daemon that reaches a tgtd, which it shares, by way of a proxy."""
    require("tgtd", "tgt")
    port = free_port()
    tgtd = Tgtd(str(tmp_path / "t"), (Portal("127.0.0.1", port),))
    tgtd.start()
    garbler = Garbler(tmp_path / "g", tgtd.client.socket)
    backend = {**(backend_of("file", port) or {}), "tgt_socket": str(tmp_path / "g")}

    def outside(daemon: Daemon, **options: Any) -> Outside:
        return Outside(daemon, targets=lambda: exports_of(tgtd.client.targets()), **options)

    stage = make_stage(backend=backend, outside=outside, default={"command_timeout": 2}).start()
    yield stage, garbler
    stage.close()
    garbler.close()
    tgtd.stop()


def test_nonsense_from_tgtd_is_an_error_and_no_guess(garbled: tuple[Stage, Garbler]) -> None:
    stage, garbler = garbled
    volume_id = new_id()
    must(stage.do("create_volume", {"volume_id": volume_id, "size": 1}, project=PROJECT))
    for number, mode in enumerate(MODES[1:]):
        connector = {**CONNECTOR, "initiator": f"iqn.1993-08.org.debian:01:{number}"}
        arguments = {"volume_id": volume_id, "connector": connector}
        garbler.mode = mode
        before = garbler.spoilt
        with pytest.raises(exception.VolmgrError) as told:
            stage.do("initialize_connection", arguments, project=PROJECT)
        assert type(told.value) is not exception.VolmgrError, told.value
        assert garbler.spoilt > before
        garbler.mode = "pass"
        info = must(stage.do("initialize_connection", arguments, project=PROJECT))
        assert info["data"]["volume_id"] == volume_id
        assert stage.outside.settle() == []
        must(stage.do("terminate_connection", arguments, project=PROJECT))
    must(stage.do("delete_volume", {"volume_id": volume_id}, project=PROJECT))
    assert stage.outside.settle() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "volmgr-chaos", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("does not apply: this user may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_storage_without_room_refuses_and_leaves_nothing(make_stage: Callable[..., Stage], small_disk: Path) -> None:
    require("tgtd", "tgt")
    backend = {
        **(backend_of("file", free_port()) or {}),
        "file_store_path": str(small_disk),
        "max_over_subscription_ratio": 1000,  # or nothing would be placed there
    }

    def outside(daemon: Daemon, **options: Any) -> Outside:
        made = Outside(daemon, **options)
        made.folders = lambda: [small_disk / "volumes", small_disk / "trash"]  # type: ignore[method-assign]
        return made

    stage = make_stage(backend=backend, outside=outside).start()
    volume, snapshot = {"volume_id": new_id()}, {"snapshot_id": new_id()}
    must(stage.do("create_volume", {**volume, "size": 1}, project=PROJECT))
    path = stage.outside.path_of(volume["volume_id"])
    with path.open("r+b") as file:
        file.write(os.urandom(5 * MiB))
    outcome = stage.do("create_snapshot", {**volume, **snapshot}, project=PROJECT)
    assert outcome["state"] == "failed"
    assert isinstance(exception.from_primitive(outcome["error"]), exception.NoSpace)
    assert stage.outside.settle() == []
    # There is room again once something goes.
    must(stage.do("delete_snapshot", snapshot, project=PROJECT))
    with path.open("r+b") as file:
        file.truncate(MiB)
        file.truncate(1 << 30)
    must(stage.do("create_snapshot", {**volume, "snapshot_id": new_id()}, project=PROJECT))
    assert stage.outside.settle() == []


def test_a_database_without_room_is_an_error_and_heals(make_stage: Callable[..., Stage], small_disk: Path) -> None:
    stage = make_stage(database=f"sqlite:///{small_disk}/volmgr.sqlite").start()
    must(stage.do("create_volume", {"volume_id": new_id(), "size": 1}, project=PROJECT))
    filler = small_disk / "filler"
    told: list[exception.VolmgrError] = []
    made = 0
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # it is full now
    for _ in range(400):  # what is left in the log that SQLite has already is used up first
        try:
            made += stage.do("create_volume", {"volume_id": new_id(), "size": 1}, project=PROJECT)["state"] == "done"
        except exception.VolmgrError as error:
            told.append(error)
            break
    assert told, "the database never said that it is full"
    assert type(told[0]) is not exception.VolmgrError, told[0]
    stage.daemon.kill()
    filler.unlink()
    stage.start()
    must(stage.do("create_volume", {"volume_id": new_id(), "size": 1}, project=PROJECT))
    assert stage.outside.settle() == []
    rows = stage.outside.rows(models.volumes, models.volumes.c.status == "available")
    assert len(rows) >= made + 2

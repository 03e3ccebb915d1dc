# SPDX-License-Identifier: Apache-2.0
"""Snapshots of groups in files served by tgt: of one instant while a client writes, and no death leaves it held."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.functional.daemon.test_file_tgt import CONNECTOR, INITIATOR
from volmgr import exception, names
from volmgr.testing.daemon import Client, Daemon, free_port, tgtds
from volmgr.testing.waiting import wait_until
from volmgr.tools import guardian
from volmgr.tools.tgtd import _identity

RECORD = 512
MEMBERS = 3
SETS = 4


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def served(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon on files and tgt, not started yet; its tgtd is ended with the test."""
    for tool, package in (("tgtd", "tgt"), ("qemu-io", "qemu-utils")):
        require(tool, package)
    backend = {
        "volume_driver": "file",
        "target_helper": "tgtadm",
        "target_ip_address": "127.0.0.1",
        "target_port": free_port(),
    }
    return make_daemon(backend=backend, options={"report_interval": 1})


class Writer:
    """Writes records with a rising number to several volumes in turn, each once the one before was acknowledged.

    Record ``n`` is block ``n`` of the volume whose turn it is.
    """

    def __init__(self, infos: list[dict[str, Any]]) -> None:
        self.count = 0
        self.errors: list[str] = []
        self._ended = threading.Event()
        self._processes = [self._open(info["data"]) for info in infos]
        self._thread = threading.Thread(target=self._write, daemon=True)

    def _open(self, data: dict[str, Any]) -> subprocess.Popen[bytes]:
        with tempfile.NamedTemporaryFile("w", delete=False) as secret:
            secret.write(data["auth_password"])
        options = f"driver=iscsi,transport=tcp,portal={data['target_portal']},target={data['target_iqn']}"
        options += f",lun={data['target_lun']},initiator-name={INITIATOR},user={data['auth_username']}"
        self._secret = secret.name
        return subprocess.Popen(
            ["qemu-io", "--object", f"secret,id=chap,file={secret.name}", "--image-opts",
             f"{options},password-secret=chap"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )

    def _write(self) -> None:
        while not self._ended.is_set():
            number = self.count
            process = self._processes[number % len(self._processes)]
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"write -P {number % 255 + 1} {number * RECORD} {RECORD}\n".encode())
            process.stdin.flush()
            while (line := process.stdout.readline()) and b"wrote" not in line:
                if b"failed" in line or b"rror" in line:
                    break
            if b"wrote" not in line:
                self.errors.append(line.decode(errors="replace"))
                return
            process.stdout.readline()  # how fast it was
            self.count += 1

    def fill(self) -> None:
        """Give each volume so many bytes that copies of several take a while; call it before it writes."""
        for process in self._processes:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(b"write -P 255 512M 48M\n")
            process.stdin.flush()
            while b"wrote" not in process.stdout.readline():
                pass
            process.stdout.readline()

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)
        for process in self._processes:
            process.kill()
            process.communicate()

    def wait_on(self, more: int = 20) -> None:
        """Wait until it has written some more."""
        goal = self.count + more
        wait_until(lambda: self.errors or self.count >= goal, 60, "the client writes")
        assert self.errors == []


def records(paths: list[Path]) -> list[int]:
    """Return the numbers of the records in a set, whose members are in the order of the writer's turns."""
    found = []
    for turn, path in enumerate(paths):
        with path.open("rb") as source:
            number = turn
            while any(block := os.pread(source.fileno(), RECORD, number * RECORD)):
                assert block == bytes([number % 255 + 1]) * RECORD, f"record {number} is torn"
                found.append(number)
                number += len(paths)
    return sorted(found)


def path_of(daemon: Daemon, kind: str, object_id: str) -> Path:
    (found,) = daemon.state.rglob(names.object_name(kind, object_id))
    return found


def make_group(client: Client, count: int = MEMBERS) -> tuple[str, list[str], list[dict[str, Any]]]:
    """Make a group of connected volumes; returns its id, its members' and how they are connected to."""
    group_id, members = new_id(), [new_id() for _ in range(count)]
    client.do("create_consistencygroup", group_id)
    infos = []
    for volume_id in members:
        client.do("create_volume", volume_id, size=1, group_id=group_id)
        infos.append(client.api.initialize_connection(client.context, volume_id, CONNECTOR))
        client.api.attach_volume(client.context, volume_id, instance_uuid=new_id())
    return group_id, members, infos


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_set_is_a_prefix_of_what_was_written(served: Daemon) -> None:
    served.start()
    with served.client() as client:
        group_id, members, infos = make_group(client)
        sets = []
        writer = Writer(infos)
        writer.fill()
        with writer:
            for _ in range(SETS):
                writer.wait_on()
                made = client.do("create_cgsnapshot", new_id(), group_id=group_id)["result"]["snapshots"]
                sets.append([made[volume_id] for volume_id in members])
            writer.wait_on()
        counts = []
        for made_of in sets:
            found = records([path_of(served, "snapshot", item) for item in made_of])
            assert found == list(range(len(found))), "the set is no prefix"
            counts.append(len(found))
        assert counts == sorted(counts)
        assert counts[0] >= 20
        copy = client.do("create_consistencygroup_from_src", new_id(), source_group_id=group_id)["result"]["volumes"]
        assert len(records([path_of(served, "volume", copy[item]) for item in members])) == writer.count
        assert served.stop() == 0


def test_a_death_while_everybody_waits_lets_them_go_on(served: Daemon) -> None:
    served.start(VOLMGR_KILL_AT="hold/tgtd/held")
    with served.client() as client:
        group_id, members, infos = make_group(client)
        (pid,) = tgtds(served)
        with Writer(infos) as writer:
            writer.wait_on()
            cgsnapshot_id = new_id()
            answer = client.api.create_cgsnapshot(client.context, cgsnapshot_id, group_id=group_id)
            served.wait_killed()
            writer.wait_on()  # the guardian has let it go on
            served.start()
            ended = client.api.wait_operation(client.context, answer["operation_id"])
            writer.wait_on()
        assert tgtds(served) == [pid]
        found = records([path_of(served, "snapshot", ended["result"]["snapshots"][item]) for item in members])
        assert found == list(range(len(found)))
        # The guardian dies, too: the next start lets it go on.
        served.kill()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: stopped(pid), 10, "tgtd to stop")
        served.start()
        assert not stopped(pid)
        client.do("delete_cgsnapshot", cgsnapshot_id)
        assert served.stop() == 0


def stay(process: subprocess.Popen[bytes], held: list[str]) -> None:
    """Hold a process until the guardian lets it go on."""
    with guardian.guarded(held, 0.2):
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: stopped(process.pid), 10, "it stops")
        wait_until(lambda: not stopped(process.pid), 10, "the guardian lets it go on")


def test_the_guardian_lets_go_when_it_takes_too_long() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = _identity(process.pid)
        assert identity is not None
        held = [f"process:{process.pid}:{identity.started}"]
        try:
            with pytest.raises(exception.Timeout):
                stay(process, held)
            with guardian.guarded(held, 30):
                process.send_signal(signal.SIGSTOP)
                wait_until(lambda: stopped(process.pid), 10, "it stops")
                process.send_signal(signal.SIGCONT)
            with pytest.raises(exception.BackendDown), guardian.guarded(["dm:x:y"], 1):
                pass
        finally:
            process.kill()


def test_without_a_target_that_can_wait_there_are_no_sets() -> None:
    """A tgtd that others use, too, is not stopped for our sets: refused before anything changes."""
    from volmgr.drivers.file import FileDriver
    from volmgr.drivers.options import Configuration
    from volmgr.targets.base import TargetConfig
    from volmgr.targets.tgt import TgtTarget

    config = TargetConfig("iqn.2010-10.org.openstack:", (), "/nonexistent", options={"tgt_socket": "/nonexistent"})
    driver = FileDriver(configuration=Configuration({"file_store_path": "/nonexistent"}), target=TgtTarget(config))
    assert "create_cgsnapshot" in driver.lacks
    with pytest.raises(exception.Unsupported), driver.target_driver.hold(1.0):  # type: ignore[union-attr]
        pass

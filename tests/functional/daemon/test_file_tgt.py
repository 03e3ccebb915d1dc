# SPDX-License-Identifier: Apache-2.0
"""The embedded default: files served by tgt, with real bytes over real iSCSI, while daemon and target die under it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import require
from volmgr import exception, names
from volmgr.testing.daemon import Client, Daemon, free_port, tgtds
from volmgr.testing.waiting import wait_until
from volmgr.tools.tgt import TgtClient

INITIATOR = "iqn.1993-08.org.debian:01:volmgr-test"
CONNECTOR = {"initiator": INITIATOR, "ip": "127.0.0.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def served(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A started daemon on files and tgt; its tgtd is ended with the test."""
    for tool, package in (("tgtd", "tgt"), ("qemu-io", "qemu-utils"), ("iscsi-inq", "libiscsi-bin")):
        require(tool, package)
    backend = {
        "volume_driver": "file",
        "target_helper": "tgtadm",
        "target_ip_address": "127.0.0.1",
        "target_port": free_port(),
    }
    return make_daemon(backend=backend, options={"report_interval": 1}).start()


def url(info: dict[str, Any]) -> str:
    data = info["data"]
    return f"iscsi://{data['target_portal']}/{data['target_iqn']}/{data['target_lun']}"


def initiator(info: dict[str, Any], *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a libiscsi tool as the initiator; the secret goes by the environment."""
    env = {
        **os.environ,
        "LIBISCSI_CHAP_USERNAME": info["data"]["auth_username"],
        "LIBISCSI_CHAP_PASSWORD": info["data"]["auth_password"],
    }
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def qemu_io(info: dict[str, Any], command: str) -> subprocess.CompletedProcess[str]:
    data = info["data"]
    mode = ["-r"] if data["access_mode"] == "ro" else []
    options = f"driver=iscsi,transport=tcp,portal={data['target_portal']},target={data['target_iqn']}"
    options += f",lun={data['target_lun']},initiator-name={INITIATOR}"
    options += f",user={data['auth_username']},password-secret=chap"
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write(data["auth_password"])
        secret.flush()
        chap = f"secret,id=chap,file={secret.name}"
        return initiator(info, "qemu-io", *mode, "--object", chap, "--image-opts", options, "-c", command)


def write(info: dict[str, Any], pattern: int) -> None:
    done = qemu_io(info, f"write -P {pattern} 0 1M")
    assert done.returncode == 0, done.stderr + done.stdout


def holds(info: dict[str, Any], pattern: int) -> bool:
    """Return whether the first MiB has the pattern."""
    done = qemu_io(info, f"read -P {pattern} 0 1M")
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0 and "Pattern verification failed" not in done.stdout


def connect(client: Client, volume_id: str) -> dict[str, Any]:
    return client.api.initialize_connection(client.context, volume_id, CONNECTOR)


def disconnect(client: Client, volume_id: str) -> None:
    client.api.terminate_connection(client.context, volume_id, CONNECTOR)


def test_bytes_over_the_whole_life(served: Daemon) -> None:
    volume_id, snapshot_id, clone_id = new_id(), new_id(), new_id()
    with served.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = connect(client, volume_id)
        write(info, 0x11)
        disconnect(client, volume_id)
        assert qemu_io(info, "read 0 512").returncode != 0, "access was not taken away"
        client.do("create_snapshot", volume_id, snapshot_id)
        client.do("create_volume", clone_id, snapshot_id=snapshot_id)
        write(connect(client, volume_id), 0x22)
        disconnect(client, volume_id)
        clone = connect(client, clone_id)
        assert holds(clone, 0x11)
        assert not holds(clone, 0x22)
        shown = client.api.initialize_connection_snapshot(client.context, snapshot_id, CONNECTOR)
        assert holds(shown, 0x11)
        writable = {"data": {**shown["data"], "access_mode": "rw"}}
        assert qemu_io(writable, "write -P 1 0 1M").returncode != 0, "a snapshot could be written"
        client.api.terminate_connection_snapshot(client.context, snapshot_id, CONNECTOR)
        client.do("revert_to_snapshot", volume_id, snapshot_id)
        info = connect(client, volume_id)
        assert holds(info, 0x11)
        disconnect(client, volume_id)
        client.do("extend_volume", volume_id, 2)
        info = connect(client, volume_id)
        assert holds(info, 0x11)
        assert "2 GiB" in qemu_io(info, "length").stdout
        client.do("delete_volume", clone_id, force=True)
        client.do("delete_volume", volume_id, cascade=True, force=True)
        wait_until(lambda: not stored(served), 30, "all files are wiped")


def stored(daemon: Daemon) -> list[str]:
    return [str(path) for path in (daemon.state / "file").rglob("*") if path.is_file()]


def test_wrong_secret_and_other_initiator_are_refused(served: Daemon) -> None:
    volume_id = new_id()
    with served.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = connect(client, volume_id)
        assert initiator(info, "iscsi-inq", "-i", INITIATOR, url(info)).returncode == 0
        assert initiator(info, "iscsi-inq", "-i", f"{INITIATOR}2", url(info)).returncode != 0
        wrong = {"data": {**info["data"], "auth_password": "0" * 16}}
        assert initiator(wrong, "iscsi-inq", "-i", INITIATOR, url(info)).returncode != 0


def test_the_daemons_death_does_not_cut_an_attachment(served: Daemon) -> None:
    volume_id = new_id()
    with served.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = connect(client, volume_id)
        write(info, 0x33)
        before = tgtds(served)
        assert before
        served.kill()
        assert holds(info, 0x33), "the target must outlive the daemon"
        served.start()
        assert tgtds(served) == before, "the target was started anew instead of adopted"
        assert connect(client, volume_id) == info
        assert holds(info, 0x33)


def test_the_targets_death_is_mended(served: Daemon) -> None:
    volume_id = new_id()
    with served.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = connect(client, volume_id)
        write(info, 0x44)
        (pid,) = tgtds(served)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not tgtds(served), 10, "tgtd is gone")
        served.kill()
        served.start()
        wait_until(lambda: holds(info, 0x44), 30, "the export is rebuilt with the same account and serial")


def test_a_dead_target_is_started_again_by_the_daemon(served: Daemon) -> None:
    volume_id = new_id()
    with served.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = connect(client, volume_id)
        write(info, 0x55)
        (pid,) = tgtds(served)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: holds(info, 0x55), 30, "the export is back without anybody asking")
        assert tgtds(served) != [pid]


def test_an_attached_volume_does_not_grow(served: Daemon) -> None:
    volume_id = new_id()
    with served.client() as client:
        client.do("create_volume", volume_id, size=1)
        connect(client, volume_id)
        with pytest.raises(exception.Unsupported):
            client.do("extend_volume", volume_id, 2)


def test_tgtd_rests_when_nothing_is_asked(served: Daemon) -> None:
    volume_id = new_id()
    with served.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = connect(client, volume_id)
        write(info, 0x66)
        (pid,) = tgtds(served)
        ticks = cpu_ticks(pid)
        # Three heartbeats, each of which asks tgtd how it is.
        beats = client.api.list_services(client.context)[0]["updated_at"]
        for _ in range(3):
            beats = wait_until(lambda seen=beats: later(client, seen), 20, "a heartbeat")
        assert cpu_ticks(pid) - ticks < 100, "tgtd was busy for more than a second of about three"


def later(client: Client, seen: str) -> str | None:
    now = client.api.list_services(client.context)[0]["updated_at"]
    return now if now != seen else None


def cpu_ticks(pid: int) -> int:
    """Return how much processor time a process has had, in hundredths of a second (proc(5), stat 14 and 15)."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_an_export_that_is_wiped_comes_back_by_itself(served: Daemon) -> None:
    """Nobody asks for it: the heartbeat sees that it is gone."""
    volume_id = new_id()
    with served.client() as client:
        client.do("create_volume", volume_id, size=1)
        info = connect(client, volume_id)
        write(info, 0x66)
        (socket,) = served.state.rglob("socket.0")
        tgt = TgtClient(str(socket), 30)
        (target,) = tgt.targets()
        tgt.delete_target(target.tid, force=True)
        assert tgt.targets() == ()
        wait_until(lambda: bool(tgt.targets()) and holds(info, 0x66), 60, "the export is back, with its access")


def test_an_audit_of_files_and_tgt(served: Daemon) -> None:
    """What is broken by hand on the file system and in tgtd is found, and what may be mended is."""
    kept, lost, orphan = new_id(), new_id(), new_id()
    with served.client() as client:
        for volume_id in (kept, lost):
            client.do("create_volume", volume_id, size=1)
        info = connect(client, kept)
        assert client.api.audit(client.context)["findings"] == []
        folder = served.state / "file" / "volumes"
        (folder / names.object_name("volume", lost)).rename(
            served.state / "file" / "trash" / names.trash_name(lost)
        )
        (folder / names.building_name(kept)).write_bytes(b"half")
        (folder / names.object_name("volume", orphan)).write_bytes(b"somebody's")
        (socket,) = served.state.rglob("socket.0")
        tgt = TgtClient(str(socket), 30)
        (target,) = tgt.targets()
        tgt.allow_name(target.tid, f"{INITIATOR}-intruder")
        tgt.new_target(5, names.target_name("iqn.2010-10.org.openstack:", "volume", lost))
        found = {item["kind"]: item for item in client.api.audit(client.context)["findings"]}
        assert set(found) == {
            "storage-in-trash", "building-left", "storage-orphan", "access-too-wide", "export-orphan",
        }
        named = [found[kind]["id"] for kind in ("building-left", "storage-orphan")]
        client.api.audit(client.context, fix=True)
        client.api.audit(client.context, fix=True, findings=named)
        whole = {names.object_name("volume", volume_id) for volume_id in (kept, lost)}
        wait_until(lambda: {path.name for path in folder.iterdir()} == whole, 60, "the storage is mended")
        wait_until(lambda: not client.api.audit(client.context)["findings"], 60, "everything is mended")
        assert [item.name for item in tgt.targets()] == [info["data"]["target_iqn"]]
        assert tgt.targets()[0].acls == (INITIATOR,)

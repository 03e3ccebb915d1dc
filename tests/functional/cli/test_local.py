# SPDX-License-Identifier: Apache-2.0
"""Drivers without the service: the command line, the module and the scripts of the documentation; bytes read back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from volmgr import conf as config
from volmgr import exception, local
from volmgr.drivers.sim.store import forget_store
from volmgr.testing.daemon import Daemon, free_port
from volmgr.testing.waiting import wait_until
from volmgr.tools.tgtd import Tgtd
from volmgr.types import GiB, Portal

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "doc" / "source" / "examples"
#: what no command of these may even import.
SERVICE = ("oslo_messaging", "sqlalchemy", "volmgr.rpc.client", "volmgr.manager", "volmgr.service", "volmgr.db.engine")
HERE = "iqn.1993-08.org.debian:01:here"


class Site:
    """A configuration and the command line over it; nothing runs."""

    def __init__(self, folder: Path, **backend: Any) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.file = folder / "volmgr.conf"
        self.store = folder / "volumes"
        self.store.mkdir()
        options = {"volume_driver": "file", "file_store_path": self.store, "target_helper": "", **backend}
        lines = ["[DEFAULT]", f"state_path = {self.state}", "host = node", "enabled_backends = b", "[b]"]
        self.file.write_text("\n".join([*lines, *(f"{key} = {value}" for key, value in options.items()), ""]))

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "volmgr.cli.app", "--config-file", str(self.file), "local", *argv],
            cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=120, check=False,
        )

    def json(self, *argv: str) -> Any:
        done = self.run(*argv, "-f", "json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def opened(self) -> Any:
        return local.opened(config.load(["--config-file", str(self.file)]))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.once
def test_a_life_of_a_volume_on_the_command_line(site: Site) -> None:
    volume = site.json("create", "--size", "1")
    path = Path(volume["path"])
    assert path.stat().st_size == GiB and path.name == f"volume-{volume['id']}"
    with path.open("r+b") as file:
        file.write(b"before")
    snapshot = site.json("snapshot", volume["id"])
    with path.open("r+b") as file:
        file.write(b"after!")
    copy = site.json("clone", snapshot["id"], "--size", "2")
    assert Path(copy["path"]).read_bytes()[:6] == b"before" and copy["size"] == 2
    assert site.json("extend", volume["id"], "3")["size"] == 3
    listed = {item["object_id"]: (item["kind"], item["size_bytes"]) for item in site.json("list")}
    assert listed == {
        volume["id"]: ("volume", 3 * GiB), snapshot["id"]: ("snapshot", GiB), copy["id"]: ("volume", 2 * GiB),
    }
    for item in listed:
        assert site.run("delete", item).returncode == 0
    assert list((site.store / "volumes").iterdir()) == []
    gone = site.run("delete", volume["id"])
    assert gone.returncode == 1 and "hint: Run: volmgr local list" in gone.stderr


@pytest.mark.once
def test_attaching_on_the_host_itself(site: Site) -> None:
    volume = site.json("create", "--size", "1")
    done = site.run("attach", volume["id"], "-f", "json")
    if os.geteuid() != 0:
        assert done.returncode == 1 and "Only root" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    # Without a target the device is the file.
    assert json.loads(done.stdout) == {"device": volume["path"], "volume_id": volume["id"]}
    done = site.run("detach", volume["id"])
    assert done.returncode == 0, done.stderr
    assert Path(volume["path"]).stat().st_size == GiB


@pytest.mark.once
def test_check_and_stats_say_what_the_daemon_would_use(site: Site) -> None:
    checked = site.json("check")
    assert checked["backend"] == "node@b" and "create_cloned_volume" in checked["verbs"]
    assert site.json("stats")[0]["total_capacity_gb"] > 0
    site.store.rename(site.folder / "unmounted")
    down = site.run("check")
    assert down.returncode == 1 and "does not exist" in down.stderr and "hint: Mount it" in down.stderr


@pytest.mark.once
@pytest.mark.parametrize("script", ["backend.py", "driver.py"])
def test_the_scripts_of_the_documentation_run(site: Site, script: str) -> None:
    argument = site.file if script == "backend.py" else site.store
    assert len((EXAMPLES / script).read_text().split('"""\n', 1)[1].split("\n\n", 1)[1].splitlines()) <= 14
    code = (
        "import runpy, sys; "
        f"runpy.run_path({str(EXAMPLES / script)!r}, run_name='__main__'); "
        f"print([name for name in {SERVICE!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(argument)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    shown, imported = done.stdout.splitlines()
    assert shown.startswith(f"{site.store}/volumes/volume-") and imported == "[]"
    assert list((site.store / "volumes").iterdir()) == []


def _conf(daemon: Daemon) -> Any:
    return config.load(["--config-file", str(daemon.config_file)])


def test_a_backend_that_a_daemon_serves_is_left_to_it(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path).start()
    try:
        with pytest.raises(exception.Conflict) as refused, local.opened(_conf(daemon)):
            raise AssertionError("it was given away")
        assert refused.value.details["pid"] == daemon.pid and "volmgr.cmd.volume" in refused.value.message
    finally:
        daemon.stop()
    with local.opened(_conf(daemon)) as backend:
        assert backend.objects() == []
    forget_store(str(tmp_path / "sim"))


def test_what_is_open_is_neither_deleted_nor_grown(site: Site) -> None:
    with site.opened() as backend:
        volume = backend.create(1)
        path = backend.driver.local_path(volume)
        holder = subprocess.Popen(["tail", "-f", path], stdout=subprocess.DEVNULL)
        try:
            wait_until(lambda: backend.users(volume), 30, "the file is open")
            for refused in (lambda: backend.delete(volume.id), lambda: backend.extend(volume.id, 2)):
                with pytest.raises(exception.Conflict, match=f"process {holder.pid}"):
                    refused()
            backend.driver.instant_clone = False
            with pytest.raises(exception.Unsupported, match="attached"):
                backend.clone(volume.id)
        finally:
            holder.kill()
            holder.wait()
        backend.delete(volume.id)
        assert backend.objects() == [] and not os.path.exists(path)


def test_an_export_has_one_client_with_an_account_of_its_own(tmp_path: Path, require: Any) -> None:
    require("tgtd", "tgt")
    require("iscsi-inq", "libiscsi-bin")
    port = free_port()
    site = Site(tmp_path, target_helper="tgtadm", target_ip_address="127.0.0.1", target_port=port)
    private = Tgtd(str(site.state / "b" / "target"), (Portal("127.0.0.1", port),))
    other = f"{HERE}2"
    try:
        with site.opened() as backend:
            volume = backend.create(1)
            first = backend.export(volume.id, {"initiator": HERE, "host": "a", "ip": "127.0.0.1"})
        # The target outlives the command that made the export.
        assert _can_connect(first, HERE) and not _can_connect(first, other)
        with site.opened() as backend:
            second = backend.export(volume.id, {"initiator": other, "host": "b", "ip": "127.0.0.1"})
            assert _can_connect(second, other)
            assert not _can_connect(first, HERE) and not _can_connect(second, HERE) and not _can_connect(first, other)
            with pytest.raises(exception.Conflict, match="tgtd"):
                backend.delete(volume.id)
            assert "auth_password" not in backend.connection(volume.id, {"initiator": other})["data"]
            backend.unexport(volume.id)
            assert not _can_connect(second, other)
            backend.delete(volume.id)
    finally:
        private.stop()


def _can_connect(info: dict[str, Any], initiator: str) -> bool:
    data = info["data"]
    account = {"LIBISCSI_CHAP_USERNAME": data["auth_username"], "LIBISCSI_CHAP_PASSWORD": data["auth_password"]}
    url = f"iscsi://{data['target_portal']}/{data['target_iqn']}/{data['target_lun']}"
    argv = ["iscsi-inq", "-i", initiator, url]
    done = subprocess.run(argv, env={**os.environ, **account}, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def test_without_a_target_the_host_itself_is_the_client(site: Site) -> None:
    with site.opened() as backend:
        volume = backend.create(1)
        info = backend.export(volume.id, {"host": "node"})
        assert info == {"driver_volume_type": "local", "data": {"device_path": backend.driver.local_path(volume)}}
        with pytest.raises(exception.InvalidConnector):
            backend.export(volume.id, {"host": "elsewhere"})
        backend.unexport(volume.id)

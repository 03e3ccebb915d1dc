# SPDX-License-Identifier: Apache-2.0
"""One volmgr-volume with several backends: placing between them, and none harmed by another."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.cmd import supervisor
from volmgr.context import RequestContext
from volmgr.incarnation import started
from volmgr.support.meditation import path_of
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.waiting import wait_until

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
TIMEOUT = 90.0


def new_id() -> str:
    return str(uuid.uuid4())


def pid_of(daemon: Daemon, backend: str) -> int:
    """Return the process that holds a backend, as its incarnation file says, which is empty for a moment at a start."""
    path, found = daemon.state / "locks" / f"node@{backend}.incarnation", [""]

    def written() -> bool:
        found[0] = path.read_text() if path.exists() else ""
        return found[0].endswith("}")

    wait_until(written, TIMEOUT, f"{path} is written")
    return int(json.loads(found[0])["pid"])


class Several:
    """A daemon with a file backend, a simulated one and one that cannot work, and a client of it."""

    def __init__(self, daemon: Daemon, client: Client, faults: Path) -> None:
        self.daemon = daemon
        self.client = client
        self.faults = faults
        self.api, self.context = client.api, client.context

    def up(self) -> dict[str, bool]:
        return {
            item["host"].partition("@")[2]: item["up"] and item["state"] == "up"
            for item in self.api.list_services(self.context)
        }

    def knows(self, backend: str) -> set[str]:
        """Return the backends that take a volume, as one backend's worker knows; it looks anew for that."""
        answer = self.api.call(self.context, "explain_placement", host=f"node@{backend}", request={"size": 1})
        found = answer["backends"]
        return {item["host"].partition("@")[2].partition("#")[0] for item in found if item["passed"]}

    def create(self, **values: Any) -> dict[str, Any]:
        volume_id = new_id()
        self.client.do("create_volume", volume_id, **{"size": 1, **values}, timeout=TIMEOUT)
        return self.api.get_volume(self.context, volume_id)

    def backend(self, volume: dict[str, Any]) -> str:
        return str(volume["host"]).partition("@")[2].partition("#")[0]

    def worker(self, backend: str) -> int:
        """Return the process id of a backend's worker, as its incarnation file says; it must live."""
        return pid_of(self.daemon, backend)


def sections(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        "files": {"volume_driver": "file", "target_helper": "fake", "extra_capabilities": "media:disk"},
        "simulated": {
            "volume_driver": "sim", "target_helper": "fake", "sim_store_path": str(folder / "sim"),
            "sim_faults_file": str(folder / "faults.json"), "goodness_function": "volume.size < 5 ? 90 : 0",
            "filter_function": "volume.size < 8", "extra_capabilities": "media:memory",
        },
        "broken": {"volume_driver": "volmgr.drivers.sim:NoSuchDriver", "target_helper": "fake"},
    }


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    """One daemon for the tests that follow each other here; the last of them stops it."""
    folder = tmp_path_factory.mktemp("several")
    daemon = Daemon(
        folder / "node",
        options={"enabled_backends": "files, simulated, broken", "report_interval": 1, "service_down_time": 5},
        sections=sections(folder),
    )
    try:
        daemon.start()
        with daemon.client() as client:
            made = Several(daemon, client, folder / "faults.json")
            both = {"files", "simulated"}
            wait_until(
                lambda: all(both <= made.knows(each) for each in both), TIMEOUT, "both workers know each other",
                retry_on=exception.VolmgrError,
            )
            yield made
    finally:
        if daemon.process is not None:
            daemon.stop(60)


def test_volumes_go_where_they_fit_and_elsewhere_when_that_fails(several: Several) -> None:
    api, context = several.api, several.context
    for name, spec in (("disk", "disk"), ("any", "<or> disk <or> memory"), ("tape", "tape")):
        api.type_create(context, new_id(), name, extra_specs={"media": spec})
    assert several.backend(several.create()) == "simulated"  # by its goodness
    assert several.backend(several.create(size=9)) == "files"  # by the other's filter
    disk = several.create(volume_type="disk")
    assert several.backend(disk) == "files"
    assert several.backend(several.create(volume_type="any")) == "simulated"
    assert several.backend(several.create(scheduler_hints={"same_host": disk["id"]})) == "files"
    assert several.backend(several.create(source_volid=disk["id"])) == "files"
    with pytest.raises(exception.NoSpace) as refused:
        several.create(volume_type="tape")
    assert refused.value.code == "volmgr.no_space.no_backend"
    assert (api.initialize_connection(context, disk["id"], CONNECTOR)["driver_volume_type"], several.up()) == (
        "iscsi", {"files": True, "simulated": True},
    )

    several.faults.write_text(json.dumps([{"verb": "create_volume", "error": "volmgr.no_space", "times": 1}]))
    volume_id = new_id()
    done = several.client.do("create_volume", volume_id, size=1, timeout=TIMEOUT)
    assert [item["host"] for item in done["history"]] == ["node@simulated#simulated"]
    assert several.backend(api.get_volume(context, volume_id)) == "files"


def test_every_worker_that_serves_says_what_it_is_at(several: Several) -> None:
    paths = [path_of(str(several.daemon.state), f"node@{name}") for name in ("files", "simulated")]
    os.kill(several.daemon.pid, signal.SIGUSR2)
    wait_until(lambda: all(path.exists() for path in paths), TIMEOUT, "both have written it")
    assert several.up() == {"files": True, "simulated": True}


def test_the_explanation(several: Several) -> None:
    found = several.api.explain_placement(several.context, {"size": 9})
    assert found["host"] == "node@files#files"
    checks = {item["host"]: {each["check"]: each for each in item["checks"]} for item in found["backends"]}
    simulated = checks["node@simulated#simulated"]
    assert [name for name, item in simulated.items() if not item["passed"]] == ["filter_function"]
    assert simulated["capacity"]["numbers"]["wanted_gb"] == 9
    command = [sys.executable, "-m", "volmgr.cli.app", "--config-file", str(several.daemon.config_file)]
    done = subprocess.run(
        [*command, "backend", "explain", "--size", "9", "-f", "json"],
        capture_output=True, text=True, timeout=TIMEOUT, check=True,
    )
    assert "it would go to node@files#files" in done.stderr
    told = {(row["backend"], row["check"]): row["verdict"] for row in json.loads(done.stdout)}
    assert told["node@simulated#simulated", "filter_function"] == "refused"
    assert told["node@files#files", "filter_function"] == "passed"


def test_a_worker_that_dies_comes_back_and_harms_no_other(several: Several) -> None:
    files, simulated = several.worker("files"), several.worker("simulated")
    volume = several.create(host="node@simulated")
    os.kill(simulated, signal.SIGKILL)
    volume_id = new_id()

    context = RequestContext(
        is_admin=True, project_id="project", user_id="user", request_key=new_id(), overwrite=False
    )

    def create() -> bool:
        """The connection to the one that died may have been this client's; then the same request is sent again."""
        answer = several.api.create_volume(context, volume_id, size=1, host="node@files")
        several.api.wait_operation(context, answer["operation_id"], TIMEOUT)
        return True

    wait_until(create, TIMEOUT, "the other worker creates", retry_on=exception.BackendDown)
    assert several.backend(several.api.get_volume(several.context, volume_id)) == "files"
    wait_until(lambda: several.worker("simulated") != simulated, TIMEOUT, "the worker is started again")
    # What is asked of the dead one waits for it.
    wait_until(
        lambda: several.client.do("extend_volume", volume["id"], 2, timeout=TIMEOUT), TIMEOUT, "it serves again",
        retry_on=exception.BackendDown,
    )
    assert several.worker("files") == files
    assert several.daemon.tail(400).count("The worker of broken ended with 1") >= 1


def test_all_drain_together(several: Several) -> None:
    pids = [several.worker(name) for name in ("files", "simulated")]
    assert several.daemon.stop(60) == 0
    assert [pid for pid in pids if started(pid) is not None] == []
    assert several.daemon.tail(400).count("Stopped") == 2


def test_systemd_sees_one_service(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Ready once every worker is ready or has failed; the watchdog ends one that hangs; none outlives the parent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(TIMEOUT)
        daemon = make_daemon(
            options={"enabled_backends": "simulated, broken", "report_interval": 1},
            sections=sections(tmp_path),
            environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "6000000"},
        )
        daemon.start(wait=False)
        said: list[str] = []
        while "READY=1" not in said:
            said = systemd.recv(4096).decode().split("\n")
        assert "STATUS=1 of 2 workers serve" in said
        hanging = pid_of(daemon, "simulated")
        os.kill(hanging, signal.SIGSTOP)
        wait_until(lambda: started(hanging) is None, TIMEOUT, "the worker that hangs is ended")
        assert "gave no sign of life" in daemon.tail(400)
        while "WATCHDOG=1" not in systemd.recv(4096).decode().split("\n"):
            continue
        wait_until(lambda: pid_of(daemon, "simulated") != hanging, TIMEOUT, "it is started again")
        again = pid_of(daemon, "simulated")
        daemon.kill()
        wait_until(lambda: started(again) is None, TIMEOUT, "the worker has ended with its parent")


def test_which_backends_a_command_line_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (supervisor.BACKEND, "OS_DEFAULT__ENABLED_BACKENDS"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "volmgr.conf"
    file.write_text("[DEFAULT]\nenabled_backends = a, b\n")
    argv = ["--config-file", str(file)]
    assert supervisor.named(argv) == ["a", "b"]
    monkeypatch.setenv("OS_DEFAULT__ENABLED_BACKENDS", "c")
    assert supervisor.named(argv) == ["c"]
    monkeypatch.setenv(supervisor.BACKEND, "b")
    assert supervisor.named(argv) == ["b"]
    monkeypatch.delenv(supervisor.BACKEND)
    monkeypatch.delenv("OS_DEFAULT__ENABLED_BACKENDS")
    file.write_text("[DEFAULT]\n")
    assert supervisor.named(argv) == []

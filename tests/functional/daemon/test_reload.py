# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: the configuration is read again; backends come, change and go, and none harms another."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.functional.daemon.test_backends import TIMEOUT, pid_of
from volmgr import exception
from volmgr.incarnation import started
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.waiting import wait_until


def section(folder: Path, name: str, **more: Any) -> dict[str, Any]:
    return {"volume_driver": "sim", "target_helper": "fake", "sim_store_path": str(folder / name), **more}


def configure(daemon: Daemon, folder: Path, *backends: str, **changed: dict[str, Any]) -> None:
    """Write the configuration with these backends; ``changed`` are options of a backend by its name."""
    default = {
        "state_path": str(daemon.state), "host": "node", "enabled_backends": ", ".join(backends), "report_interval": 1,
        "service_down_time": 5,
    }  # fmt: skip
    daemon._write({"DEFAULT": default, **{name: section(folder, name, **changed.get(name, {})) for name in backends}})


def create(client: Client, backend: str) -> str:
    volume_id = str(uuid.uuid4())
    client.do("create_volume", volume_id, size=1, host=f"node@{backend}#{backend}", timeout=TIMEOUT)
    return volume_id


def serves(client: Client, backend: str) -> bool:
    return bool(client.api.call(client.context, "is_working", host=f"node@{backend}"))


def there(client: Client, volume_id: str) -> dict[str, Any]:
    """Return a volume, which is as it was; whom a request goes to may still begin."""
    found: dict[str, Any] = {}

    def told() -> bool:
        found.update(client.api.get_volume(client.context, volume_id))
        return True

    wait_until(told, TIMEOUT, "the volume is told", retry_on=exception.VolmgrError)
    assert found["status"] == "available"
    return found


def in_log(daemon: Daemon, text: str) -> None:
    wait_until(lambda: text in daemon.tail(1000), TIMEOUT, f"the log says: {text}")


def test_backends_come_change_and_go(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon(options={"enabled_backends": "a, b"}, sections={"a": {}, "b": {}})
    configure(daemon, tmp_path, "a", "b")
    daemon.start(wait=False)
    with daemon.client() as client:
        wait_until(
            lambda: serves(client, "a") and serves(client, "b"), TIMEOUT, "both serve", retry_on=exception.VolmgrError
        )
        volumes = {name: create(client, name) for name in ("a", "b")}
        pids = {name: pid_of(daemon, name) for name in ("a", "b")}

        # What cannot be used changes nothing.
        good = daemon.config_file.read_text()
        daemon.config_file.write_text(good.replace("enabled_backends = a, b", "enabled_backends = a, nowhere"))
        os.kill(daemon.pid, signal.SIGHUP)
        in_log(daemon, "The configuration stays what it was")
        assert {name: pid_of(daemon, name) for name in pids} == pids

        # One comes that works, one that does not; the others are left alone.
        configure(daemon, tmp_path, "a", "b", "c", "d", d={"volume_driver": "volmgr.drivers.sim:NoSuchDriver"})
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: serves(client, "c"), TIMEOUT, "the new backend serves", retry_on=exception.VolmgrError)
        volumes["c"] = create(client, "c")
        in_log(daemon, "The worker of d ended")
        assert {name: pid_of(daemon, name) for name in pids} == pids

        # One changes: it alone begins again, as the same process, and has what it had.
        configure(daemon, tmp_path, "a", "b", "c", a={"extra_capabilities": "media:memory"})
        os.kill(daemon.pid, signal.SIGHUP)

        def changed() -> bool:
            found = client.api.call(client.context, "get_capabilities", host="node@a")
            return bool(found["pools"][0].get("media") == "memory" or found.get("media") == "memory")

        wait_until(changed, TIMEOUT, "the change is in force", retry_on=exception.VolmgrError)
        assert {name: pid_of(daemon, name) for name in pids} == pids
        there(client, volumes["a"])

        # One goes: its worker drains, its volumes stay what they are, and it can come back.
        configure(daemon, tmp_path, "a", "c", a={"extra_capabilities": "media:memory"})
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: started(pids["b"]) is None, TIMEOUT, "the worker has drained")
        in_log(daemon, "The worker of b has ended")
        assert serves(client, "a")
        assert there(client, volumes["b"])["host"] == "node@b#b"
        configure(daemon, tmp_path, "a", "b", "c", a={"extra_capabilities": "media:memory"})
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: serves(client, "b"), TIMEOUT, "it is back", retry_on=exception.VolmgrError)
        for name, volume_id in volumes.items():
            client.do("delete_volume", volume_id, timeout=TIMEOUT)
            assert pid_of(daemon, name)
    assert daemon.stop(60) == 0


def test_one_backend_alone_begins_again_in_the_same_process(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon().start()
    volume_id = str(uuid.uuid4())
    with daemon.client() as client:
        client.do("create_volume", volume_id, size=1)
        good = daemon.config_file.read_text()
        daemon.config_file.write_text(good + "\n[quota]\nvolumes = nonsense\n")
        os.kill(daemon.pid, signal.SIGHUP)
        in_log(daemon, "The configuration stays what it was")
        daemon.config_file.write_text(good + "\n[quota]\nvolumes = 7\n")
        os.kill(daemon.pid, signal.SIGHUP)

        def changed() -> bool:
            return bool(client.api.get_quota(client.context, "project")["volumes"]["limit"] == 7)

        wait_until(changed, TIMEOUT, "the change is in force", retry_on=exception.VolmgrError)
        assert pid_of(daemon, "b") == daemon.pid
        there(client, volume_id)
        # From one to two: the process becomes the one above its workers.
        daemon.config_file.write_text(good.replace("= b\n", "= b, c\n", 1) + "\n[c]\n" + "".join(
            f"{key} = {value}\n" for key, value in section(tmp_path, "c").items()
        ))  # fmt: skip
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(
            lambda: serves(client, "c") and serves(client, "b") and pid_of(daemon, "b") != daemon.pid, TIMEOUT,
            "both serve", retry_on=exception.VolmgrError,
        )  # fmt: skip
        client.do("delete_volume", volume_id)
    assert daemon.stop(60) == 0

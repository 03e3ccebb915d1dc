# SPDX-License-Identifier: Apache-2.0
"""A daemon that is forked from a zygote is the daemon: its own session, environment, output, end and life."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from volmgr import exception
from volmgr.testing.daemon import Daemon
from volmgr.testing.waiting import wait_until
from volmgr.testing.zygote import Zygote, client, zygote_of


@pytest.fixture(scope="module", autouse=True)
def zygotes() -> Iterator[None]:
    """End the zygotes of these tests."""
    yield
    while client._zygotes:
        client._zygotes.popitem()[1].close()


def descriptors(pid: int) -> set[str]:
    """Return what a process has open, without the numbers of what has no name."""
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(fd).partition(":[")[0])
        except FileNotFoundError:
            continue  # closed just now
    return found


def test_it_is_a_daemon_of_its_own(make_daemon: Callable[..., Daemon]) -> None:
    one, two = (make_daemon(name, forked=True).start() for name in ("one", "two"))
    executed = make_daemon("three").start()
    for daemon in (one, two):
        assert os.getsid(daemon.pid) == os.getpgid(daemon.pid) == daemon.pid
        assert os.readlink(f"/proc/{daemon.pid}/fd/1") == str(daemon.log)
        assert descriptors(daemon.pid) <= {
            text.replace("three", daemon.folder.name) for text in descriptors(executed.pid)
        } | {"pipe", "socket", "anon_inode"}
        with daemon.client() as user:
            user.do("create_volume", str(uuid.uuid4()), size=1)
    assert "Serving node@b" in one.tail()
    assert (one.stop(), two.stop()) == (0, 0)


def test_it_dies_where_it_is_to_die_and_lives_again(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(forked=True)
    daemon.start(VOLMGR_KILL_AT="create_volume/create/before")
    pid, volume_id = daemon.pid, str(uuid.uuid4())
    with daemon.client() as user:
        with contextlib.suppress(exception.VolmgrError):  # the answer may be lost with the daemon
            user.api.create_volume(user.context, volume_id, size=1)
        daemon.wait_killed()
        assert not Path(f"/proc/{pid}").exists()
        daemon.start()  # without the variable it passes that point
        wait_until(
            lambda: user.api.get_volume(user.context, volume_id)["status"] == "available", 60, "it was taken up"
        )
    daemon.kill()


def test_its_end_is_told(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon(forked=True)
    environment = dict(os.environ)
    zygote = zygote_of(daemon.config_file, environment)
    assert zygote_of(daemon.config_file, environment) is zygote
    with (tmp_path / "log").open("ab") as log:
        wrong = zygote.start(["--no-such-option"], environment, log.fileno())
        assert wrong.wait(60) == 2
        daemon.start()
        life = zygote.start(["--config-file", str(daemon.config_file)], environment, log.fileno())
        assert life.wait(60) == 1  # another serves this backend
    assert "no-such-option" in (tmp_path / "log").read_text()
    assert daemon.process is not None and daemon.process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        daemon.process.wait(0.01)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(60) == 0
    daemon.process.send_signal(signal.SIGKILL)  # means nobody


def test_daemons_outlive_their_zygote(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon()
    zygote = Zygote(os.environ.get("VOLMGR_CONCURRENCY", "eventlet"))
    with (tmp_path / "log").open("ab") as log:
        life = zygote.start(["--config-file", str(daemon.config_file)], dict(os.environ), log.fileno())
    zygote.close()
    try:
        assert Path(f"/proc/{life.pid}").exists()
        with pytest.raises(RuntimeError, match="ended before its daemon"):
            life.poll()
    finally:
        os.kill(life.pid, signal.SIGKILL)

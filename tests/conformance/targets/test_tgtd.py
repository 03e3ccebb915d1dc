# SPDX-License-Identifier: Apache-2.0
"""A private tgtd is started, recognised and ended, and never taken for another process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from volmgr import exception
from volmgr.tools import tgtd
from volmgr.tools.tgt import TgtDown
from volmgr.types import Portal

sys.path.insert(0, str(Path(__file__).parent))
from initiators import free_port  # the folder is no package


def test_taken_port_is_told_and_nothing_is_left(tmp_path: Path, require: Callable[..., str]) -> None:
    require("tgtd", "tgt")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        daemon = tgtd.Tgtd(str(tmp_path / "t"), [Portal("127.0.0.1", holder.getsockname()[1])], timeout=5)
        with pytest.raises(exception.BackendDown, match=f"process {os.getpid()} ") as caught:
            daemon.start()
    assert "target_port" in caught.value.hint
    with pytest.raises(TgtDown):
        daemon.check()


def test_foreign_address_is_a_configuration_error(tmp_path: Path, require: Callable[..., str]) -> None:
    require("tgtd", "tgt")
    with pytest.raises(exception.InvalidConfiguration):
        tgtd.Tgtd(str(tmp_path / "t"), [Portal("192.0.2.1", free_port())], timeout=5).start()


def test_long_folder_inherits_nothing_and_ends(tmp_path: Path, require: Callable[..., str]) -> None:
    require("tgtd", "tgt")
    daemon = tgtd.Tgtd(str(tmp_path / ("x" * 120)), [Portal("127.0.0.1", free_port())], timeout=5)
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert daemon.start() is True
        identity = daemon.identity()
        held = {os.readlink(link) for link in Path(f"/proc/{identity.pid}/fd").iterdir()}
        assert file.name not in held
        assert os.getsid(identity.pid) == identity.pid
    daemon.client.new_target(1, "iqn.x:x")
    assert daemon.start() is False
    daemon.stop()
    assert not Path(f"/proc/{identity.pid}").exists()
    daemon.stop()


def test_tgtd_that_lost_its_socket_is_replaced(tmp_path: Path, require: Callable[..., str]) -> None:
    require("tgtd", "tgt")
    daemon = tgtd.Tgtd(str(tmp_path / "t"), [Portal("127.0.0.1", free_port())], timeout=5)
    daemon.start()
    lost = daemon.identity()
    os.unlink(daemon.client.socket)
    assert daemon.start() is True
    assert daemon.identity() != lost
    assert not Path(f"/proc/{lost.pid}").exists()
    daemon.stop()


def test_recorded_process_that_is_another_is_left_alone(tmp_path: Path, require: Callable[..., str]) -> None:
    """A process id is used again: the one in the state file is now somebody else's."""
    require("tgtd", "tgt")
    daemon = tgtd.Tgtd(str(tmp_path / "t"), [Portal("127.0.0.1", free_port())], timeout=5)
    daemon.start()
    state = tmp_path / "t" / "tgtd.json"
    recorded = state.read_text()
    pid = daemon.identity().pid
    daemon.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        state.write_text(recorded.replace(str(pid), str(bystander.pid)))
        assert daemon.start() is True
        assert bystander.poll() is None
        bystander.communicate(b"\n", timeout=20)
    daemon.stop()


def _as_nobody(command: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, cwd=folder, user=65534, group=65534, extra_groups=[], capture_output=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip


def _runs(python: str, folder: Path) -> bool:
    try:
        return _as_nobody([python, "-c", "import volmgr.tools.tgtd"], folder).returncode == 0
    except PermissionError:
        return False


def test_works_for_an_ordinary_user(tmp_path_factory: pytest.TempPathFactory, require: Callable[..., str]) -> None:
    require("tgtd", "tgt")
    if os.getuid() != 0:
        pytest.skip("this already runs as an ordinary user")
    folder = Path("/tmp") / f"volmgr-test-{uuid.uuid4()}"  # pytest's own folder is closed to other users
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    program = (
        "from volmgr.tools.tgtd import Tgtd; from volmgr.types import Portal\n"
        f"daemon = Tgtd({str(folder / 't')!r}, [Portal('127.0.0.1', {free_port()})], timeout=5)\n"
        "assert daemon.start(); daemon.check(); daemon.client.new_target(1, 'iqn.x:1'); daemon.stop()\n"
    )
    try:
        root = Path(__file__).parents[3]
        # Only the standard library is needed, and an interpreter that this user may run.
        python = next((path for path in (sys.executable, "/usr/bin/python3") if _runs(path, root)), None)
        if python is None:
            pytest.skip("no interpreter that an ordinary user may run with this checkout")
        done = _as_nobody([python, "-c", program], root)
        assert done.returncode == 0, done.stderr
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)

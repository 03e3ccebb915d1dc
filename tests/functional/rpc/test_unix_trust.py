# SPDX-License-Identifier: Apache-2.0
"""Whom the unix transport's server believes: versions, sizes of frames, other users, permissions of its folder."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from volmgr import exception
from volmgr.rpc.unix import directory as names
from volmgr.rpc.unix import errors, frames

Start = Callable[..., Any]


class Raw:
    """A client of bytes."""

    def __init__(self, directory: Path) -> None:
        name = names.rpc_address("openstack", "t", "s1").name
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(str(directory / f"{name}.sock"))

    def greet(self, **other: Any) -> dict[str, Any]:
        """Send a greeting and return the server's."""
        self.socket.sendall(frames.encode({**frames.hello(65536), **other}, 65536))
        data = self.socket.recv(65536)
        return frames.decode(frames.Splitter(65536).feed(data)[0])

    def ended(self) -> bool:
        """Wait until the server has closed the connection; only answers may come before that."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return True
        return True


def test_server_refuses_another_version(serve: Start, connect: Start, directory: Path) -> None:
    serve()
    raw = Raw(directory)
    answer = raw.greet(version=99)
    assert answer["version"] == frames.VERSION
    assert answer["error"] == "version"
    assert raw.ended()
    assert connect("s1").call({}, "echo", value=1) == 1


def test_client_names_both_versions(connect: Start, directory: Path) -> None:
    directory.mkdir()
    name = names.rpc_address("openstack", "t", "s1").name
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / f"{name}.sock"))
        listening.listen()

        def answer() -> None:
            sock, _ = listening.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(frames.encode({**frames.hello(65536), "version": 7, "error": "version"}, 65536))

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(errors.ProtocolMismatch) as raised:
            connect("s1").call({}, "echo", value=1)
        thread.join(20)
    assert (raised.value.details["client_version"], raised.value.details["server_version"]) == (frames.VERSION, 7)
    assert "version 1" in str(raised.value)
    assert "7" in str(raised.value)


def test_frame_limit(serve: Start, connect: Start) -> None:
    server = serve(conf={"max_frame_bytes": 65536})
    client = connect("s1")
    with pytest.raises(errors.MessageTooLarge) as raised:
        client.call({}, "echo", value="x" * 70000)
    assert raised.value.details["limit"] == 65536
    small = connect("s1", conf={"max_frame_bytes": 65536})
    with pytest.raises(errors.MessageTooLarge):
        small.call({}, "big", size=70000)
    assert small.call({}, "echo", value="x" * 60000) == "x" * 60000
    assert client.call({}, "big", size=1_000_000) == "x" * 1_000_000
    assert server.process.poll() is None


def test_peer_is_what_the_kernel_says(serve: Start, connect: Start) -> None:
    serve()
    lie = {"_peer": {"uid": 4711, "gid": 4711, "pid": 1}}
    assert connect("s1").call(lie, "peer") == {"uid": os.getuid(), "gid": os.getgid(), "pid": os.getpid()}


FOREIGN = """
import os, socket, sys
path, uid = sys.argv[1], int(sys.argv[2])
os.setgroups([uid + 1]); os.setgid(uid); os.setuid(uid)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
sock.connect(path)
body = b'{"magic":"volmgr-rpc","version":1,"max_frame":65536}'
sock.sendall(len(body).to_bytes(4, "big") + body)
print(sock.recv(65536)[4:].decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize(
    ("conf", "refused"),
    [({}, True), ({"allowed_uids": [65534]}, False), ({"allowed_gids": [65535]}, False), ({"allowed_gids": [1]}, True)],
)
def test_other_users_need_the_allow_list(serve: Start, directory: Path, conf: dict[str, Any], refused: bool) -> None:
    serve(conf={"unix_socket_mode": "0666", **conf})
    name = names.rpc_address("openstack", "t", "s1").name
    with Reachable(directory) as path:
        command = [sys.executable, "-c", FOREIGN, f"{path}/{name}.sock", "65534"]
        output = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    assert ('"error":"peer"' in output) is refused
    assert '"version":1' in output


class Reachable:
    """Lets other users into every folder above the sockets, as /run/volmgr would be, for a moment."""

    def __init__(self, directory: Path) -> None:
        self._modes = [(folder, folder.stat().st_mode) for folder in (directory, *directory.parents)]
        self._directory = directory

    def __enter__(self) -> Path:
        for folder, mode in self._modes:
            if not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
        return self._directory

    def __exit__(self, *_: object) -> None:
        for folder, mode in self._modes:
            if not mode & stat.S_IXOTH:
                folder.chmod(stat.S_IMODE(mode))


def test_permissions(serve: Start, connect: Start, directory: Path) -> None:
    serve()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    (path,) = directory.glob("*.sock")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(exception.InvalidConfiguration, match="others may write"):
        names.prepare(str(folder), None)

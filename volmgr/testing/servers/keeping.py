# SPDX-License-Identifier: Apache-2.0
"""The test's side of the keeper: start it, send it requests, and end it with everything that it owns.

What a request means is the keeper's; which programs are run is the servers'.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from volmgr.testing.servers.errors import ServerError, ServerStopFailed

_KEEPER = Path(__file__).with_name("keeper.py")
_REPLY_SECONDS = 20.0
_FINISH_SECONDS = 30.0


class Keeper:
    """One keeper process and the folder that it removes at its end.

    :param folder: an existing folder of which nobody else knows.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._commands, theirs = socket.socketpair()
        with contextlib.closing(theirs):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), str(os.getpid()), str(folder)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The keeper's process id."""
        return self._process.pid

    def run(
        self, name: str, argv: list[str], *, env: dict[str, str], cwd: Path, log: Path, user: tuple[int, int] | None
    ) -> int:
        """Start a program as a child of the keeper, in a session of its own.

        :param name: by which the other methods know it; a later program of the same name takes its place.
        :param user: the uid and gid to run as; None leaves the caller's.
        :returns: its process id.
        :raises ServerError: it could not be executed.
        """
        uid, gid = user if user is not None else (None, None)
        reply = self._ask(
            {"action": "run", "name": name, "argv": argv, "env": env, "cwd": str(cwd), "log": str(log), "uid": uid}
            | {"gid": gid}
        )
        return int(reply["pid"])

    def poll(self, name: str) -> int | None:
        """Return the exit status (negative: the signal), or None while the program runs."""
        status: int | None = self._ask({"action": "poll", "name": name})["status"]
        return status

    def stop(self, name: str, signal_number: signal.Signals, grace_seconds: float) -> int | None:
        """Send the signal and wait; returns the exit status, or None when the program still runs after that."""
        request = {"action": "stop", "name": name, "signal_number": int(signal_number), "grace_seconds": grace_seconds}
        status: int | None = self._ask(request, grace_seconds + _REPLY_SECONDS)["status"]
        return status

    def kill(self) -> None:
        """SIGKILL everything that the keeper runs, and wait until none of it is left.

        :raises ServerStopFailed: something is left all the same.
        """
        left = self._ask({"action": "kill"})["left"]
        if left:
            raise ServerStopFailed(f"processes {left} survived SIGKILL")

    def finish(self) -> None:
        """Kill everything, remove the folder, end the keeper. A second call does nothing.

        :raises ServerStopFailed: the keeper did not end in time (it is killed then), or could not clean up.
        """
        with contextlib.suppress(OSError):  # the keeper has ended: wait() below tells how
            self._commands.sendall(b'{"action": "finish"}\n')
        self._commands.close()
        try:
            status = self._process.wait(_FINISH_SECONDS)
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            self._process.wait()
            raise ServerStopFailed(f"the keeper of {self._folder} did not end") from error
        if status != 0 or self._folder.exists():
            # Its processes have ended with it (PR_SET_PDEATHSIG); their files are all that is left to do.
            shutil.rmtree(self._folder, ignore_errors=True)
            raise ServerStopFailed(f"the keeper of {self._folder} ended with status {status} without cleaning up")

    def _ask(self, request: dict[str, Any], timeout_seconds: float = _REPLY_SECONDS) -> dict[str, Any]:
        with self._lock:
            try:
                self._commands.settimeout(timeout_seconds)
                self._commands.sendall(json.dumps(request).encode() + b"\n")
                line = self._receive_line()
            except OSError as error:
                raise ServerError(f"the keeper of {self._folder} does not answer: {error}") from error
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ServerError(f"the keeper could not {request['action']}: {reply['error']}")
        return reply

    def _receive_line(self) -> bytes:
        # One reply follows one request, so nothing can follow the newline.
        line = b""
        while not line.endswith(b"\n"):
            received = self._commands.recv(65536)
            if not received:
                raise ConnectionResetError("it has ended")
            line += received
        return line

# SPDX-License-Identifier: Apache-2.0
"""The real daemon as a process in a private folder, and a client for it.

For tests, demonstrations and whoever develops a client: start, SIGKILL, start again, stop. The process is always ended
by its own process id.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from volmgr import conf as config
from volmgr import exception
from volmgr.context import RequestContext
from volmgr.incarnation import started
from volmgr.rpc.client import VolumeAPI
from volmgr.testing.waiting import wait_until
from volmgr.testing.zygote import Life, zygote_of

START_TIMEOUT = 180.0


def free_port() -> int:
    """Return a TCP port of the loopback that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Daemon:
    """One ``volmgr-volume``.

    :param folder: its state, configuration and log.
    :param backend: options of its one backend; the simulator with a persistent store by default.
    :param options: options of ``[DEFAULT]``. :param sections: further sections, by name.
    :param environment: further environment variables. :param under: what its command line begins with, setpriv(1) say.
    :param forked: start it as a fork of a process that has loaded it already, see :mod:`volmgr.testing.zygote`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        backend: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        sections: dict[str, dict[str, Any]] | None = None,
        environment: dict[str, str] | None = None,
        under: Sequence[str] = (),
        forked: bool = False,
    ) -> None:
        self.folder = folder
        self.under = tuple(under)
        self.state = folder / "state"
        self.config_file = folder / "volmgr.conf"
        self.log = folder / "daemon.log"
        self.environment = dict(environment or {})
        self.forked = forked
        self.process: subprocess.Popen[bytes] | Life | None = None
        backend = backend or {
            "volume_driver": "sim",
            "target_helper": "fake",
            "sim_store_path": str(folder / "sim"),
            "target_ip_address": "127.0.0.1",
        }
        default = {"state_path": str(self.state), "host": "node", "enabled_backends": "b", **(options or {})}
        self._write({"DEFAULT": default, "b": backend, **(sections or {})})
        self.host = f"{default['host']}@b"

    def _write(self, sections: dict[str, dict[str, Any]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lines = []
        for name, values in sections.items():
            lines += [f"[{name}]", *(f"{key} = {value}" for key, value in values.items()), ""]
        self.config_file.write_text("\n".join(lines))

    @property
    def pid(self) -> int:
        """The process id.

        :raises RuntimeError: it does not run.
        """
        if self.process is None:
            raise RuntimeError("the daemon is not started")
        return self.process.pid

    def start(self, *, wait: bool = True, **environment: str) -> Daemon:
        """Start the process; with ``wait`` return once it answers.

        :raises RuntimeError: it ended instead; the message has the end of its log.
        """
        arguments = ["--config-file", str(self.config_file)]
        variables = {**os.environ, **self.environment, **environment}
        with self.log.open("ab") as log:
            if self.forked:
                zygote = zygote_of(self.config_file, variables)
                self.process = zygote.start(arguments, variables, log.fileno())
            else:
                self.process = subprocess.Popen(
                    [*self.under, sys.executable, "-m", "volmgr.cmd.volume", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=variables,
                    start_new_session=True,
                )
        if wait:
            with self.client() as client:
                wait_until(lambda: self._answers(client), START_TIMEOUT, "volmgr-volume answers")
        return self

    def _answers(self, client: Client) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"volmgr-volume ended with {self.process.returncode}:\n{self.tail()}")
        try:
            client.api.call(client.context, "get_capabilities", rpc_timeout=5)
        except (exception.BackendDown, exception.Timeout):
            return False
        return True

    def tail(self, lines: int = 40) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def client(self) -> Client:
        """Return a new client of this daemon."""
        return Client(config.load(["--config-file", str(self.config_file)]))

    def kill(self) -> None:
        """End the process with SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def wait_killed(self, timeout: float = 30.0) -> None:
        """Wait until the process has killed itself at the point that VOLMGR_KILL_AT names."""
        assert self.process is not None
        code = self.process.wait(timeout)
        assert code == -signal.SIGKILL, f"volmgr-volume ended with {code}:\n{self.tail()}"
        self.process = None

    def stop(self, timeout: float = 30.0) -> int:
        """End the process with SIGTERM; returns its exit status.

        :raises RuntimeError: it did not end; the message has the end of its log.
        """
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.terminate()
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.wait()
            raise RuntimeError(f"volmgr-volume did not end within {timeout} s:\n{self.tail(120)}") from error


def tgtds(daemon: Daemon) -> list[int]:
    """Return the target daemons that run for a daemon, as its state file and the process table say."""
    found = []
    for path in daemon.state.rglob("tgtd.json"):
        pid = int(json.loads(path.read_text())["pid"])
        if started(pid) is not None:
            found.append(pid)
    return found


class Client:
    """A client with an administrator's context."""

    def __init__(self, conf: Any) -> None:
        self.api = VolumeAPI.from_conf(conf)
        self.context = RequestContext(is_admin=True, project_id="project", user_id="user", overwrite=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()

    def do(self, method: str, *args: Any, timeout: float = 60.0, **kwargs: Any) -> dict[str, Any]:
        """Send a changing request and wait for its end; returns the operation, raises what it failed with."""
        answer = getattr(self.api, method)(self.context, *args, **kwargs)
        return self.api.wait_operation(self.context, answer["operation_id"], timeout)

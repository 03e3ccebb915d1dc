# SPDX-License-Identifier: Apache-2.0
"""The server as a process of its own, and what a test asks of it: faults, the calls that it got, its files.

It knows the server's command line and its steering, and nothing of what is stored.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from volmgr.testing.storpool.contract import contract
from volmgr.testing.waiting import wait_until

START_TIMEOUT = 30.0
TOKEN = "contract"


class StorPoolServer:
    """One server on a free port of the loopback.

    :param folder: its state, log and configuration files. :param arguments: further ones of its command line.
    """

    def __init__(self, folder: Path, arguments: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port = 0
        self._arguments = list(arguments)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> StorPoolServer:
        """Start it, on the port that it had before if it had one, and return once it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "server.log"
        argv = [sys.executable, "-m", "volmgr.testing.storpool", "--folder", str(self.folder / "cluster")]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*argv, "--port", str(self.port), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        found = wait_until(lambda: self._listening(log), START_TIMEOUT, "the StorPool contract server listens")
        assert found is not None
        self.port = int(found[1])
        return self

    def _listening(self, log: Path) -> re.Match[str] | None:
        assert self._process is not None
        text = log.read_text(errors="replace")
        if self._process.poll() is not None:
            raise RuntimeError(f"the StorPool contract server ended with {self._process.returncode}:\n{text}")
        return re.search(r"listening on 127\.0\.0\.1:(\d+)", text)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal; state and bytes stay for the next start."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(START_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    @property
    def stopped(self) -> bool:
        """Whether it does not run."""
        return self._process is None

    def __enter__(self) -> StorPoolServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- what clients need --------------------------------------------------------------------------------------

    def write_conf(self, file: Path, *, prefix: str = "os", hosts: dict[str, int] | None = None) -> Path:
        """Write a ``storpool.conf`` for this server.

        :param hosts: names of hosts and the ids of their clients.
        """
        lines = [
            "SP_API_HTTP_HOST=127.0.0.1",
            f"SP_API_HTTP_PORT={self.port}",
            f"SP_AUTH_TOKEN={TOKEN}",
            f"SP_OPENSTACK_VOLUME_PREFIX={prefix}",
        ]
        for host, client in (hosts or {}).items():
            lines += ["", f"[{host}]", f"SP_OURID={client}"]
        file.write_text("\n".join(lines) + "\n")
        return file

    # --- steering -----------------------------------------------------------------------------------------------

    def faults(self, *faults: dict[str, Any]) -> None:
        """Replace the faults that are to come; see :mod:`volmgr.testing.storpool.faults`."""
        self._steer("POST", "faults", list(faults))

    def faults_left(self) -> int:
        """Return how many of them have not happened."""
        return int(self._steer("GET", "faults"))

    def release(self) -> None:
        """Let go on what is held, and wait until it has ended."""
        self._steer("POST", "release")
        wait_until(
            lambda: all(item["finished"] for item in self.calls()), START_TIMEOUT, "the calls that were held have ended"
        )

    def calls(self) -> list[dict[str, Any]]:
        """Return every call since :meth:`forget_calls`: call, method, path, data, status, error, held, finished."""
        found: list[dict[str, Any]] = self._steer("GET", "calls")
        return found

    def wait_held(self, call: str) -> None:
        """Wait until it holds a call: what :meth:`release` is for."""
        wait_until(
            lambda: any(item["call"] == call and item["held"] for item in self.calls()),
            START_TIMEOUT, f"the StorPool contract server holds {call}",
        )

    def wait_for(self, call: str, *, error: str | None = None, timeout: float = START_TIMEOUT) -> None:
        """Wait until it has got a call; with ``error`` until it has refused one with that name."""
        wait_until(
            lambda: any(item["call"] == call and error in (None, item["error"]) for item in self.calls()),
            timeout,
            f"the StorPool contract server gets {call} {error or ''}",
        )

    def forget_calls(self) -> None:
        """Forget the calls so far."""
        self._steer("POST", "calls")

    def refused(self) -> list[dict[str, Any]]:
        """Return the calls that were not as the contract says."""
        return [call for call in self.calls() if call["error"] in ("unknownCall", "contract") or "data" not in call]

    def open(self, name: str, client: int, opened: bool = True, *, kind: str = "volume") -> None:
        """Say that a process of a client has a volume's (or snapshot's) device open, or not any more."""
        self._steer("POST", "open", {"name": name, "client": client, "open": opened, "kind": kind})

    def attached(self) -> dict[str, dict[str, str]]:
        """Return who has what attached: name → id of client → rights."""
        found: dict[str, dict[str, str]] = self._steer("GET", "attached")
        return found

    def file(self, name: str) -> Path:
        """Return the file with the bytes of a volume or snapshot.

        :raises KeyError: there is none of that name.
        """
        return self.files()[name]

    def files(self) -> dict[str, Path]:
        """Return the file of every volume and snapshot, by its name."""
        return {name: Path(path) for name, path in self._steer("GET", "files").items()}

    def write(self, name: str, offset: int, data: bytes, *, kind: str = "volume") -> None:
        """Write into a volume as its client does: between two calls of the API, never in the midst of one."""
        self._steer("POST", "write", {"name": name, "offset": offset, "data": data.hex(), "kind": kind})

    def names(self) -> set[str]:
        """Return the names of all volumes and snapshots."""
        return set(self.files())

    def reset(self) -> None:
        """Forget volumes, snapshots, faults and calls."""
        self._steer("POST", "reset")

    def _steer(self, method: str, what: str, data: Any = None) -> Any:
        status, reply = self.request(method, f"/contract/{what}", None if data is None else json.dumps(data))
        if status != http.client.OK:
            raise RuntimeError(f"{method} {what}: {reply}")
        return json.loads(reply)["data"]

    def request_change(self, call: str, argument: str, data: Any) -> None:
        """Do a call that changes something, as an operator of the cluster may.

        :param argument: what stands at the end of its path.
        """
        path = contract().calls[call].path.partition("{")[0] + argument
        status, reply = self.request("POST", path, json.dumps(data))
        if status != http.client.OK:
            raise RuntimeError(f"{call} {argument}: {reply}")

    def request(self, method: str, path: str, body: str | None = None, *, token: str | None = TOKEN) -> tuple[int, str]:
        """Send a request as it is; returns status and body.

        :param token: of the header Authorization, None for no header.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_TIMEOUT)
        headers = {} if token is None else {"Authorization": f"Storpool v1:{token}"}
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

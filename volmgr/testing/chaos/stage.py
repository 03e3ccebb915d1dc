# SPDX-License-Identifier: Apache-2.0
"""A daemon that can be aimed at: the next kill point is set while it lives, and what it passed is on record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volmgr import exception, killpoints
from volmgr.context import RequestContext
from volmgr.support import meditation
from volmgr.testing.chaos.iscsi import write as write_by_iscsi
from volmgr.testing.chaos.outside import ARCHIVE, Outside
from volmgr.testing.chaos.story import CONNECTOR
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.waiting import WaitTimeout, wait_until

KILL_SECONDS = 30.0
PASS_SECONDS = 1.0
WAIT_SECONDS = 60.0


class Stage:
    """One folder over many lives of a daemon.

    :param backend: options of its backend; the simulator by default.
    :param database: URL of a database with the schema; by default the embedded one.
    :param default: options of ``[DEFAULT]``. :param sections: further sections. :param environment: variables.
    :param forked: start the daemon as a fork, see :mod:`volmgr.testing.zygote`; else by exec(2), as in production.
    :param patience: seconds that a daemon which is to end itself may pass no kill point.
    :param options: further options of the backend.
    """

    def __init__(
        self,
        folder: Path,
        *,
        backend: dict[str, Any] | None = None,
        outside: Callable[..., Outside] = Outside,
        database: str | None = None,
        default: dict[str, Any] | None = None,
        sections: dict[str, dict[str, Any]] | None = None,
        environment: dict[str, str] | None = None,
        forked: bool = False,
        patience: float = KILL_SECONDS,
        **options: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        #: how clients connect, and write to what they are connected to.
        self.connector: dict[str, Any] = dict(CONNECTOR)
        self.write: Callable[[dict[str, Any], int, bytes], bool] = write_by_iscsi
        self._aim = folder / "aim"
        self._record = folder / "points"
        self._faults = folder / "faults.json"
        backend = backend or {
            "volume_driver": "sim",
            "target_helper": "fake",
            "sim_store_path": str(folder / "sim"),
            "sim_faults_file": str(self._faults),
            "target_ip_address": "127.0.0.1",
        }
        aims = {
            killpoints.FILE_ENVIRONMENT: str(self._aim),
            killpoints.RECORD_ENVIRONMENT: str(self._record),
        }
        more = {"database": {"connection": database}} if database else {}
        (folder / ARCHIVE).mkdir(exist_ok=True)
        self.daemon = Daemon(
            folder,
            backend={**backend, **options},
            options={"report_interval": 1, "backup_store": str(folder / ARCHIVE), **(default or {})},
            sections={**more, **(sections or {})},
            environment={**aims, **(environment or {})},
            forked=forked,
        )
        self.lay_faults()
        self.aim("")
        self.outside = outside(self.daemon, url=database)
        self.client = self.daemon.client()
        self.kills = 0
        self.patience = patience

    def start(self) -> Stage:
        """Start the daemon; what it had begun is taken up."""
        self.daemon.start()
        return self

    def restart(self) -> None:
        """Start what has died, and do not wait until it answers."""
        self.daemon.start(wait=False)

    def close(self) -> None:
        """End the daemon, its tgtd and the connections."""
        self.client.api.close()
        if self.daemon.process is not None and self.daemon.process.poll() is None:
            self.daemon.kill()
        pid = self.outside.tgtd_pid()
        if pid is not None and _is_tgtd(pid, self.daemon.folder):
            os.kill(pid, 9)
        self.outside.close()

    # --- aiming ---------------------------------------------------------------------------------------------------

    def aim(self, pattern: str, number: int = 1) -> None:
        """Let the daemon end itself the ``number``-th time that it passes a point that fits; empty: never."""
        _replace(self._aim, f"{pattern}#{number}" if pattern else "")

    def lay_faults(self, *rules: dict[str, Any]) -> None:
        """Order faults of the simulator; see :mod:`volmgr.drivers.sim.faults`."""
        _replace(self._faults, json.dumps(list(rules)))

    def passed(self) -> list[str]:
        """Return every point that any life has passed, in order."""
        return self._record.read_text().splitlines() if self._record.exists() else []

    def wait_killed(self, seconds: float | None = None) -> None:
        """Wait until the daemon has ended itself, for as long as it gets on.

        :param seconds: how long it may pass no point at all; by default the stage's ``patience``.
        :raises AssertionError: it ended otherwise. :raises TimeoutExpired: it stands still, see :meth:`stands_at`.
        """
        patience = seconds or self.patience
        passed, since = -1, 0.0
        while True:
            if (now := self._record.stat().st_size if self._record.exists() else 0) != passed:
                passed, since = now, time.monotonic()
            try:
                self.daemon.wait_killed(PASS_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() - since >= patience:
                    raise
            else:
                self.kills += 1
                return

    def stands_at(self) -> str:
        """Return what each of the daemon's threads is at, and the journal's operations that have not ended."""
        report = meditation.path_of(str(self.daemon.state), self.daemon.host)
        report.unlink(missing_ok=True)
        os.kill(self.daemon.pid, signal.SIGUSR2)
        try:
            wait_until(report.exists, KILL_SECONDS, "the daemon tells what it is at")
            text = report.read_text()
        except WaitTimeout as error:
            text = str(error)
        return "\n".join([*self.outside.unfinished(), text])

    # --- asking ---------------------------------------------------------------------------------------------------

    def ask(self, method: str, arguments: dict[str, Any], *, project: str, key: str | None = None) -> dict[str, Any]:
        """Send a request; returns its immediate answer."""
        return ask(self.client, method, arguments, project=project, key=key)

    def do(self, method: str, arguments: dict[str, Any], *, project: str, key: str | None = None) -> dict[str, Any]:
        """Send a request and wait for its end; returns the answer of a verb that is no operation, else its outcome."""
        return do(self.client, method, arguments, project=project, key=key)


def ask(
    client: Client, method: str, arguments: dict[str, Any], *, project: str, key: str | None = None
) -> dict[str, Any]:
    """Send a request as an administrator of a project; returns its immediate answer."""
    context = RequestContext(
        is_admin=True, project_id=project, user_id="chaos", request_key=key or str(uuid.uuid4()), overwrite=False
    )
    answer: dict[str, Any] = client.api.call(context, method, **arguments)
    return answer


def do(
    client: Client, method: str, arguments: dict[str, Any], *, project: str, key: str | None = None
) -> dict[str, Any]:
    """Send a request and wait; returns what it answers, of an operation id, state, result and error."""
    answer = ask(client, method, arguments, project=project, key=key)
    if answer.get("operation_id") is None:
        return answer
    found = client.api.wait_operation(client.context, answer["operation_id"], WAIT_SECONDS, check=False)
    return {name: found[name] for name in ("id", "state", "result", "error")}


def must(outcome: dict[str, Any]) -> dict[str, Any]:
    """Return an outcome that is good.

    :raises VolmgrError: what the operation failed with.
    """
    if outcome.get("state") == "failed":
        raise exception.from_primitive(outcome["error"])
    return outcome


def counted(points: list[str]) -> list[tuple[str, int]]:
    """Return each point with how often it had come by then, from one on."""
    seen: Counter[str] = Counter()
    found = []
    for point in points:
        seen[point] += 1
        found.append((point, seen[point]))
    return found


def _is_tgtd(pid: int, folder: Path) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd").startswith(str(folder))
    except OSError:
        return False


def _replace(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)

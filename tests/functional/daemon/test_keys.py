# SPDX-License-Identifier: Apache-2.0
"""Changing the key beneath a living daemon, ended by SIGKILL at every stage and taken up again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable

from volmgr import crypto
from volmgr.testing.daemon import Client, Daemon

CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:b", "ip": "127.0.0.1", "host": "compute"}
#: the stages of a change, in their order.
STAGES = ("prepare/after", "activate/after", "initiator_data/after", "exports/after", "retire/before", "retire/after")


def manage(daemon: Daemon, *words: str, kill_at: str = "") -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-W", "ignore", "-m", "volmgr.cmd.manage", "--config-file", str(daemon.config_file), *words]
    environment = {**os.environ, **({"VOLMGR_KILL_AT": kill_at} if kill_at else {})}
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env=environment)


def password(client: Client, volume_id: str) -> str:
    found: str = client.api.initialize_connection(client.context, volume_id, CONNECTOR)["data"]["auth_password"]
    return found


def test_a_change_of_the_key_is_ended_and_taken_up_while_the_daemon_works(
    make_daemon: Callable[..., Daemon],
) -> None:
    daemon = make_daemon().start()
    path, known = str(daemon.state / "keys.json"), dict[str, str]()
    with daemon.client() as client:

        def works() -> None:
            for volume_id, word in known.items():
                assert password(client, volume_id) == word
            volume_id = str(uuid.uuid4())
            client.do("create_volume", volume_id, size=1)
            known[volume_id] = password(client, volume_id)

        works()
        first = crypto.read_ring(path).current
        for stage in STAGES:
            assert crypto.read_ring(path).keys.keys() >= {first}, f"the old key went before {stage}"
            done = manage(daemon, "key", "rotate", kill_at=f"key_rotate/{stage}")
            assert done.returncode == -signal.SIGKILL, f"{stage}: {done.stdout}{done.stderr}"
            works()
            if stage == "activate/after":
                status = manage(daemon, "key", "status")
                assert status.returncode == 3
                assert f"{first} is old" in status.stdout
        (current,) = crypto.read_ring(path).keys
        assert current != first
        status = manage(daemon, "key", "status")
        assert (status.returncode, status.stdout) == (0, f"{current} encrypts; {len(known)} secrets are under it\n")
        listed = manage(daemon, "key", "list").stdout.splitlines()
        assert [line.split()[:3] for line in listed[1:]] == [[current, "current", str(len(known))]]
        assert daemon.stop() == 0
        daemon.start()
        works()
        done = manage(daemon, "key", "rotate")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert f"{len(known)} secrets encrypted again\n{current} is removed: nothing needs it" in done.stdout
        works()

# SPDX-License-Identifier: Apache-2.0
"""How small and how soon: memory of a worker that rests, and the time from exec to the first answered request.

Once with nothing in the database, once with 5,000 volumes of which half are attached. Memory is what the kernel says
(proc(5), smaps_rollup); PSS shares a page among the processes that use it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Scale, main, tell

GROUP = "memory and start"
SETTLE_SECONDS = 3.0
POLL_SECONDS = 0.002
START_TIMEOUT = 60.0
WATCH_SECONDS = 5.0


class Measured:
    """One start of a daemon: seconds to the first answer, the worst answer after it, memory at rest."""

    def __init__(self, daemon: Any, volume_id: str | None) -> None:
        with daemon.client() as client:
            self.answered = first_answer(daemon, client)
            self.worst_ms = self._watch(client, volume_id)
        # A process that has just answered is not at rest yet.
        time.sleep(SETTLE_SECONDS)
        memory = [smaps(pid) for pid in session(daemon.pid)]
        self.rss = smaps(daemon.pid)["Rss"]
        self.pss = sum(item["Pss"] for item in memory)
        self.processes = len(memory)

    @staticmethod
    def _watch(client: Any, volume_id: str | None) -> float:
        """Return how long the slowest of the requests right after the start took, in ms."""
        worst, end = 0.0, time.perf_counter() + WATCH_SECONDS
        while (begun := time.perf_counter()) < end:
            if volume_id is None:
                client.api.get_capabilities(client.context)
            else:
                client.api.get_volume(client.context, volume_id)
            worst = max(worst, time.perf_counter() - begun)
            time.sleep(POLL_SECONDS)
        return worst * 1000


def first_answer(daemon: Any, client: Any) -> float:
    """Start a daemon; return the seconds from exec to its first answer."""
    from volmgr import exception

    start = time.perf_counter()
    daemon.start(wait=False)
    while True:
        with contextlib.suppress(exception.BackendDown, exception.Timeout):  # nobody listens yet
            client.api.call(client.context, "get_capabilities", rpc_timeout=10)
            return time.perf_counter() - start
        if time.perf_counter() - start > START_TIMEOUT or daemon.process.poll() is not None:
            raise RuntimeError(f"the daemon does not start:\n{daemon.tail()}")
        time.sleep(POLL_SECONDS)


def smaps(pid: int) -> dict[str, float]:
    """Return the sums of a process's memory in MiB, by their names in smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}


def session(leader: int) -> list[int]:
    """Return the processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            if entry.name.isdigit() and os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
    return found


def fill(daemon: Any, count: int) -> str:
    """Put volumes into the database of a daemon that has run once; half are attached. Returns the id of one."""
    import sqlalchemy as sa

    from volmgr import conf as config
    from volmgr import crypto, names, types
    from volmgr.db import exports, models
    from volmgr.db.engine import Database, utcnow

    conf = config.load(["--config-file", str(daemon.config_file)])
    database, now = Database(conf.database.connection), utcnow()
    cipher = crypto.Cipher.open(conf.key_file, database)
    ids = [str(uuid.uuid4()) for _ in range(count)]
    used = ids[: count // 2]
    base = {"host": f"{daemon.host}#b", "created_at": now}
    rows = [
        {"id": item, "object_id": item, "size": 1, "status": "available",
         "project_id": "project", "user_id": "user", "availability_zone": "nova", "launched_at": now, **base}
        for item in ids
    ]
    objects = [
        {"id": item, "kind": "volume", "resource_id": item, "role": "current", "serial": names.new_serial(),
         "size_bytes": types.GiB, **base}
        for item in ids
    ]
    with database.writer() as conn:
        conn.execute(sa.insert(models.volumes), rows)
        conn.execute(sa.insert(models.objects), objects)
        conn.execute(sa.update(models.volumes).where(models.volumes.c.id.in_(used)).values(status="in-use"))
        for item in used:
            attachment_id = str(uuid.uuid4())
            attachment = {"id": attachment_id, "volume_id": item, "status": "attached", "mode": "rw",
                          "instance_uuid": str(uuid.uuid4()), "created_at": now, "attached_at": now}
            conn.execute(sa.insert(models.attachments), attachment)
            secret = cipher.encrypt("exports", "auth_secret", item, types.Secret("0123456789abcdef"))
            target = names.target_name("iqn.2010-10.org.openstack:", "volume", item)
            exports.insert(conn, "volume", item, host=daemon.host, target_name=target, now=now, auth_username="u",
                           auth_secret=secret)
            grant = types.Grant(id=str(uuid.uuid4()), initiator=f"iqn.1993-08.org.debian:01:{item[:8]}", ip="127.0.0.1")
            row = exports.GrantRow(grant, f"iqn:{grant.initiator}", attachment_id)
            exports.insert_grant(conn, item, row, now)
    database.close()
    return ids[0]


def run(scale: Scale) -> list[Figure]:
    """Start both daemons in turns."""
    from volmgr.testing.daemon import Daemon

    count = scale.of(5000, 100)
    backend = {"volume_driver": "sim", "target_helper": "fake", "target_ip_address": "127.0.0.1"}
    found: dict[str, list[Measured]] = {"empty": [], "full": []}
    with tempfile.TemporaryDirectory(prefix="volmgr-bench-") as folder:
        daemons = {name: Daemon(Path(folder) / name, backend=backend) for name in found}
        try:
            for daemon in daemons.values():
                daemon.start()
                daemon.stop()
            one = fill(daemons["full"], count)
            for number in range(scale.rounds):
                tell(f"footprint: round {number + 1} of {scale.rounds}")
                for name, daemon in daemons.items():
                    found[name].append(Measured(daemon, one if name == "full" else None))
                    daemon.stop()
        finally:
            for daemon in daemons.values():
                if daemon.process is not None:
                    daemon.kill()
    return _figures(found["empty"], found["full"], count)


def _figures(empty: list[Measured], full: list[Measured], count: int) -> list[Figure]:
    attached = f"{count} volumes, half attached"
    return [
        Figure("worker at rest, RSS", [item.rss for item in empty], "MiB", 90, group=GROUP),
        Figure("all our processes together, PSS", [item.pss for item in empty], "MiB", 160, group=GROUP,
               note=f"processes: {empty[0].processes}"),
        Figure("from exec to the first answer", [item.answered for item in empty], "s", 1.2, group=GROUP),
        Figure(f"the same with {attached}", [item.answered for item in full], "s", 1.5, group=GROUP),
        Figure(f"slowest answer in the {WATCH_SECONDS:.0f} s after it, empty", [item.worst_ms for item in empty], "ms",
               group=GROUP),
        Figure(f"slowest answer in the {WATCH_SECONDS:.0f} s after it, {attached}"[:56],
               [item.worst_ms for item in full], "ms", group=GROUP),
        Figure(f"worker with {attached}, RSS", [item.rss for item in full], "MiB", group=GROUP),
    ]


if __name__ == "__main__":
    main(run)

# SPDX-License-Identifier: Apache-2.0
"""What agents do to a daemon: casts from many callers, connections, creations that are waited for.

Each function runs in an agent, with the state that the agent keeps. This module measures; it judges nothing.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from volmgr import exception

LIMIT = 1000
BUSY_PAUSE = 0.01


def open_client(state: dict[str, Any], config_file: str) -> None:
    """Open a client of the daemon with that configuration."""
    from volmgr import conf as config
    from volmgr.testing.daemon import Client

    state["client"] = Client(config.load(["--config-file", config_file]))
    state["client"].api.call(state["client"].context, "get_capabilities", rpc_timeout=30)


def _together(callers: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def cast_volumes(state: dict[str, Any], count: int, callers: int, host: str) -> dict[str, Any]:
    """Cast ``create_volume`` for blank volumes of 1 GiB.

    :returns: ``first`` and ``last``: when the first cast began and the last was taken (seconds since the epoch),
        ``ids`` of those that were taken, ``busy``: how often the worker asked to come again.
    """
    client, taken, busy = state["client"], [], [0]
    prepared = client.api._client.prepare(server=host)
    todo = iter([str(uuid.uuid4()) for _ in range(count)])

    def one(volume_id: str) -> None:
        context = client.context.to_dict() | {"request_key": str(uuid.uuid4())}
        while True:
            try:
                prepared.cast(context, "create_volume", volume_id=volume_id, size=1)
            except exception.Busy:
                busy[0] += 1
                time.sleep(BUSY_PAUSE)
                continue
            taken.append(volume_id)
            return

    def caller(_number: int) -> None:
        for volume_id in todo:
            one(volume_id)

    first = time.time()
    _together(callers, caller)
    return {"first": first, "last": time.time(), "ids": taken, "busy": busy[0]}


def read_back(state: dict[str, Any], ids: Iterable[str], within: float) -> dict[str, Any]:
    """Wait until no volume is being created, then read all of them.

    :param within: seconds.
    :returns: ``launched``: when each became available, in order (seconds since the epoch); ``lost``: how many of
        ``ids`` are not available; ``seen``: when all had been seen.
    """
    import datetime

    client, wanted = state["client"], set(ids)
    deadline = time.monotonic() + within
    while client.api.list_volumes(client.context, filters={"status": "creating"}, limit=1):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    seen, launched, marker = time.time(), [], None
    while True:
        page = client.api.list_volumes(client.context, limit=LIMIT, marker=marker)
        for volume in page:
            if volume["id"] in wanted and volume["status"] == "available":
                wanted.discard(volume["id"])
                launched.append(datetime.datetime.fromisoformat(volume["launched_at"]).timestamp())
        if len(page) < LIMIT:
            return {"launched": sorted(launched), "lost": len(wanted), "seen": seen}
        marker = page[-1]["id"]


def create(state: dict[str, Any], count: int) -> list[str]:
    """Create volumes and wait for each; return their ids."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    for volume_id in ids:
        state["client"].do("create_volume", volume_id, size=1)
    return ids


def delete(state: dict[str, Any], ids: list[str]) -> None:
    """Delete volumes and wait for each; the wiping that follows is not waited for."""
    for volume_id in ids:
        state["client"].do("delete_volume", volume_id)


def keep_creating(state: dict[str, Any], at_once: int) -> None:
    """Have so many creations under way from now on, until :func:`stop_creating`."""
    client, stopping = state["client"], threading.Event()

    def run() -> None:
        while not stopping.is_set():
            client.do("create_volume", str(uuid.uuid4()), size=1, timeout=120)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    state["creating"] = (stopping, threads)


def stop_creating(state: dict[str, Any]) -> None:
    """Let what is under way end."""
    stopping, threads = state["creating"]
    stopping.set()
    for thread in threads:
        thread.join(120)


def processor_ms(pid: int) -> float:
    """Return the processor time that a process's main thread has used, in ms; finer than the ticks of ``stat``."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e6


def initialize(
    state: dict[str, Any], ids: list[str], calls: int, callers: int, worker: int, seconds: float = 0.0
) -> dict[str, Any]:
    """Call ``initialize_connection`` for an initiator that is new, then ``terminate_connection`` for it, and so on.

    :param ids: volumes; a caller has some for itself. :param calls: at least so many. :param seconds: at least so long.
    :param worker: the process id of the daemon's worker.
    :returns: ``times`` of the former in ms, ``busy``: the worker's processor time during each in ms, ``rate`` of both
        kinds and all callers together in calls per second.
    """
    client, times, busy = state["client"], [], []
    start = time.perf_counter()
    todo = itertools.takewhile(
        lambda turn: turn < calls or time.perf_counter() - start < seconds, itertools.count()
    )

    def caller(number: int) -> None:
        own = ids[number::callers]
        for turn in todo:
            volume_id = own[turn % len(own)]
            name = f"iqn.1993-08.org.debian:01:{uuid.uuid4().hex[:12]}"
            connector = {"initiator": name, "ip": "127.0.0.1", "host": "compute"}
            used, begun = processor_ms(worker), time.perf_counter()
            client.api.initialize_connection(client.context, volume_id, connector)
            times.append((time.perf_counter() - begun) * 1000)
            busy.append(processor_ms(worker) - used)
            client.api.terminate_connection(client.context, volume_id, connector)

    _together(callers, caller)
    return {"times": times, "busy": busy, "rate": 2 * len(times) / (time.perf_counter() - start)}

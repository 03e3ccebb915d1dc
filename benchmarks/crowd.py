# SPDX-License-Identifier: Apache-2.0
"""What a crowd of clients does to a daemon: fills it, lives volumes' lives one by one, calls at a pace.

Each function runs in an agent, with the state that :func:`benchmarks.workload.open_client` began.
"""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from volmgr import exception

PAUSE = 0.01


def _together(callers: int, work: Callable[[int], None]) -> None:
    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def connector(number: int) -> dict[str, Any]:
    """Return what one compute host says of itself."""
    return {"initiator": f"iqn.1993-08.org.debian:01:{number:012x}", "ip": "127.0.0.1", "host": f"compute{number}"}


def cast_all(state: dict[str, Any], requests: list[list[Any]], callers: int, host: str) -> float:
    """Cast requests, each ``[method, arguments]``; one that finds the worker's queue full comes again.

    :returns: seconds until the last was taken; that one has not ended yet.
    """
    client = state["client"]
    prepared = client.api._client.prepare(server=host)
    todo = iter(requests)

    def caller(_number: int) -> None:
        for method, arguments in todo:
            context = client.context.to_dict() | {"request_key": str(uuid.uuid4())}
            while True:
                try:
                    prepared.cast(context, method, **arguments)
                    break
                except exception.Busy:
                    time.sleep(PAUSE)

    begun = time.perf_counter()
    _together(callers, caller)
    return time.perf_counter() - begun


def attach(state: dict[str, Any], ids: list[str], callers: int) -> None:
    """Attach each volume to an instance of its own, as a compute host does."""
    client = state["client"]
    todo = iter(enumerate(ids))

    def caller(_number: int) -> None:
        for number, volume_id in todo:
            _attach(client, volume_id, number)

    _together(callers, caller)


def _attach(client: Any, volume_id: str, number: int) -> str:
    attachment_id = str(uuid.uuid4())
    client.api.attachment_create(client.context, attachment_id, volume_id, instance_uuid=str(uuid.uuid4()))
    client.api.attachment_update(client.context, volume_id, connector(number), attachment_id)
    client.api.attachment_complete(client.context, attachment_id)
    return attachment_id


def lives(state: dict[str, Any], count: int) -> dict[str, list[float]]:
    """Live whole lives of volumes, one after the other; returns by verb how long each took, in ms, its end included."""
    found: dict[str, list[float]] = {}
    for number in range(count):
        _life(state["client"], number, found)
    return found


def _life(client: Any, number: int, found: dict[str, list[float]]) -> None:
    def timed(name: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        result = work(*args, **kwargs)
        found.setdefault(name, []).append((time.perf_counter() - begun) * 1000)
        return result

    def ended(verb: str, *args: Any, **kwargs: Any) -> None:
        timed(verb, client.do, verb, *args, **kwargs)

    api, context, host = client.api, client.context, connector(number)
    volume_id, snapshot_id = str(uuid.uuid4()), str(uuid.uuid4())
    ended("create_volume", volume_id, size=1)
    ended("create_snapshot", volume_id, snapshot_id)
    ended("extend_volume", volume_id, 2)
    attachment_id = timed("attachment_create, update, complete", _attach, client, volume_id, number)
    timed("get_volume", api.get_volume, context, volume_id)
    timed("attachment_delete", api.attachment_delete, context, volume_id, attachment_id)
    timed("initialize_connection", api.initialize_connection, context, volume_id, host)
    timed("terminate_connection", api.terminate_connection, context, volume_id, host)
    ended("delete_snapshot", snapshot_id)
    ended("delete_volume", volume_id)


def paced(state: dict[str, Any], ids: list[str], callers: int, per_second: float) -> list[float]:
    """Let each caller connect its share of volumes at a pace.

    :param per_second: calls of each caller.
    :returns: for every call the ms from when it was due to its answer: a call that waits for the one before it is late.
    """
    client, taken = state["client"], []
    start = time.perf_counter() + 0.5

    def caller(number: int) -> None:
        for turn, volume_id in enumerate(ids[number::callers]):
            # Spread over the interval, as independent hosts are.
            due = start + (turn + number / callers) / per_second
            if (ahead := due - time.perf_counter()) > 0:
                time.sleep(ahead)
            client.api.initialize_connection(client.context, volume_id, connector(number))
            taken.append((time.perf_counter() - due) * 1000)

    _together(callers, caller)
    return taken


def again(state: dict[str, Any], ids: list[str], callers: int, calls: int) -> float:
    """Repeat connections that stand, as fast as they are answered; returns calls per second of all callers."""
    client, todo = state["client"], itertools.count()

    def caller(number: int) -> None:
        own = ids[number::callers]
        for turn in range(calls // callers):
            client.api.initialize_connection(client.context, own[turn % len(own)], connector(number))
            next(todo)

    begun = time.perf_counter()
    _together(callers, caller)
    return next(todo) / (time.perf_counter() - begun)


def listing(state: dict[str, Any]) -> dict[str, Any]:
    """Return how long one page of 1,000 volumes takes, and how long all pages do, in ms; and how many there are."""
    client, pages, marker, count = state["client"], [], None, 0
    while True:
        begun = time.perf_counter()
        page = client.api.list_volumes(client.context, limit=1000, marker=marker)
        pages.append((time.perf_counter() - begun) * 1000)
        count += len(page)
        if len(page) < 1000:
            return {"page": sorted(pages)[len(pages) // 2], "all": sum(pages), "count": count}
        marker = page[-1]["id"]


def audit(state: dict[str, Any]) -> dict[str, Any]:
    """Return how long an audit takes in seconds, and how much it found."""
    client = state["client"]
    begun = time.perf_counter()
    answer = client.api.audit(client.context, rpc_timeout=300)
    return {"seconds": time.perf_counter() - begun, "found": len(answer["findings"])}

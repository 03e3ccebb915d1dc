# SPDX-License-Identifier: Apache-2.0
"""Every request that the driver sends, of every verb, fits its schema; and no such request is taken with a change."""

from __future__ import annotations

import copy
import json
import platform
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from volmgr import exception
from volmgr.testing.storpool.contract import contract

from .conftest import Bench
from .test_faults import VERBS, Scene
from .test_requests import mutations

#: calls that os-brick's connector makes on hosts, and the driver never.
CONNECTOR_S = {"VolumeGetInfo"}


IDS = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|~b\.c\.[0-9a-z]+")


class Nowhere:
    """A backup store, or an image service, that is never reached: no device appears."""


def _everything(bench: Bench) -> list[dict[str, Any]]:
    """Let the driver do each of its verbs; returns the calls that the server got of it."""
    sent = []
    for verb in VERBS.values():
        scene = Scene(bench)
        verb.prepare(scene)
        bench.server.forget_calls()
        verb.do(scene)
        sent += bench.server.calls()
        bench.server.reset()
    scene = Scene(bench)
    bench.server.write_conf(bench.conf, hosts={platform.node(): 1})
    waits = bench.make(command_timeout=1)
    bench.server.forget_calls()
    waits.check_for_setup_error()
    # A snapshot that is read and a volume that is written; the other copies are made of the same two.
    copies: tuple[Callable[[], None], ...] = (
        lambda: waits.copy_volume_to_image(None, scene.volume, Nowhere(), {"id": "image"}),
        lambda: waits.restore_backup(None, {"id": str(uuid.uuid4())}, scene.volume, Nowhere()),
    )
    for copying in copies:
        with pytest.raises(exception.BackendDown, match="no device"):
            copying()
    waits.create_volume(bench.volume())
    here = {"capabilities": waits.get_volume_stats(refresh=True), "host": "x#template_hybrid"}
    assert waits.migrate_volume(None, scene.volume, here) == (True, None)
    waits.terminate_connection(scene.volume, None, force=True)
    waits.observe()
    # What was attached for a copy, and the snapshots that it went through, are gone again.
    assert all(clients == {} for clients in bench.server.attached().values())
    visible = {name for name in bench.server.names() if not name.startswith("*")}
    assert len(visible) == 3
    return sent + bench.server.calls()


def test_every_request_is_right_and_with_any_change_it_is_wrong(bench: Bench) -> None:
    sent = _everything(bench)
    assert {call["call"] for call in sent} == set(contract().calls) - CONNECTOR_S
    # Of requests that differ in ids alone one will do.
    different = {(call["call"], IDS.sub("*", json.dumps(call["data"], sort_keys=True))): call for call in sent}
    tried = 0
    for call in different.values():
        known = contract().calls[call["call"]]
        path, data = call["path"], call["data"]
        if known.request is None:
            wrong: list[Any] = [{}, {"x": 1}]
        else:
            assert list(contract().problems(known.request, data)) == []
            wrong = [changed for _what, changed in mutations(copy.deepcopy(data))]
            # The data encoded twice, as os-brick's client sends them when it tries again by itself.
            wrong.append(json.dumps(data))
        for changed in wrong:
            status, reply = bench.server.request(known.method, path, json.dumps(changed))
            tried += 1
            assert status == 400, f"{known.name}: {changed} is taken: {reply}"
            assert json.loads(reply)["error"]["name"] == "invalidParam"
        for token in (None, "another"):
            status, reply = bench.server.request(known.method, path, json.dumps(data) if data else None, token=token)
            assert status == 401, f"{known.name} is taken with the token {token}: {reply}"
    assert tried > 500
    bench.server.forget_calls()

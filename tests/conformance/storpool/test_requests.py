# SPDX-License-Identifier: Apache-2.0
"""The contract server is strict: it takes what is right, and refuses the same with anything changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from volmgr.testing.storpool.contract import contract
from volmgr.testing.storpool.process import StorPoolServer

SIZE = 1024 * 1024
VOLUME, SNAPSHOT = "os--volume-1", "os--snap--none--snapshot-1"
#: For each call what is right for it, over a world with that volume and that snapshot of it.
RIGHT: dict[str, list[Any]] = {
    "DisksList": [None],
    "VolumeTemplatesList": [None],
    "VolumesList": [None],
    "SnapshotsList": [None],
    "Volume": [None],
    "VolumeGetInfo": [None],
    "AttachmentsList": [None],
    "Snapshot": [None],
    "VolumeCreate": [
        {"name": "new", "size": SIZE, "template": "fast"},
        {"name": "new", "size": SIZE, "replication": 3},
        {"name": "new", "size": SIZE, "parent": SNAPSHOT},
        {"name": "new", "size": SIZE, "baseOn": VOLUME, "tags": {"a": "b"}},
    ],
    "VolumeUpdate": [{"size": 2 * SIZE}, {"rename": "new"}, {"template": "fast"}, {"replication": 1}],
    "VolumeDelete": [None],
    "VolumeRevert": [{"toSnapshot": SNAPSHOT}],
    "VolumeSnapshot": [{"name": "new"}],
    "VolumesGroupSnapshot": [
        {"volumes": [{"volume": VOLUME, "name": "new"}]},
        {"volumes": [{"volume": VOLUME, "name": "new", "tags": {"a": "b"}}], "tags": {"c": "d"}},
    ],
    "SnapshotUpdate": [{"template": "fast"}, {"tags": {"transient": "1.0"}}],
    "SnapshotDelete": [None],
    "VolumesReassign": [[{"volume": VOLUME, "detach": "all"}], [{"snapshot": SNAPSHOT, "ro": [1]}]],
    "VolumesReassignWait": [
        {"reassign": [{"volume": VOLUME, "rw": ["2"]}]},
        {"reassign": [{"volume": VOLUME, "detach": [1], "force": False}], "attachTimeout": 10},
    ],
}
ARGUMENTS = {"volumeNameOrGlobalId": VOLUME, "snapshotNameOrGlobalId": SNAPSHOT}
CASES = [(name, index) for name, bodies in RIGHT.items() for index in range(len(bodies))]


def _path(name: str) -> str:
    call = contract().calls[name]
    return call.path.partition("{")[0] + (ARGUMENTS[call.argument] if call.argument else "")


def _post(server: StorPoolServer, name: str, data: Any) -> tuple[int, dict[str, Any]]:
    call = contract().calls[name]
    status, reply = server.request(call.method, _path(name), None if data is None else json.dumps(data))
    return status, json.loads(reply)


@pytest.fixture
def world(server: StorPoolServer) -> StorPoolServer:
    assert _post(server, "VolumeCreate", {"name": VOLUME, "size": SIZE, "replication": 3})[0] == 200
    assert _post(server, "VolumeSnapshot", {"name": SNAPSHOT})[0] == 200
    return server


def test_every_call_has_an_example() -> None:
    assert set(RIGHT) == set(contract().calls)


@pytest.mark.parametrize(("name", "index"), CASES)
def test_what_is_right_is_done(world: StorPoolServer, name: str, index: int) -> None:
    status, reply = _post(world, name, RIGHT[name][index])
    assert status == 200, reply
    assert set(reply) == {"generation", "data"}


#: Changes that make another right request.
FINE = {("force", "True"), ("tags", "{}"), ("attachTimeout", "0")}
WRONG: tuple[Any, ...] = (None, True, -1, 0, 1.5, 4096 * 4096 * 4096 + 1, "a b", "", [], [[]], {}, {"x": []})


def mutations(data: Any) -> Iterator[tuple[str, Any]]:
    """Return ``data`` with one thing changed, in every way in which that is wrong."""
    if isinstance(data, dict):
        yield "a key more", {**data, "unknownKey": 1}
        yield "no key", {}
        for key, value in data.items():
            yield f"{key} misspelt", {(k + "X" if k == key else k): v for k, v in data.items()}
            for wrong in WRONG:
                if (key, repr(wrong)) not in FINE:
                    yield f"{key}={wrong!r}", {**data, key: wrong}
            for what, changed in mutations(value):
                if key != "tags":
                    yield f"{key}/{what}", {**data, key: changed}
    elif isinstance(data, list):
        yield "a list in a list", [data]
        yield "nothing in it", []
        for index, value in enumerate(data):
            for what, changed in mutations(value):
                yield f"{index}/{what}", [*data[:index], changed, *data[index + 1 :]]
    elif isinstance(data, int) and not isinstance(data, bool):
        yield "as a text with a letter", f"{data}x"


@pytest.mark.parametrize(("name", "index"), CASES)
def test_every_change_of_what_is_right_is_refused(world: StorPoolServer, name: str, index: int) -> None:
    right = RIGHT[name][index]
    before = world.names()
    tried = 0
    for what, changed in mutations(copy.deepcopy(right)):
        status, reply = _post(world, name, changed)
        tried += 1
        assert status == 400 and reply["error"]["name"] == "invalidParam", f"{what}: {changed} is taken"
        assert not reply["error"].get("transient")
    call = contract().calls[name]
    body = None if right is None else json.dumps(right)
    path = _path(name)
    raw = [
        ("GET" if call.method == "POST" else "POST", path, body, "contract"),
        (call.method, path + "/", body, "contract"),
        (call.method, path.replace("/1.0/", "/2.0/"), body, "contract"),
        (call.method, path, body, "wrong"),
        (call.method, path, body, None),
        # What os-brick's client sends when it tries again by itself: the text of the data as data.
        (call.method, path, json.dumps(body or {}), "contract"),
        (call.method, path, "{not json", "contract"),
    ]
    if right is not None:
        raw.append((call.method, path, None, "contract"))
    if call.argument:
        raw += [(call.method, path.replace(ARGUMENTS[call.argument], bad), body, "contract") for bad in ("a%20b", "")]
    for method, where, text, token in raw:
        status, text_reply = world.request(method, where, text, token=token)
        assert status >= 400, f"{method} {where} {text!r} {token} is taken: {text_reply}"
        assert set(json.loads(text_reply)["error"]) == {"name", "descr"}
    assert tried > 10 or right is None
    assert world.names() == before


def test_what_is_refused_is_told_to_whoever_asks(world: StorPoolServer) -> None:
    world.forget_calls()
    _post(world, "VolumeCreate", {"name": "x"})
    _post(world, "VolumesList", None)
    assert [call["path"] for call in world.refused()] == ["/ctrl/1.0/MultiCluster/VolumeCreate"]
    assert len(world.calls()) == 2

# SPDX-License-Identifier: Apache-2.0
"""Ten thousand malformed calls and a thousand frames of garbage: a typed answer each, and not one row changes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import sqlite3
import struct
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from oslo_messaging._drivers import common

from volmgr import exception
from volmgr.manager import VolumeManager
from volmgr.operations import registry
from volmgr.rpc.unix import frames
from volmgr.testing.daemon import Daemon

CALLS = 5_000  # for each kind of threads
BATCH = 100
CONNECTIONS = 4
GARBAGE = 1_000
LIMIT = 4 * 1024 * 1024
TIMEOUT = 60.0
CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}
HUGE = "x" * 1024 * 1024
MISSING = object()

# --- values that an argument of a kind must not have ----------------------------------------------------------------

CONTROL = st.sampled_from(["a\x00b", "\x07", "a\x1bb", "\u2028", "\ud800", "a\x7f"])
NOT_TEXT = st.one_of(st.integers(), st.booleans(), st.lists(st.text(max_size=3), max_size=2), st.just({"a": "b"}))
LONG = st.integers(256, 400).map(lambda length: "é" * length)
NO_NAME = st.one_of(NOT_TEXT, CONTROL, LONG)
NO_UUID = st.one_of(
    NOT_TEXT,
    CONTROL,
    st.just(""),
    st.text(max_size=40),
    st.uuids().map(lambda value: value.hex),
    st.uuids().map(lambda value: f"{value}\n"),
    st.uuids().map(lambda value: f"{{{value}}}"),
    st.just("../../../../etc/passwd"),
    st.just("' OR 1=1 --"),
)
NO_SIZE = st.one_of(
    st.integers(max_value=0),
    st.integers(min_value=65537),
    st.just(10**400),
    st.floats(),
    st.booleans(),
    st.sampled_from(["1", "", [], {}, [1], "1 GiB"]),
)
NO_BOOLEAN = st.one_of(st.integers(), st.text(max_size=5), st.sampled_from(["true", [], {}, 1.0, [True]]))
NO_MAPPING = st.one_of(st.integers(), st.text(max_size=5), st.booleans(), st.lists(st.integers(), max_size=3))
NO_METADATA = st.one_of(
    NO_MAPPING,
    st.sampled_from([{"": "b"}, {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": {"b": "c"}}, {"a\x00": "b"}]),
    st.just({str(index): "b" for index in range(129)}),
    LONG.map(lambda text: {"a": text}),
)
NO_HOST = st.one_of(NOT_TEXT, CONTROL, st.sampled_from(["", "a@b@c", "a b", "@b", "a@b#", "a\n", "ü@b"]))
NO_CONNECTOR = st.one_of(
    NO_MAPPING,
    st.just({f"k{index}": 1 for index in range(65)}),
    st.one_of(st.integers(), st.booleans(), st.sampled_from(["", "eth0", "iqn.x", "iqn.1993-08.org.debian:01:a b", []]))
    .map(lambda value: {**CONNECTOR, "initiator": value}),
    st.sampled_from(["ip", "host", "nqn", "uuid", "os_type"]).flatmap(
        lambda key: NO_NAME.map(lambda value: {**CONNECTOR, key: value})
    ),
    st.sampled_from(["wwpns", "aoe_macs"]).flatmap(
        lambda key: st.sampled_from(["50014380186b3f65", 5, {}, ["zz"], [5], [None]]).map(
            lambda value: {**CONNECTOR, key: value}
        )
    ),
    NO_BOOLEAN.map(lambda value: {**CONNECTOR, "multipath": value}),
)
# What a transport needs and this one lacks: only a verb that grants access must refuse it.
LACKING = st.sampled_from([{}, {"host": "compute"}, {"wwpns": ["50014380186b3f65"]}, {"initiator": None}])
NO_MODE = st.one_of(NOT_TEXT, st.sampled_from(["", "RW", "rwx", "r", None]))
NO_LIST = st.one_of(st.integers(), st.text(max_size=5), st.just(["colour"]), st.just([1]), st.just(["id"] * 9))
NO_FILTERS = st.one_of(NO_MAPPING, st.sampled_from([{"colour": "red"}, {"status": 5}, {"1=1; --": "x"}]))
NO_LIMIT = st.one_of(st.integers(max_value=0), st.integers(min_value=1001), st.floats(), st.booleans(), st.text())
NO_SECONDS = st.one_of(
    st.floats(max_value=-0.001), st.floats(min_value=86401), st.just(10**400), st.booleans(), st.text(), st.just(None),
    st.just(float("nan")),
)

NO_SPECS = st.one_of(
    NO_MAPPING,
    st.sampled_from([{"": "b"}, {"a": ["b"]}, {"a": {"b": "c"}}, {"a\x00": "b"}, {"a": 1.5}]),
    st.just({str(index): "b" for index in range(129)}),
    LONG.map(lambda text: {"total_iops_sec": text}),
)
NO_LIMITS = st.one_of(
    NO_MAPPING, st.sampled_from([{"beds": 1}, {"volumes": -2}, {"volumes": "3"}, {"gigabytes": True}, {"volumes": 1.5}])
)
NO_COUNT = st.one_of(st.integers(max_value=-1), st.floats(), st.booleans(), st.sampled_from(["1", [], {}, 10**400]))
NO_UUIDS = st.one_of(
    st.integers(), st.booleans(), NO_UUID.map(lambda value: [value]), st.just([str(uuid.UUID(int=0))] * 101)
)

BAD: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("reservation_id",), NO_UUID),
    **dict.fromkeys(("volumes", "snapshots", "gigabytes"), NO_COUNT),
    **dict.fromkeys(("extra_specs", "specs"), NO_SPECS),
    **dict.fromkeys(("type_id", "qos_id"), NO_NAME),
    **dict.fromkeys(("reservations", "old_reservations"), NO_UUIDS),
    **dict.fromkeys(("transfer_id", "new_volume_id"), NO_UUID),
    **dict.fromkeys(("new_type_id", "new_user", "new_project", "auth_key", "secondary_backend_id"), NO_NAME),
    **dict.fromkeys(("force_host_copy", "error"), NO_BOOLEAN),
    "migration_policy": st.one_of(NOT_TEXT, st.sampled_from(["", "always", "NEVER"])),
    "volume_status": st.one_of(NOT_TEXT, CONTROL, st.just("x" * 33)),
    "expires_in": NO_SECONDS,
    "limits": NO_LIMITS,
    "is_public": NO_BOOLEAN,
    "project_id": NO_NAME,
    "consumer": st.one_of(NOT_TEXT, st.sampled_from(["", "frontend", "BOTH"])),
    "expire": NO_SECONDS,
    **dict.fromkeys(("volume_id", "snapshot_id", "attachment_id", "instance_id", "operation_id"), NO_UUID),
    **dict.fromkeys(("resource_id", "source_volid", "instance_uuid", "marker"), NO_UUID),
    **dict.fromkeys(("name", "host_name", "mountpoint", "volume_type", "availability_zone"), NO_NAME),
    **dict.fromkeys(("unmanage_only", "cascade", "force", "multiattach", "discover"), NO_BOOLEAN),
    **dict.fromkeys(("readonly", "bootable"), NO_BOOLEAN),
    **dict.fromkeys(("size", "new_size"), NO_SIZE),
    **dict.fromkeys(("fix", "dry"), NO_BOOLEAN),
    "findings": st.one_of(NO_BOOLEAN, st.just(["x"]), st.just([5]), NO_UUID.map(lambda value: [value])),
    "resource": st.one_of(NOT_TEXT, st.sampled_from(["", "Volume", "object", "volume\n"])),
    "id": NO_UUID,
    "status": st.one_of(NOT_TEXT, CONTROL, st.just(""), st.just("x" * 33)),
    "reason": NO_NAME,
    **dict.fromkeys(("sort_keys", "sort_dirs"), NO_LIST),
    "description": st.one_of(NOT_TEXT, CONTROL, st.just("é" * 4097)),
    "metadata": NO_METADATA,
    "host": NO_HOST,
    "service": NO_HOST,
    "connector": NO_CONNECTOR,
    "mode": NO_MODE,
    "filters": NO_FILTERS,
    "limit": NO_LIMIT,
    "timeout": NO_SECONDS,
    "event": st.one_of(NOT_TEXT, CONTROL),
    **dict.fromkeys(("image_id", "store"), st.one_of(NO_NAME, st.just(""))),
    "image_meta": st.one_of(
        NO_MAPPING,
        st.sampled_from([
            {}, {"id": ""}, {"id": "../x"}, {"id": "a/b/c"}, {"id": "x", "disk_format": "vmdk"}, {"id": 5},
            {"id": "x", "location": "file:///etc/passwd"}, {"id": "x", "container_format": "ova"},
            {"id": "x", "properties": {"a": 1}}, {"id": "x", "name": 5},
        ]),
    ),
}
#: what makes any message wrong, whatever its verb.
BAD_CONTEXT = st.sampled_from(
    [
        {"is_admin": "yes"}, {"is_admin": 1}, {"project_id": {"a": "b"}}, {"project_id": "é" * 256}, {"user_id": 5},
        {"roles": "admin"}, {"roles": [1]}, {"roles": 5}, {"request_key": "wipe"}, {"request_key": 5},
        {"request_id": []}, {"global_request_id": "a\x00b"},
    ]
)
BAD_MESSAGE = st.one_of(
    st.sampled_from([None, [], 1, "text", True]).map(lambda value: {"args": value}),
    st.sampled_from(["", "x", "1", "2.0", "1.9", "1.0.0.0.0", 1.0, None, [], "9" * 5000]).map(
        lambda value: {"version": value}
    ),
    st.sampled_from(["other", 5, [], {}]).map(lambda value: {"namespace": value}),
    st.one_of(NOT_TEXT, st.none(), CONTROL, st.text(max_size=20)).map(lambda value: {"method": value}),
)
BAD_TIMEOUT = st.sampled_from([-1, 1e300, float("inf"), float("nan"), 10**400])


def public() -> dict[str, list[str]]:
    """Return the arguments of every verb that may be called, those of journalled ones from their operation."""
    found = {}
    for name in dir(VolumeManager):
        function = getattr(VolumeManager, name)
        if not getattr(function, "exposed", False):
            continue
        names = [item for item in function.__wrapped__.__annotations__ if item not in ("context", "return")]
        operation = registry.find(name, 1)
        if operation is not None:
            names += [field.name for field in dataclasses.fields(operation.args)]
        found[name] = sorted(set(names))
    return found


VERBS = public()
INTERNAL = sorted(
    {name for name in dir(VolumeManager) if name not in VERBS}
    | {"worker", "driver", "readers", "last_capabilities", "_blocked", "worker.submit", "create_volume ", "eval"}
)


@st.composite
def calls(draw: st.DrawFn, valid: dict[str, Any]) -> dict[str, Any]:
    """A request frame without its id, with at least one thing wrong in it."""
    method = draw(st.sampled_from(sorted(VERBS)))
    arguments = {name: valid[name] for name in VERBS[method] if name in valid and (method, name) not in LEFT_OUT}
    context: dict[str, Any] = {"is_admin": True, "project_id": "project", "request_key": str(uuid.UUID(int=0))}
    message = {"method": method, "args": arguments, "version": "1.0", "namespace": None}
    frame: dict[str, Any] = {"k": "call", "c": context, "m": message, "t": None}
    breakable = [name for name in arguments if name in BAD]
    how = draw(st.sampled_from(["value"] * 6 + ["unknown", "context", "message", "timeout", "internal", "huge"]))
    if how in ("value", "huge") and not breakable:
        how = "unknown"
    if how == "value":
        name = draw(st.sampled_from(breakable))
        arguments[name] = draw(BAD[name])
        if name == "connector" and "terminate" not in method and draw(st.booleans()):
            arguments[name] = draw(LACKING)
    elif how == "huge":
        arguments[draw(st.sampled_from(breakable))] = HUGE
    elif how == "unknown":
        key = draw(st.sampled_from(["colour", "self", "context", "", "kwargs", "worker", "__class__", HUGE, "\ud800"]))
        arguments[key] = draw(st.one_of(st.integers(), st.text(max_size=3), st.none()))
    elif how == "context":
        context |= draw(BAD_CONTEXT)
    elif how == "message":
        message |= draw(BAD_MESSAGE)
    elif how == "timeout":
        frame["t"] = draw(BAD_TIMEOUT)
    else:
        message |= {"method": draw(st.sampled_from(INTERNAL)), "args": draw(st.sampled_from(INTERNAL_ARGUMENTS))}
    return frame


INTERNAL_ARGUMENTS: list[dict[str, Any]] = [{}, {"capabilities": {}}, {"arguments": {}}, {"values": {}, "cls": "x"}]
#: arguments that would make a template wrong by themselves.
LEFT_OUT = {("create_volume", name) for name in ("source_volid", "snapshot_id", "image_id")}
LEFT_OUT |= {("terminate_connection", "force")}
#: pages of workers go on behind a name, and are not sorted by id.
LEFT_OUT |= {(verb, name) for verb in ("list_services", "list_backends") for name in ("marker", "sort_keys")}


class Raw:
    """A connection of its own, on which many requests are under way at once."""

    def __init__(self, path: Path, *, greet: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT)
        self.socket.connect(str(path))
        self.splitter = frames.Splitter(LIMIT)
        if greet:
            self.socket.sendall(frames.encode(frames.hello(LIMIT), LIMIT))
            (hello,) = self.read()
            assert "error" not in hello

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def read(self) -> list[dict[str, Any]]:
        """Return the frames of one read; none at the end of the stream."""
        while data := self.socket.recv(65536):
            if bodies := self.splitter.feed(data):
                return [frames.decode(body) for body in bodies]
        return []

    def ask(self, requests: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Send all requests, then return each with its answer, None if the connection was closed before it came."""
        for number, request in enumerate(requests):
            self.socket.sendall(frames.encode({"i": number, **request}, LIMIT))
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < len(requests):
            if not (found := self.read()):
                break
            answers |= {answer["i"]: answer for answer in found if "h" not in answer}
        return [(request, answers.get(number)) for number, request in enumerate(requests)]


def short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) < 500 else f"{text[:500]}..."


def wrong(request: dict[str, Any], answer: dict[str, Any] | None, seen: Counter[str]) -> str | None:
    """Return what is wrong with an answer: it must be typed, name what it refuses and repeat no megabyte."""
    if answer is None:
        return "the connection was closed"
    if "r" in answer:
        # Where a value cannot be told from a right one there is a result: nothing changes by it, as the rows show.
        seen["result"] += 1
        return None
    if "f" not in answer:
        return f"answered with {short(answer)}"
    error = common.deserialize_remote_exception(answer["f"], ["volmgr.exception"])
    if not isinstance(error, exception.VolmgrError) or error.code == "volmgr.error":
        return f"answered with an error that is not typed: {short(str(error))}"
    seen[error.code] += 1
    if len(answer["f"]) > 20_000:
        return "answered with a very long error"
    named = {"field", "missing"} & set(error.details) or isinstance(error, exception.TooBig)
    return None if named or not isinstance(error, exception.Invalid) else f"does not name the field: {error}"


def dump(daemon: Daemon) -> dict[str, list[Any]]:
    """Return every row but the heartbeats."""
    with contextlib.closing(sqlite3.connect(f"file:{daemon.state}/volmgr.sqlite?mode=ro", uri=True)) as conn:
        tables = [row[0] for row in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: sorted(map(repr, conn.execute(f"SELECT * FROM {table}")))
            for table in tables
            if table not in ("services", "sqlite_sequence")
        }


@pytest.fixture(params=[pytest.param(mode, marks=pytest.mark.once) for mode in ("eventlet", "threading")])
def served(request: pytest.FixtureRequest, make_daemon: Callable[..., Daemon]) -> Iterator[tuple[Daemon, Path, Any]]:
    """A daemon with something to break, its socket, and arguments that are right."""
    daemon = make_daemon(environment={"VOLMGR_CONCURRENCY": request.param}).start()
    volume_id, other_id, snapshot_id, attachment_id, instance = (str(uuid.uuid4()) for _ in range(5))
    with daemon.client() as client:
        made = client.do("create_volume", volume_id, size=1, name="kept", metadata={"a": "b"})
        client.do("create_volume", other_id, size=2)
        client.do("create_snapshot", volume_id, snapshot_id, name="kept too")
        client.api.attachment_create(client.context, attachment_id, other_id, instance)
        client.api.attachment_update(client.context, other_id, CONNECTOR, attachment_id)
        client.api.attachment_complete(client.context, attachment_id)
        client.api.initialize_connection_snapshot(client.context, snapshot_id, CONNECTOR)
    valid = {
        "volume_id": volume_id, "snapshot_id": snapshot_id, "attachment_id": attachment_id, "instance_id": instance,
        "instance_uuid": instance, "operation_id": made["id"], "resource_id": volume_id, "source_volid": volume_id,
        "marker": volume_id, "name": "other", "host_name": "h", "mountpoint": "/dev/vdb", "volume_type": "t",
        "availability_zone": "nova", "unmanage_only": False, "cascade": True, "force": False, "multiattach": False,
        "discover": False, "readonly": True, "bootable": True, "size": 1, "new_size": 9, "sort_keys": ["id"],
        "sort_dirs": ["asc"], "description": "other", "metadata": {"c": "d"}, "host": daemon.host,
        "connector": CONNECTOR, "mode": "rw", "filters": {}, "limit": 5, "timeout": 0.0, "event": "none",
        "type_id": instance, "qos_id": instance, "reservation_id": instance, "volumes": 1, "snapshots": 1,
        "gigabytes": 1, "extra_specs": {"a": "b"}, "specs": {"a": "b"}, "reservations": [instance],
        "limits": {"volumes": 5}, "is_public": True, "project_id": "project", "consumer": "both", "expire": 60.0,
        "image_id": "absent", "store": "local", "image_meta": {"id": "x", "disk_format": "raw"},
        "new_type_id": "t", "migration_policy": "never", "force_host_copy": False, "old_reservations": [instance],
        "new_volume_id": other_id, "error": False, "volume_status": "available", "transfer_id": instance,
        "auth_key": "k", "expires_in": 5.0, "new_user": "u", "new_project": "q", "secondary_backend_id": "x",
    }
    (path,) = (daemon.state / "rpc").glob("*.sock")
    yield daemon, path, valid
    with daemon.client() as client:
        assert client.api.get_volume(client.context, volume_id)["name"] == "kept"
        client.do("create_volume", str(uuid.uuid4()), size=1)
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log.read_text(errors="replace"), daemon.tail(200)


def test_five_thousand_malformed_calls_change_nothing(served: tuple[Daemon, Path, Any]) -> None:
    daemon, path, valid = served
    before = dump(daemon)
    seen: Counter[str] = Counter()
    problems: list[str] = []
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Raw(path)) for _ in range(CONNECTIONS)]
        pool = stack.enter_context(ThreadPoolExecutor(CONNECTIONS))

        @settings(
            max_examples=CALLS // BATCH,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def throw(data: st.DataObject) -> None:
            requests = [data.draw(calls(valid)) for _ in range(BATCH)]
            shares = [requests[index::CONNECTIONS] for index in range(CONNECTIONS)]
            for answered in pool.map(lambda pair: pair[0].ask(pair[1]), zip(connections, shares, strict=True)):
                problems.extend(
                    f"{short(request)}: {problem}"
                    for request, answer in answered
                    if (problem := wrong(request, answer, seen)) is not None
                )

        throw()
    # Not inside, where every failure is tried again and printed with all its draws.
    assert problems == []
    assert sum(seen.values()) >= CALLS
    assert dump(daemon) == before
    # Nearly all of it must have been told from what is right; the rest are readings.
    assert seen["volmgr.invalid"] > CALLS // 2, seen


def test_a_thousand_frames_of_garbage_end_nothing(served: tuple[Daemon, Path, Any]) -> None:
    daemon, path, _valid = served
    before = dump(daemon)
    count = 0

    @settings(
        max_examples=GARBAGE,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(raw=GARBAGE_FRAMES, greet=st.booleans())
    def throw(raw: bytes, greet: bool) -> None:
        nonlocal count
        count += 1
        # The daemon may end the connection at any byte, and must once there can be no more.
        with Raw(path, greet=greet) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.socket.sendall(raw)
            connection.socket.shutdown(socket.SHUT_WR)
            while connection.socket.recv(65536):
                continue

    throw()
    assert count >= GARBAGE
    assert dump(daemon) == before
    assert len(os.listdir(f"/proc/{daemon.pid}/fd")) < 100


def framed(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
GARBAGE_FRAMES = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(framed),
    st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=60)).map(lambda pair: struct.pack(">I", pair[0]) + pair[1]),
    _JSON.map(lambda value: framed(json.dumps(value).encode())),
    st.fixed_dictionaries(
        {"i": _JSON, "k": st.sampled_from(["call", "cast", "fan", "x"]) | _JSON, "c": _JSON, "m": _JSON},
        optional={"t": _JSON},
    ).map(lambda value: framed(json.dumps(value).encode())),
    st.fixed_dictionaries({"method": _JSON, "args": _JSON}).map(
        lambda message: framed(json.dumps({"i": 1, "k": "call", "c": {}, "m": message, "t": None}).encode())
    ),
    st.sampled_from([b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", framed(b"[" * 60000), framed(b'{"a":' * 10000)]),
)


def test_what_is_not_a_verb_cannot_be_called(client: Any) -> None:
    callable_ = []
    for name in INTERNAL:
        for arguments in INTERNAL_ARGUMENTS:
            try:
                callable_.append((name, client.api.call(client.context, name, **arguments)))
            except exception.Unsupported as error:
                assert "no verb" in str(error)
    assert callable_ == []

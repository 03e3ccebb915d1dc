# SPDX-License-Identifier: Apache-2.0
"""Requests of a client as the bytes that it sent over ``unix://``: recorded once, replayed against later daemons.

A recording is one JSON file: for each request the body of its frame as text, and what was answered. It is made with
``python -m volmgr.testing.recorded FILE`` when a version of the RPC interface is released, and not changed after that.
"""

from __future__ import annotations

import json
import re
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from volmgr import concurrency

ENDED = ("done", "failed")
#: characters of an id; a key of that length is one, and is another one in each run.
ID_LENGTH = 36
CONNECTOR = {"initiator": "iqn.1993-08.org.debian:01:a", "ip": "127.0.0.1", "host": "compute"}


def session(call: Callable[..., Any], uid: Callable[[], str]) -> None:
    """Ask for what a compute service and an operator ask for, each verb of daily life at least once.

    :param call: sends (verb, arguments) and returns the answer. :param uid: returns a new id.
    """

    def done(verb: str, **arguments: Any) -> None:
        answer = call(verb, **arguments)
        while call("wait_operation", operation_id=answer["operation_id"], timeout=30.0)["state"] not in ENDED:
            continue

    volume_id, copy_id, snapshot_id, attachment_id, type_id = (uid() for _ in range(5))
    call("type_create", type_id=type_id, name="gold", extra_specs={"sim:tier": "1"})
    call("quota_set", project_id="project", limits={"volumes": 10})
    done("create_volume", volume_id=volume_id, size=1, name="first", volume_type="gold", metadata={"a": "b"})
    call("get_volume", volume_id=volume_id)
    call("list_volumes", filters={"status": "available"}, limit=10, sort_keys=["created_at"], sort_dirs=["desc"])
    call("update_volume", volume_id=volume_id, name="second")
    call("attachment_create", attachment_id=attachment_id, volume_id=volume_id, instance_uuid=uid(), mode="rw")
    call("attachment_update", volume_id=volume_id, connector=CONNECTOR, attachment_id=attachment_id)
    call("attachment_complete", attachment_id=attachment_id)
    call("get_attachment", attachment_id=attachment_id)
    done("create_snapshot", volume_id=volume_id, snapshot_id=snapshot_id, name="kept", force=True)
    call("list_snapshots", filters={"volume_id": volume_id})
    call("attachment_delete", volume_id=volume_id, attachment_id=attachment_id)
    call("initialize_connection", volume_id=volume_id, connector=CONNECTOR)
    call("terminate_connection", volume_id=volume_id, connector=CONNECTOR, force=False)
    done("extend_volume", volume_id=volume_id, new_size=2)
    done("create_volume", volume_id=copy_id, size=2, snapshot_id=snapshot_id)
    done("revert_to_snapshot", volume_id=volume_id, snapshot_id=snapshot_id)
    call("why", resource_id=volume_id)
    call("list_operations", filters={"resource_id": volume_id})
    call("get_capabilities", discover=True)
    call("list_services")
    call("list_backends")
    call("get_quota", project_id="project")
    call("explain_placement", request={"size": 1})
    call("audit", fix=False)
    call("delete_volume", volume_id=volume_id)  # it has a snapshot
    done("delete_snapshot", snapshot_id=snapshot_id)
    done("delete_volume", volume_id=volume_id)
    done("delete_volume", volume_id=copy_id)
    call("get_volume", volume_id=volume_id)  # it is gone
    call("type_delete", type_id=type_id)


def shape(value: Any, key: str = "") -> Any:
    """Return what an old client needs of an answer: its form, the ids of operations and their states."""
    if isinstance(value, dict):
        return {name: shape(item, name) for name, item in value.items() if len(name) < ID_LENGTH}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return value if key in ("operation_id", "state") or not isinstance(value, str) else ""


def record(file: Path) -> int:
    """Make a recording against a daemon of this code; returns how many requests it has."""
    from volmgr import exception
    from volmgr.rpc.unix import client as unix_client
    from volmgr.rpc.unix import frames
    from volmgr.testing.daemon import Daemon

    found: list[dict[str, Any]] = []
    request = unix_client.Connection.request

    def heard(self: Any, kind: str, ctxt: Any, message: Any, monitor: Any) -> Any:
        frame = {"i": len(found) + 1, "k": kind, "c": ctxt, "m": message, "t": monitor}
        found.append({"sent": frames.encode(frame, 2**24)[4:].decode("ascii")})
        return request(self, kind, ctxt, message, monitor)

    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(Path(folder)).start()
        unix_client.Connection.request = heard  # type: ignore[method-assign]
        with daemon.client() as client:

            def call(verb: str, **arguments: Any) -> Any:
                context = client.context.to_dict() | {"request_id": f"req-{uuid.uuid4()}", "request_key": None}
                if verb.split("_")[0] in ("create", "delete", "extend", "revert"):
                    context["request_key"] = str(uuid.uuid4())
                try:
                    answer = client.api.call(type(client.context).from_dict(context), verb, **arguments)
                except exception.VolmgrError as error:
                    found[-1]["error"] = type(error).__name__
                    return {}
                found[-1]["answer"] = answer
                return answer

            session(call, lambda: str(uuid.uuid4()))
        daemon.stop()
    for item in found:
        item["answer"] = shape(item["answer"]) if "answer" in item else None
    lines = ",\n".join(json.dumps({k: v for k, v in item.items() if v is not None}, sort_keys=True) for item in found)
    file.write_text(f"[\n{lines}\n]\n")
    return len(found)


class Replay:
    """Sends what was recorded, over one connection.

    :param address: the socket of a server.
    """

    def __init__(self, address: str) -> None:
        from volmgr.rpc.unix import frames

        self._frames = frames
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(address)
        self._splitter = frames.Splitter(2**24)
        self._bodies: list[bytes] = []
        self._send(frames.encode(frames.hello(2**24), frames.HELLO_LIMIT)[4:])
        frames.check_hello(self._read())
        #: ids of operations, as they were and as they are now.
        self._now: dict[str, str] = {}

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _send(self, body: bytes) -> None:
        self._socket.sendall(len(body).to_bytes(4, "big") + body)

    def _read(self) -> dict[str, Any]:
        while not self._bodies:
            data = self._socket.recv(2**20)
            if not data:
                raise ConnectionResetError("the server has hung up")
            self._bodies += self._splitter.feed(data)
        return self._frames.decode(self._bodies.pop(0))

    def _ask(self, text: str) -> dict[str, Any]:
        self._send(text.encode("ascii"))
        number = json.loads(text)["i"]
        while (answer := self._read()).get("i") != number or not {"r", "f", "e"} & set(answer):
            continue
        return answer

    def play(self, recording: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Send each request, and return it with what is answered now.

        Ids of operations are the server's own: later requests name those of now.
        """
        for item in recording:
            known = "|".join(map(re.escape, self._now)) or r"(?!)"
            text = re.sub(known, lambda found: self._now[found[0]], item["sent"])
            answer = self._ask(text)
            if isinstance(item.get("answer"), dict) and item["answer"].get("state") in ENDED and "timeout" in text:
                while isinstance(answer.get("r"), dict) and answer["r"].get("state") not in ENDED:
                    answer = self._ask(text)
            before, now = item.get("answer"), answer.get("r")
            if isinstance(before, dict) and isinstance(now, dict) and before.get("operation_id"):
                self._now[before["operation_id"]] = now["operation_id"]
            yield item, answer


if __name__ == "__main__":
    concurrency.setup("threading")
    print(record(Path(sys.argv[1])), "requests")

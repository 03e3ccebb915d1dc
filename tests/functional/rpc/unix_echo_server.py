# SPDX-License-Identifier: Apache-2.0
"""A server process for the tests of the unix transport; it knows nothing of volmgr's verbs.

``unix_echo_server.py URL SERVER OPTIONS``: prints ``ready``, serves until its standard input ends, then stops cleanly.
OPTIONS is JSON: ``topic``, ``workers`` (threads), ``conf`` (values of [unix_transport]), ``mode`` (threads).
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from pathlib import Path
from typing import Any

from volmgr import concurrency

concurrency.setup(json.loads(sys.argv[3]).get("mode", "threading"))

import oslo_messaging  # noqa: E402
from oslo_config import cfg  # noqa: E402

from volmgr import exception  # noqa: E402
from volmgr.rpc.transport import get_transport  # noqa: E402


class Unserialisable:
    """Refuses to be written as JSON."""

    def __iter__(self) -> Any:
        raise RuntimeError("not to be looked at")


class Endpoint:
    """What the tests ask for."""

    def echo(self, ctxt: dict[str, Any], value: Any) -> Any:
        return value

    def peer(self, ctxt: dict[str, Any]) -> Any:
        return ctxt["_peer"]

    def pid(self, ctxt: dict[str, Any]) -> int:
        return os.getpid()

    def big(self, ctxt: dict[str, Any], size: int) -> str:
        return "x" * size

    def odd(self, ctxt: dict[str, Any]) -> Any:
        return {(1, 2): "a key that JSON has no form for"}

    def conflict(self, ctxt: dict[str, Any]) -> None:
        raise exception.VolumeAttached(id="v-1")

    def value_error(self, ctxt: dict[str, Any]) -> None:
        raise ValueError("no such value")

    def foreign_error(self, ctxt: dict[str, Any]) -> None:
        raise json.JSONDecodeError("odd", "doc", 0)

    def write(self, ctxt: dict[str, Any], path: str, text: str = "") -> None:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)

    def hold(self, ctxt: dict[str, Any], started: str, until: str, seconds: float = 30) -> str:
        """Say that it runs, then run until the file ``until`` is there."""
        Path(started).touch()
        deadline = time.monotonic() + seconds
        while not Path(until).exists() and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        return "held"

    intent_write = write
    intent_hold = hold
    intent_conflict = conflict


class Server(oslo_messaging.rpc.server.RPCServer):  # type: ignore[misc]
    """Acknowledges ``intent_*`` only when it is done, and gives ``requeue`` back."""

    def _process_incoming(self, incoming: list[Any]) -> None:
        message = incoming[0]
        method = message.message["method"]
        if method == "requeue":
            message.requeue()
        elif method.startswith("intent_"):
            try:
                self.dispatcher.dispatch(message)
            except Exception:
                message.reply(failure=sys.exc_info())
            else:
                message.acknowledge()
                message.reply(None)
        else:
            super()._process_incoming(incoming)


def main() -> None:
    url, name, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    conf = cfg.ConfigOpts()
    conf([], project="volmgr", default_config_files=[])
    transport = get_transport(conf, url)
    # The driver reads its options when it is made, so they are set and it is made once more.
    for key, value in options.get("conf", {}).items():
        conf.set_override(key, value, group="unix_transport")
    transport = get_transport(conf, url)
    target = oslo_messaging.Target(topic=options.get("topic", "t"), server=name)
    server = oslo_messaging.get_rpc_server(transport, target, [Endpoint()], server_cls=Server)
    server.start(override_pool_size=options.get("workers"))
    print("ready", flush=True)
    select.select([sys.stdin], [], [])
    server.stop()
    print("stopped", flush=True)
    server.wait()


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Runs the server until SIGTERM or SIGINT: ``python -m volmgr.testing.storpool --folder FOLDER``."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path

from volmgr.testing.storpool import web

#: Seconds between two looks of the server for whether it is to end.
POLL = 0.05


def main() -> None:
    """Serve; the first line that is written says on which port."""
    parser = argparse.ArgumentParser(prog="python -m volmgr.testing.storpool", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where state and bytes are")
    parser.add_argument("--port", type=int, default=0, help="TCP port on the loopback; any free one by default")
    parser.add_argument("--token", default="contract", help="SP_AUTH_TOKEN of its clients")
    parser.add_argument("--clients", default="1,2,3", help="ids of the registered clients")
    parser.add_argument("--devices", type=Path, help="folder for devices and links of one client, /dev for example")
    parser.add_argument("--device-client", type=int, default=1, help="id of the client whose devices these are")
    arguments = parser.parse_args()
    server = web.make(
        arguments.folder,
        token=arguments.token,
        clients={int(client) for client in arguments.clients.split(",")},
        port=arguments.port,
        devices=(arguments.devices, arguments.device_client) if arguments.devices else None,
    )
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ended.set())
    threading.Thread(target=server.serve_forever, args=(POLL,), daemon=True).start()
    print(f"listening on 127.0.0.1:{server.port}", flush=True)
    ended.wait()
    server.stopping.set()
    server.shutdown()
    server.cluster.close()


main()

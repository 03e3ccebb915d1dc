# SPDX-License-Identifier: Apache-2.0
"""Two nodes on one Ethernet segment, with one database and the same few shelves for both, and a client of each."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volmgr import exception
from volmgr.testing.aoe import Initiator
from volmgr.testing.daemon import Client, Daemon
from volmgr.testing.database import empty_database_url
from volmgr.testing.waiting import wait_until
from volmgr.tools import vblade

SHELF, SLOTS = 10, 6
MAC, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
CONNECTOR = {"aoe_macs": [MAC], "ip": "192.0.2.1", "host": "compute"}


def new_id() -> str:
    return str(uuid.uuid4())


@dataclass
class Node:
    """A daemon, and a client whose requests go to it.

    :param far: the initiators' end of the cable. :param group: its volume group; files if there is none.
    """

    daemon: Daemon
    client: Client
    far: str
    group: str | None = None

    def create(self, size: int = 1) -> str:
        volume_id = new_id()
        answer = self.ask("create_volume", volume_id=volume_id, size=size, host=self.daemon.host)
        self.client.api.wait_operation(self.client.context, answer["operation_id"])
        return volume_id

    def ask(self, method: str, **arguments: Any) -> Any:
        """Ask this node, without following where it sends us."""
        prepared = self.client.api._client.prepare(server=self.daemon.host, timeout=60)
        return prepared.call(self.client.context.to_dict() | {"request_key": new_id()}, method, **arguments)

    def connect(self, volume_id: str, **more: Any) -> Initiator:
        """Connect a host to a volume as the answer says."""
        info = self.ask("initialize_connection", volume_id=volume_id, connector=CONNECTOR | more)
        assert info["driver_volume_type"] == "aoe"
        return Initiator(self.far, info["data"]["target_shelf"], info["data"]["target_lun"])

    def processes(self) -> list[vblade.Process]:
        return vblade.found(str(self.daemon.state / "b" / "target" / "vblade"))

    def storage_of(self, volume_id: str) -> Path:
        """Return where a volume's bytes are, past every target."""
        if self.group is not None:
            return Path("/dev", self.group, f"volume-{volume_id}")
        (found,) = (self.daemon.state / "file").rglob(f"volume-{volume_id}")
        return found


@contextlib.contextmanager
def two_nodes(folder: Path, ends: tuple[str, str], storage: Mapping[str, Mapping[str, Any]]) -> Iterator[list[Node]]:
    """Yield two nodes.

    :param ends: of the cable, the targets' and the initiators'. :param storage: by name, what its storage is.
    """
    url = empty_database_url("sqlite")
    with contextlib.ExitStack() as stack:
        made = []
        for name, options in storage.items():
            daemon = Daemon(
                folder / name,
                backend={
                    "target_helper": "vblade",
                    "target_protocol": "aoe",
                    "aoe_eth_dev": ends[0],
                    "aoe_first_shelf_id": SHELF,
                    "aoe_last_shelf_id": SHELF,
                    "aoe_slots_per_shelf": SLOTS,
                    **options,
                },
                options={
                    "host": name,
                    "transport_url": f"unix://{folder}/rpc",
                    "key_file": str(folder / "keys.json"),
                    "max_volume_size": 8,
                },
                sections={"database": {"connection": url}},
            )
            stack.callback(end, daemon)
            daemon.start(wait=False)
            node = Node(daemon, stack.enter_context(daemon.client()), ends[1], options.get("volume_group"))
            asks = node.ask
            wait_until(lambda asks=asks: asks("get_capabilities"), 60, "it answers", retry_on=exception.BackendDown)  # type: ignore[misc]
            made.append(node)
        yield made


def end(daemon: Daemon) -> None:
    """Stop a daemon and what it left serving, which outlives it."""
    daemon.stop()
    for process in vblade.found(str(daemon.state / "b" / "target" / "vblade")):
        vblade.end(process, 20)

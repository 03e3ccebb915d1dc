# SPDX-License-Identifier: Apache-2.0
"""One daemon over every kind of backend that needs no kernel, each of which tells what of it is entered.

It knows no story; see :mod:`tests.functional.surface.stories`.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from volmgr import exception
from volmgr.testing import recording
from volmgr.testing.daemon import Daemon, free_port, tgtds
from volmgr.testing.storpool.process import StorPoolServer
from volmgr.testing.waiting import wait_until

#: seconds; ten workers start at once.
TIMEOUT, START_TIMEOUT = 90.0, 240.0
INITIATOR = "iqn.1993-08.org.debian:01:volmgr-test"
CONNECTOR: dict[str, Any] = {
    "initiator": INITIATOR, "ip": "127.0.0.1", "host": "compute", "multipath": False,
    "wwpns": ["10000000c9a1b2c3"], "wwnns": ["20000000c9a1b2c3"],
}
BACKENDS = ("one", "two", "sim", "polled", "fake", "iser", "pool", "array", "proxied", "fabric")
#: where volumes move to, so that others must know of them.
MOVED_TO = {"one", "two"}


def new_id() -> str:
    return str(uuid.uuid4())


def sections(folder: Path, storpool: StorPoolServer) -> dict[str, dict[str, Any]]:
    """Return the options of each backend."""
    served = {"target_helper": "tgtadm", "target_ip_address": "127.0.0.1"}
    conf = storpool.write_conf(folder / "storpool.conf", hosts={"compute": 2, "other": 1})
    replicated = {"target_helper": "fake", "target_ip_address": "127.0.0.1", "trash_retention": 3600}
    return {
        "one": {"volume_driver": "FileDriver", **served, "target_port": free_port()},
        "two": {"volume_driver": "FileDriver", **served, "target_port": free_port()},
        "sim": {"volume_driver": "SimDriver", **replicated, "sim_store_path": folder / "sim"},
        "polled": {"volume_driver": "PolledReplicaDriver", **replicated, "sim_store_path": folder / "polled"},
        "fake": {"volume_driver": "FakeISCSIDriver", "target_helper": ""},
        "iser": {"volume_driver": "FakeISERDriver", "target_helper": ""},
        "pool": {"volume_driver": "StorPoolDriver", "storpool_config_file": conf, "storpool_template": "hybrid"},
        "array": {"volume_driver": "ArrayDriver", "array_folder": folder / "array", "array_port": free_port()},
        "proxied": {"volume_driver": "ProxiedArray", "array_folder": folder / "proxied"},
        "fabric": {"volume_driver": "FibreChannelArray", "array_folder": folder / "fabric"},
    }


class Site:
    """The daemon, its client, and what was recorded.

    :param folder: everything that it leaves.
    """

    def __init__(self, folder: Path, storpool: StorPoolServer) -> None:
        self.folder = folder
        self.storpool = storpool
        self.record = folder / "record"
        self.backends = sections(folder, storpool)
        for name, options in self.backends.items():
            options["volume_driver"] = f"{recording.__name__}.{options['volume_driver']}"
            if options["volume_driver"].endswith("FileDriver"):
                options["file_store_path"] = folder / name
                (folder / name).mkdir(parents=True)
        (folder / "backups").mkdir()
        options = {
            "enabled_backends": ", ".join(BACKENDS), "report_interval": 1, "service_down_time": 10,
            "backend_stats_polling_interval": 1, "volume_manager": f"{recording.__name__}.{recording.MANAGER}",
            "backup_store": f"file://{folder}/backups",
        }
        self.daemon = Daemon(
            folder / "node", options=options, sections=self.backends, environment={recording.RECORD: str(self.record)}
        )

    def start(self) -> None:
        """Start it, and return once all backends are up and know each other."""
        self.daemon.start(wait=False)
        self.client = self.daemon.client()
        self.api, self.context = self.client.api, self.client.context
        wait_until(self._up, START_TIMEOUT, "all backends are up", retry_on=exception.VolmgrError)

    def _up(self) -> bool:
        services = self.api.list_services(self.context)
        if sum(item["up"] and item["state"] == "up" for item in services) != len(BACKENDS):
            return False
        answer = self.api.call(self.context, "explain_placement", host="node@one", request={"size": 1})
        taking = {item["host"].partition("@")[2].partition("#")[0] for item in answer["backends"] if item["passed"]}
        self.refusing = set(BACKENDS) - taking
        return not self.refusing & MOVED_TO

    def end(self) -> None:
        """End it, with every tgtd that it has started."""
        if hasattr(self, "client"):
            self.client.api.close()
        try:
            self.daemon.stop(60)
        finally:
            pids = {*tgtds(self.daemon), *self._arrays()}
            for pid in pids:
                os.kill(pid, signal.SIGKILL)

    def _arrays(self) -> list[int]:
        """Return the tgtds of the arrays, which are under their own folders."""
        shown = Daemon.__new__(Daemon)
        shown.state = self.folder / "array"
        return tgtds(shown)

    # --- what stories do --------------------------------------------------------------------------------------------

    def do(self, method: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Send a changing request and wait for its end."""
        return self.client.do(method, *args, timeout=TIMEOUT, **kwargs)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request that answers with its result."""
        return getattr(self.api, method)(self.context, *args, **kwargs)

    def volume(self, backend: str, **properties: Any) -> str:
        """Make a volume of 1 GiB on a backend; returns its id."""
        volume_id = new_id()
        self.do("create_volume", volume_id, **{"size": 1, "host": f"node@{backend}", **properties})
        return volume_id

    def connect(self, volume_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call("initialize_connection", volume_id, CONNECTOR)
        return answer

    def disconnect(self, volume_id: str) -> None:
        self.call("terminate_connection", volume_id, CONNECTOR)

    def status(self, volume_id: str) -> str:
        return str(self.call("get_volume", volume_id)["status"])

    def sql(self, statement: str, *values: Any) -> None:
        """Change SQL behind the daemon's back."""
        with closing(sqlite3.connect(self.daemon.state / "volmgr.sqlite", timeout=30)) as conn, conn:
            conn.execute(statement, values)

    def operation(self, operation_id: str) -> str:
        """Return the state of an operation."""
        return str(self.call("get_operation", operation_id)["state"])

    def entered(self) -> set[recording.Entry]:
        return recording.read(self.record)

    def until_entered(self, *entries: str) -> None:
        """Wait until bodies are entered that the daemon enters by itself; ``LOADED NAME`` each."""

        def missing() -> set[str]:
            return set(entries) - {f"{item.loaded} {item.name}" for item in self.entered()}

        wait_until(lambda: not missing(), TIMEOUT, f"entered: {', '.join(entries)}")


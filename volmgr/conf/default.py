# SPDX-License-Identifier: Apache-2.0
"""Options of the deployment: where things are, how many threads, how often."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from oslo_config import cfg

SYSTEM_STATE = "/var/lib/volmgr"


def default_state_path() -> str:
    """Return the folder of everything that outlives the daemon: the system's for root, else the user's own."""
    if os.geteuid() == 0:
        return SYSTEM_STATE
    home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return f"{home}/volmgr"


OPTS: list[cfg.Opt] = [
    cfg.HostAddressOpt("my_ip", default="127.0.0.1", help="Address of this host, where targets listen by default"),
    cfg.StrOpt("host", default=socket.gethostname(), sample_default="localhost", help="Name of this host in workers"),
    cfg.StrOpt(
        "state_path",
        default=default_state_path(),
        sample_default=SYSTEM_STATE,
        help="Folder of everything that outlives the daemon",
    ),
    cfg.StrOpt(
        "key_file",
        default="$state_path/keys.json",
        help="File with the keys that encrypt secrets in the database; the same on all hosts of a deployment",
    ),
    cfg.StrOpt(
        "concurrency_backend",
        default="eventlet",
        choices=["eventlet", "threading"],
        help="Green or native threads; read before everything else, VOLMGR_CONCURRENCY overrides it",
    ),
    cfg.StrOpt("volume_topic", default="volume", help="Topic of requests"),
    cfg.StrOpt(
        "volume_manager", default="volmgr.manager.VolumeManager", help="Class that answers requests, as a dotted path"
    ),
    cfg.StrOpt("storage_availability_zone", default="nova", help="Zone of backends that name none"),
    cfg.ListOpt("enabled_backends", help="Groups of the backends to serve; none means the embedded default"),
    cfg.IntOpt("max_volume_size", default=65536, min=1, help="Largest volume, in GiB"),
    cfg.IntOpt("num_shell_tries", default=3, min=1, help="How often a command is tried that failed for a passing reason"),
    cfg.IntOpt("bulk_slots", default=2, min=1, help="Copies and wipes that run at once"),
    cfg.IntOpt("control_threads", default=64, min=2, help="Short operations that run at once"),
    cfg.IntOpt("command_timeout", default=60, min=1, help="Seconds that a command or a target's answer may take"),
    cfg.IntOpt("report_interval", default=10, min=1, help="Seconds between two heartbeats of a worker"),
    cfg.IntOpt("service_down_time", default=60, min=2, help="Seconds without a heartbeat after which a worker is down"),
    cfg.IntOpt(
        "backend_stats_polling_interval", default=60, min=3, help="Seconds between two questions to a backend's state"
    ),
    cfg.IntOpt("reconcile_interval", default=600, min=0, help="Seconds between two audits, 0 for none"),
    cfg.IntOpt("operation_history_days", default=7, min=1, help="Days for which ended operations are remembered"),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Define the options."""
    conf.register_opts(OPTS)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options by group."""
    return [("DEFAULT", OPTS)]

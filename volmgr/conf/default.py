# SPDX-License-Identifier: Apache-2.0
"""Options of the deployment and of this host, in ``[DEFAULT]``. Knows no backend."""

from __future__ import annotations

import os
import socket

from oslo_config import cfg


def default_state_path() -> str:
    """Return the folder of everything that outlives the daemon: the system's for root, else the user's own."""
    if os.geteuid() == 0:
        return "/var/lib/volmgr"
    home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "volmgr")


def default_my_ip() -> str:
    """Return the address that this host sends from. Connecting a UDP socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
        except OSError:
            return "127.0.0.1"  # no route leads anywhere: this host is alone
        return str(probe.getsockname()[0])


OPTIONS: list[cfg.Opt] = [
    cfg.HostAddressOpt(
        "my_ip",
        default=default_my_ip(),
        sample_default="<the address that this host sends from>",
        help="IP address of this host.",
    ),
    cfg.StrOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<the host's name>",
        regex=r"\A[^@#\s]+\Z",
        max_length=128,
        help="Name of this host in the names of its backends, host@backend. Volumes keep it: change it never.",
    ),
    cfg.StrOpt(
        "state_path",
        default=default_state_path(),
        sample_default="/var/lib/volmgr",
        help="Folder of everything that outlives the daemon: database, key, sockets, locks, files of the file driver.",
    ),
    cfg.StrOpt(
        "key_file",
        default="$state_path/keys.json",
        help="File with the keys that encrypt secrets in the database. Made at the first start, mode 0600. Every host "
        "of a deployment needs a copy of the same file; without it the secrets are lost.",
    ),
    cfg.StrOpt(
        "concurrency_backend",
        default="eventlet",
        choices=["eventlet", "threading"],
        help="Green threads or native threads. The environment variable VOLMGR_CONCURRENCY goes before it.",
    ),
    cfg.ListOpt(
        "enabled_backends",
        default=[],
        help="Names of the sections that describe backends; volmgr-volume runs a worker process for each. Without any "
        "there is one backend [embedded]: files in state_path, exported by tgt.",
    ),
    cfg.StrOpt("storage_availability_zone", default="nova", help="Availability zone of this host's backends."),
    cfg.StrOpt("volume_topic", default="volume", help="Topic that requests are sent to."),
    cfg.StrOpt(
        "volume_manager", default="volmgr.manager.VolumeManager", help="Class that answers requests, module and name."
    ),
    cfg.IntOpt(
        "max_volume_size", default=65536, min=1, max=2**31 - 1, help="Largest volume that may be asked for, in GiB."
    ),
    cfg.IntOpt(
        "placement_attempts",
        default=3,
        min=1,
        max=100,
        help="On how many backends a volume is tried before its creation has failed.",
    ),
    cfg.IntOpt(
        "control_threads", default=64, min=1, max=1024, help="Short operations (attach, create, delete) at once."
    ),
    cfg.IntOpt("bulk_slots", default=2, min=1, max=64, help="Long operations (copy, wipe, backup) at once."),
    cfg.FloatOpt(
        "command_timeout", default=60, min=1, max=86400, help="Seconds that one short command or request may take."
    ),
    cfg.IntOpt(
        "num_shell_tries", default=3, min=1, max=20, help="How often a command that failed for a passing reason is run."
    ),
    cfg.FloatOpt("report_interval", default=10, min=0.1, max=3600, help="Seconds between two signs of life."),
    cfg.FloatOpt(
        "service_down_time",
        default=60,
        min=0.2,
        max=86400,
        help="Seconds without a sign of life after which a worker counts as down; more than report_interval.",
    ),
    cfg.FloatOpt(
        "backend_stats_polling_interval",
        default=60,
        min=0.1,
        max=86400,
        help="Seconds between two looks at how full a backend is.",
    ),
    cfg.FloatOpt(
        "reconcile_interval",
        default=600,
        min=0,
        max=86400,
        help="Seconds between two comparisons of SQL, storage and targets; 0 for none.",
    ),
    cfg.IntOpt(
        "operation_history_days",
        default=7,
        min=1,
        max=3650,
        help="Days that finished operations are kept, to answer repeated requests and questions.",
    ),
    cfg.StrOpt("backup_store", help="URL of the folder or object store that backups go to."),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options."""
    conf.register_opts(OPTIONS)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    return [("DEFAULT", list(OPTIONS))]

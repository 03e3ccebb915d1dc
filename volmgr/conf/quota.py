# SPDX-License-Identifier: Apache-2.0
"""Options of ``[quota]``: what a project may have that has no limits of its own."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "quota"

OPTIONS: list[cfg.Opt] = [
    cfg.IntOpt("volumes", default=-1, min=-1, help="Volumes that a project may have; -1 for any number."),
    cfg.IntOpt("snapshots", default=-1, min=-1, help="Snapshots that a project may have; -1 for any number."),
    cfg.IntOpt(
        "gigabytes", default=-1, min=-1, help="GiB that a project's volumes and snapshots may have; -1 for any number."
    ),
    cfg.IntOpt("backups", default=-1, min=-1, help="Backups that a project may have; -1 for any number."),
    cfg.IntOpt(
        "backup_gigabytes",
        default=-1,
        min=-1,
        help="GiB that the volumes of a project's backups may have, each counted as often as it has backups; -1 for "
        "any number.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options."""
    conf.register_opts(OPTIONS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    return [(GROUP, list(OPTIONS))]

# SPDX-License-Identifier: Apache-2.0
"""Limits of projects that have none of their own."""

from __future__ import annotations

from oslo_config import cfg

OPTS: list[cfg.Opt] = [
    cfg.IntOpt("volumes", default=-1, min=-1, help="Volumes of a project, -1 for no limit"),
    cfg.IntOpt("snapshots", default=-1, min=-1, help="Snapshots of a project, -1 for no limit"),
    cfg.IntOpt("gigabytes", default=-1, min=-1, help="GiB of a project's volumes and snapshots, -1 for no limit"),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Define the options."""
    conf.register_opts(OPTS, group="quota")


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options by group."""
    return [("quota", OPTS)]

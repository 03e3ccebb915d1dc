# SPDX-License-Identifier: Apache-2.0
"""Options of several workers for one backend. Knows no backend."""

from __future__ import annotations

from oslo_config import cfg

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "cluster",
        regex=r"\A[A-Za-z0-9_.:-]+\Z",
        max_length=128,
        help="Name under which several hosts serve the same backends together, cluster@backend. Volumes keep it: "
        "change it never. Without it this host serves its backends alone.",
    ),
    cfg.FloatOpt(
        "cluster_lease",
        default=30,
        min=1,
        max=3600,
        help="Seconds after which a worker of a cluster that could not reach the database is ended.",
    ),
    cfg.FloatOpt(
        "cluster_grace",
        default=10,
        min=0.5,
        max=3600,
        help="Seconds after that before another worker takes over what it was at.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options."""
    conf.register_opts(OPTIONS)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    return [("DEFAULT", list(OPTIONS))]

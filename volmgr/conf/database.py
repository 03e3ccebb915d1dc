# SPDX-License-Identifier: Apache-2.0
"""Options of ``[database]``."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "database"

OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "connection",
        default="sqlite:///$state_path/volmgr.sqlite",
        secret=True,
        help="The database: sqlite:////path for one host, postgresql://user:password@host/name or "
        "mysql://user:password@host/name for several.",
    ),
    cfg.FloatOpt(
        "busy_timeout", default=15, min=1, max=600, help="Seconds to wait for another transaction or a free connection."
    ),
    cfg.FloatOpt(
        "statement_timeout", default=60, min=1, max=3600, help="Seconds that one statement may take on a server."
    ),
    cfg.FloatOpt(
        "retry_timeout",
        default=15,
        min=0,
        max=600,
        help="Seconds for which a transaction is tried again after a deadlock or a lost connection.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options."""
    conf.register_opts(OPTIONS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    return [(GROUP, list(OPTIONS))]

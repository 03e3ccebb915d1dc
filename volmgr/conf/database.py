# SPDX-License-Identifier: Apache-2.0
"""Options of the database."""

from __future__ import annotations

from oslo_config import cfg

OPTS: list[cfg.Opt] = [
    cfg.StrOpt(
        "connection",
        default="sqlite:///$state_path/volmgr.sqlite",
        secret=True,
        help="Database, as SQLAlchemy writes it: sqlite:////path, postgresql+psycopg2://…, mysql+pymysql://…",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Define the options."""
    conf.register_opts(OPTS, group="database")


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options by group."""
    return [("database", OPTS)]

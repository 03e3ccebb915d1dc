# SPDX-License-Identifier: Apache-2.0
"""Options of who may ask for what. ``[oslo_policy]`` is the library's; its options cost little to import, it does."""

from __future__ import annotations

from oslo_config import cfg
from oslo_policy import opts

GROUP = "oslo_policy"

OPTIONS: list[cfg.Opt] = [
    cfg.ListOpt(
        "default_roles",
        default=["member"],
        help="Roles of a request that names none, as those have that come over unix:// from users who are neither root "
        "nor the daemon's own. Empty: such requests are refused, an administrator's excepted.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options."""
    conf.register_opts(OPTIONS)
    for group, options in opts.list_opts():
        conf.register_opts(options, group=group)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group; the library tells its own to the generator itself."""
    return [("DEFAULT", list(OPTIONS))]

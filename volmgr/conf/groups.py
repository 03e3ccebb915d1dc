# SPDX-License-Identifier: Apache-2.0
"""Names of configuration groups that several topics share. Has no options of its own."""

from __future__ import annotations

from oslo_config import cfg

BACKEND_DEFAULTS = "backend_defaults"
EMBEDDED = "embedded"


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register the group that all backends share."""
    conf.register_group(cfg.OptGroup(BACKEND_DEFAULTS, help="What backends have that do not say otherwise."))


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return no options."""
    return []

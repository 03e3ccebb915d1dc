# SPDX-License-Identifier: Apache-2.0
"""Options of ``[metrics]``."""

from __future__ import annotations

from oslo_config import cfg

GROUP = "metrics"

OPTIONS: list[cfg.Opt] = [
    cfg.PortOpt(
        "port",
        default=0,
        help="TCP port of the status page, /metrics, /healthz and /readyz; 0 means none. With several backends each "
        "worker has its own: this one, the next, and so on, in the order of enabled_backends.",
    ),
    cfg.HostAddressOpt(
        "address",
        default="127.0.0.1",
        help="The address to listen on. What is told there is for operators: keep it on loopback or behind a proxy.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register these options."""
    conf.register_opts(OPTIONS, group=GROUP)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    return [(GROUP, list(OPTIONS))]

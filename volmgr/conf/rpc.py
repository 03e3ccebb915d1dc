# SPDX-License-Identifier: Apache-2.0
"""Options of RPC: where requests come from. The transports' own options are theirs."""

from __future__ import annotations

from oslo_config import cfg

DEFAULT_URL = "unix://$state_path/rpc"


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Define the options; ``transport_url`` itself belongs to oslo.messaging."""
    from oslo_messaging import transport

    conf.register_opts(transport._transport_opts)
    cfg.set_defaults(transport._transport_opts, transport_url=DEFAULT_URL)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return the options by group."""
    from volmgr.rpc import unix_transport

    return [(group, list(opts)) for group, opts in unix_transport.list_opts()]

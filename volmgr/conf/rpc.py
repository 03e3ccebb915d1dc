# SPDX-License-Identifier: Apache-2.0
"""Where requests come from. oslo.messaging owns ``transport_url`` and refuses a second definition of it, so only its
default is made here; ``[unix_transport]`` belongs to the transport that reads it.
"""

from __future__ import annotations

from oslo_config import cfg

TRANSPORT_OPTION = "transport_url"
DEFAULT_TRANSPORT_URL = "unix://$state_path/rpc"


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register nothing: importing the transport costs what only a process that uses it should pay."""


def register_transport(conf: cfg.ConfigOpts) -> None:
    """Register oslo.messaging's own option with our default. Costs the import of oslo.messaging."""
    from oslo_messaging import transport

    conf.register_opts(transport._transport_opts)
    conf.set_default(TRANSPORT_OPTION, DEFAULT_TRANSPORT_URL)


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    from volmgr.rpc.unix import options as unix_options

    return unix_options.list_opts()

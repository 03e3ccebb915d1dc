# SPDX-License-Identifier: Apache-2.0
"""Where requests come from. oslo.messaging owns ``transport_url`` and ``control_exchange`` and refuses a second
definition of them, so only their defaults are made here; ``[unix_transport]`` belongs to the transport that reads it.
"""

from __future__ import annotations

from oslo_config import cfg

TRANSPORT_OPTION = "transport_url"
DEFAULT_TRANSPORT_URL = "unix://$state_path/rpc"
#: Not the library's ``openstack``: whoever declares an exchange first decides whether it outlives the broker, and
#: quorum queues cannot be bound to one that does not. Services that share a broker
#: need an exchange each.
DEFAULT_EXCHANGE = "volmgr"


UPGRADE_GROUP = "upgrade_levels"
UPGRADE_OPTIONS: list[cfg.Opt] = [
    cfg.StrOpt(
        "volume",
        regex=r"\A1\.[0-9]{1,3}\Z",
        help="Highest version of the RPC interface that clients send, such as 1.0, while workers of an older release "
        "are still there. Without it, that of this release.",
    ),
]


def register_opts(conf: cfg.ConfigOpts) -> None:
    """Register what is ours: importing the transport costs what only a process that uses it should pay."""
    conf.register_opts(UPGRADE_OPTIONS, group=UPGRADE_GROUP)


def register_transport(conf: cfg.ConfigOpts) -> None:
    """Register oslo.messaging's own options with our defaults. Costs the import of oslo.messaging.

    Only on this configuration: a process that serves something else as well keeps its own defaults.
    """
    from oslo_messaging import transport

    conf.register_opts(transport._transport_opts)
    for name, value in _defaults().items():
        conf.set_default(name, value)


def set_defaults() -> None:
    """Have the generator of the sample file show our defaults of the library's options."""
    from oslo_messaging import transport

    cfg.set_defaults(transport._transport_opts, **_defaults())


def _defaults() -> dict[str, str]:
    return {TRANSPORT_OPTION: DEFAULT_TRANSPORT_URL, "control_exchange": DEFAULT_EXCHANGE}


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return these options by group."""
    from volmgr.rpc.unix import options as unix_options

    return [(UPGRADE_GROUP, list(UPGRADE_OPTIONS)), *unix_options.list_opts()]

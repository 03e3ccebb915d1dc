# SPDX-License-Identifier: Apache-2.0
"""The options of ``[unix_transport]``, registered on the configuration that the transport is given."""

from __future__ import annotations

import grp
from dataclasses import dataclass

from oslo_config import cfg, types

from volmgr import exception

GROUP = "unix_transport"

OPTIONS = [
    cfg.StrOpt(
        "unix_socket_mode",
        default="0600",
        regex=r"\A0?[0-7]{3}\Z",
        help="Permissions of a server's socket, octal.",
    ),
    cfg.StrOpt(
        "unix_socket_group",
        help="Group (name or number) that owns the sockets and may enter their directory. Members also need "
        "unix_socket_mode 0660 and allowed_gids.",
    ),
    cfg.ListOpt(
        "allowed_uids",
        item_type=types.Integer(min=0),
        default=[],
        help="Numbers of users that may connect, besides the server's own user and root.",
    ),
    cfg.ListOpt(
        "allowed_gids",
        item_type=types.Integer(min=0),
        default=[],
        help="Numbers of groups whose members may connect.",
    ),
    cfg.IntOpt(
        "max_frame_bytes",
        default=4 * 1024 * 1024,
        min=65536,
        max=1024 * 1024 * 1024,
        help="Largest message that this process takes, in bytes.",
    ),
    cfg.IntOpt(
        "queue_size",
        default=10000,
        min=1,
        help="Messages that wait in a server for a thread; more are refused as busy, at once.",
    ),
    cfg.FloatOpt(
        "cast_ack_timeout",
        default=30.0,
        min=0.001,
        help="Seconds that a cast waits for the server's acknowledgement.",
    ),
    cfg.FloatOpt(
        "handshake_timeout",
        default=5.0,
        min=0.1,
        help="Seconds for connecting and greeting, on both sides.",
    ),
    cfg.FloatOpt(
        "send_timeout",
        default=30.0,
        min=0.1,
        help="Seconds after which a peer that does not read what is sent to it loses its connection.",
    ),
    cfg.FloatOpt(
        "stop_timeout",
        default=10.0,
        min=0.0,
        help="Seconds that a server which stops waits until its last requests are answered.",
    ),
]


@dataclass(frozen=True)
class Settings:
    """The options' values, read once; times are seconds, sizes bytes."""

    unix_socket_mode: int
    unix_socket_gid: int | None
    allowed_uids: frozenset[int]
    allowed_gids: frozenset[int]
    max_frame_bytes: int
    queue_size: int
    cast_ack_timeout: float
    handshake_timeout: float
    send_timeout: float
    stop_timeout: float


def load(conf: cfg.ConfigOpts) -> Settings:
    """Register the group on ``conf`` (again is harmless) and return its values.

    :raises volmgr.exception.InvalidConfiguration: the group of the sockets does not exist.
    """
    conf.register_opts(OPTIONS, group=GROUP)
    group = conf[GROUP]
    return Settings(
        unix_socket_mode=int(group.unix_socket_mode, 8),
        unix_socket_gid=_group_id(group.unix_socket_group),
        allowed_uids=frozenset(group.allowed_uids),
        allowed_gids=frozenset(group.allowed_gids),
        max_frame_bytes=group.max_frame_bytes,
        queue_size=group.queue_size,
        cast_ack_timeout=group.cast_ack_timeout,
        handshake_timeout=group.handshake_timeout,
        send_timeout=group.send_timeout,
        stop_timeout=group.stop_timeout,
    )


def _group_id(group: str | None) -> int | None:
    if not group:
        return None
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise exception.InvalidConfiguration(
            reason=f"[unix_transport] unix_socket_group {group!r} is unknown"
        ) from error


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    """Return what the sample configuration file shows of this transport."""
    return [(GROUP, list(OPTIONS))]

# SPDX-License-Identifier: Apache-2.0
"""What a client of ``unix://`` is told when a message could not be delivered.

Each error is one of volmgr's (code, hint, retryable) and one of oslo.messaging's, so that a caller who knows only one
of the two catches it. This module knows nothing of sockets.
"""

from __future__ import annotations

import oslo_messaging

from volmgr import exception

START = "Start it: volmgr-volume --config-file /etc/volmgr/volmgr.conf"


class ServerUnreachable(exception.ServiceUnavailable, oslo_messaging.MessageDeliveryFailure):  # type: ignore[misc]
    """No server listens where the message should go; nothing was sent."""

    code = "volmgr.backend_down.service.unreachable"
    sentence = "No server of {address} listens in {directory}"
    default_hint = START


class ConnectionLost(exception.ServiceUnavailable, oslo_messaging.MessageDeliveryFailure):  # type: ignore[misc]
    """The server went away before it answered; whether it carried the request out is not known."""

    code = "volmgr.backend_down.service.connection_lost"
    sentence = "The server {address} closed the connection before it answered; the request may have been carried out"
    default_hint = "Send it again with the same request key. If no server answers: " + START


class ProtocolMismatch(exception.Unsupported, oslo_messaging.MessageDeliveryFailure):  # type: ignore[misc]
    """Client and server are of versions that cannot talk to each other."""

    code = "volmgr.unsupported.protocol"
    sentence = "This client speaks version {client_version} of the unix transport, the server {server_version}"
    default_hint = "Install the same release of volmgr on both sides and restart volmgr-volume"


class PeerRefused(exception.Forbidden, oslo_messaging.MessageDeliveryFailure):  # type: ignore[misc]
    """The server does not serve the user that this process runs as."""

    code = "volmgr.forbidden.peer"
    sentence = "User {uid} may not use the server in {directory}"
    default_hint = (
        "Run as the daemon's user or as root, or widen [unix_transport] allowed_uids or allowed_gids, "
        "unix_socket_mode and unix_socket_group"
    )


class MessageTooLarge(exception.Invalid, oslo_messaging.MessageDeliveryFailure):  # type: ignore[misc]
    """A request or its answer is larger than a frame may be."""

    code = "volmgr.invalid.message_too_large"
    sentence = "A message of {size} bytes is larger than the limit of {limit} bytes"
    default_hint = "Ask for less at once, or raise [unix_transport] max_frame_bytes on both sides"


class Requeued(exception.Busy, oslo_messaging.MessageDeliveryFailure):  # type: ignore[misc]
    """The server gave the message back; it was not carried out."""

    code = "volmgr.busy.requeued"
    sentence = "The server {address} gave the message back"
    default_hint = "Send it again later"


class AddressInUse(exception.Conflict):
    """A living process serves that topic and server name already."""

    code = "volmgr.conflict.address_in_use"
    sentence = "Another process serves {address} in {directory}"
    default_hint = "Stop that process, or give this one another host name"

# SPDX-License-Identifier: Apache-2.0
"""``rabbit://``: a request is acknowledged when the server says so, not when it arrives.

oslo.messaging's AMQP driver acknowledges an RPC message in the thread that receives it, before anybody has looked at
it, and its messages' own ``acknowledge`` and ``requeue`` do nothing; what a worker had received when it died is lost.
Its listener for notifications does both when asked to, in the thread that owns the connection. Here the listener of
RPC messages is made to do the same. This module knows no verb.
"""

from __future__ import annotations

from typing import Any

from oslo_messaging._drivers import amqpdriver

from volmgr import exception


class LateListener(amqpdriver.RpcAMQPListener):  # type: ignore[misc]
    """Hands messages on and leaves their acknowledgement to whoever handles them."""

    message_cls = amqpdriver.NotificationAMQPIncomingMessage
    # A message that was given back must not be taken for a duplicate; acknowledging it remembers it.
    use_cache = False

    def __call__(self, message: Any) -> None:
        amqpdriver.AMQPListener.__call__(self, message)


def acknowledge_late(listener: Any) -> None:
    """Change an RPC listener of the AMQP driver that has not been started yet.

    :raises Inconsistent: oslo.messaging has changed; messages would be lost with a dying worker.
    """
    polled = getattr(listener, "_poll_style_listener", None)
    if type(polled) is not amqpdriver.RpcAMQPListener:
        raise exception.Inconsistent(
            f"oslo.messaging gave a {type(polled).__name__} to listen with, not the RPC listener that is known",
            hint="Use the version of oslo.messaging that setup.cfg asks for",
        )
    # The driver builds it inside a method that takes no class; its consumers call this very object.
    polled.__class__ = LateListener

# SPDX-License-Identifier: Apache-2.0
"""``rabbit://``: a request is acknowledged when the server says so, not when it arrives; no send waits for long.

oslo.messaging's AMQP driver acknowledges an RPC message in the thread that receives it, before anybody has looked at
it, and its messages' own ``acknowledge`` and ``requeue`` do nothing; what a worker had received when it died is lost.
Its listener for notifications does both when asked to, in the thread that owns the connection. Here the listener of
RPC messages is made to do the same.

The driver waits for the confirmation of what it sends, and for that of its consumers, as long as for a heartbeat: a
minute. RabbitMQ never confirms what concerns a quorum queue that has no leader yet, as in the moment after its own
start: who answers or asks just then, or listens for answers, is stuck for that minute, and nobody hears of anything
although all are connected again. Here the wait ends after a few seconds; the driver then connects anew and tries again.
A message that comes twice by that does no harm: a request has its key, an answer that nobody waits for any more is
dropped. This module knows no verb.
"""

from __future__ import annotations

from typing import Any

from oslo_messaging._drivers import amqpdriver, impl_rabbit

from volmgr import exception

#: seconds after which what the broker has not confirmed is done again.
CONFIRM_SECONDS = 5.0


class ImpatientConnection(impl_rabbit.Connection):  # type: ignore[misc]
    """Waits for the broker's confirmations a few seconds at most. (How long it listens has a limit of its own.)"""

    def set_transport_socket_timeout(self, timeout: float | None = None) -> None:
        super().set_transport_socket_timeout(CONFIRM_SECONDS if timeout is None else min(timeout, CONFIRM_SECONDS))


def bound_confirmations(driver: Any) -> None:
    """Change an AMQP driver that has not connected yet.

    :raises Inconsistent: oslo.messaging has changed; a restart of the broker would cost its clients a minute.
    """
    pool = getattr(driver, "_connection_pool", None)
    if pool is None or getattr(pool, "connection_cls", None) is not impl_rabbit.Connection:
        raise exception.Inconsistent(
            "oslo.messaging does not make its connections as is known",
            hint="Use the version of oslo.messaging that setup.cfg asks for",
        )
    pool.connection_cls = ImpatientConnection


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

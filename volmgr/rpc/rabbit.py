# SPDX-License-Identifier: Apache-2.0
"""``rabbit://``: a request is acknowledged when the server says so, not when it arrives; no send waits for long.

oslo.messaging's AMQP driver acknowledges an RPC message in the thread that receives it, before anybody has looked at
it, and its messages' own ``acknowledge`` and ``requeue`` do nothing; what a worker had received when it died is lost.
Its listener for notifications does both when asked to, in the thread that owns the connection. Here the listener of
RPC messages is made to do the same.

RabbitMQ never confirms what concerns a quorum queue that has no leader: in the moment after its own start, and for ever
where it was killed so soon after a queue was declared that it knows the queue's name and not its log. The driver waits
for each confirmation as long as for a heartbeat, a minute, and tries to deliver an answer for ever, on one of its few
connections: soon nobody is answered any more, although all are connected. Here a wait ends after a few seconds, after
which the driver connects anew, and an answer is given up in the end. A message that comes twice by that does no harm: a
request has its key, an answer that nobody waits for any more is dropped. The client, for its part, listens elsewhere
when it hears nothing (:mod:`volmgr.rpc.client`). This module knows no verb.
"""

from __future__ import annotations

from typing import Any

from oslo_messaging._drivers import amqpdriver, impl_rabbit

from volmgr import exception

#: seconds after which what the broker has not confirmed is done again, and how often that is done for an answer: for a
#: minute where the broker is away, as the pauses between the tries grow.
CONFIRM_SECONDS, ANSWER_TRIES = 5.0, 8


class ImpatientConnection(impl_rabbit.Connection):  # type: ignore[misc]
    """Waits for the broker's confirmations a few seconds at most. (How long it listens has a limit of its own.)"""

    def set_transport_socket_timeout(self, timeout: float | None = None) -> None:
        super().set_transport_socket_timeout(CONFIRM_SECONDS if timeout is None else min(timeout, CONFIRM_SECONDS))

    def _ensure_publishing(self, method: Any, exchange: Any, msg: Any, *args: Any, **kwargs: Any) -> None:
        if not exchange.name:  # by the default exchange: an answer
            kwargs["retry"] = ANSWER_TRIES
        super()._ensure_publishing(method, exchange, msg, *args, **kwargs)


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

# SPDX-License-Identifier: Apache-2.0
"""The RPC server: oslo.messaging's own, but a changing request is acknowledged only after its intent has committed.

oslo.messaging acknowledges a message before it dispatches it, so a worker that dies in between loses it. Here the
message of a journalled method is handed on in a wrapper whose acknowledgement waits for the reply: by then the
intent is in SQL, or the request was refused. If the database was out of reach the message goes back to its queue.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import oslo_messaging
from oslo_messaging.rpc import dispatcher as rpc_dispatcher
from oslo_messaging.rpc import server as rpc_server

from volmgr import exception, logs, validate
from volmgr.rpc.serializer import Serializer

LOG = logging.getLogger(__name__)
_VERSION = re.compile(r"\A[0-9]{1,4}\.[0-9]{1,4}\Z")

#: errors after which nothing was admitted although the request may be good.
DATABASE_ERRORS = ("volmgr.backend_down.database", "volmgr.backend_down.commit_unknown", "volmgr.busy.database")


class AcknowledgeLater:
    """An incoming message that is acknowledged when its reply is made, not when it is received."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)

    def acknowledge(self) -> None:
        """Called by the library before it dispatches: nothing is committed yet."""

    def reply(self, reply: Any = None, failure: Any = None) -> None:
        """Acknowledge and answer; a message that could not be admitted for want of the database is requeued."""
        lost = failure is not None and getattr(failure[1], "code", "").startswith(DATABASE_ERRORS)
        if lost and not getattr(self._message, "msg_id", None):
            self._message.requeue()
            return
        if failure is None:
            self._message.acknowledge()
            self._message.reply(reply)
            return
        try:
            # Before the acknowledgement: a cast by unix:// can be told of its failure until then.
            self._message.reply(failure=failure)
        finally:
            self._message.acknowledge()


class Dispatcher(rpc_dispatcher.RPCDispatcher):  # type: ignore[misc]
    """Errors of our own are answers, not faults: they are logged in one line, without a traceback."""

    def dispatch(self, incoming: Any) -> Any:
        asked = logs.resource_of(incoming.message.get("args"))
        with logs.about(incoming.ctxt.get("request_id"), asked):
            return self._dispatch(incoming)

    def _dispatch(self, incoming: Any) -> Any:
        method = validate.shorten(incoming.message.get("method"))
        try:
            endpoint = self._check(incoming)
            if incoming.client_timeout:
                return super().dispatch(incoming)
            # The library makes a heartbeat thread for every message, also where nobody asked for signs of life.
            message = incoming.message
            return self._do_dispatch(endpoint, message["method"], incoming.ctxt, message.get("args", {}))
        except exception.VolmgrError as error:
            LOG.info("%s is answered with %s: %s", method, error.code, error)
            raise _expected(error) from error
        except Exception as error:
            LOG.exception("%s failed with an error that is not typed", method)
            raise _internal(method, error) from error

    def _check(self, incoming: Any) -> Any:
        """Return the endpoint that serves a message.

        What the library would refuse is refused here, because it starts a heartbeat thread first that it never stops.

        :raises Invalid: it is no request. :raises Unsupported: there is no such verb or version.
        """
        message, timeout = incoming.message, incoming.client_timeout
        method, version = message.get("method"), message.get("version", "1.0")
        if not isinstance(method, str):
            raise validate.invalid("method", "must be text", method)
        if not isinstance(message.get("args", {}), dict):
            raise validate.invalid("args", "must be an object", message["args"])
        if not isinstance(version, str) or not _VERSION.match(version):
            raise validate.invalid("version", "must be like 1.0", version)
        if timeout is not None:
            validate.seconds("timeout", timeout)
        namespace, served = message.get("namespace"), False
        for endpoint in self.endpoints:
            if self._is_namespace(endpoint.target, namespace) and self._is_compatible(endpoint.target, version):
                if hasattr(endpoint, method) and self.access_policy.is_allowed(endpoint, method):
                    return endpoint
                served = True
        verb = validate.shorten(method)
        if served:
            raise exception.Unsupported(f"There is no verb {verb}", verb=verb)
        raise exception.Unsupported(f"{verb} is not served in version {version}", verb=verb, version=version)


def _expected(error: exception.VolmgrError) -> rpc_dispatcher.ExpectedException:
    """Return what lets a client raise an error again.

    A client knows the classes of :mod:`volmgr.exception` only; an error of a room's own goes as the remedy that it is a
    kind of, with its own code.
    """
    known = next(cls for cls in type(error).__mro__ if cls.__module__ == exception.__name__)
    if known is type(error):
        return rpc_dispatcher.ExpectedException()
    crossing = known(error.message, **error.kwargs)
    crossing.code = error.code
    try:
        raise crossing
    except exception.VolmgrError:
        return rpc_dispatcher.ExpectedException()


def _internal(method: Any, error: Exception) -> rpc_dispatcher.ExpectedException:
    """Return what a client gets instead of a traceback of ours."""
    try:
        raise exception.VolmgrError(f"{method} failed: {type(error).__name__}", hint="See the log of volmgr-volume")
    except exception.VolmgrError:
        return rpc_dispatcher.ExpectedException()


class Server(rpc_server.RPCServer):  # type: ignore[misc]
    """See the module."""

    def _create_listener(self) -> Any:
        listener = super()._create_listener()
        if type(self.transport._driver).__name__ == "RabbitDriver":
            from volmgr.rpc import rabbit

            rabbit.acknowledge_late(listener)
        return listener

    def _process_incoming(self, incoming: list[Any]) -> None:
        message = incoming[0]
        method = str(message.message.get("method"))
        journalled = any(
            getattr(getattr(endpoint, method, None), "journalled", False) for endpoint in self.dispatcher.endpoints
        )
        super()._process_incoming([AcknowledgeLater(message)] if journalled else incoming)


def make_server(transport: Any, *, topic: str, name: str, endpoints: list[Any]) -> Server:
    """Return a server that is not started yet.

    :param name: the worker, ``host@backend``; requests come to it by name or through the topic.
    """
    target = oslo_messaging.Target(topic=topic, server=name)
    dispatcher = Dispatcher(endpoints, Serializer(), rpc_dispatcher.ExplicitRPCAccessPolicy)
    return Server(transport, target, dispatcher)


def make_bell(transport: Any, *, topic: str) -> Any:
    """Return a client by which one worker wakes another; it waits for no answer."""
    return oslo_messaging.get_rpc_client(
        transport, oslo_messaging.Target(topic=topic, version="1.0"), serializer=Serializer()
    )

# SPDX-License-Identifier: Apache-2.0
"""The oslo.messaging driver ``unix://``: RPC between the processes of one host, without a broker.

``transport_url = unix:///run/volmgr/rpc`` names the directory of the servers' sockets. What differs from a broker:

* no server, no delivery: the sender gets an error at once instead of a message that waits;
* a cast returns when the server has acknowledged it, and raises what became of it otherwise; a fanout does not wait;
* every message's context says under ``_peer`` which user and process sent it, whatever the sender wrote there;
* notifications go to the listeners that live at that moment, one of each pool, and are dropped when there is none.

This module maps oslo.messaging's terms to :mod:`volmgr.rpc.unix`; it knows nothing of volumes.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterable
from typing import Any

import oslo_messaging
from oslo_config import cfg
from oslo_messaging._drivers import base, common

from volmgr import exception
from volmgr.rpc.unix import client, errors, options, server
from volmgr.rpc.unix import directory as names

LOG = logging.getLogger(__name__)

DEFAULT_DIRECTORY = "/run/volmgr/rpc"
CALL_TIMEOUT = 60.0
"""Seconds that a call waits when its caller gave no time: nothing waits for ever."""
ATTEMPTS = 3
"""Connections tried for one message, while servers end and start."""

list_opts = options.list_opts


def directory_of(url: oslo_messaging.TransportURL) -> str:
    """Return the directory that ``unix:///directory`` names.

    :raises oslo_messaging.InvalidTransportURL: the URL names a host, or no absolute path.
    """
    if any(host.hostname for host in url.hosts):
        raise oslo_messaging.InvalidTransportURL(str(url), "unix:// takes three slashes and a directory, not a host")
    return "/" + url.virtual_host.strip("/") if url.virtual_host else DEFAULT_DIRECTORY


class UnixDriver(base.BaseDriver):  # type: ignore[misc]
    """See oslo_messaging._drivers.base.BaseDriver for the methods' contract; the module says what is particular.

    :param conf: gets the group ``[unix_transport]`` registered.
    :param url: ``unix:///directory``.
    """

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        url: oslo_messaging.TransportURL,
        default_exchange: str | None = None,
        allowed_remote_exmods: Iterable[str] | None = None,
    ) -> None:
        super().__init__(conf, url, default_exchange, list(allowed_remote_exmods or ()))
        self._directory = directory_of(url)
        self._settings = options.load(conf)
        self._cast_timeout: float = self._settings.cast_ack_timeout
        self._registry = names.Registry(self._directory)
        self._pool = client.Pool(self._directory, self._settings)
        self._direct: dict[tuple[str, str, str], names.Address] = {}

    def send(
        self,
        target: oslo_messaging.Target,
        ctxt: dict[str, Any],
        message: dict[str, Any],
        wait_for_reply: bool | None = None,
        timeout: float | None = None,
        call_monitor_timeout: float | None = None,
        retry: int | None = None,
        transport_options: dict[str, Any] | None = None,
    ) -> Any:
        """Deliver to one server of the topic, to the named one, or (fanout) to all; return a call's result.

        A server that refuses (it is stopping, or its queue is full) is passed over for another one of the topic.
        ``retry`` and ``transport_options`` have no meaning here: a message is sent again only if no server has seen it.

        :raises volmgr.rpc.unix.errors.ServerUnreachable: no server lives there; nothing was sent.
        :raises volmgr.rpc.unix.errors.ConnectionLost: the server ended in the middle.
        :raises volmgr.exception.Busy: every server's queue is full.
        :raises oslo_messaging.MessagingTimeout: no answer, or no acknowledgement of a cast, in time.
        """
        exchange = target.exchange or self._default_exchange or ""
        if target.fanout:
            self._publish(self._find(names.RPC, exchange, target.topic), ctxt, message)
            return None
        if timeout is None:
            timeout = CALL_TIMEOUT if wait_for_reply else self._cast_timeout
        if target.server:
            servers = [self._address(exchange, target.topic, target.server)]
        else:
            servers = self._find(names.RPC, exchange, target.topic)
        request = _Request("call" if wait_for_reply else "cast", ctxt, message, timeout, call_monitor_timeout)
        refusal: exception.VolmgrError | None = None
        for address in servers:
            try:
                answer = self._deliver(address, request)
            except errors.ServerUnreachable as error:
                refusal = error
                continue
            if "e" not in answer:
                return self._result(answer)
            refusal = self._refusal(answer, address)
            if answer["e"] != "busy":
                break
        raise refusal or errors.ServerUnreachable(address=target.topic, directory=self._directory)

    def _address(self, exchange: str, topic: str, name: str) -> names.Address:
        key = (exchange, topic, name)
        address = self._direct.get(key)
        if address is None:
            address = self._direct[key] = names.rpc_address(exchange, topic, name)
        return address

    def _find(self, kind: str, exchange: str, topic: str) -> list[names.Address]:
        try:
            return self._registry.find(kind, exchange, topic)
        except PermissionError as error:
            raise errors.PeerRefused(uid=os.geteuid(), directory=self._directory) from error

    def _deliver(self, address: names.Address, request: _Request) -> dict[str, Any]:
        """Return the answer of one server (of a fanout: nothing), by a new connection if the old one has ended."""
        for _attempt in range(ATTEMPTS):
            connection = self._pool.get(address, request.left())
            try:
                waiter = connection.request(request.kind, request.ctxt, request.message, request.monitor)
            except client.NotSent:
                continue  # the next connection either works or says that no server is there
            if request.kind == "fan":
                return {}
            answer = request.wait(waiter)
            if answer is None:
                connection.forget(waiter)
                what = "answer" if request.kind == "call" else "acknowledgement"
                raise oslo_messaging.MessagingTimeout(
                    f"No {what} of {address} within {request.timeout:g} s; the request may still be carried out"
                )
            if answer.get("e") != "stopping":
                return answer
            connection.usable = False  # its successor may listen already
        raise errors.ServerUnreachable(address=str(address), directory=self._directory)

    def _result(self, answer: dict[str, Any]) -> Any:
        if "f" in answer:
            raise common.deserialize_remote_exception(answer["f"], self._allowed_remote_exmods)
        return answer.get("r")

    def _refusal(self, answer: dict[str, Any], address: names.Address) -> exception.VolmgrError:
        details = answer.get("x") or {}
        if answer["e"] == "busy":
            return exception.Busy(
                f"The server {address} has {details.get('limit')} messages waiting",
                hint="Send it again later, or raise [unix_transport] queue_size",
            )
        if answer["e"] == "requeued":
            return errors.Requeued(address=str(address))
        if answer["e"] == "too_large":
            return errors.MessageTooLarge(**details)
        return errors.ConnectionLost(address=str(address), **details)

    def _publish(self, servers: list[names.Address], ctxt: dict[str, Any], message: dict[str, Any]) -> int:
        """Send to each server without waiting for any; return how many took it."""
        request = _Request("fan", ctxt, message, self._cast_timeout, None)
        sent = 0
        for address in servers:
            try:
                self._deliver(address, request)
                sent += 1
            except (errors.ServerUnreachable, oslo_messaging.MessagingTimeout) as error:
                LOG.debug("A message to all did not reach %s: %s", address, error)
        return sent

    def send_notification(
        self,
        target: oslo_messaging.Target,
        ctxt: dict[str, Any],
        message: dict[str, Any],
        version: float,
        retry: int | None = None,
    ) -> None:
        """Give a notification to one living listener of each pool, without waiting for it; drop it if there is none."""
        exchange = target.exchange or self._default_exchange or ""
        pools: dict[str | None, list[names.Address]] = {}
        for address in self._find(names.NOTIFY, exchange, target.topic):
            pools.setdefault(address.pool, []).append(address)
        for members in pools.values():
            if not any(self._publish([address], ctxt, message) for address in members):
                LOG.debug("Nobody takes notifications of %s", target.topic)

    def listen(
        self, target: oslo_messaging.Target, batch_size: int, batch_timeout: float | None
    ) -> server.UnixListener:
        """Listen to the topic and to the server's own name; each message is delivered by itself."""
        address = self._address(target.exchange or self._default_exchange or "", target.topic, target.server)
        return server.UnixListener(self._directory, address, self._settings)

    def listen_for_notifications(
        self,
        targets_and_priorities: Iterable[tuple[oslo_messaging.Target, str]],
        pool: str | None,
        batch_size: int,
        batch_timeout: float | None,
    ) -> server.UnixListener:
        """Listen to the notifications of each target and priority; each one is delivered by itself."""
        topics = tuple(
            (target.exchange or self._default_exchange or "", f"{target.topic}.{priority}")
            for target, priority in targets_and_priorities
        )
        address = names.Address(names.NOTIFY, topics, uuid.uuid4().hex, pool)
        return server.UnixListener(self._directory, address, self._settings)

    def cleanup(self) -> None:
        """Close the connections of this process's clients."""
        self._pool.close()


class _Request:
    """A message on its way, with the moment at which its sender gives up."""

    __slots__ = ("ctxt", "deadline", "kind", "message", "monitor", "timeout")

    def __init__(
        self, kind: str, ctxt: dict[str, Any], message: dict[str, Any], timeout: float, monitor: float | None
    ) -> None:
        self.kind = kind
        self.ctxt = ctxt
        self.message = message
        self.timeout = timeout
        self.monitor = monitor
        self.deadline = time.monotonic() + timeout

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.deadline - time.monotonic()

    def wait(self, waiter: client.Waiter) -> dict[str, Any] | None:
        """Return the answer, or None when the time, or the time between two signs of life, has passed."""
        while True:
            answer = waiter.wait(min(self.left(), self.monitor) if self.monitor else self.left())
            if answer is None or "h" not in answer:
                return answer

# SPDX-License-Identifier: Apache-2.0
"""The sending end of ``unix://``: one connection per server, shared by all threads of the process.

A connection's own thread reads the answers and wakes whoever waits for each. This module knows nothing of topics; it
sends to a server's short name.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from typing import Any

import oslo_messaging

from volmgr.rpc.unix import directory as names
from volmgr.rpc.unix import errors, frames
from volmgr.rpc.unix.options import Settings

LOG = logging.getLogger(__name__)

READ_BYTES = 65536


class NotSent(Exception):
    """The connection cannot take a request any more; the server has not seen this one."""


class Waiter:
    """One request that waits for its answer. A bare lock is the cheapest thing that one thread waits on and another
    releases, with native and with green threads."""

    __slots__ = ("_lock", "answer", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.answer: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def wake(self, answer: dict[str, Any]) -> None:
        """Give the answer; a heartbeat is one, until the real one comes."""
        self.answer = answer
        with contextlib.suppress(RuntimeError):  # woken already, and not yet running
            self._lock.release()

    def wait(self, seconds: float) -> dict[str, Any] | None:
        """Return the answer, or None after ``seconds``."""
        if seconds <= 0 or not self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            return None
        return self.answer


class Connection:
    """A greeted connection to one server.

    :param directory: of the sockets.
    :param address: of the server.
    :param options: the values of ``[unix_transport]``.
    :param timeout: seconds for connecting and greeting.
    """

    def __init__(self, directory: str, address: names.Address, options: Settings, timeout: float) -> None:
        self._address = address
        self._directory = directory
        self._ids = itertools.count(1)
        self._waiters: dict[int, Waiter] = {}
        self._write = threading.Lock()
        self.usable = True
        deadline = time.monotonic() + min(timeout, options.handshake_timeout)
        self._socket = _connect(directory, address, deadline)
        try:
            self._splitter = frames.Splitter(options.max_frame_bytes)
            self._limit = self._greet(options.max_frame_bytes, deadline)
            self._socket.settimeout(options.send_timeout)
        except BaseException:
            self._socket.close()
            raise
        threading.Thread(target=self._read, name="volmgr-rpc-answers", daemon=True).start()

    def _greet(self, max_frame: int, deadline: float) -> int:
        """Return the largest frame, in bytes, that the server takes."""
        try:
            self._socket.sendall(frames.encode(frames.hello(max_frame), frames.HELLO_LIMIT))
            bodies: list[bytes] = []
            while not bodies:
                self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
                data = self._socket.recv(READ_BYTES)
                if not data:
                    raise errors.ServerUnreachable(address=str(self._address), directory=self._directory)
                bodies = self._splitter.feed(data)
            hello = frames.decode(bodies[0])
            version, limit = frames.check_hello(hello)
        except TimeoutError as error:
            raise oslo_messaging.MessagingTimeout(
                f"The server {self._address} in {self._directory} does not greet; is its process stopped?"
            ) from error
        except OSError as error:
            raise errors.ServerUnreachable(address=str(self._address), directory=self._directory) from error
        except frames.FrameError as error:
            raise errors.ProtocolMismatch(
                client_version=frames.VERSION, server_version=f"something else ({error})"
            ) from error
        if version != frames.VERSION:
            raise errors.ProtocolMismatch(client_version=frames.VERSION, server_version=version)
        if hello.get("error"):
            raise errors.PeerRefused(uid=os.geteuid(), directory=self._directory)
        return limit

    def request(self, kind: str, ctxt: dict[str, Any], message: dict[str, Any], monitor: float | None) -> Waiter:
        """Send a request; its answer comes to the waiter, which :meth:`forget` must be told of if it is not awaited.

        :param kind: ``call``, ``cast`` or ``fan``.
        :param monitor: seconds within which a running call must give a sign of life, or None.
        :raises NotSent: the connection has ended.
        :raises volmgr.rpc.unix.errors.MessageTooLarge: the server would not take it.
        """
        number = next(self._ids)
        try:
            data = frames.encode({"i": number, "k": kind, "c": ctxt, "m": message, "t": monitor}, self._limit)
        except frames.TooLarge as error:
            raise errors.MessageTooLarge(size=error.size, limit=error.limit) from error
        waiter = Waiter(number)
        if kind != "fan":
            self._waiters[number] = waiter
        try:
            with self._write:
                if not self.usable:
                    raise NotSent
                self._socket.sendall(data)
        except TimeoutError as error:  # part of it may be out, so nothing can follow
            self._waiters.pop(number, None)
            self.close()
            raise oslo_messaging.MessagingTimeout(f"The server {self._address} does not read") from error
        except OSError as error:
            # The server has stopped reading; answers to earlier requests may still come, so only writing ends here.
            self.usable = False
            self._waiters.pop(number, None)
            raise NotSent from error
        except NotSent:
            self._waiters.pop(number, None)
            raise
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """Drop a request that nobody waits for any more; its late answer will be dropped too."""
        self._waiters.pop(waiter.number, None)

    def close(self) -> None:
        """End the connection; the reading thread closes the descriptor and wakes whoever still waits."""
        self.usable = False
        with contextlib.suppress(OSError):  # the server was first
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        reason = "end of stream"
        try:
            self._dispatch()
        except frames.FrameError as error:
            reason = str(error)
            LOG.warning("The server %s does not keep to the protocol: %s", self._address, error)
        except OSError as error:
            reason = str(error)
        except Exception:
            reason = "an unexpected error"
            LOG.exception("The reader of the connection to %s failed", self._address)
        finally:
            self.usable = False
            while self._waiters:
                with contextlib.suppress(KeyError):  # its own thread took it out first
                    self._waiters.popitem()[1].wake({"e": "lost", "x": {"reason": reason}})
            with self._write:
                self._socket.close()

    def _dispatch(self) -> None:
        receive, feed, decode, waiters = self._socket.recv, self._splitter.feed, frames.decode, self._waiters
        while True:
            try:
                data = receive(READ_BYTES)
            except TimeoutError:
                continue  # the time-out is for writing; how long an answer may take is its waiter's affair
            if not data:
                return
            for body in feed(data):
                answer = decode(body)
                number = answer.get("i")
                if type(number) is not int:
                    raise frames.FrameError("an answer without a number")
                waiter = waiters.get(number) if "h" in answer else waiters.pop(number, None)
                if waiter is not None:
                    waiter.wake(answer)
                else:
                    LOG.debug("Dropped a late answer of %s", self._address)


def _connect(directory: str, address: names.Address, deadline: float) -> socket.socket:
    """Return a connected socket; the files of a server that is dead are removed."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    pause = threading.Event()
    try:
        while True:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                with names.socket_path(directory, address.name) as path:
                    sock.connect(path)
                return sock
            except (BlockingIOError, TimeoutError) as error:  # the backlog is full: unix(7) does not queue any further
                if time.monotonic() > deadline:
                    raise oslo_messaging.MessagingTimeout(
                        f"The server {address} does not accept connections"
                    ) from error
                pause.wait(0.01)
    except PermissionError as error:
        sock.close()
        raise errors.PeerRefused(uid=os.geteuid(), directory=directory) from error
    except OSError as error:
        sock.close()
        names.sweep(directory, address.name)
        raise errors.ServerUnreachable(address=str(address), directory=directory) from error
    except BaseException:
        sock.close()
        raise


class Pool:
    """The connections of one process; a forked child starts with none.

    :param directory: of the sockets.
    :param options: the values of ``[unix_transport]``.
    """

    def __init__(self, directory: str, options: Settings) -> None:
        self._directory = directory
        self._options = options
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._connections: dict[names.Address, Connection] = {}
        self._locks: dict[names.Address, threading.Lock] = {}

    def get(self, address: names.Address, timeout: float) -> Connection:
        """Return the connection to a server, a new one if there is none that works.

        :param timeout: seconds for connecting and greeting.
        """
        if self._process != os.getpid():
            self._reset()  # the parent's threads read the parent's connections
        connection = self._connections.get(address)
        if connection is not None and connection.usable:
            return connection
        with self._locks.setdefault(address, threading.Lock()):
            connection = self._connections.get(address)
            if connection is None or not connection.usable:
                self._connections.pop(address, None)
                connection = Connection(self._directory, address, self._options, timeout)
                self._connections[address] = connection
            return connection

    def close(self) -> None:
        """Close all connections; whoever still waits gets an error."""
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.close()

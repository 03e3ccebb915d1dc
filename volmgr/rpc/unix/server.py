# SPDX-License-Identifier: Apache-2.0
"""The listening end of ``unix://``: one listener, its connections, and the messages they bring.

A connection's own thread reads a request and hands it straight to oslo.messaging's executor; whichever thread carries
it out writes the answer. Nothing is polled. This module knows nothing of endpoints or of what a message asks for.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from oslo_messaging._drivers import base, common

from volmgr.rpc.unix import directory as names
from volmgr.rpc.unix import frames
from volmgr.rpc.unix.options import Settings

LOG = logging.getLogger(__name__)

BACKLOG = 1024
READ_BYTES = 65536
SO_PEERGROUPS = 59  # include/uapi/asm-generic/socket.h; the socket module has no name for it
KINDS = frozenset(("call", "cast", "fan"))


class Incoming(base.RpcIncomingMessage):  # type: ignore[misc]
    """One request, until it is answered. Each method may be called from any thread, and answers at most once."""

    def __init__(self, connection: ServerConnection, frame: dict[str, Any], number: int) -> None:
        super().__init__(frame["c"], frame["m"], msg_id=number)
        self.client_timeout = frame.get("t")
        self._connection = connection
        self._listener = connection.listener
        self._kind = frame["k"]
        self._id = frame["i"]
        self._number = number

    def acknowledge(self) -> None:
        """Take the message out of the bounded queue; a cast's sender returns now."""
        if self._listener.taken(self._number) and self._kind == "cast":
            self._answer({"i": self._id, "a": 1})

    def requeue(self) -> None:
        """Give the message back to its sender, as an error: there is no broker that could keep it."""
        if self._listener.taken(self._number) or self._kind == "call":
            self.refuse("requeued")

    def reply(self, reply: Any = None, failure: Any = None) -> None:
        """Send the result or the exception; of a cast only an exception before its acknowledgement is sent."""
        waiting = self._listener.taken(self._number)
        if self._kind == "call" or (waiting and failure is not None):
            self._answer({"i": self._id, "r": reply} if failure is None else self._failed(failure))
        elif waiting:
            self._answer({"i": self._id, "a": 1})

    def heartbeat(self) -> None:
        """Tell a caller that asked for it that the call still runs."""
        self._connection.send({"i": self._id, "h": 1})

    def refuse(self, why: str, **explanation: Any) -> None:
        """Answer that the message was not carried out."""
        self._listener.taken(self._number)
        self._answer({"i": self._id, "e": why, "x": explanation})

    def _answer(self, frame: dict[str, Any]) -> None:
        if not self._listener.answered(self._number):
            return
        try:
            self._connection.send(frame)
        except frames.TooLarge as error:
            self._connection.send({"i": self._id, "e": "too_large", "x": {"size": error.size, "limit": error.limit}})
        except Exception:  # whatever an endpoint returned that JSON cannot express, its caller must not wait for it
            LOG.exception("Cannot encode the answer to request %s", self.msg_id)
            self._connection.send(self._failed(sys.exc_info()))

    def _failed(self, failure: Any) -> dict[str, Any]:
        """Return the frame of an exception, given itself or as what sys.exc_info() returned."""
        if isinstance(failure, BaseException):
            failure = (type(failure), failure, failure.__traceback__)
        try:
            text = common.serialize_remote_exception(failure)
        except Exception:  # the exception's own arguments need not be JSON
            LOG.exception("Cannot encode an exception; its text is sent alone")
            plain = RuntimeError(f"{failure[0].__name__}: {failure[1]}")
            text = common.serialize_remote_exception((RuntimeError, plain, failure[2]))
        return {"i": self._id, "f": text}


class ServerConnection:
    """One client's connection.

    :param listener: to which it belongs.
    :param sock: accepted; its time-out bounds every write.
    """

    def __init__(self, listener: UnixListener, sock: socket.socket) -> None:
        self.listener = listener
        self._socket = sock
        self._write = threading.Lock()
        self._closed = False
        self._peer_limit = frames.HELLO_LIMIT
        pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        self.peer = {"uid": uid, "gid": gid, "pid": pid}

    def groups(self) -> set[int]:
        """Return all groups of the peer, the supplementary ones too (socket(7), Linux 4.13)."""
        with contextlib.suppress(OSError):  # more than 256 groups: the primary one alone counts
            raw = self._socket.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 1024)
            return {self.peer["gid"], *struct.unpack(f"{len(raw) // 4}I", raw)}
        return {self.peer["gid"]}

    def send(self, frame: dict[str, Any]) -> None:
        """Write one frame; that the client has gone is logged, not raised.

        :raises volmgr.rpc.unix.frames.TooLarge: the client does not take so much.
        """
        data = frames.encode(frame, self._peer_limit)
        with self._write:
            if self._closed:
                LOG.debug("The client %(pid)s went away before its answer", self.peer)
                return
            try:
                self._socket.sendall(data)
            except OSError as error:
                LOG.debug("The answer to client %s was not sent: %s", self.peer["pid"], error)
                self.interrupt(socket.SHUT_RDWR)  # half a frame may be out: nothing can follow it

    def interrupt(self, how: int) -> None:
        """End reading, or reading and writing, from another thread."""
        with contextlib.suppress(OSError):  # the peer was first
            self._socket.shutdown(how)

    def close(self) -> None:
        """Close the descriptor; a blocked writer is woken first."""
        self.interrupt(socket.SHUT_RDWR)
        with self._write:
            self._closed = True
            self._socket.close()

    def run(self) -> None:
        """Greet, then serve requests until either end leaves; a peer that breaks the protocol loses its connection."""
        try:
            splitter = frames.Splitter(frames.HELLO_LIMIT)
            if self._greet(splitter):
                splitter.limit = self.listener.max_frame
                self._serve(splitter)
        except frames.FrameError as error:
            LOG.warning("Closed the connection of process %s, user %s: %s", self.peer["pid"], self.peer["uid"], error)
        except OSError as error:
            LOG.debug("Lost the connection of process %s: %s", self.peer["pid"], error)

    def _greet(self, splitter: frames.Splitter) -> bool:
        """Return whether the peer may go on."""
        deadline = time.monotonic() + self.listener.options.handshake_timeout
        bodies: list[bytes] = []
        while not bodies:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            data = self._socket.recv(READ_BYTES)
            if not data:
                return False
            bodies = splitter.feed(data)
        if len(bodies) > 1 or splitter.partial:
            raise frames.FrameError("a request before the greeting was answered")
        version, self._peer_limit = frames.check_hello(frames.decode(bodies[0]))
        self._socket.settimeout(self.listener.options.send_timeout)
        refusal: dict[str, Any] = {}
        if version != frames.VERSION:
            refusal = {"error": "version", "message": f"version {version} is not {frames.VERSION}"}
        elif not self.listener.admits(self):
            refusal = {"error": "peer", "message": f"user {self.peer['uid']} is not allowed"}
        self._peer_limit = max(self._peer_limit, frames.HELLO_LIMIT)
        self.send(frames.hello(self.listener.max_frame, **refusal))
        if refusal:
            LOG.warning("Refused process %s, user %s: %s", self.peer["pid"], self.peer["uid"], refusal["message"])
        return not refusal

    def _serve(self, splitter: frames.Splitter) -> None:
        receive, deliver, decode = self._socket.recv, self.listener.deliver, frames.decode
        while True:
            try:
                data = receive(READ_BYTES)
            except TimeoutError:
                continue  # the time-out is for writing; a client may be silent for as long as it likes
            if not data:
                if splitter.partial:
                    raise frames.FrameError("the stream ended inside a frame")
                return
            for body in splitter.feed(data):
                deliver(self, decode(body))


class UnixListener(base.Listener):  # type: ignore[misc]
    """Listens on one address and calls back with each message.

    :param where: the directory of the sockets.
    :param address: the topics and the name to listen to.
    :param options: the values of ``[unix_transport]``.
    :raises volmgr.rpc.unix.errors.AddressInUse: a living server has that address.
    """

    def __init__(self, where: str, address: names.Address, options: Settings) -> None:
        super().__init__(1, None)
        self.address = address
        self.options = options
        self.max_frame: int = options.max_frame_bytes
        self._limit: int = options.queue_size
        self._uids = {0, os.geteuid(), *options.allowed_uids}
        self._gids = options.allowed_gids
        self._waiting: dict[int, None] = {}
        self._open: dict[int, None] = {}
        self._numbers = itertools.count(1)
        self._full = False
        self._stopping = False
        self._idle = threading.Condition()
        self._threads: dict[ServerConnection, threading.Thread] = {}
        self._accepting: threading.Thread | None = None
        self._alarm = socket.socketpair()  # a listening socket's shutdown() does not wake a green thread
        names.prepare(where, options.unix_socket_gid)
        self._claim = names.Claim(where, address)
        try:
            self._socket = self._bind(where)
            self._claim.announce()
        except BaseException:
            self._claim.release()
            for end in self._alarm:
                end.close()
            raise

    def _bind(self, where: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with names.socket_path(where, self.address.name) as path:
                sock.bind(path)
                if self.options.unix_socket_gid is not None:
                    os.chown(path, -1, self.options.unix_socket_gid)
                os.chmod(path, self.options.unix_socket_mode)
                sock.settimeout(self.options.handshake_timeout)  # not 0: eventlet would accept native sockets
                sock.listen(BACKLOG)  # last: nobody can connect before the permissions are right
        except BaseException:
            sock.close()
            raise
        return sock

    def admits(self, connection: ServerConnection) -> bool:
        """Return whether the peer's user or one of its groups may use this server."""
        return connection.peer["uid"] in self._uids or bool(self._gids and self._gids & connection.groups())

    def start(self, on_incoming_callback: Callable[[list[Incoming]], None]) -> None:
        """Begin to accept; clients that came earlier wait in the socket's backlog."""
        super().start(on_incoming_callback)
        self._accepting = threading.Thread(target=self._accept, name="volmgr-rpc-accept", daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        pause = threading.Event()
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._alarm[0], selectors.EVENT_READ)
            while selector.select() and not self._stopping:
                try:
                    self._welcome(self._socket.accept()[0])
                except TimeoutError:
                    continue  # nobody was there after all
                except (OSError, RuntimeError) as error:  # no descriptors, memory or threads left; others will end
                    LOG.error("Cannot serve a connection: %s", error)
                    pause.wait(0.1)

    def _welcome(self, sock: socket.socket) -> None:
        """Serve a new connection in a thread of its own."""
        try:
            connection = ServerConnection(self, sock)
            thread = threading.Thread(target=self._run, args=(connection,), name="volmgr-rpc-connection", daemon=True)
            self._threads[connection] = thread
            thread.start()
        except BaseException:
            sock.close()
            raise

    def _run(self, connection: ServerConnection) -> None:
        try:
            connection.run()
        except Exception:
            LOG.exception("A connection's thread failed")
        finally:
            if not self._stopping:  # else cleanup() closes it, when its last requests are answered
                self._threads.pop(connection, None)
                connection.close()

    def deliver(self, connection: ServerConnection, frame: dict[str, Any]) -> None:
        """Hand one request on, or answer at once why not.

        :raises volmgr.rpc.unix.frames.FrameError: it is not a request.
        """
        if (
            type(frame.get("i")) is not int
            or type(frame.get("c")) is not dict
            or type(frame.get("m")) is not dict
            or type(frame.get("t")) not in (int, float, type(None))
            or not isinstance(kind := frame.get("k"), str)
            or kind not in KINDS
        ):
            raise frames.FrameError("not a request")
        frame["c"]["_peer"] = dict(connection.peer)
        number = next(self._numbers)
        message = Incoming(connection, frame, number)
        if kind != "fan":
            self._open[number] = None
        callback = self.on_incoming_callback
        if self._stopping or callback is None:
            message.refuse("stopping")
            return
        if len(self._waiting) >= self._limit:
            if not self._full:
                LOG.warning("The queue of %s is full with %d messages", self.address, self._limit)
            self._full = True
            message.refuse("busy", limit=self._limit)
            return
        self._full = False
        self._waiting[number] = None
        try:
            callback([message])
        except Exception:  # the executor takes no more; its sender must not wait for an answer that never comes
            LOG.exception("A message could not be handed on")
            message.refuse("busy", limit=self._limit)

    def taken(self, number: int) -> bool:
        """Take a message out of the queue; return whether it was in it."""
        try:
            del self._waiting[number]
        except KeyError:
            return False
        return True

    def answered(self, number: int) -> bool:
        """Note that a message has its answer; return whether one was due."""
        try:
            del self._open[number]
        except KeyError:
            return False
        if self._stopping:
            with self._idle:
                self._idle.notify_all()
        return True

    def stop(self) -> None:
        """Take no more messages: the socket's file goes, what still arrives is refused, what was taken is answered."""
        if self._stopping:
            return
        self._stopping = True
        self._claim.release()
        self._alarm[1].close()
        if self._accepting is not None:
            self._accepting.join(self.options.stop_timeout)
        self._socket.close()
        self._alarm[0].close()
        deadline = time.monotonic() + self.options.stop_timeout
        for connection, thread in list(self._threads.items()):
            connection.interrupt(socket.SHUT_RD)
            thread.join(max(deadline - time.monotonic(), 0.0))
        super().stop()

    def cleanup(self) -> None:
        """Close the connections, after at most ``stop_timeout`` for the answers that are still due."""
        self.stop()
        deadline = time.monotonic() + self.options.stop_timeout
        with self._idle:
            while self._open and (left := deadline - time.monotonic()) > 0:
                self._idle.wait(left)
        if self._open:
            LOG.warning("%d requests to %s were not answered in time", len(self._open), self.address)
        for connection in list(self._threads):
            connection.close()
        self._threads.clear()

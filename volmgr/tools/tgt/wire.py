# SPDX-License-Identifier: Apache-2.0
"""One request and one answer on tgtd's management socket, within a deadline.

The form of both was read from ``strace`` of tgtadm 1.0.85: a fixed head of 120 bytes, then the parameters as one
NUL-terminated text; the answer is an error number, its own length, and text. tgtd serves requests one after the other
in its only event loop and closes the connection after each. This module knows how to ask, not what is asked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from volmgr.tools.tgt import errors

HEAD = struct.Struct("<II64sIiQQIIIIII")
ANSWER = struct.Struct("<II")
LLD = b"iscsi"
NO_TID = -1
NO_LUN = 2**64 - 1
SUN_PATH_MAX = 107
#: tgtd's answers grow with what it has: a listing of 60,000 targets stays below this.
ANSWER_MAX = 256 * 1024**2
_RETRY_SECONDS = 0.005


class Mode(enum.IntEnum):
    """What a request is about (``enum tgtadm_mode``)."""

    SYSTEM = 0
    TARGET = 1
    LUN = 2
    PORTAL = 3
    DRIVER = 4
    SESSION = 5
    CONNECTION = 6
    ACCOUNT = 7


class Op(enum.IntEnum):
    """What is to be done with it (``enum tgtadm_op``)."""

    NEW = 0
    DELETE = 1
    SHOW = 2
    BIND = 3
    UNBIND = 4
    UPDATE = 5
    STATS = 6


@dataclass(frozen=True)
class Request:
    """One management request; ``params`` is the text after the head and may carry a secret, so it is never shown."""

    mode: Mode
    op: Op
    tid: int = NO_TID
    sid: int = 0
    lun: int = NO_LUN
    cid: int = 0
    outgoing: bool = False
    force: bool = False
    params: str = dataclasses.field(default="", repr=False)

    def __str__(self) -> str:
        place = f" of target {self.tid}" if self.tid != NO_TID else ""
        return f"{self.mode.name.lower()} {self.op.name.lower()}{place}"

    def pack(self) -> bytes:
        """Return the bytes to send."""
        text = self.params.encode() + b"\0" if self.params else b""
        head = HEAD.pack(
            self.mode, self.op, LLD, HEAD.size + len(text), self.tid, self.sid, self.lun, self.cid,
            0, 0, int(self.outgoing), 0, int(self.force),
        )  # fmt: skip
        return head + text


@dataclass(frozen=True)
class Answer:
    """What tgtd said, and which process said it."""

    text: str
    pid: int


def send(path: str, request: Request, timeout: float) -> Answer:
    """Ask the tgtd on the socket ``path`` and return its answer.

    :param path: the socket, for example ``/var/run/tgtd/socket.0``; may be longer than a socket address allows.
    :param timeout: seconds for all of it.
    :raises TgtDown: nobody listens there, or it hung up. :raises TgtTimeout: no answer in time.
    :raises TgtProtocolError: the answer has another form. :raises TgtNumberedError: tgtd refused.
    """
    deadline = time.monotonic() + timeout
    try:
        with _connected(path, deadline) as sock:
            pid = _peer_pid(sock)
            _arm(sock, deadline)
            sock.sendall(request.pack())
            number, length = ANSWER.unpack(_receive(sock, ANSWER.size, deadline))
            if not ANSWER.size <= length <= ANSWER_MAX:
                raise errors.TgtProtocolError(request=str(request), socket=path, reason=f"length {length}")
            body = _receive(sock, length - ANSWER.size, deadline)
    except TimeoutError as error:
        raise errors.TgtTimeout(request=str(request), socket=path, seconds=timeout) from error
    except OSError as error:
        raise errors.TgtDown(request=str(request), socket=path, reason=error.strerror or str(error)) from error
    if number:
        raise errors.from_number(number, request=str(request), socket=path)
    return Answer(body.rstrip(b"\0").decode(errors="replace"), pid)


def _peer_pid(sock: socket.socket) -> int:
    """Return the process id of whoever listens on the socket, from the kernel (``SO_PEERCRED``, unix(7))."""
    pid, _uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


@contextlib.contextmanager
def _connected(path: str, deadline: float) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as stack:
        address = path
        if len(os.fsencode(path)) > SUN_PATH_MAX:
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            address = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            try:
                _arm(sock, deadline)
                sock.connect(address)
                break
            except BlockingIOError:
                # A unix socket with a timeout answers EAGAIN at once when the listener's queue is full.
                sock.close()
                time.sleep(_RETRY_SECONDS)
            except BaseException:
                sock.close()
                raise
        yield stack.enter_context(sock)


def _arm(sock: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def _receive(sock: socket.socket, size: int, deadline: float) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        _arm(sock, deadline)
        data = sock.recv(min(size - len(parts), 1024**2))
        if not data:
            raise ConnectionResetError("it hung up in the middle of its answer")
        parts += data
    return bytes(parts)

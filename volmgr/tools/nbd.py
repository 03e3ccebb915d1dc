# SPDX-License-Identifier: Apache-2.0
"""A disk over a network block device's protocol, by a local socket: read, written and flushed at any place.

What is spoken is the part of the protocol that one export needs ("The NBD protocol", fixed newstyle negotiation with
``NBD_OPT_EXPORT_NAME``, simple replies). Every method may be called on a native thread: the socket is C's own, of
which green threads know nothing. It knows no program that serves one.
"""

from __future__ import annotations

import _socket
import struct
from types import TracebackType

from volmgr import exception
from volmgr.types import MiB

_MAGIC, _OPTION = b"NBDMAGIC", b"IHAVEOPT"
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME = 1
_REQUEST, _REPLY = 0x25609513, 0x67446698
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
#: A server answers longer requests with an error.
_LONGEST = 32 * MiB
#: Seconds that one request may take: a path to the disk that is gone for a while is waited for.
TIMEOUT = 180.0


class NbdDisk:
    """One connection; the bytes of the whole disk.

    :param path: of the server's socket. :param timeout: seconds that one request may take.
    :raises OSError: nobody listens there. :raises BackendDown: what listens is no server of this protocol.
    """

    def __init__(self, path: str, timeout: float = TIMEOUT) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
            self.size = self._negotiate()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> NbdDisk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _negotiate(self) -> int:
        magic, option, flags = struct.unpack(">8s8sH", self._receive(18))
        if (magic, option) != (_MAGIC, _OPTION) or not flags & _FIXED_NEWSTYLE:
            raise exception.BackendDown("What listens for the disk's bytes is no NBD server")
        kept = flags & (_FIXED_NEWSTYLE | _NO_ZEROES)
        self._socket.sendall(struct.pack(">I8sII", kept, _OPTION, _EXPORT_NAME, 0))
        size, _flags = struct.unpack(">QH", self._receive(10))
        if not flags & _NO_ZEROES:
            self._receive(124)
        return int(size)

    def pread(self, length: int, offset: int) -> bytes:
        """Return bytes; fewer at the end of the disk.

        :raises BackendDown: the disk cannot be read.
        """
        length = max(0, min(length, self.size - offset, _LONGEST))
        return self._ask(_READ, offset, length, expected=length) if length else b""

    def pwrite(self, data: bytes | memoryview, offset: int) -> int:
        """Write bytes; returns how many were written.

        :raises BackendDown: the disk cannot be written.
        """
        part = memoryview(data)[:_LONGEST]
        self._ask(_WRITE, offset, len(part), data=part)
        return len(part)

    def flush(self) -> None:
        """Return once everything that was written would survive a loss of power.

        :raises BackendDown: the disk cannot be flushed.
        """
        self._ask(_FLUSH, 0, 0)

    def close(self) -> None:
        """Let go of the disk; what was not flushed may be lost."""
        try:
            self._socket.sendall(self._request(_DISCONNECT, 0, 0))
        except OSError:
            return  # the server has gone first, which is what was wanted
        finally:
            self._socket.close()

    @staticmethod
    def _request(kind: int, offset: int, length: int) -> bytes:
        return struct.pack(">IHHQQI", _REQUEST, 0, kind, offset, offset, length)

    def _ask(
        self, kind: int, offset: int, length: int, *, data: memoryview | None = None, expected: int = 0
    ) -> bytes:
        try:
            self._socket.sendall(self._request(kind, offset, length))
            if data is not None:
                self._socket.sendall(data)
            magic, error, handle = struct.unpack(">IIQ", self._receive(16))
            if magic != _REPLY or handle != offset:
                raise exception.BackendDown("The server of the disk's bytes answers something else than was asked")
            if error:
                raise exception.BackendDown(
                    f"The disk answers {length} bytes at {offset} with error {error}", hint="See the target's log"
                )
            return self._receive(expected)
        except OSError as error_:
            raise exception.BackendDown(
                f"The disk does not answer: {error_.strerror or error_}", hint="Is the target reached from this host?"
            ) from error_

    def _receive(self, length: int) -> bytes:
        found = bytearray(length)
        view = memoryview(found)
        while view:
            count = self._socket.recv_into(view)
            if not count:
                raise ConnectionResetError("the server has gone")
            view = view[count:]
        return bytes(found)

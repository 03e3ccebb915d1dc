# SPDX-License-Identifier: Apache-2.0
"""Bytes to objects and back, without any socket, so that every malformed input can be tried in a loop.

This module knows nothing of connections, requests or who sent the bytes.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from oslo_serialization import jsonutils

MAGIC = "volmgr-rpc"
VERSION = 1

HELLO_LIMIT = 4096
"""Most bytes of a first frame: whoever has not introduced himself cannot make the server keep more."""

_HEADER = struct.Struct(">I")
# Built once: json.dumps() with any argument builds a new encoder for every message.
_ENCODE = json.JSONEncoder(default=jsonutils.to_primitive, separators=(",", ":")).encode
_DECODE = json.JSONDecoder().decode


class FrameError(Exception):
    """The peer does not speak the protocol; the connection cannot be used any more."""


class TooLarge(Exception):
    """An object of ours makes a frame larger than the peer accepts; nothing was sent.

    :param size: bytes of the frame.
    :param limit: bytes that are allowed.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is larger than the limit of {limit} bytes")
        self.size = size
        self.limit = limit


def encode(value: dict[str, Any], limit: int) -> bytes:
    """Return the whole frame of ``value``.

    :param limit: most bytes of JSON that the peer takes.
    :raises TooLarge: it would be more.
    :raises TypeError, ValueError, RecursionError: ``value`` cannot be written as JSON.
    """
    body = _ENCODE(value).encode("ascii")
    if len(body) > limit:
        raise TooLarge(len(body), limit)
    return _HEADER.pack(len(body)) + body


def decode(body: bytes) -> dict[str, Any]:
    """Return the object of one frame.

    :raises FrameError: it is not JSON, not an object, or nested deeper than the interpreter's stack.
    """
    try:
        value = _DECODE(body.decode("utf-8"))
    except RecursionError as error:
        raise FrameError("JSON nested too deeply") from error
    except ValueError as error:
        raise FrameError(f"not JSON: {error.__class__.__name__}") from error
    if type(value) is not dict:
        raise FrameError(f"a JSON {type(value).__name__} instead of an object")
    return value


class Splitter:
    """Cuts a stream of bytes into the bodies of frames.

    :param limit: most bytes of one body.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rest = bytearray()

    @property
    def partial(self) -> bool:
        """Whether the stream stopped inside a frame."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies that are complete after ``data`` arrived.

        :raises FrameError: a header announces more than the limit; nothing of that frame is kept.
        """
        if not self._rest and len(data) > 4 and _HEADER.unpack_from(data)[0] == len(data) - 4 <= self.limit:
            return [data[4:]]  # one frame in one read: nearly always, and without a copy through the buffer
        rest = self._rest
        rest += data
        bodies: list[bytes] = []
        start = 0
        while len(rest) - start >= 4:
            (size,) = _HEADER.unpack_from(rest, start)
            if size > self.limit:
                rest.clear()
                raise FrameError(f"a frame of {size} bytes, the limit is {self.limit}")
            if len(rest) - start - 4 < size:
                break
            bodies.append(bytes(rest[start + 4 : start + 4 + size]))
            start += 4 + size
        del rest[:start]
        return bodies


def hello(max_frame: int, **more: Any) -> dict[str, Any]:
    """Return the object with which either end introduces itself.

    :param max_frame: most bytes of JSON in a frame that this end takes.
    """
    return {"magic": MAGIC, "version": VERSION, "max_frame": max_frame, **more}


def check_hello(value: dict[str, Any]) -> tuple[int, int]:
    """Return the peer's version and frame limit.

    :raises FrameError: the peer is something else altogether.
    """
    version, limit = value.get("version"), value.get("max_frame")
    if value.get("magic") != MAGIC or type(version) is not int or type(limit) is not int or limit <= 0:
        raise FrameError("the first frame is not a greeting")
    return version, limit

# SPDX-License-Identifier: Apache-2.0
"""os-brick's client of StorPool's API, whose calls are made once, and end: in time, and after so many bytes.

os-brick's own tries again by itself, with the data encoded twice; takes an answer of any size; and gives each wait for
bytes its time-out anew, so that a server that lets its answer drip holds a call for ever. Who catches what comes out
of it has to know :data:`NO_ANSWER`. It knows no volume, and does not try again.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from typing import Any

from os_brick.initiator import storpool_utils

from volmgr.types import MiB

#: Bytes of an answer: a list of 300,000 volumes stays below this.
ANSWER_MAX = 256 * MiB
#: What comes out where no answer, or none that makes sense, arrives.
NO_ANSWER = (
    OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError, RecursionError
)  # fmt: skip


class Client(storpool_utils.StorPoolAPI):  # type: ignore[misc]
    """The client; its ``timeout`` is for a whole call, in seconds."""

    def _api_call(self, method: str, path: str, body: Any = None) -> Any:
        connection = _Connection(self.url, self.timeout)
        try:
            connection.request(method, path, json.dumps(body) if body else None, self.auth_header)
            response = connection.getresponse()
            text = response.read(ANSWER_MAX + 1)
        finally:
            connection.close()
        if len(text) > ANSWER_MAX:
            raise ValueError(f"the answer has more than {ANSWER_MAX} bytes")
        answer = json.loads(text)
        if response.status == http.client.OK and "error" not in answer:
            return answer["data"]
        raise storpool_utils.StorPoolAPIError(response.status, answer)


class _Connection(http.client.HTTPConnection):
    """A connection for one call, all of whose waits end at one time."""

    def __init__(self, where: str, seconds: float) -> None:
        super().__init__(where, timeout=seconds)
        self._end = time.monotonic() + seconds

    def connect(self) -> None:
        super().connect()
        # What is sent now is sent as a whole within this time; nothing is read before.
        self.sock.settimeout(_left(self._end))

    def response_class(self, sock: socket.socket, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        response = http.client.HTTPResponse(sock, **options)
        response.fp.close()
        response.fp = io.BufferedReader(_Bounded(sock, self._end))
        return response


class _Bounded(io.RawIOBase):
    """What a socket receives until a moment of the monotonic clock; then it is a TimeoutError."""

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._file = sock.makefile("rb", buffering=0)
        self._sock = sock
        self._end = end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._end))
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left

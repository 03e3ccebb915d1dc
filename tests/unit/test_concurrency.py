# SPDX-License-Identifier: Apache-2.0
"""Calls that block in the kernel, on whichever backend the run has chosen."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future

import pytest

from volmgr import concurrency

#: More than eventlet's pool has threads.
HANGING = 40


def test_calls_that_hang_hold_nobody_else() -> None:
    reader, writer = os.pipe()
    ends: list[Future[bytes]] = [Future() for _ in range(HANGING)]

    def hang(end: Future[bytes]) -> None:
        end.set_result(concurrency.own_thread(_read, reader))

    threads = [threading.Thread(target=hang, args=(end,), daemon=True) for end in ends]
    for thread in threads:
        thread.start()
    try:
        assert concurrency.offload(os.getpid) == os.getpid()
        assert concurrency.own_thread(os.getpid) == os.getpid()
        assert not any(end.done() for end in ends)
    finally:
        os.write(writer, b"x" * HANGING)
    assert b"".join(end.result(30) for end in ends) == b"x" * HANGING
    for descriptor in (reader, writer):
        os.close(descriptor)


def _read(descriptor: int) -> bytes:
    """Read one byte by a call that eventlet does not replace: the thread blocks."""
    data = bytearray(1)
    os.readv(descriptor, [data])
    return bytes(data)


def test_what_a_call_raises_comes_out() -> None:
    with pytest.raises(FileNotFoundError):
        concurrency.own_thread(os.stat, "/no/such/file")

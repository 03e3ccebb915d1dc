# SPDX-License-Identifier: Apache-2.0
"""Calls that block in the kernel, on whichever backend the run has chosen."""

from __future__ import annotations

import _thread
import os
import threading

import pytest

from volmgr import concurrency

#: More than eventlet's pool has threads.
HANGING = 40


def test_calls_that_hang_hold_nobody_else() -> None:
    reader, writer = os.pipe()
    calls = [concurrency.Call(lambda: _read(reader)) for _ in range(HANGING)]
    try:
        assert concurrency.offload(os.getpid) == os.getpid()
        assert concurrency.Call(os.getpid).result(30) == os.getpid()
        assert not any(call.done for call in calls)
        with pytest.raises(TimeoutError):
            calls.pop().result(0.01)
    finally:
        os.write(writer, b"x" * HANGING)
    assert b"".join(call.result(30) for call in calls) == b"x" * len(calls)
    for descriptor in (reader, writer):
        os.close(descriptor)


def test_a_thread_is_used_again() -> None:
    seen = {concurrency.Call(_native_id).result(30) for _ in range(20)}
    assert seen and len(seen) <= len(concurrency._idle)
    assert threading.get_native_id() not in seen


def test_others_run_while_one_waits() -> None:
    reader, writer = os.pipe()
    call = concurrency.Call(lambda: _read(reader))
    threading.Thread(target=os.write, args=(writer, b"x"), daemon=True).start()
    assert call.result(30) == b"x"
    for descriptor in (reader, writer):
        os.close(descriptor)


def _native_id() -> int:
    return _thread.get_native_id()


def _read(descriptor: int) -> bytes:
    """Read one byte by a call that eventlet does not replace: the thread blocks."""
    data = bytearray(1)
    os.readv(descriptor, [data])
    return bytes(data)


def test_what_a_call_raises_comes_out() -> None:
    with pytest.raises(FileNotFoundError):
        concurrency.Call(lambda: os.stat("/no/such/file")).result(30)

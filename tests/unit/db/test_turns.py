# SPDX-License-Identifier: Apache-2.0
"""The line of SQLite's writers: who is urgent passes, everybody gets on, a patience that ends leaves nothing behind."""

from __future__ import annotations

import threading

import pytest

from volmgr.db.turns import Turns

CROWD = 30


def test_an_urgent_one_passes_the_line() -> None:
    turns, order = Turns(), list[str]()
    arrived = threading.Event()

    def ordinary() -> None:
        assert turns.acquire(30)
        assert arrived.wait(30)
        order.append("ordinary")
        turns.release()

    def late() -> None:
        arrived.set()
        assert turns.acquire(30, urgent=True)
        order.append("late")
        turns.release()

    threads = [threading.Thread(target=work) for work in (*[ordinary] * CROWD, late)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(order) == CROWD + 1
    assert order.index("late") < CROWD // 3, order


@pytest.mark.parametrize("urgent", [True, False])
def test_a_patience_that_ends_leaves_the_line(urgent: bool) -> None:
    turns = Turns()
    assert turns.acquire(1)
    assert not turns.acquire(0.01, urgent=urgent)
    turns.release()
    for _ in range(2):
        assert turns.acquire(1, urgent=urgent)
        turns.release()


def test_a_thread_that_is_ended_in_the_line_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(BaseException):
        pass

    def end(_seconds: float) -> None:
        raise Ended

    turns = Turns()
    with monkeypatch.context() as patched:
        patched.setattr("volmgr.db.turns.time.sleep", end)
        with pytest.raises(Ended):
            turns.acquire(1)
    assert turns.acquire(1)
    turns.release()

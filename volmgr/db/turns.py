# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to write to SQLite: one at a time, and those that a caller waits for pass the others.

What answers a caller directly (connections, attachments) is urgent; beginnings and endings of operations, of which
hundreds may come at one moment, are not. Green threads never meet in a transaction, as nothing in it yields: those
hundreds would do theirs one after another while nobody else runs. So they stand in a line of their own before the lock,
and the first of the line lets everybody else run once before it goes on.
"""

from __future__ import annotations

import threading
import time


class Turns:
    """A lock with a line in front of it for those that are not urgent."""

    def __init__(self) -> None:
        self._line = threading.Lock()
        self._turn = threading.Lock()
        self._from_line = False

    def acquire(self, timeout: float, *, urgent: bool = False) -> bool:
        """Wait for the turn; return whether it came.

        :param timeout: seconds, for the line and again for the turn. :param urgent: pass the line.
        """
        if urgent:
            got = self._turn.acquire(timeout=timeout)
        elif not self._line.acquire(timeout=timeout):
            return False
        else:
            got = False
            try:
                time.sleep(0)
                got = self._turn.acquire(timeout=timeout)
            finally:
                # Also when the thread is ended in there: whoever stands behind it would wait for ever.
                if not got:
                    self._line.release()
        if got:
            self._from_line = not urgent
        return got

    def release(self) -> None:
        """End the turn."""
        from_line = self._from_line
        self._turn.release()
        if from_line:
            self._line.release()

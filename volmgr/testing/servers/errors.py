# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a test's own server, apart from the test.

These are errors of the harness, not of the daemon: they stay out of volmgr's tree, which crosses the RPC transport.
"""

from __future__ import annotations

LOG_TAIL_LINES = 40


class ServerError(Exception):
    """Base of the harness's errors.

    :param message: one sentence for people, without a password.
    :param log: what the server wrote; its last lines are appended to the message.
    """

    def __init__(self, message: str, log: str = "") -> None:
        self.message = message
        self.log = log
        tail = "\n".join(log.splitlines()[-LOG_TAIL_LINES:])
        super().__init__(f"{message}\n--- last lines of the server's log ---\n{tail}" if tail else message)


class ServerUnavailable(ServerError):
    """The machine lacks a program, user or library that the server needs; the message names the package."""


class ServerStartFailed(ServerError):
    """The server ended, or its deadline passed, before it answered; nothing of it is left running."""


class ServerStopFailed(ServerError):
    """Processes or files of the server are left although everything of it was killed."""


class ServerNotRunning(ServerError):
    """The server was asked for something that needs it to run; call ``start()`` first."""

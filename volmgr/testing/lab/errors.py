# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a lab guest, apart from a test that fails; each with the exit status of the command.

These are errors of the harness, not of the daemon: they stay out of volmgr's tree, which crosses the RPC transport.
"""

from __future__ import annotations

from typing import ClassVar

LOG_TAIL_LINES = 40


class LabError(Exception):
    """Base of the harness's errors.

    :param message: one sentence for people.
    :param log: the guest's kernel and start-up log; its last lines are appended to the message.
    """

    exit_status: ClassVar[int] = 70

    def __init__(self, message: str, log: str = "") -> None:
        self.message = message
        self.log = log
        tail = "\n".join(log.splitlines()[-LOG_TAIL_LINES:])
        super().__init__(f"{message}\n--- last lines of the guest's log ---\n{tail}" if tail else message)


class LabUnavailable(LabError):
    """The machine lacks a program that the lab needs; the message names the package to install."""

    exit_status = 69


class BootFailed(LabError):
    """The guest ended, or its deadline passed, before the first test could start."""

    exit_status = 71


class GuestDied(LabError):
    """The guest's kernel panicked, or the guest ended without reporting pytest's exit status."""

    exit_status = 72


class GuestTimedOut(LabError):
    """The tests did not end before the deadline; the guest's processes are gone."""

    exit_status = 124


class CommandFailed(LabError):
    """A program run inside the guest failed or did not end in time.

    :param program: its name, without arguments.
    :param status: its exit status; None when it did not end.
    :param stderr: what it printed.
    """

    def __init__(self, program: str, status: int | None, stderr: str) -> None:
        self.program = program
        self.status = status
        self.stderr = stderr
        ending = "did not end in time" if status is None else f"ended with status {status}"
        super().__init__(f"{program} {ending}: {stderr.strip()}")

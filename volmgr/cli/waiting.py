# SPDX-License-Identifier: Apache-2.0
"""Waits for an operation and shows how far it is: a bar on a terminal, plain lines elsewhere, both on stderr.

Standard output stays what ``-f json`` promises. This module knows no verb.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from volmgr import exception

if TYPE_CHECKING:
    from volmgr.cli.session import Session

DEFAULT_TIMEOUT = 600.0
SLICE = 0.5
"""Seconds of one call to the daemon; after each the progress is shown."""


class Progress(Protocol):
    """Where the progress of an operation is shown."""

    def show(self, operation: dict[str, Any]) -> None:
        """Show an operation as it is at this moment."""

    def close(self) -> None:
        """End the display."""


class Lines:
    """One line whenever the step, the state or the whole tenth of the progress has changed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._last: tuple[Any, ...] = ()

    def show(self, operation: dict[str, Any]) -> None:
        progress = operation.get("progress")
        now = (operation["state"], operation.get("step"), None if progress is None else int(progress * 10))
        if now != self._last:
            self._last = now
            self._out.write(f"{describe(operation)}\n")
            self._out.flush()

    def close(self) -> None:
        self._out.flush()


class Bar:
    """A rich progress bar on a terminal."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        text = TextColumn("{task.description}", markup=False)
        self._rich = RichProgress(text, BarColumn(), TimeElapsedColumn(), console=Console(file=out), transient=True)
        self._rich.start()
        self._task = self._rich.add_task("", total=None)

    def show(self, operation: dict[str, Any]) -> None:
        progress = operation.get("progress")
        total, done = (None, 0.0) if progress is None else (1.0, progress)
        self._rich.update(self._task, description=describe(operation), total=total, completed=done)

    def close(self) -> None:
        self._rich.stop()


def describe(operation: dict[str, Any]) -> str:
    """Return an operation in one line: verb, resource, state, step, percent."""
    parts = [f"{operation.get('verb', 'operation')} {operation.get('resource_id', '')}: {operation['state']}"]
    if operation["state"] == "parked" and operation.get("parked_for"):
        parts.append(f"for {operation['parked_for']}")
    if operation.get("step") and operation["state"] in ("running", "undoing"):
        parts.append(str(operation["step"]))
    if operation.get("progress") is not None and operation["state"] != "queued":
        parts.append(f"{operation['progress']:.0%}")
    return " ".join(parts)


def display_for(out: TextIO) -> Progress:
    """Return the display that fits ``out``."""
    return Bar(out) if out.isatty() else Lines(out)


def wait(session: Session, operation_id: str, timeout: float, out: TextIO) -> dict[str, Any]:
    """Wait until an operation has ended, showing its progress; returns it.

    A parked operation does not end by itself, so waiting for one ends at once.

    :param timeout: seconds.
    :raises VolmgrError: the operation's own error, if it failed. :raises Timeout: it is still unfinished.
    :raises Conflict: it is parked; the hint says how to go on.
    """
    deadline = time.monotonic() + timeout
    display: Progress | None = None
    try:
        while True:
            left = max(0.0, deadline - time.monotonic())
            try:
                return ended(session.call("wait_operation", operation_id=operation_id, timeout=min(SLICE, left)))
            except exception.Timeout:
                operation = session.call("get_operation", operation_id=operation_id)
            display = display or display_for(out)
            display.show(operation)
            if operation["state"] == "parked":
                raise _parked(operation)
            if time.monotonic() >= deadline:
                raise exception.Timeout(
                    f"The operation {operation_id} is still {operation['state']} after {timeout:g} s",
                    hint=f"It goes on. Wait again: volmgr operation wait {operation_id}",
                    operation_id=operation_id,
                )
    finally:
        if display is not None:
            display.close()


def ended(operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation that has ended well.

    :raises VolmgrError: the error that it ended with.
    """
    if operation["state"] == "failed":
        raise exception.from_primitive(operation["error"])
    if operation["state"] == "parked":
        raise _parked(operation)
    return operation


def _parked(operation: dict[str, Any]) -> exception.Conflict:
    reason = (operation.get("error") or {}).get("message") or operation.get("parked_for") or "an unknown reason"
    return exception.Conflict(
        f"The operation {operation['id']} is parked: {reason}",
        hint=f"Mend that, then: volmgr operation retry {operation['id']}; or give it up: volmgr operation abandon",
        operation_id=operation["id"],
    )

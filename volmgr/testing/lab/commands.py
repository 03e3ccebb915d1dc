# SPDX-License-Identifier: Apache-2.0
"""Programs and waiting, for the lab's fixtures inside a guest: a test must not prove volmgr with volmgr's own executor.

It knows processes only. Secrets never pass through here: an argument is visible to every user of a machine.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from volmgr.testing.lab.errors import CommandFailed, LabError


def run(*arguments: str, timeout_seconds: float = 120.0) -> str:
    """Run a program and return what it printed.

    :param arguments: the program and its arguments, in the C locale.
    :param timeout_seconds: deadline; the program is killed then.
    :raises CommandFailed: its exit status is not 0, or it did not end in time.
    """
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(arguments[0], None, "") from error
    if done.returncode:
        raise CommandFailed(arguments[0], done.returncode, done.stderr or done.stdout)
    return done.stdout


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float = 30.0) -> None:
    """Wait until ``condition`` holds.

    :param condition: asked every 50 ms.
    :param what: what is waited for, for the error.
    :param timeout_seconds: deadline.
    :raises LabError: it did not hold in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(0.05)


_listeners: list[list[str]] = []


@contextlib.contextmanager
def programs() -> Iterator[list[str]]:
    """Yield the names of the programs that this process starts in the block, as the interpreter itself tells them."""
    _listen()
    started: list[str] = []
    _listeners.append(started)
    try:
        yield started
    finally:
        _listeners.remove(started)


@functools.cache
def _listen() -> None:
    sys.addaudithook(_hear)  # for ever: there is no way to take one away


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        for started in _listeners:
            started.append(os.path.basename(os.fsdecode(arguments[0])))

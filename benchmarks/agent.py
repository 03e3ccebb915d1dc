# SPDX-License-Identifier: Apache-2.0
"""A process that measures on command: it keeps its connections open between rounds, on green or on native threads.

The benchmark speaks to it by lines of JSON: ``{"do": "module:function", ...arguments}`` to its standard input, one
answer each from its standard output. URLs with passwords so never stand on a command line. What the functions do is
their modules' affair; whatever they keep from one call to the next is in the ``state`` that each is given first.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
READ_BYTES = 65536
END_TIMEOUT = 30.0


class AgentFailed(RuntimeError):
    """The process ended, did not answer in time, or answered with an error."""


class Agent:
    """The parent's end.

    :param mode: ``eventlet`` or ``threading``.
    """

    def __init__(self, mode: str) -> None:
        environment = {**os.environ, "VOLMGR_CONCURRENCY": mode, "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.agent", mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
        )
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def begin(self, function: str, **arguments: Any) -> None:
        """Let a function run; :meth:`end` gives its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": function, **arguments}).encode() + b"\n")
        self._process.stdin.flush()

    def end(self, timeout: float = 300.0) -> Any:
        """Return the answer of the function that was begun.

        :param timeout: seconds. :raises AgentFailed: there is none, or it is an error.
        """
        assert self._process.stdout is not None
        fd = self._process.stdout.fileno()
        while b"\n" not in self._rest:
            ready, _, _ = select.select([fd], [], [], timeout)
            data = os.read(fd, READ_BYTES) if ready else b""
            if not data:
                raise AgentFailed(f"the agent {'ended' if ready else f'gave no answer in {timeout:.0f} s'}")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise AgentFailed(answer["error"])
        return answer["result"]

    def do(self, function: str, *, timeout: float = 300.0, **arguments: Any) -> Any:
        """Run a function there and return its answer."""
        self.begin(function, **arguments)
        return self.end(timeout)

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _lines() -> Iterator[bytes]:
    """Yield the lines of standard input; select() lets green threads run, a plain read() would stop them all.

    It is given the file, because eventlet forgets a descriptor whose number is 0.
    """
    rest = b""
    while True:
        select.select([sys.stdin], [], [])
        data = os.read(0, READ_BYTES)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def serve() -> None:
    """Answer commands until standard input ends."""
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not be taken for an answer
    state: dict[str, Any] = {}
    for line in _lines():
        command = json.loads(line)
        module, _, name = command.pop("do").partition(":")
        answer: dict[str, Any]
        try:
            answer = {"result": getattr(importlib.import_module(module), name)(state, **command)}
        except Exception as error:
            answer = {"error": f"{name}: {type(error).__name__}: {error}"}
        os.write(out, json.dumps(answer).encode() + b"\n")
    os._exit(0)  # connections and threads of the libraries have nothing to say any more


if __name__ == "__main__":
    from volmgr import concurrency

    concurrency.setup(sys.argv[1])
    import logging

    logging.disable(logging.WARNING)
    serve()

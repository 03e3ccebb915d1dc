# SPDX-License-Identifier: Apache-2.0
"""A real headless browser for tests: Chromium over the pipe of its DevTools protocol, so that nothing listens.

Messages are JSON that ends with a NUL, on the descriptors 3 (to the browser) and 4 (from it). What a page does wrong
(an exception, something that its policy forbids) is collected. It knows no page.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium-headless-shell", "chromium")
ANSWER_SECONDS = 60.0
#: puts the pipes where the protocol wants them, by way of numbers that are not in the way, and becomes the browser.
_PLACE = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 20) for number in sys.argv[1:3]]
for place, pipe in zip((3, 4), pipes):
    os.dup2(pipe, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Page:
    """One page of a browser.

    :ivar faults: exceptions of its scripts and what its policy refused, in words.
    """

    def __init__(self, program: str, reader: int, writer: int) -> None:
        self._program = program
        self._reader, self._writer = reader, writer
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.faults: list[str] = []
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to a page."""
        self._ask("Page.navigate", url=url)

    def size(self, width: int, height: int) -> None:
        """Set how much is to be seen, in pixels."""
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page.

        :raises AssertionError: it threw.
        """
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write what is to be seen to a PNG file."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            said = self._next(deadline)
            if said.get("id") == self._number:
                assert "error" not in said, f"{method}: {said['error']}"
                result: dict[str, Any] = said["result"]
                return result
            self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        if said.get("method") == "Runtime.exceptionThrown":
            self.faults.append(str(said["params"]["exceptionDetails"]))
        elif said.get("method") == "Log.entryAdded" and said["params"]["entry"]["source"] in ("security", "javascript"):
            self.faults.append(str(said["params"]["entry"]["text"]))

    def _next(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._reader, 65536) if ready else b""
            if not piece:
                raise AssertionError(f"{self._program} {'does not answer' if not ready else 'has ended'}")
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found


@contextlib.contextmanager
def browser(program: str) -> Iterator[Page]:
    """Give a page of a new browser, which ends with the block.

    :param program: the path of one of :data:`PROGRAMS`.
    """
    to_browser, from_test = os.pipe()
    from_browser, to_test = os.pipe()

    with tempfile.TemporaryDirectory(prefix="volmgr-browser-", ignore_cleanup_errors=True) as folder:
        words = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--remote-debugging-pipe", f"--user-data-dir={folder}", "--hide-scrollbars",
        ]
        process = subprocess.Popen(
            [sys.executable, "-c", _PLACE, str(to_browser), str(to_test), *words],
            pass_fds=(to_browser, to_test), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(to_test)
        try:
            yield Page(program, from_browser, from_test)
        finally:
            os.close(from_browser)
            os.close(from_test)
            process.kill()
            process.wait()

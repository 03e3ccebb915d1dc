# SPDX-License-Identifier: Apache-2.0
"""Initiators in user space for tests of iSCSI targets: libiscsi's tools and qemu-io. They know nothing of volmgr.

Passwords go to them by environment or file, never by arguments.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

SECONDS = 15


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody has at this moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def inquire(data: dict[str, Any], initiator: str, *arguments: str, chap: tuple[str, str] | None = None) -> str:
    """Log in, ask INQUIRY, log out; return what iscsi-inq prints.

    :raises PermissionError: the target refused the login; the text says how.
    """
    url = f"iscsi://{data['target_portal']}/{data['target_iqn']}/{data['target_lun']}"
    return _run(["iscsi-inq", "-i", initiator, *arguments, url], chap)


def _run(command: list[str], chap: tuple[str, str] | None) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LIBISCSI")}
    if chap is not None:
        environment |= {"LIBISCSI_CHAP_USERNAME": chap[0], "LIBISCSI_CHAP_PASSWORD": chap[1]}
    done = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS, check=False)
    said = (done.stdout + done.stderr).decode(errors="replace")
    if done.returncode:
        raise PermissionError(said)
    return said


class Disk:
    """A session that stays logged in: one qemu-io that is spoken to line by line."""

    def __init__(self, data: dict[str, Any], initiator: str, folder: Path, *, read_only: bool = False) -> None:
        options = (
            f"driver=iscsi,transport=tcp,portal={data['target_portal']},target={data['target_iqn']},"
            f"lun={data['target_lun']},initiator-name={initiator}"
        )
        arguments = ["qemu-io", "-t", "writethrough", *(["-r"] if read_only else [])]
        if "auth_password" in data:
            secret = folder / f"secret-{uuid.uuid4()}"
            secret.write_text(data["auth_password"])
            arguments += ["--object", f"secret,id=chap,file={secret}"]
            options += f",user={data['auth_username']},password-secret=chap"
        # qemu-io writes line by line to a terminal only.
        self._output, terminal = os.openpty()
        self._process = subprocess.Popen(
            [*arguments, "--image-opts", options], stdin=subprocess.PIPE, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        self._rest = ""

    def __enter__(self) -> Disk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=SECONDS)
        os.close(self._output)

    def ask(self, line: str, until: str) -> str:
        """Send a command and return its output up to the line that contains one of the words ``until`` (``a|b``).

        :raises ConnectionError: qemu-io ended. :raises TimeoutError: no such line came.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ConnectionError("qemu-io ended") from error
        text = ""
        while True:
            one = self._line()
            text += one
            if any(word in one for word in until.split("|")):
                return text

    def _line(self) -> str:
        while "\n" not in self._rest:
            if not select.select([self._output], [], [], SECONDS)[0]:
                raise TimeoutError(f"qemu-io says no more than {self._rest!r}")
            try:
                data = os.read(self._output, 65536)
            except OSError:
                # A terminal whose other end is closed answers EIO.
                data = b""
            if not data:
                raise ConnectionError(f"qemu-io ended: {self._rest}")
            self._rest += data.decode(errors="replace")
        line, _, self._rest = self._rest.partition("\n")
        return line

    def write(self, pattern: int, offset: int, length: int) -> str:
        """Write a pattern, flushed; return what qemu-io says."""
        return self.ask(f"write -P {pattern} {offset} {length}", "wrote|failed")

    def read(self, pattern: int, offset: int, length: int) -> str:
        """Read and compare with a pattern; return what qemu-io says."""
        return self.ask(f"read -P {pattern} {offset} {length}", "read |failed|verification")

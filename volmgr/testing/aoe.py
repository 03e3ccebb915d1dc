# SPDX-License-Identifier: Apache-2.0
"""An ATA over Ethernet initiator in user space, and a pair of network interfaces to use it on.

Natively there is no kernel initiator; a raw socket is enough to speak with a target as any host would, and to play
several hosts at once, each with its own MAC address. It needs root. It knows nothing of volmgr.

Source: AoE specification, revision 11; ATA-6 for the commands.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

ETHERTYPE = 0x88A2
BROADCAST = b"\xff" * 6
SECTOR = 512
#: Seconds after which a frame is sent again, and after which nobody answers.
RESEND_SECONDS, DEADLINE_SECONDS = 0.2, 15.0
_HEADER = struct.Struct(">6s6sHBBHBBI")
_ATA = struct.Struct("<BBBB6s2x")
_RESPONSE, _ERROR = 0x8, 0x4
_CMD_ATA, _CMD_CONFIG = 0, 1
_READ, _WRITE, _IDENTIFY = 0x24, 0x34, 0xEC
_LBA48, _IS_WRITE = 0x40, 0x01
_ATA_ERR = 0x01

_numbers = itertools.count()


class Refused(Exception):
    """The target answered that it will not."""


class Unanswered(Exception):
    """Nobody answered, however often it was asked."""


@dataclass(frozen=True)
class Answer:
    """A frame that came back."""

    source: bytes
    flags: int
    error: int
    shelf: int
    slot: int
    body: bytes


class Initiator:
    """One interface, on which any number of hosts can be played.

    :param interface: its name. :param shelf: of the target. :param slot: of the target, its blade.
    """

    def __init__(self, interface: str, shelf: int, slot: int) -> None:
        self.shelf, self.slot = shelf, slot
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
        self._socket.bind((interface, ETHERTYPE))
        self._tag = int.from_bytes(os.urandom(2), "big") << 8

    def __enter__(self) -> Initiator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    # --- as one host

    def identify(self, mac: str) -> int:
        """Return the size in sectors, as the target tells this host."""
        data = self._ata(mac, _IDENTIFY, 0, 1)
        return int.from_bytes(data[200:206], "little")

    def read(self, mac: str, offset: int, length: int) -> bytes:
        """Return bytes, whole sectors."""
        return b"".join(self._ata(mac, _READ, at // SECTOR, 1) for at in range(offset, offset + length, SECTOR))

    def write(self, mac: str, offset: int, data: bytes) -> None:
        """Write bytes, whole sectors.

        :raises Refused: the target will not.
        """
        for at in range(0, len(data), SECTOR):
            self._ata(mac, _WRITE, (offset + at) // SECTOR, 1, data[at : at + SECTOR])

    def discover(self, mac: str, seconds: float = RESEND_SECONDS) -> set[tuple[int, int]]:
        """Ask every shelf and blade who it is; return the addresses that answered this host in that time."""
        self._send(mac, _CMD_CONFIG, struct.pack(">HHBBH", 0, 0, 0, 0, 0), shelf=0xFFFF, slot=0xFF)
        found = set()
        deadline = time.monotonic() + seconds
        while (answer := self._receive(self._tag, deadline)) is not None:
            found.add((answer.shelf, answer.slot))
        return found

    def is_let_in(self, mac: str, fence: str) -> bool:
        """Return whether a host gets an answer.

        Frames are answered in order: once ``fence``, which is let in by the same process, has its answer, there will
        be none for a frame that was sent before.
        """
        asked = self._send_ata(mac, _IDENTIFY, 0, 1)
        self._send_ata(fence, _IDENTIFY, 0, 1)
        fenced = self._tag
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            tag, _answer = self._any(deadline)
            if tag == asked:
                return True
            if tag == fenced:
                return False
            if tag is None:
                raise Unanswered(f"nobody answers {fence} at e{self.shelf}.{self.slot}")

    # --- frames

    def _ata(self, mac: str, command: int, lba: int, sectors: int, data: bytes = b"") -> bytes:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            tag = self._send_ata(mac, command, lba, sectors, data)
            answer = self._receive(tag, time.monotonic() + RESEND_SECONDS)
            if answer is None:
                continue
            if answer.flags & _ERROR:
                raise Refused(f"AoE error {answer.error}")
            _flags, error, _count, status, _lba = _ATA.unpack_from(answer.body)
            if status & _ATA_ERR:
                raise Refused(f"ATA error {error:#x}")
            return answer.body[_ATA.size :]
        raise Unanswered(f"nobody answers {mac} at e{self.shelf}.{self.slot}")

    def _send_ata(self, mac: str, command: int, lba: int, sectors: int, data: bytes = b"") -> int:
        flags = _LBA48 | (_IS_WRITE if command == _WRITE else 0)
        body = _ATA.pack(flags, 0, sectors, command, lba.to_bytes(6, "little")) + data
        return self._send(mac, _CMD_ATA, body)

    def _send(self, mac: str, command: int, body: bytes, shelf: int | None = None, slot: int | None = None) -> int:
        self._tag += 1
        source = bytes.fromhex(mac.replace(":", ""))
        shelf, slot = self.shelf if shelf is None else shelf, self.slot if slot is None else slot
        header = _HEADER.pack(BROADCAST, source, ETHERTYPE, 0x10, 0, shelf, slot, command, self._tag)
        self._socket.send((header + body).ljust(60, b"\0"))
        return self._tag

    def _receive(self, tag: int, deadline: float) -> Answer | None:
        while True:
            found, answer = self._any(deadline)
            if found is None or found == tag:
                return answer

    def _any(self, deadline: float) -> tuple[int | None, Answer | None]:
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                frame = self._socket.recv(65536)
            except TimeoutError:
                break
            _to, source, _type, flags, error, shelf, slot, _command, tag = _HEADER.unpack_from(frame)
            if flags & _RESPONSE:
                return tag, Answer(source, flags, error, shelf, slot, frame[_HEADER.size :])
        return None, None


@contextlib.contextmanager
def cable(*, keep: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the names of two interfaces with a cable between them, up and without addresses; they go at the end.

    :param keep: leave them, in a guest: Linux's initiator (6.1) never lets go of an interface that it has used, and
        whoever removes that waits for ever.
    :raises RuntimeError: this kernel has no veth, or the process is not root.
    """
    name = f"vm{os.getpid():x}{next(_numbers):x}"
    near, far = f"{name}a", f"{name}b"
    _ip("link", "add", near, "type", "veth", "peer", "name", far)
    try:
        for end in (near, far):
            if os.path.exists("/proc/net/if_inet6"):  # nobody must speak IP there
                _ip("link", "set", end, "addrgenmode", "none")
            _ip("link", "set", end, "up")
        yield near, far
    finally:
        if not keep:
            _ip("link", "del", near)


def _ip(*arguments: str) -> None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    done = subprocess.run(
        ["ip", *arguments], env={"PATH": path}, capture_output=True, text=True, timeout=30, check=False
    )
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
